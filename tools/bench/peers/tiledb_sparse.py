"""TileDB: a sparse array of pages; a commit writes a fragment at a time of its own, its number.

Sparse, since a dense write takes one rectangle: scattered pages would be a fragment each.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import tiledb

from tools.bench.peers import PAGE, Key, Pages, Peer, Rows, total

ROW = np.dtype([("", np.uint64)] * (PAGE // 8))  # a fixed number of values: no minimum a tile
STEP = 16384
# Without these two a read of scattered pages reads what lies between them as well.
CONFIG = {"vfs.min_batch_gap": "0", "vfs.min_batch_size": "0"}


class TileDbSparse(Peer):
    title = "TileDB, sparse"
    settings = (
        "files are synced by TileDB, the directories by the bench; capacity=16 (tiles of 64 KiB), "
        "uncompressed; vfs.min_batch_gap=0, vfs.min_batch_size=0"
    )
    lacks = (
        "durable by itself (it does not sync directories)",
        "branches",
        "deleting versions (consolidation keeps every old cell with its timestamp)",
    )
    packages = ("tiledb",)
    imports = "tiledb"
    start = """
import sys, tiledb
with tiledb.open(sys.argv[1] + "/array", timestamp=int(sys.argv[2])) as array:
    print(array.multi_index[0]["data"].view("u1")[0])
"""

    def load(self, chunks: Iterable[Rows]) -> Key:
        whole = (0, self.pages - 1)
        page = tiledb.Dim("page", domain=whole, tile=self.pages, dtype=np.int64)
        schema = tiledb.ArraySchema(
            tiledb.Domain(page), attrs=[tiledb.Attr("data", dtype=ROW)], sparse=True, capacity=16
        )
        tiledb.Array.create(self._uri, schema)
        self._version = 0
        self._use()
        at = 0
        for rows in chunks:
            self.change(np.arange(at, at + len(rows)), rows)
            at += len(rows)
        return self.commit()

    @property
    def _uri(self) -> str:
        return str(self.folder / "array")

    def _use(self) -> None:
        self._context = tiledb.Ctx(CONFIG)
        self._pending: list[tuple[Pages, Rows]] = []

    def open(self, *, readonly: bool = False) -> None:
        self._version = max(
            int(last) for _, last in tiledb.array_fragments(self._uri).timestamp_range
        )
        self._use()

    def change(self, pages: Pages, rows: Rows) -> None:
        self._pending.append((pages, rows))

    def commit(self) -> Key:
        """Nothing pending: there is no empty fragment, the version before is the newest."""
        if self._pending:
            pages, rows = (np.concatenate(x) for x in zip(*self._pending, strict=True))
            self._pending.clear()
            self._version += 1
            with self._array(self._version, "w") as array:
                array[pages] = rows.reshape(-1).view(ROW)
                (fragment,) = array.last_write_info
            for path in (fragment, f"{self._uri}/__fragments", f"{self._uri}/__commits"):
                _sync(path.removeprefix("file://"))
        return str(self._version)

    def _array(self, time: int | tuple[int, int], mode: str = "r") -> Any:
        return tiledb.open(self._uri, mode, timestamp=time, ctx=self._context)

    def reader(self, key: Key) -> Version:
        return Version(self._array(int(key)), self.pages)

    def diff(self, old: Key, new: Key) -> Pages:
        """Pages with a cell that was written in between."""
        if int(old) >= int(new):
            return np.empty(0, np.int64)
        with self._array((int(old) + 1, int(new))) as array:
            found: Pages = array.query(attrs=[], dims=["page"])[:]["page"]
            return np.sort(found)

    def close(self) -> None:
        self._pending.clear()


class Version:
    def __init__(self, array: Any, pages: int) -> None:
        self._array = array
        self._query = array.query(order="U", attrs=["data"], coords=True)
        self._pages = pages

    def read(self, pages: Pages) -> Rows:
        """Unordered is faster; the coordinates then say which page is where."""
        found = self._query.multi_index[pages]
        rows = np.empty((len(pages), PAGE), np.uint8)
        rows[np.searchsorted(pages, found["page"])] = found["data"].view(np.uint8).reshape(-1, PAGE)
        return rows

    def scan(self) -> int:
        steps = range(0, self._pages, STEP)
        found = (self._query.multi_index[at : min(at + STEP, self._pages) - 1] for at in steps)
        return sum(total(piece["data"]) for piece in found) % (1 << 64)

    def close(self) -> None:
        self._array.close()


def _sync(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


PEER = TileDbSparse
