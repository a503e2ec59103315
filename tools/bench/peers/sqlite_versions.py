"""SQLite rows under (page, version) in one integer key, newest version first."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import numpy as np

from tools.bench.peers import PAGE, Key, Pages, Peer, Rows, total_of
from tools.bench.peers._lines import Line, between, child, decode, encode

LAST = (1 << 31) - 1
SCHEMA = """
create table pages (id integer primary key, data blob not null);
create table versions (version integer primary key, line blob not null, changed blob not null);
"""
SEEK = "select id, data from pages where id >= ? limit 1"
SCAN = """
select data from pages where id in (
    select min(id) from pages where (id & 0x7fffffff) >= ? group by id >> 31)
"""


class SqliteVersions(Peer):
    title = "SQLite, (page, version) rows"
    settings = (
        "WAL, synchronous=FULL; page_size=4096 (a row takes 1.1 pages; larger ones more), "
        "mmap_size=64 GiB, cache 256 MiB, temp_store=memory"
    )
    imports = "sqlite3"
    start = """
import sys, sqlite3
db = sqlite3.connect(sys.argv[1] + "/db")
seek = "select data from pages where id >= ? limit 1"
print(db.execute(seek, ((1 << 31) - 1 - int(sys.argv[2]),)).fetchone()[0][0])
"""

    @classmethod
    def versions(cls) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    def load(self, chunks: Iterable[Rows]) -> Key:
        self._connect()
        self._db.executescript(SCHEMA)
        self._line = child([], 0)
        at = 0
        with self._db:
            self._db.execute("begin")
            for rows in chunks:
                self._insert(range(at, at + len(rows)), rows, 0)
                at += len(rows)
            self._db.execute("insert into versions values (0, ?, '')", (encode(self._line),))
        self._db.execute("pragma wal_checkpoint(truncate)")
        return "0"

    def _connect(self) -> None:
        self._db = sqlite3.connect(self.folder / "db", isolation_level=None)
        for pragma in (
            "page_size=4096",
            "journal_mode=wal",
            "synchronous=full",
            f"mmap_size={64 << 30}",
            "cache_size=-262144",
            "temp_store=memory",
        ):
            self._db.execute(f"pragma {pragma}")
        self._pending: list[tuple[Pages, Rows]] = []

    def open(self, *, readonly: bool = False) -> None:
        self._connect()
        found = self._db.execute("select line from versions order by version desc").fetchone()
        self._line = decode(found[0])

    def change(self, pages: Pages, rows: Rows) -> None:
        self._pending.append((pages, rows))

    def _insert(self, pages: Iterable[int], rows: Rows, version: int) -> None:
        items = ((p << 31 | LAST - version, row.data) for p, row in zip(pages, rows, strict=True))
        self._db.executemany("insert into pages values (?, ?)", items)

    def commit(self) -> Key:
        with self._db:
            self._db.execute("begin immediate")
            version = self._db.execute("select max(version) from versions").fetchone()[0] + 1
            line = child(self._line, version)
            for pages, rows in self._pending:
                self._insert(pages.tolist(), rows, version)
            changed = [np.empty(0, np.int64), *(pages for pages, _ in self._pending)]
            data = np.unique(np.concatenate(changed)).tobytes()
            self._db.execute("insert into versions values (?, ?, ?)", (version, encode(line), data))
        self._line = line
        self._pending.clear()
        return str(version)

    def _line_of(self, key: Key) -> Line:
        found = self._db.execute("select line from versions where version = ?", (int(key),))
        return decode(found.fetchone()[0])

    def reader(self, key: Key) -> Version:
        return Version(self._db, self._line_of(key), self.pages)

    def branch(self, key: Key) -> None:
        self._line = self._line_of(key)

    def diff(self, old: Key, new: Key) -> Pages:
        found = [np.empty(0, np.int64)]
        for version in between(self._line_of(old), self._line_of(new)):
            ask = self._db.execute("select changed from versions where version = ?", (version,))
            found.append(np.frombuffer(ask.fetchone()[0], np.int64))
        return np.unique(np.concatenate(found))

    def delete_old(self) -> None:
        newest = self._line[0][1]
        with self._db:
            self._db.execute("begin immediate")
            touched = {
                page
                for (data,) in self._db.execute("select changed from versions")
                for page in np.frombuffer(data or b"", np.int64).tolist()
            }
            for page in sorted(touched):
                first = page << 31 | LAST - newest
                kept = self._db.execute("select id from pages where id >= ? limit 1", (first,))
                self._db.execute(
                    "delete from pages where id > ? and id <= ?",
                    (kept.fetchone()[0], page << 31 | LAST),
                )
            self._line = [(0, newest)]
            self._db.execute("delete from versions where version < ?", (newest,))
            self._db.execute("update versions set line = ?, changed = ''", (encode(self._line),))

    def give_back(self) -> None:
        self._db.execute("vacuum")
        self._db.execute("pragma wal_checkpoint(truncate)")

    def close(self) -> None:
        self._db.close()


class Version:
    """One seek a page; one more for each branching before it. A scan is one query a line."""

    def __init__(self, db: sqlite3.Connection, line: Line, pages: int) -> None:
        self._db = db
        self._line = line
        self._pages = pages

    def _find(self, page: int) -> bytes:
        for first, last in self._line:
            found = self._db.execute(SEEK, (page << 31 | LAST - last,)).fetchone()
            if found and found[0] >> 31 == page and LAST - (found[0] & LAST) >= first:
                data: bytes = found[1]
                return data
        raise KeyError(page)

    def read(self, pages: Pages) -> Rows:
        rows = np.empty((len(pages), PAGE), np.uint8)
        for row, page in zip(rows, pages.tolist(), strict=True):
            row[:] = np.frombuffer(self._find(page), np.uint8)
        return rows

    def scan(self) -> int:
        if len(self._line) > 1:
            return total_of(map(self._find, range(self._pages)))
        rows = self._db.execute(SCAN, (LAST - self._line[0][1],))
        return total_of(data for (data,) in rows)

    def close(self) -> None:
        pass


PEER = SqliteVersions
