"""The limit for who keeps what was there before: pages go to space that nobody has written yet.

The file system has to find blocks, and the page cache memory, for every page.
"""

from __future__ import annotations

import os

from tools.bench.peers.limit import Limit


class NewSpace(Limit):
    title = "the limit, in new space"
    settings = "as the limit, but behind the end of the file"
    works = ("W1",)

    def prepare(self, count: int) -> None:
        """There is nothing that could be written before."""

    def _store(self, data: memoryview) -> None:
        if not self._areas:
            self._areas[0] = os.open(self.folder / "pages", os.O_RDWR | os.O_CREAT)
        file = self._areas[0]
        os.pwrite(file, data, os.fstat(file).st_size)
        os.fdatasync(file)


PEER = NewSpace
