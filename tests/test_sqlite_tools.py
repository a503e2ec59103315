"""Files in and out, the command line, and a branch for each test."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import pagestore

apsw = pytest.importorskip("apsw")
pytest.importorskip("click")
from pagestore.sqlite import connect, export_file, import_file  # noqa: E402 (it needs apsw)
from tests.test_cli import fatal, rows, run  # noqa: E402

pytest_plugins = ["pagestore.sqlite.testing"]
ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "sqlite.md"


@pytest.fixture(params=["delete", "wal"])
def file(request, tmp_path):
    """A database file whose newest rows may be in its WAL."""
    path = tmp_path / "x.db"
    db = apsw.Connection(str(path))
    db.pragma("page_size", 1024)
    db.pragma("journal_mode", request.param)
    db.execute("CREATE TABLE t(a, b)")
    rows = ((i, f"{i % 97} of these " * 7) for i in range(1, 3001))
    with db:
        db.executemany("INSERT INTO t VALUES (?, ?)", rows)
    yield path
    db.close()


def content(db):
    return list(db.execute("SELECT * FROM t ORDER BY a"))


def test_in_and_out(make_store, file, tmp_path):
    store = make_store()
    before = store.version("main").id
    assert import_file(store, file).id == before + 1
    wanted = content(apsw.Connection(str(file)))
    db = connect(store)
    assert content(db) == wanted
    assert db.pragma("journal_mode") == "memory"
    store.snapshot("first")
    db.execute("DELETE FROM t WHERE a > 10")
    export_file(store, tmp_path / "old.db", at="first")
    export_file(store, tmp_path / "new.db")
    assert content(apsw.Connection(str(tmp_path / "old.db"))) == wanted
    assert content(apsw.Connection(str(tmp_path / "new.db"))) == wanted[:10]
    import_file(store, file)  # over what is there
    assert content(db) == wanted
    assert sum(c.stop - c.start for c in store.diff("first", "main")) <= 2
    db.close()


def test_files_that_are_none(make_store, tmp_path):
    store = make_store()
    (tmp_path / "noise").write_bytes(b"noise" * 1000)
    for name in ("noise", "missing"):
        with pytest.raises((apsw.NotADBError, apsw.CantOpenError)):
            import_file(store, tmp_path / name)
    assert dict(store.version("main").regions) == {}
    with pytest.raises(apsw.CantOpenError):
        export_file(store, tmp_path / "x.db")


def test_commands(tmp_path, file):
    store = tmp_path / "s.ps"
    [[name, _, size]] = rows(run("sqlite", "import", store, file, "--db", "shop.db"))
    assert name == "shop.db"
    assert int(size) > 3000 * 50
    run("sqlite", "branch", store, "what-if")
    sql = ["DELETE FROM t WHERE a > 5", "PRAGMA pagestore_snapshot='five'"]
    on_branch = ["--db", "shop.db", "--branch", "what-if"]
    run("sqlite", "shell", store, *sql, *on_branch)
    assert run("sqlite", "shell", store, "SELECT count(*) FROM t", *on_branch) == "5\n"
    assert run("sqlite", "shell", store, "SELECT count(*) FROM t", "--db", "shop.db") == "3000\n"
    at = ["--db", "shop.db", "--at", "five"]
    assert run("sqlite", "shell", store, "SELECT count(*) FROM t", *at) == "5\n"
    run("sqlite", "export", store, tmp_path / "five.db", *at)
    assert len(content(apsw.Connection(str(tmp_path / "five.db")))) == 5
    assert "read" in fatal("sqlite", "shell", store, "DELETE FROM t", *at)
    assert "there is no store" in fatal("sqlite", "shell", tmp_path / "no.ps")
    assert "did you mean 'five'" in fatal("sqlite", "export", store, tmp_path / "x", "--at", "fiv")
    assert "no file" in fatal("sqlite", "import", store, tmp_path / "nothing.db")
    with pagestore.open(store) as opened:
        assert list(opened.check(data=True)) == []


# ------------------------------------------------------------------------------------ for tests


@pytest.fixture(scope="session")
def prepare_database():
    return lambda db: db.execute("CREATE TABLE t(a, b); INSERT INTO t VALUES (1, 'prepared')")


@pytest.mark.parametrize("turn", range(3))
def test_each_test_has_its_own(database, prepared_database, turn):
    first, second = database.connect(), database.connect()
    assert content(first) == [(1, "prepared")]
    first.execute("INSERT INTO t VALUES (2, ?)", (turn,))
    assert len(content(second)) == 2
    assert len(prepared_database.store.branches) == 2
    assert apsw.Connection(database.uri, flags=apsw.SQLITE_OPEN_URI | 2).readonly("main") is False
    copy = database.sqlite3()
    assert isinstance(copy, sqlite3.Connection)
    assert len(content(copy)) == 2
    copy.execute("DELETE FROM t")
    assert len(content(first)) == 2


def test_as_a_plugin(tmp_path):
    """A project of its own, as the document shows it."""
    pytest.importorskip("sqlalchemy")
    files = dict(re.findall(r"```py\n# (\w+\.py)\n(.*?)```", DOCUMENT.read_text(), re.S))
    assert sorted(files) == ["conftest.py", "test_models.py", "test_users.py"]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    assert "3 passed" in done.stdout, done.stdout + done.stderr
