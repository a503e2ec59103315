"""LMDB with the page number as key and the page as value: what it is best at, without versions."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

import lmdb
import numpy as np

from tools.bench.peers import PAGE, Key, Pages, Peer, Rows, total_of

MAP_SIZE = 64 << 30


class LmdbPages(Peer):
    title = "LMDB, page = value"
    kind = "unversioned"
    settings = "sync=True; integer keys, append on load, putmulti; readahead off"
    lacks = ("keeps no old versions: a snapshot is a full copy of the file",)
    packages = ("lmdb",)
    keeps_old = False
    imports = "lmdb"
    start = """
import sys, struct, lmdb
env = lmdb.open(sys.argv[1] + "/lmdb", readonly=True, max_dbs=1, map_size=64 << 30)
with env.begin(db=env.open_db(b"pages", integerkey=True, create=False)) as txn:
    print(txn.get(struct.pack("=Q", 0))[0])
"""

    def load(self, chunks: Iterable[Rows]) -> Key:
        self.open()
        at = 0
        with self._env.begin(write=True, db=self._db) as txn, txn.cursor() as cursor:
            for rows in chunks:
                cursor.putmulti(_items(range(at, at + len(rows)), rows), append=True)
                at += len(rows)
        return "now"

    def open(self, *, readonly: bool = False) -> None:
        self._env = lmdb.open(
            str(self.folder / "lmdb"),
            map_size=MAP_SIZE,
            max_dbs=1,
            readonly=readonly,
            readahead=False,
        )
        self._db = self._env.open_db(b"pages", integerkey=True, create=not readonly)
        self._changes: list[tuple[Pages, Rows]] = []

    def change(self, pages: Pages, rows: Rows) -> None:
        self._changes.append((pages, rows))

    def commit(self) -> Key:
        with self._env.begin(write=True, db=self._db) as txn, txn.cursor() as cursor:
            for pages, rows in self._changes:
                cursor.putmulti(_items(pages.tolist(), rows))
            if not self._changes:
                txn.put(struct.pack("=Q", 1 << 40), b"nothing changed")
                txn.delete(struct.pack("=Q", 1 << 40))
        self._changes.clear()
        return "now"

    def reader(self, key: Key) -> Transaction:
        return Transaction(self._env.begin(db=self._db, buffers=True), self.pages)

    def close(self) -> None:
        self._env.close()


def _items(pages: Iterable[int], rows: Rows) -> Iterator[tuple[bytes, Any]]:
    pack = struct.Struct("=Q").pack
    return ((pack(page), row.data) for page, row in zip(pages, rows, strict=True))


class Transaction:
    """A read transaction: the newest version for as long as it is open."""

    def __init__(self, txn: lmdb.Transaction, pages: int) -> None:
        self._txn = txn
        self._pages = pages

    def read(self, pages: Pages) -> Rows:
        rows = np.empty((len(pages), PAGE), np.uint8)
        pack = struct.Struct("=Q").pack
        for row, page in zip(rows, pages.tolist(), strict=True):
            row[:] = np.frombuffer(self._txn.get(pack(page), b""), np.uint8)
        return rows

    def scan(self) -> int:
        with self._txn.cursor() as cursor:
            return total_of(cursor.iternext(keys=False, values=True))

    def close(self) -> None:
        self._txn.abort()


PEER = LmdbPages
