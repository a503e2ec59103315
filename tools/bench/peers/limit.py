"""What the machine could do at best: no store, only what any store has to do.

A commit gathers the same bytes from memory, writes them side by side into allocated, cached file
space, syncs, and commits one small LMDB record durably. Reading is `np.memmap` of a plain file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from tools.bench.peers import PAGE, Key, Lacks, Pages, Peer, Rows, total

AREAS = 4  # written in turn, as a store does not write the same place twice in a row


class Limit(Peer):
    title = "the limit"
    kind = "limit"
    settings = "pwrite side by side, fdatasync, one LMDB record; np.memmap of a plain file"
    lacks = ("keeps no versions", "knows not where a page lies")
    packages = ("numpy", "lmdb")
    keeps_old = False
    imports = "numpy"
    start = """
import sys, numpy
print(numpy.memmap(sys.argv[1] + "/region", mode="r")[0])
"""

    def __init__(self, folder: Path, pages: int) -> None:
        super().__init__(folder, pages)
        self._areas: dict[int, int] = {}
        self._turn = 0
        self._pages: Pages = np.empty(0, np.int64)

    def load(self, chunks: Iterable[Rows]) -> Key:
        if self.pages > 1 << 18:
            raise Lacks("depends on no size: not measured beyond 1 GiB")
        size = self.pages * PAGE
        with (self.folder / "region").open("wb", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, size)
            for rows in chunks:
                file.write(rows.data)
            os.fsync(file)
        self.open()
        return "now"

    def open(self, *, readonly: bool = False) -> None:
        if readonly:
            return
        memory = np.fromfile(self.folder / "region", np.uint8)
        self._memory: Any = memory.view(np.dtype(("V", PAGE)))
        self._env = lmdb.open(str(self.folder / "lmdb"), map_size=1 << 26)
        self._changed = False
        self._room: Any = None

    def change(self, pages: Pages, rows: Rows) -> None:
        self._memory[pages] = rows.view(self._memory.dtype).reshape(-1)
        self._pages = pages
        self._changed = True

    def prepare(self, count: int) -> None:
        """Write the areas for commits of so many pages, so that their space is allocated."""
        if count and count not in self._areas:
            file = os.open(self.folder / f"area{count}", os.O_RDWR | os.O_CREAT)
            for i in range(AREAS):
                os.pwrite(file, bytes(count * PAGE), i * count * PAGE)
            os.fsync(file)
            self._areas[count] = file

    def commit(self) -> Key:
        if len(self._pages):
            self._store(self._memory[self._pages].view(np.uint8).data)
            self._pages = self._pages[:0]
        with self._env.begin(write=True) as txn:
            txn.put(b"head", os.urandom(16))
        return "now"

    def _store(self, data: memoryview) -> None:
        """Write pages durably, over those of some commits ago."""
        count = len(data) // PAGE
        self.prepare(count)
        self._turn = (self._turn + 1) % AREAS
        os.pwrite(self._areas[count], data, self._turn * len(data))
        os.fdatasync(self._areas[count])

    def fork(self) -> float:
        """Seconds that a snapshot by `fork` takes: all memory, but as mortal as the child."""
        start = time.perf_counter()
        child = os.fork()
        if child == 0:
            os._exit(0)
        took = time.perf_counter() - start
        os.waitpid(child, 0)
        return took

    def copy(self) -> float:
        """Seconds that a copy of all memory takes, once there is room for it."""
        if self._room is None:
            self._room = self._memory.copy()
        start = time.perf_counter()
        np.copyto(self._room, self._memory)
        return time.perf_counter() - start

    def reader(self, key: Key) -> Mapped:
        return Mapped(self.folder / "region")

    def close(self) -> None:
        """The file that readers map is brought to what memory holds."""
        if not hasattr(self, "_memory"):
            return
        if self._changed:
            with (self.folder / "region").open("r+b", buffering=0) as file:
                memory = self._memory.view(np.uint8)
                for at in range(0, len(memory), 4 << 20):
                    file.write(memory[at : at + (4 << 20)].data)
                os.fsync(file)
        del self._memory, self._room
        self._env.close()
        while self._areas:
            os.close(self._areas.popitem()[1])


class Mapped:
    """A plain file in memory."""

    def __init__(self, path: Path) -> None:
        self.memory: np.ndarray[Any, Any] = np.memmap(path, np.uint8, "r")

    def read(self, pages: Pages) -> Rows:
        rows: Rows = np.asarray(self.memory.reshape(-1, PAGE)[pages])
        return rows

    def scan(self) -> int:
        return total(self.memory)

    def close(self) -> None:
        del self.memory


PEER = Limit
