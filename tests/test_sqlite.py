"""Is a database in a store what SQLite users expect: whole transactions, and nobody's else's?"""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import numpy as np
import pytest

import pagestore

apsw = pytest.importorskip("apsw")
from pagestore.sqlite import at, branch, connect, file, snapshot, uri  # noqa: E402 (it needs apsw)

ROWS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})"
FILL = ROWS + " INSERT INTO t SELECT i, hex(randomblob({})) FROM n"


@pytest.fixture
def db(store):
    connection = connect(store)
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    yield connection
    connection.close()


def count(connection, table="t"):
    return connection.execute(f"SELECT count(*) FROM {table}").get


def versions(store):
    return store.version("main").id


# ------------------------------------------------------------------------------------ commits


def test_a_transaction_is_a_version(store, db):
    before = versions(store)
    with db:
        db.execute(FILL.format(1000, 50))
        assert versions(store) == before
    assert versions(store) == before + 1
    assert count(db) == 1000
    region = store.version("main").regions["main.db"]
    assert region.nbytes == db.pragma("page_count") * 4096
    count(db)
    assert versions(store) == before + 1


@pytest.mark.parametrize("synchronous", ["off", "normal", "full", "extra"])
@pytest.mark.parametrize("mode", ["memory", "delete", "truncate", "persist", "wal", "off"])
def test_pragmas_of_durability_change_nothing(store, db, synchronous, mode):
    db.pragma("synchronous", synchronous)
    assert db.pragma("journal_mode", mode) == "memory"
    before = versions(store)
    db.execute("INSERT INTO t VALUES (1, 'x')")
    assert versions(store) == before + 1
    with pytest.raises(apsw.ConstraintError):  # undone within the statement
        db.execute(ROWS.format(9) + " INSERT INTO t SELECT 10 - i, 'y' FROM n")
    db.execute("BEGIN; DELETE FROM t; ROLLBACK")
    assert db.execute("SELECT * FROM t").get == (1, "x")
    assert versions(store) == before + 1


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 16384, 65536])
@pytest.mark.parametrize("store_page", [4096, 65536])
def test_pages_of_any_size(make_store, page_size, store_page):
    store = make_store(page_size=store_page)
    db = connect(store)
    assert db.pragma("page_size") == store_page
    db.pragma("page_size", page_size)
    db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    assert db.pragma("page_size") == page_size
    db.execute(FILL.format(500, 300))
    db.execute("UPDATE t SET b = a WHERE a % 50 = 0")
    db.close()
    db = connect(store)
    assert db.pragma("integrity_check") == "ok"
    assert db.execute("SELECT b FROM t WHERE a = 100").get == 100


@pytest.mark.parametrize("pending", [0, file.PENDING])
def test_spilled_transactions_are_nobodys_business(store, db, monkeypatch, pending):
    monkeypatch.setattr(file, "PENDING", pending)
    db.execute(FILL.format(2000, 100))
    other = connect(store)
    before = db.execute("SELECT sum(length(b)), count(*) FROM t").get
    db.pragma("cache_size", 5)
    for end in ("ROLLBACK", "COMMIT"):
        db.execute("BEGIN")
        db.execute("UPDATE t SET b = b || 'more'")
        db.execute("SAVEPOINT s; DELETE FROM t WHERE a > 500")
        assert count(db) == 500
        db.execute("ROLLBACK TO s")
        assert count(db) == 2000
        assert other.execute("SELECT sum(length(b)), count(*) FROM t").get == before
        db.execute(end)
    assert db.pragma("integrity_check") == "ok"
    assert other.execute("SELECT sum(length(b)) FROM t").get == before[0] + 2000 * 4


@pytest.mark.parametrize("pending", [0, file.PENDING])
def test_nothing_is_left_of_what_was_undone(store, db, monkeypatch, pending):
    """Pages that SQLite wrote to undo others would hide what somebody else commits then."""
    monkeypatch.setattr(file, "PENDING", pending)
    db.execute(FILL.format(2000, 100))
    db.pragma("cache_size", 5)
    db.execute("BEGIN; UPDATE t SET b = b || 'more'; ROLLBACK")
    other = connect(store)
    other.execute("UPDATE t SET b = 'theirs'")
    assert db.execute("SELECT count(*) FROM t WHERE b = 'theirs'").get == 2000
    db.execute("BEGIN; UPDATE t SET b = 'mine'; SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; COMMIT")
    assert other.execute("SELECT count(*) FROM t WHERE b = 'mine'").get == 2000


def test_vacuum_gives_space_back(store, db):
    db.execute(FILL.format(3000, 200))
    before = store.version("main")
    db.execute("DELETE FROM t WHERE a % 3")
    db.execute("VACUUM")
    after = store.version("main")
    assert after.id == before.id + 2  # one for each statement
    assert after.regions["main.db"].nbytes < before.regions["main.db"].nbytes / 2
    assert connect(store).pragma("integrity_check") == "ok"
    db.execute("VACUUM INTO ?", (uri(store, "copy.db"),))
    assert count(connect(store, "copy.db")) == 1000


def test_auto_vacuum_and_temporary_tables(store):
    db = connect(store, "a.db")
    db.pragma("auto_vacuum", "full")
    db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    db.execute(FILL.format(1000, 100))
    large = db.pragma("page_count")
    db.execute("DELETE FROM t WHERE a > 10")
    assert store.version("main").regions["a.db"].nbytes == db.pragma("page_count") * 4096
    assert db.pragma("page_count") < large / 10
    for kept in ("memory", "file"):
        db.pragma("temp_store", kept)
        db.execute("CREATE TEMP TABLE x AS SELECT * FROM t; DROP TABLE x")
    assert sorted(p.name for p in store.path.iterdir()) == sorted(
        {p.name for p in store.path.iterdir()} - {"a.db", "a.db-journal", "main.db"}
    )


def test_backup_both_ways(store, db, tmp_path):
    db.execute(FILL.format(1000, 100))
    file = apsw.Connection(str(tmp_path / "x.db"))
    with file.backup("main", db, "main") as backup:
        backup.step()
    file.execute("DELETE FROM t WHERE a > 7")
    with db.backup("main", file, "main") as backup:
        backup.step()
    assert count(db) == count(connect(store)) == 7
    assert db.pragma("integrity_check") == "ok"


# -------------------------------------------------------------------------------- connections


def test_readers_keep_what_they_began_with(store, db):
    db.execute("INSERT INTO t VALUES (1, 1)")
    reader = connect(store)
    reader.execute("BEGIN")
    assert count(reader) == 1
    for i in range(5):
        db.execute("INSERT INTO t(b) VALUES (?)", (i,))
    assert count(reader) == 1
    with pytest.raises(apsw.BusyError) as caught:
        reader.execute("INSERT INTO t(b) VALUES (0)")
    assert caught.value.extendedresult == apsw.SQLITE_BUSY_SNAPSHOT
    reader.execute("COMMIT")
    assert count(reader) == 6
    reader.execute("INSERT INTO t(b) VALUES (0)")
    assert count(db) == 7


def test_a_second_writer_waits(store, db):
    db.execute("BEGIN IMMEDIATE; INSERT INTO t VALUES (1, 1)")
    other = connect(store)
    with pytest.raises(apsw.BusyError) as caught:
        other.execute("BEGIN IMMEDIATE")
    assert caught.value.extendedresult == apsw.SQLITE_BUSY
    assert count(other) == 0  # reading does not wait
    other.set_busy_timeout(10_000)
    timer = threading.Timer(0.2, lambda: db.execute("COMMIT"))
    timer.start()
    other.execute("INSERT INTO t VALUES (2, 2)")
    timer.join()
    assert count(db) == 2


def test_writers_of_two_databases_do_not_wait(store, db):
    other = connect(store, "other.db")
    db.execute("BEGIN IMMEDIATE; INSERT INTO t VALUES (1, 1)")
    other.execute("CREATE TABLE u(x)")
    other.execute("INSERT INTO u VALUES (1)")
    db.execute("COMMIT")
    assert count(connect(store)) == count(connect(store, "other.db"), "u") == 1


def test_the_cache_does_not_outlive_the_version(store, db):
    """Two branches count their changes alike: SQLite's change counter cannot tell them apart."""
    db.execute("INSERT INTO t VALUES (1, 'old')")
    store.create_branch("b")
    connect(store, branch="b").execute("UPDATE t SET b = 'new'")
    db.execute("UPDATE t SET b = 'own'")
    assert db.execute("SELECT b FROM t").get == "own"
    store.create_branch("keep")
    assert db.pragma("pagestore_branch", "b") == "b"
    assert db.execute("SELECT b FROM t").get == "new"
    db.pragma("pagestore_branch", "main")
    assert db.execute("SELECT b FROM t").get == "own"


def test_a_foreign_write_is_seen_or_refused(store, db):
    db.execute("INSERT INTO t VALUES (1, 'seen')")
    assert db.execute("SELECT b FROM t").get == "seen"
    with store.begin() as ws:
        at = bytes(ws["main.db"]).index(b"seen")
        ws.write("main.db", at, b"SEEN")
    assert db.execute("SELECT b FROM t").get == "SEEN"
    db.execute("BEGIN IMMEDIATE; UPDATE t SET b = 'mine'")
    with store.begin() as ws:
        ws.write("main.db", at, b"them")
    with pytest.raises(apsw.IOError):
        db.execute("COMMIT")
    assert db.in_transaction is False
    assert db.execute("SELECT b FROM t").get == "them"
    db.execute("UPDATE t SET b = 'then'")
    assert db.execute("SELECT b FROM t").get == "then"


def test_a_foreign_write_to_another_page_is_refused_too(store, db):
    """It would be merged, and stay hidden behind SQLite's cache."""
    db.execute(FILL.format(500, 500))
    assert db.execute("SELECT sum(length(b)) FROM t").get == 500 * 1000
    db.execute("BEGIN IMMEDIATE; UPDATE t SET b = 'mine' WHERE a = 1")
    with store.begin() as ws:
        place = bytes(ws["main.db"]).index(db.execute("SELECT b FROM t WHERE a = 400").get.encode())
        ws.write("main.db", place, b"seen")
    with pytest.raises(apsw.IOError):
        db.execute("COMMIT")
    assert db.execute("SELECT count(*) FROM t WHERE b = 'mine'").get == 0
    assert db.execute("SELECT substr(b, 1, 4) FROM t WHERE a = 400").get == "seen"
    db.execute("UPDATE t SET b = 'mine' WHERE a = 1")
    assert db.pragma("integrity_check") == "ok"


def test_what_a_commit_takes_over_is_seen(store, db):
    """Another database that came with one's own commit, and counts its changes alike."""
    db.execute("ATTACH ? AS other", (uri(store, "other.db"),))
    db.execute("CREATE TABLE other.u(x); INSERT INTO other.u VALUES ('old')")
    assert db.execute("SELECT x FROM u").get == "old"
    db.execute("BEGIN; INSERT INTO main.t VALUES (1, 1)")
    with store.begin() as ws:  # as an import would
        raw = bytes(ws["other.db"])
        ws.write("other.db", raw.index(b"old"), b"new")
    db.execute("COMMIT")
    assert db.execute("SELECT x FROM u").get == "new"


@pytest.mark.parametrize("locking", ["normal", "exclusive"])
def test_no_space_is_sqlites_full_and_undoes_the_transaction(store, db, monkeypatch, locking):
    db.pragma("locking_mode", locking)
    db.execute("INSERT INTO t VALUES (1, 1)")

    def full(*_, **__):
        raise pagestore.FullError("none left")

    with monkeypatch.context() as patch:
        patch.setattr(pagestore.Workspace, "commit", full)
        db.execute("BEGIN; INSERT INTO t VALUES (2, 2)")
        with pytest.raises(apsw.FullError, match="none left"):
            db.execute("COMMIT")
        assert not db.in_transaction
        assert count(db) == 1
    with monkeypatch.context() as patch:
        patch.setattr(pagestore.Workspace, "write", full)
        with pytest.raises(apsw.FullError):
            db.execute("INSERT INTO t VALUES (2, 2)")
    assert count(db) == 1
    db.execute("INSERT INTO t VALUES (2, 2)")
    assert count(connect(store)) == 2
    assert db.pragma("integrity_check") == "ok"


COUNTER = """
import sys, apsw
from pagestore.sqlite import connect
db = connect(sys.argv[1], flags=apsw.SQLITE_OPEN_READWRITE)
db.set_busy_timeout(60_000)
for turn in range(int(sys.argv[2])):
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE counter SET n = n + 1")
    db.execute("INSERT INTO log SELECT n, ? FROM counter", (sys.argv[3],))
    db.execute("COMMIT" if turn % 5 else "ROLLBACK")
    assert db.execute("SELECT n = (SELECT count(*) FROM log) FROM counter").get
"""


def test_two_processes_count_together(store):
    db, turns = connect(store), 60
    db.execute("CREATE TABLE counter(n); INSERT INTO counter VALUES (0)")
    db.execute("CREATE TABLE log(n INTEGER PRIMARY KEY, who)")
    command = [sys.executable, "-c", COUNTER, str(store.path), str(turns)]
    processes = [subprocess.Popen([*command, who]) for who in "ab"]
    while any(p.poll() is None for p in processes):
        assert db.execute("SELECT n = (SELECT count(*) FROM log) FROM counter").get
    assert [p.returncode for p in processes] == [0, 0]
    assert db.execute("SELECT n FROM counter").get == 2 * (turns - turns // 5)
    assert db.pragma("integrity_check") == "ok"


# --------------------------------------------------------------------------------- attaching


def test_attached_databases_are_committed_together(store, db):
    db.execute("ATTACH ? AS other", (uri(store, "other.db"),))
    db.execute("CREATE TABLE other.u(x)")
    before = versions(store)
    db.execute("BEGIN; INSERT INTO t VALUES (1, 1); INSERT INTO u VALUES (1); COMMIT")
    assert versions(store) == before + 1
    db.pragma("cache_size", 5)
    db.execute("BEGIN; INSERT INTO u VALUES (2)")
    db.execute(FILL.format(1000, 100).replace("SELECT i,", "SELECT i + 1,"))
    db.execute("ROLLBACK")
    assert (count(db), count(db, "u")) == (1, 1)
    assert versions(store) == before + 1


def test_a_reader_of_an_attached_database_is_not_moved_by_a_commit(store, db):
    """Another connection may write to the second database between two reads of one statement."""
    other = connect(store, "other.db")
    other.execute("CREATE TABLE u(a INTEGER PRIMARY KEY, b)")
    other.execute(FILL.format(2000, 100).replace("INTO t", "INTO u"))
    db.execute("ATTACH ? AS other", (uri(store, "other.db"),))
    db.execute("CREATE TABLE main.w(x)")
    reading = db.execute("SELECT a, b FROM u")
    first = next(reading)[1]
    db.execute("INSERT INTO w VALUES (1)")  # its commit could take over what others did
    db.execute("BEGIN; INSERT INTO w VALUES (2)")
    with pytest.raises(apsw.BusyError):
        other.execute("UPDATE u SET b = 'changed'")
    db.execute("COMMIT")
    assert len(first) == 200
    assert all(len(b) == 200 for _, b in reading)
    other.execute("UPDATE u SET b = 'changed'")
    assert db.execute("SELECT count(*) FROM u WHERE b = 'changed'").get == 2000


@pytest.fixture
def pair(store, db):
    """A connection with two databases, and another on the second."""
    other = connect(store, "other.db")
    other.execute("CREATE TABLE u(a INTEGER PRIMARY KEY, b)")
    other.execute(FILL.format(2000, 100).replace("INTO t", "INTO u"))
    db.execute("ATTACH ? AS other", (uri(store, "other.db"),))
    yield db, other
    other.close()


def test_a_second_database_is_read_at_the_version_of_the_first(store, pair):
    db, other = pair
    reading = db.execute("SELECT a, b FROM other.u")
    next(reading)
    other.execute("UPDATE u SET b = 'changed'")
    assert count(db, "main.t") == 0  # a lock on the other database, while this one is being read
    assert all(len(b) == 200 for _, b in reading)
    assert db.execute("SELECT count(*) FROM u WHERE b = 'changed'").get == 2000


def test_a_database_that_is_read_within_a_transaction_on_another(store, pair):
    db, other = pair
    db.execute("BEGIN; INSERT INTO main.t VALUES (1, 1)")
    reading = db.execute("SELECT a, b FROM other.u")
    next(reading)
    with pytest.raises(apsw.BusyError):
        other.execute("UPDATE u SET b = 'changed'")
    db.execute("COMMIT")
    assert all(len(b) == 200 for _, b in reading)
    other.execute("UPDATE u SET b = 'changed'")


def test_a_backup_into_one_database_does_not_commit_another(store, pair):
    db = pair[0]
    db.pragma("cache_size", 5, schema="main")
    db.execute("BEGIN")
    db.execute(FILL.format(1000, 100))
    source = apsw.Connection(":memory:")
    source.execute("CREATE TABLE fresh(x)")
    before = versions(store)
    with pytest.raises(apsw.Error), db.backup("other", source, "main") as backup:
        backup.step()
    assert versions(store) == before
    db.execute("ROLLBACK")
    assert (count(db), count(db, "u")) == (0, 2000)
    assert db.pragma("integrity_check") == "ok"


def test_the_same_database_twice_is_two(store, db):
    db.execute("ATTACH ? AS again", (uri(store),))
    db.execute("INSERT INTO main.t VALUES (1, 1)")
    assert db.execute("SELECT count(*) FROM again.t").get == 1
    db.execute("INSERT INTO again.t VALUES (2, 2)")
    assert db.execute("SELECT count(*) FROM main.t").get == 2
    with pytest.raises(apsw.BusyError):
        db.execute("BEGIN; INSERT INTO main.t VALUES (3, 3); INSERT INTO again.t VALUES (4, 4)")
    db.execute("ROLLBACK")


@pytest.fixture(params=["file", "store"])
def mixed(request, store, db, tmp_path):
    """A connection with a database in the store, and two in files: SQLite uses a super-journal."""
    names = [f"file:{tmp_path}/{i}.db?vfs=unix" for i in range(2)]
    db.execute("CREATE TABLE stored(x)")
    mixed, schemas = db, ["a0", "a1"]
    if request.param == "file":
        mixed, schemas = (
            apsw.Connection(names.pop(), flags=apsw.SQLITE_OPEN_URI | 6),
            ["main", "a0"],
        )
        mixed.execute("ATTACH ? AS s", (uri(store),))
    for i, name in enumerate(names):
        mixed.execute(f"ATTACH ? AS a{i}", (name,))
    for i, schema in enumerate(schemas):
        mixed.execute(f"CREATE TABLE {schema}.x{i}(x)")
        assert mixed.pragma("journal_mode", schema=schema) == "delete"
    yield mixed
    mixed.close()


MIXED = "BEGIN; INSERT INTO stored VALUES (1); INSERT INTO x0 VALUES (1); INSERT INTO x1 VALUES (1)"


def test_with_databases_in_files(store, mixed, tmp_path):
    before = versions(store)
    mixed.execute(f"{MIXED}; COMMIT")
    assert versions(store) == before + 1
    assert [count(mixed, table) for table in ("stored", "x0", "x1")] == [1, 1, 1]
    assert {p.name for p in tmp_path.iterdir()} == {"0.db", "1.db", store.path.name}


def test_no_space_in_a_transaction_over_files_too(mixed, monkeypatch):
    """SQLite hears of no error once the super-journal is gone: it must hear of it before."""

    def full(*_, **__):
        raise pagestore.FullError("none left")

    mixed.execute(MIXED)
    with monkeypatch.context() as patch:
        patch.setattr(pagestore.Workspace, "commit", full)
        with pytest.raises(apsw.FullError):
            mixed.execute("COMMIT")
    assert [count(mixed, table) for table in ("stored", "x0", "x1")] == [0, 0, 0]


def test_a_super_journal_is_a_file(mixed, tmp_path, monkeypatch):
    """Journals of files name it; not found after a crash it would say that they committed."""
    seen = []

    def full(*_, **__):
        seen.extend(p.name for p in tmp_path.iterdir() if "-mj" in p.name)
        raise pagestore.FullError("none left")

    mixed.execute(MIXED)
    with monkeypatch.context() as patch:
        patch.setattr(pagestore.Workspace, "commit", full)
        with pytest.raises(apsw.FullError):
            mixed.execute("COMMIT")
    assert len(seen) == 1


# -------------------------------------------------------------------------- snapshots, branches


def test_snapshots_and_time_travel(store, db):
    db.execute("INSERT INTO t VALUES (1, 'one')")
    db.pragma("pagestore_snapshot", "first")
    db.execute("UPDATE t SET b = 'two'")
    then = connect(store, at="first")
    assert then.execute("SELECT b FROM t").get == "one"
    assert then.readonly("main")
    with pytest.raises(apsw.ReadOnlyError):
        then.execute("DELETE FROM t")
    db.pragma("pagestore_at", "first")
    assert db.execute("SELECT b FROM t").get == "one"
    with pytest.raises(apsw.ReadOnlyError):
        db.execute("DELETE FROM t")
    db.pragma("pagestore_at", "")
    db.execute("UPDATE t SET b = 'three'")
    assert then.execute("SELECT b FROM t").get == "one"
    region, start, stop = db.pragma("pagestore_diff", "first..main").split("\t")
    assert (region, int(start)) == ("main.db", 0)
    assert int(stop) == 2
    assert db.pragma("pagestore_snapshots").startswith("first\t")
    assert len(db.pragma("pagestore_log").splitlines()) == len(list(store.log()))


def test_branches_go_their_own_ways(store, db):
    db.execute("INSERT INTO t VALUES (1, 'one')")
    assert db.pragma("pagestore_branch") == "main"
    db.pragma("pagestore_branch", "what-if")
    db.execute("UPDATE t SET b = 'two'")
    main = connect(store)
    main.execute("INSERT INTO t VALUES (2, 'x')")
    assert [row.split("\t")[0] for row in db.pragma("pagestore_branches").splitlines()] == [
        "main",
        "what-if",
    ]
    assert main.execute("SELECT b FROM t").get == [("one"), ("x")]
    assert connect(store, branch="what-if").execute("SELECT b FROM t").get == "two"
    main.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE t SET b = 'three'")  # nobody's lock but one's own branch's
    main.execute("ROLLBACK")


def test_the_pragmas_as_functions(store, db):
    db.execute("INSERT INTO t VALUES (1, 'one')")
    assert snapshot(db, "it's") == versions(store)
    db.execute("UPDATE t SET b = 'two'")
    assert branch(db) == "main"
    assert at(db, "it's") == store.version("it's").id
    assert db.execute("SELECT b FROM t").get == "one"
    assert at(db, store.version("main")) == at(db, store.version("main").id) == versions(store)
    assert at(db, None) == versions(store)
    assert branch(db, "other") == "other"
    db.execute("ATTACH ? AS again", (uri(store, "again.db"),))
    assert branch(db, schema="again") == "main"
    with pytest.raises(apsw.SQLError, match="already"):
        snapshot(db, "it's", schema="again")


def test_pragmas_that_cannot_be(store, db):
    for pragma, error, words in (
        ("pagestore_at='nothing'", apsw.CantOpenError, "no snapshot or branch 'nothing'"),
        ("pagestore_snapshot='a\n'", apsw.SQLError, "name"),
        ("pagestore_snapshot='main'", apsw.SQLError, "already"),
        ("pagestore_diff", apsw.SQLError, "takes a version"),
        ("pagestore_nothing", apsw.SQLError, "there is no PRAGMA"),
    ):
        with pytest.raises(error, match=words):
            db.execute(f"PRAGMA {pragma}")
    db.execute("BEGIN IMMEDIATE")
    for pragma in ("pagestore_snapshot", "pagestore_at", "pagestore_branch"):
        with pytest.raises(apsw.BusyError, match="transaction"):
            db.pragma(pragma, "x")
    db.execute("ROLLBACK")
    with pytest.raises(apsw.ReadOnlyError):
        connect(store, at="main").pragma("pagestore_at", "")


# ----------------------------------------------------------------------------------- opening


def test_what_is_not_there(store, tmp_path):
    for options in ({"branch": "no"}, {"at": "no"}, {"at": "main"}):
        with pytest.raises(apsw.CantOpenError):
            connect(store, **options)
    with pytest.raises(apsw.CantOpenError):
        connect(store, "no.db", flags=apsw.SQLITE_OPEN_READWRITE)
    with pytest.raises(pagestore.NotFoundError):
        connect(tmp_path / "no.ps", flags=apsw.SQLITE_OPEN_READONLY)
    with store.begin() as ws:
        ws.create("array", (3, 3), "f8")
    with pytest.raises(apsw.CantOpenError, match="array"):
        connect(store, "array")
    with store.begin() as ws:
        ws.create("noise", 8192)[:] = np.arange(8192)
    with pytest.raises(apsw.NotADBError):
        connect(store, "noise").execute("SELECT * FROM sqlite_schema")


def test_read_only(store, db):
    db.execute("INSERT INTO t VALUES (1, 1)")
    with pagestore.open(store.path, "r") as reading:
        reader = connect(reading)
    assert count(reader) == 1
    db.execute("INSERT INTO t VALUES (2, 2)")
    assert count(reader) == 2
    with pytest.raises(apsw.ReadOnlyError):
        reader.execute("DELETE FROM t")
    reader.close()


def test_names_of_all_sorts(make_store):
    store = make_store("a store?&#%.ps")
    name = "äöü &?#%.db"
    store.create_branch("bränch&=?")
    connect(store, name, "bränch&=?").execute("CREATE TABLE t(x)")
    assert name in store.version("bränch&=?").regions
    assert name not in store.version("main").regions


def test_a_closed_connection_leaves_nothing(store, db):
    db.execute("BEGIN; INSERT INTO t VALUES (1, 1)")
    db.close()
    again = connect(store)
    assert count(again) == 0
    again.execute("INSERT INTO t VALUES (1, 1)")
    again.close()
    assert store._shared.handles == 1
    assert store._shared.pins.held == 0


def test_what_is_refused_has_sqlites_code(store, db, monkeypatch):
    db.execute("INSERT INTO t VALUES (1, 1)")
    db.pragma("pagestore_snapshot", "then")
    then = connect(store)
    then.pragma("pagestore_at", "then")
    for refusing, action, code in (
        (then, "DELETE FROM t", apsw.SQLITE_READONLY),
        (db, "PRAGMA pagestore_at='nothing'", apsw.SQLITE_CANTOPEN),
        (db, "PRAGMA pagestore_snapshot='then'", apsw.SQLITE_ERROR),
        (db, "ATTACH 'file:/nowhere/s.ps?vfs=pagestore' AS x", apsw.SQLITE_CANTOPEN),
    ):
        with pytest.raises(apsw.Error) as caught:
            refusing.execute(action)
        assert (caught.value.result, caught.value.extendedresult) == (code, code)
    for error, code in (
        (pagestore.FullError("none left"), apsw.SQLITE_FULL),
        (pagestore.BrokenError("the disk"), apsw.SQLITE_IOERR),
    ):

        def fail(*_, error=error, **__):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(pagestore.Workspace, "commit", fail)
            with pytest.raises(apsw.Error) as caught:
                db.execute("INSERT INTO t VALUES (2, 2)")
        assert (caught.value.result, caught.value.extendedresult) == (code, code)
    then.close()


def test_being_refused_keeps_nothing_alive(store, db):
    """An exception and a frame that keep each other would keep connections, and their locks."""

    def refuse():
        writer, other = connect(store), connect(store)
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(apsw.BusyError):
            other.execute("BEGIN IMMEDIATE")
        with pytest.raises(apsw.CantOpenError):
            other.pragma("pagestore_at", "nothing")

    gc.collect()
    gc.disable()
    try:
        refuse()
        db.execute("INSERT INTO t VALUES (1, 1)")
    finally:
        gc.enable()
