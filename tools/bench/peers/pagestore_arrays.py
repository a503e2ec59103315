"""pagestore as its users use it: one long-lived workspace, NumPy writes, named versions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

import pagestore
from tools.bench.peers import PAGE, Key, Pages, Peer, Rows, allocated, total

REGION = "a"


class PagestoreArrays(Peer):
    title = "pagestore"
    settings = "durable (fdatasync, LMDB sync); page_size=4096; a snapshot per version"
    packages = ("lmdb", "numpy")
    imports = "pagestore"
    start = """
import sys, pagestore
with pagestore.open(sys.argv[1] + "/store", "r") as store, store.view(sys.argv[2]) as view:
    print(view["a"][0])
"""

    def __init__(self, folder: Path, pages: int) -> None:
        super().__init__(folder, pages)
        self._count = 0
        self._parked: list[pagestore.Workspace] = []

    @classmethod
    def versions(cls) -> str:
        return f"pagestore {pagestore.__version__}, {super().versions()}"

    def load(self, chunks: Iterable[Rows]) -> Key:
        self.store = pagestore.open(self.folder / "store", "x")
        self._workspace = self.store.begin()
        memory = self._workspace.create(REGION, shape=self.pages * PAGE, dtype="u1")
        at = 0
        for rows in chunks:
            memory[at : at + rows.size] = rows.reshape(-1)
            at += rows.size
        del memory
        key = self.commit()
        self._workspace.close()
        self._workspace = self.store.begin()
        self._use()
        return key

    def open(self, *, readonly: bool = False) -> None:
        self.store = pagestore.open(self.folder / "store", "r" if readonly else "r+")
        if not readonly:
            self._workspace = self.store.begin()
            self._count = len(self.store.snapshots)
            self._use()

    def _use(self) -> None:
        self._rows = self._workspace[REGION].reshape(self.pages, PAGE)

    def change(self, pages: Pages, rows: Rows) -> None:
        self._rows[pages] = rows

    def commit(self) -> Key:
        self._count += 1
        key = f"v{self._count}"
        self._workspace.snapshot(key)
        return key

    def reader(self, key: Key) -> View:
        return View(self.store.view(key))

    def branch(self, key: Key) -> None:
        self._count += 1
        self._parked.append(self._workspace)  # a branch is begun beside what is open
        self._workspace = self.store.begin(f"branch{self._count}", at=key)
        self._use()

    def diff(self, old: Key, new: Key) -> Pages:
        changes = self.store.diff(old, new)
        return np.array([page for c in changes for page in range(c.start, c.stop)], np.int64)

    def delete_old(self) -> None:
        newest = self.store.version("main").names
        old = [name for name in self.store.snapshots if name not in newest]
        if old:
            self.store.delete_snapshot(*old)

    def give_back(self) -> None:
        self._leave()  # an open workspace pins the pages of its base
        while self.store.compact().moved_pages:
            pass
        self.store.close()  # the last to close it makes the catalog dense
        self.open()

    def reserved(self) -> int:
        return allocated(self.store.path / "arena") - self.store.stats().referred_bytes

    def _leave(self) -> None:
        self.__dict__.pop("_rows", None)
        while self._parked:
            self._parked.pop().close()
        if hasattr(self, "_workspace"):
            self._workspace.close()
            del self._workspace

    def close(self) -> None:
        self._leave()
        self.store.close()


class View:
    def __init__(self, view: pagestore.SnapshotView) -> None:
        self._view = view
        self._memory = view[REGION]

    def read(self, pages: Pages) -> Rows:
        rows: Rows = self._memory.reshape(-1, PAGE)[pages]
        return rows

    def scan(self) -> int:
        return total(self._memory)

    def close(self) -> None:
        del self._memory
        self._view.close()


PEER = PagestoreArrays
