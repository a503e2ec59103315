"""The nearest rival on small work: LMDB rows under (page, version), newest version first."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from typing import Any

import lmdb
import numpy as np

from tools.bench.peers import PAGE, Key, Pages, Peer, Rows, total_of
from tools.bench.peers._lines import Line, between, child, decode, encode

MAP_SIZE = 64 << 30
LAST = (1 << 32) - 1
PAIR = struct.Struct(">II")  # page, LAST - version: what was written last comes first
NUMBER = struct.Struct(">I")


class LmdbVersions(Peer):
    title = "LMDB, (page, version) rows"
    settings = "sync=True; put in key order, append on load; readahead off; a list of changed pages"
    packages = ("lmdb",)
    imports = "lmdb"
    start = """
import sys, struct, lmdb
env = lmdb.open(sys.argv[1] + "/lmdb", readonly=True, max_dbs=3, map_size=64 << 30, lock=True)
pages = env.open_db(b"pages", create=False)
with env.begin(buffers=True) as txn, txn.cursor(pages) as cursor:
    cursor.set_range(struct.pack(">II", 0, (1 << 32) - 1 - int(sys.argv[2])))
    print(cursor.value()[0])
"""

    def load(self, chunks: Iterable[Rows]) -> Key:
        self.open()
        at = 0
        with self._env.begin(write=True) as txn:
            with txn.cursor(self._pages) as cursor:
                for rows in chunks:
                    for page, row in enumerate(rows, at):
                        cursor.put(PAIR.pack(page, LAST), row.data, append=True)
                    at += len(rows)
            txn.put(NUMBER.pack(0), encode(child([], 0)), db=self._lines)
        self._line = child([], 0)
        return "0"

    def open(self, *, readonly: bool = False) -> None:
        self._env = lmdb.open(
            str(self.folder / "lmdb"),
            map_size=MAP_SIZE,
            max_dbs=3,
            readonly=readonly,
            readahead=False,
        )
        self._pages, self._lines, self._changed = (
            self._env.open_db(name, create=not readonly)
            for name in (b"pages", b"versions", b"changes")
        )
        self._pending: list[tuple[Pages, Rows]] = []
        with self._env.begin(db=self._lines) as txn, txn.cursor() as cursor:
            if cursor.last():
                self._line = decode(cursor.value())

    def change(self, pages: Pages, rows: Rows) -> None:
        self._pending.append((pages, rows))

    def commit(self) -> Key:
        with self._env.begin(write=True) as txn:
            with txn.cursor(self._lines) as cursor:
                cursor.last()
                version = NUMBER.unpack(cursor.key())[0] + 1
            line = child(self._line, version)
            with txn.cursor(self._pages) as cursor:
                for pages, rows in self._pending:
                    for page, row in zip(pages.tolist(), rows, strict=True):
                        cursor.put(PAIR.pack(page, LAST - version), row.data)
            changed = [pages for pages, _ in self._pending]
            if changed:
                data = np.unique(np.concatenate(changed)).tobytes()
                txn.put(NUMBER.pack(version), data, db=self._changed)
            txn.put(NUMBER.pack(version), encode(line), db=self._lines)
        self._line = line
        self._pending.clear()
        return str(version)

    def _line_of(self, key: Key) -> Line:
        with self._env.begin(db=self._lines) as txn:
            return decode(txn.get(NUMBER.pack(int(key)), b"[]"))

    def reader(self, key: Key) -> Version:
        line = self._line_of(key)
        return Version(self._env.begin(buffers=True), self._pages, line, self.pages)

    def branch(self, key: Key) -> None:
        self._line = self._line_of(key)

    def diff(self, old: Key, new: Key) -> Pages:
        found = [np.empty(0, np.int64)]
        with self._env.begin(db=self._changed) as txn:
            for version in between(self._line_of(old), self._line_of(new)):
                data = txn.get(NUMBER.pack(version))
                if data:
                    found.append(np.frombuffer(data, np.int64))
        return np.unique(np.concatenate(found))

    def delete_old(self) -> None:
        newest = self._line[0][1]
        with self._env.begin(write=True) as txn:
            touched = set()
            with txn.cursor(self._changed) as cursor:
                for data in cursor.iternext(keys=False, values=True):
                    touched.update(np.frombuffer(data, np.int64).tolist())
            with txn.cursor(self._pages) as cursor:
                for page in sorted(touched):
                    kept = cursor.set_range(PAIR.pack(page, LAST - newest)) and cursor.next()
                    while kept and cursor.key().startswith(NUMBER.pack(page)):
                        kept = cursor.delete()
            txn.drop(self._changed, delete=False)
            txn.drop(self._lines, delete=False)
            self._line = [(0, newest)]
            txn.put(NUMBER.pack(newest), encode(self._line), db=self._lines)

    def give_back(self) -> None:
        """A compacting copy takes the place of the file: the only way to a shorter one."""
        old, new = self.folder / "lmdb" / "data.mdb", self.folder / "new"
        with new.open("wb") as file:  # copyfd, since copy writes past the page cache, slowly
            self._env.copyfd(file.fileno(), compact=True)
            os.fsync(file)
        self._env.close()
        new.replace(old)
        self.open()

    def close(self) -> None:
        self._env.close()


class Version:
    """One seek a page; one more for each branching before it."""

    def __init__(self, txn: lmdb.Transaction, db: Any, line: Line, pages: int) -> None:
        self._txn = txn
        self._cursor = txn.cursor(db)
        self._line = line
        self._pages = pages

    def _find(self, page: int) -> Any:
        seek = self._cursor.set_range
        for first, last in self._line:
            if seek(PAIR.pack(page, LAST - last)):
                found, inverted = PAIR.unpack(self._cursor.key())
                if found == page and LAST - inverted >= first:
                    return self._cursor.value()
        raise KeyError(page)

    def read(self, pages: Pages) -> Rows:
        rows = np.empty((len(pages), PAGE), np.uint8)
        for row, page in zip(rows, pages.tolist(), strict=True):
            row[:] = np.frombuffer(self._find(page), np.uint8)
        return rows

    def scan(self) -> int:
        return total_of(map(self._find, range(self._pages)))

    def close(self) -> None:
        self._cursor.close()
        self._txn.abort()


PEER = LmdbVersions
