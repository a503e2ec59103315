"""pagestore where the program declares what it writes: `Workspace.write` instead of an array."""

from __future__ import annotations

from tools.bench.peers import PAGE, Pages, Rows
from tools.bench.peers.pagestore_arrays import REGION, PagestoreArrays


class PagestoreWrites(PagestoreArrays):
    title = "pagestore, `ws.write`"
    works = ("W1", "W2", "W5", "W10")  # reading is the same

    def _use(self) -> None:
        pass  # an array that was handed out would be looked through at each commit

    def change(self, pages: Pages, rows: Rows) -> None:
        write = self._workspace.write
        for page, row in zip(pages.tolist(), rows, strict=True):
            write(REGION, page * PAGE, row)


PEER = PagestoreWrites
