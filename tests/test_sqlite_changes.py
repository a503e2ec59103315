"""Which tables and rows differ, against what SQLite itself says when it reads everything."""

from __future__ import annotations

import itertools
import random

import pytest

import pagestore

apsw = pytest.importorskip("apsw")
from pagestore.sqlite import changed_rows, changed_tables, connect, uri  # noqa: E402 (it needs apsw)
from pagestore.sqlite.btree import File  # noqa: E402

SCHEMA = """
CREATE TABLE plain(a INTEGER PRIMARY KEY, b);
CREATE TABLE long(b, c);
CREATE TABLE "odd ""name"(rowid, b);
CREATE TABLE keyed(k PRIMARY KEY, v) WITHOUT ROWID;
CREATE TABLE "two ""keys"(v, b TEXT COLLATE NOCASE, a REAL, PRIMARY KEY(a DESC, b)) WITHOUT ROWID;
CREATE INDEX by_b ON plain(b);
CREATE VIEW seen AS SELECT * FROM plain;
"""
TABLES = ["plain", "long", 'odd "name']
KEYED = {"keyed": ["k"], 'two "keys': ["a", "b"]}


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


def keyed(store, a, b, table):
    """Which rows WITHOUT ROWID differ: pairs of old and new, in whatever order."""
    db = connect(store, at=a)
    db.execute("ATTACH ? AS newer", (uri(store, at=b),))
    quoted = '"' + table.replace('"', '""') + '"'
    same = " AND ".join(f"o.{k} = n.{k}" for k in KEYED[table])
    query = f"SELECT o.*, n.* FROM main.{quoted} o FULL JOIN newer.{quoted} n ON {same}"
    found = []
    for row in db.execute(query):
        old, new = row[: len(row) // 2], row[len(row) // 2 :]
        if (old, list(map(type, old))) != (new, list(map(type, new))):
            found.append((None if None in old else old, None if None in new else new))
    db.close()
    return sorted(found, key=repr)


def pages(store, ref):
    """Whose each page is, as SQLite says; and what is in it."""
    db = connect(store, at=ref)
    owners = dict(db.execute("SELECT pageno, name FROM dbstat"))
    raw, size = store.view(ref).peek("main.db").data, db.pragma("page_size")
    db.close()
    return owners, [bytes(raw[i : i + size]) for i in range(0, len(raw), size)]


def change(db, chance):
    what = chance.randrange(15)
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
        f"INSERT OR REPLACE INTO keyed VALUES (hex(randomblob({blob})), {low})",
        f"UPDATE keyed SET v = v + 0.0 WHERE k BETWEEN {low} AND {low + 9}",
        f"DELETE FROM keyed WHERE k BETWEEN {low} AND {low + 30}",
        f"""INSERT OR REPLACE INTO "two ""keys" VALUES ({low}, 'Key {blob}', {low % 50} / 2.0)""",
        f"""UPDATE "two ""keys" SET b = upper(b) WHERE a = {low % 50}""",
        f"""UPDATE "two ""keys" SET v = x'{low:04}' WHERE a > {low % 50 / 2}""",
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
        for table in KEYED:
            found = [tuple(c[1:]) for c in changed_rows(store, a, b, table)]
            assert sorted(found, key=repr) == keyed(store, a, b, table), (a, b, table)
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
    with pytest.raises(pagestore.NotFoundError, match="database"):
        changed_tables(store, "one", "main", "nothing.db")
    db.execute("CREATE INDEX i ON u(a); CREATE TABLE w(rowid, _rowid_, oid)")
    db.execute("INSERT INTO w VALUES (7, 7, 7)")
    for table in ("i", "w"):
        with pytest.raises(pagestore.InvalidError):
            list(changed_rows(store, "one", "main", table))
    db.close()


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_rows_without_rowids(store, encoding):
    db = connect(store)
    db.pragma("encoding", encoding)
    db.execute("CREATE TABLE t(v, k PRIMARY KEY) WITHOUT ROWID")
    keys = [None, -1, 2**62, 1.5, "é" * 3000, b"\0" * 3000, "a", b"a", 0, 10**9]
    with db:
        db.executemany("INSERT INTO t VALUES ('old', ?)", ((k,) for k in keys[1:]))
    store.snapshot("before")
    db.execute("UPDATE t SET v = 'new' WHERE k IS NOT 0")
    db.execute("DELETE FROM t WHERE k = 1.5; INSERT INTO t VALUES (NULL, 3)")
    found = list(changed_rows(store, "before", "main", "t"))
    assert {c.rowid for c in found} == {None}
    assert [(c.old or c.new or ())[1] for c in found] == [
        -1, 1.5, 3, 10**9, 2**62, "a", "é" * 3000, b"\0" * 3000, b"a"
    ]  # fmt: skip
    assert found[1][1:] == (("old", 1.5), None)
    assert found[2][1:] == (None, (None, 3))
    db.execute("DROP TABLE t; CREATE TABLE t(v PRIMARY KEY, k) WITHOUT ROWID")
    with pytest.raises(pagestore.InvalidError, match="same key"):
        list(changed_rows(store, "before", "main", "t"))
    db.close()


def test_types_are_values(store):
    db = connect(store)
    db.execute("CREATE TABLE t(a); INSERT INTO t VALUES (1), (2), (3)")
    store.snapshot("before")
    db.execute("UPDATE t SET a = a + 0.0 WHERE a < 3")
    assert [c.rowid for c in changed_rows(store, "before", "main", "t")] == [1, 2]
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
                        file.values(cell, 3)
        except pagestore.CorruptionError:
            pass
