"""Which tables and rows differ, against what SQLite itself says when it reads everything."""

from __future__ import annotations

import itertools
import random

import pytest

import pagestore

apsw = pytest.importorskip("apsw")
from pagestore.sqlite import changed_rows, changed_tables, connect  # noqa: E402 (it needs apsw)
from pagestore.sqlite.btree import File  # noqa: E402

SCHEMA = """
CREATE TABLE plain(a INTEGER PRIMARY KEY, b);
CREATE TABLE long(b, c);
CREATE TABLE "odd ""name"(rowid, b);
CREATE TABLE keyed(k PRIMARY KEY, v) WITHOUT ROWID;
CREATE INDEX by_b ON plain(b);
CREATE VIEW seen AS SELECT * FROM plain;
"""
TABLES = ["plain", "long", 'odd "name']


def rows(store, ref, table):
    db = connect(store, at=ref)
    quoted = '"' + table.replace('"', '""') + '"'
    found = {r[0]: r[1:] for r in db.execute(f"SELECT _rowid_, * FROM {quoted}")}
    db.close()
    return found


def expected(store, a, b, table):
    old, new = rows(store, a, table), rows(store, b, table)
    keys = sorted(old.keys() | new.keys())
    return [(k, old.get(k), new.get(k)) for k in keys if old.get(k) != new.get(k)]


def pages(store, ref):
    """Whose each page is, as SQLite says; and what is in it."""
    db = connect(store, at=ref)
    owners = dict(db.execute("SELECT pageno, name FROM dbstat"))
    raw, size = store.view(ref).peek("main.db").data, db.pragma("page_size")
    db.close()
    return owners, [bytes(raw[i : i + size]) for i in range(0, len(raw), size)]


def change(db, chance):
    what = chance.randrange(9)
    low = chance.randrange(400)
    blob = chance.choice([10, 400, 3000, 20000])
    statements = (
        f"UPDATE plain SET b = {chance.random()} WHERE a = {low}",
        f"DELETE FROM plain WHERE a BETWEEN {low} AND {low + chance.randrange(80)}",
        f"INSERT OR REPLACE INTO plain VALUES ({chance.randrange(-9, 900)}, hex(randomblob(40)))",
        f"INSERT INTO long VALUES (randomblob({blob}), {low})",
        # in place: a cell of the same size, whose leaf may stay as it is
        f"UPDATE long SET b = randomblob(length(b)) WHERE rowid = {low % 60}",
        "UPDATE long SET b = CAST(substr(b, 1, length(b) - 1) || x'00' AS BLOB)"
        f" WHERE rowid = {low % 60}",
        f"DELETE FROM long WHERE rowid % 7 = {low % 7}",
        f'INSERT INTO "odd ""name" VALUES ({low}, {low})',
        f"INSERT OR REPLACE INTO keyed VALUES ({low}, randomblob({blob}))",
    )
    db.execute(statements[what])


@pytest.mark.parametrize("page_size", [512, 4096, 16384])
@pytest.mark.parametrize("seed", range(3))
def test_rows_and_tables(store, page_size, seed):
    chance = random.Random(seed * 100_000 + page_size)
    db = connect(store)
    db.pragma("page_size", page_size)
    with db:
        db.execute(SCHEMA)
        for _ in range(300):
            change(db, chance)
        db.executemany("INSERT OR IGNORE INTO plain VALUES (?, ?)", ((i, i) for i in range(400)))
    names = ["v0"]
    store.snapshot("v0")
    for i in range(1, 7):
        with db:
            for _ in range(chance.choice([1, 1, 3, 20])):
                change(db, chance)
        if i == 5:
            db.execute("VACUUM")
        names.append(f"v{i}")
        store.snapshot(names[-1])
    for a, b in [*itertools.pairwise(names), ("v0", "v6"), ("v6", "v1"), ("v2", "v2")]:
        for table in TABLES:
            found = [tuple(c) for c in changed_rows(store, a, b, table)]
            assert found == expected(store, a, b, table), (a, b, table)
        (old, old_pages), (new, new_pages) = pages(store, a), pages(store, b)
        whose: dict[str, set[int]] = {}
        for i, (x, y) in enumerate(itertools.zip_longest(old_pages, new_pages), 1):
            for owners in (old, new) if x != y else ():
                if i in owners:
                    whose.setdefault(owners[i], set()).add(i)
        counts = {c.table: (c.pages, c.index_pages) for c in changed_tables(store, a, b)}
        tables = {n: len(p) for n, p in whose.items() if n != "by_b"}
        assert {t: n for t, (n, _) in counts.items() if n} == tables, (a, b)
        assert counts.get("plain", (0, 0))[1] == len(whose.get("by_b", ()))
    db.close()


def test_a_change_in_an_overflow_page_alone(store):
    db = connect(store)
    db.execute("CREATE TABLE long(a INTEGER PRIMARY KEY, b)")
    with db:
        for i in range(50):
            db.execute("INSERT INTO long VALUES (?, ?)", (i, bytes(20000)))
    store.snapshot("before")
    with db.blob_open("main", "long", "b", 7, True) as blob:
        blob.seek(15000)
        blob.write(b"x")
    found = list(changed_rows(store, "before", "main", "long"))
    assert [c.rowid for c in found] == [7]
    assert changed_tables(store, "before", "main")[0][:2] == ("long", 1)
    db.close()


def test_tables_that_come_and_go(store):
    db = connect(store)
    store.snapshot("empty")
    db.execute("CREATE TABLE t(a); INSERT INTO t VALUES (1)")
    store.snapshot("one")
    db.execute("DROP TABLE t; CREATE TABLE u(a); INSERT INTO u VALUES (2)")
    assert [tuple(c) for c in changed_rows(store, "one", "main", "t")] == [(1, (1,), None)]
    assert [tuple(c) for c in changed_rows(store, "one", "main", "u")] == [(1, None, (2,))]
    assert [c.table for c in changed_tables(store, "one", "main")] == ["sqlite_schema", "t", "u"]
    assert [tuple(c) for c in changed_rows(store, "empty", "one", "t")] == [(1, None, (1,))]
    assert [c.table for c in changed_tables(store, "one", "empty")] == ["sqlite_schema", "t"]
    assert changed_tables(store, "one", "one") == []
    assert len(list(changed_rows(store, "one", "main", "sqlite_schema"))) == 1
    with pytest.raises(pagestore.NotFoundError):
        list(changed_rows(store, "one", "main", "nothing"))
    db.execute("CREATE TABLE keyed(k PRIMARY KEY, v) WITHOUT ROWID; CREATE INDEX i ON u(a)")
    for table in ("keyed", "i"):
        with pytest.raises(pagestore.InvalidError):
            list(changed_rows(store, "one", "main", table))
    db.close()


def test_only_what_differs_is_read(store):
    db = connect(store)
    db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    with db:
        db.executemany("INSERT INTO t VALUES (?, ?)", ((i, "x" * 300) for i in range(20000)))
    store.snapshot("before")
    db.execute("UPDATE t SET b = 'y' WHERE a = 12345")
    read: set[int] = set()
    page = File.page

    def noted(self, number):
        read.add(number)
        return page(self, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(File, "page", noted)
        [change] = changed_rows(store, "before", "main", "t")
    assert (change.rowid, change.new) == (12345, (12345, "y"))
    assert len(read) < db.pragma("page_count") / 50
    db.close()


def test_damaged_trees_are_named(store):
    """What is compared may be anybody's bytes: nothing but errors, whatever is in them."""
    db = connect(store)
    db.execute(SCHEMA)
    with db:
        for _ in range(100):
            change(db, random.Random(1))
    db.close()
    raw = bytearray(store.view("main").peek("main.db"))
    chance = random.Random(7)
    for _ in range(200):
        damaged = bytearray(raw)
        for _ in range(chance.randrange(1, 30)):
            damaged[chance.randrange(len(raw))] = chance.randrange(256)
        try:
            file = File(memoryview(damaged))
            for root in range(1, file.pages + 1):
                tree = file.tree(root)
                for number in tree.interior | tree.leaves:
                    for cell in file.cells(number):
                        list(file.chain(cell.overflow))
        except pagestore.CorruptionError:
            pass
