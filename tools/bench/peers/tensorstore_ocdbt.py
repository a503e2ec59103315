"""TensorStore: a Zarr array over OCDBT, a copy-on-write B+tree whose every commit is a version."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tensorstore as ts

from tools.bench.peers import PAGE, Key, Pages, Peer, Rows, total

STEP = 1024  # pages of one write or read


class TensorStoreOcdbt(Peer):
    title = "TensorStore, OCDBT"
    settings = (
        "file_io_sync (fsync of file and directory); atomic transactions; chunks of one page, "
        "uncompressed; max_decoded_node_bytes=4096; no cache"
    )
    lacks = ("branches", "what changed", "deleting versions")
    packages = ("tensorstore",)
    imports = "tensorstore"
    start = """
import sys, tensorstore as ts
base = {"driver": "file", "path": sys.argv[1] + "/db/"}
store = {"driver": "ocdbt", "base": base, "version": int(sys.argv[2])}
print(ts.open({"driver": "zarr3", "kvstore": store}, read=True).result()[0, 0].read().result())
"""

    def load(self, chunks: Iterable[Rows]) -> Key:
        metadata = {
            "shape": [self.pages, PAGE],
            "data_type": "uint8",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, PAGE]}},
            "codecs": [{"name": "bytes"}],
        }
        ts.open({**self._spec(), "metadata": metadata}, create=True).result()
        self.open()
        at = 0
        for rows in chunks:
            with ts.Transaction(atomic=True) as transaction:
                self._array.with_transaction(transaction)[at : at + len(rows)] = rows
            at += len(rows)
        return self._newest()

    def _spec(self, key: Key = "") -> dict[str, Any]:
        base = {"driver": "file", "path": f"{self.folder / 'db'}/"}
        store: dict[str, Any] = {"driver": "ocdbt", "base": base}
        if key:
            store["version"] = int(key)
        else:
            store["config"] = {"max_decoded_node_bytes": 4096, "compression": None}
        return {"driver": "zarr3", "kvstore": store}

    def open(self, *, readonly: bool = False) -> None:
        self._base = ts.KvStore.open(self._spec()["kvstore"]["base"]).result()
        self._transaction: Any = None
        if not readonly:
            self._array = ts.open(self._spec(), open=True).result()

    def change(self, pages: Pages, rows: Rows) -> None:
        if self._transaction is None:
            self._transaction = ts.Transaction(atomic=True)
        self._array.with_transaction(self._transaction)[pages].write(rows).result()

    def commit(self) -> Key:
        if self._transaction is not None:
            self._transaction.commit_sync()
            self._transaction = None
        return self._newest()

    def _newest(self) -> Key:
        """The manifest is read again: a commit does not say which generation it made."""
        manifest = ts.ocdbt.dump(self._base).result()
        return str(manifest["versions"][-1]["generation_number"])

    def reader(self, key: Key) -> Version:
        return Version(ts.open(self._spec(key), open=True, read=True).result())

    def close(self) -> None:
        if hasattr(self, "_array"):
            del self._array
        del self._base


class Version:
    def __init__(self, array: Any) -> None:
        self._array = array

    def read(self, pages: Pages) -> Rows:
        rows: Rows = self._array[pages].read().result()
        return rows

    def scan(self) -> int:
        """The next piece is read while one is added up."""
        count = self._array.shape[0]
        found = 0
        ahead = [self._array[: min(STEP, count)].read()]
        for at in range(STEP, count, STEP):
            ahead.append(self._array[at : min(at + STEP, count)].read())
            found += total(ahead.pop(0).result())
        return (found + total(ahead[0].result())) % (1 << 64)

    def close(self) -> None:
        del self._array


PEER = TensorStoreOcdbt
