"""Is a database in a store what users of PEP 249, SQLAlchemy among them, expect?"""

from __future__ import annotations

import gc
import sqlite3
import weakref
from typing import Any

import pytest

import pagestore

pytest.importorskip("apsw")
from pagestore.sqlite import dbapi


@pytest.fixture
def db(store):
    connection = dbapi.connect(store)
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)")
    connection.commit()
    yield connection
    connection.close()


def test_the_module():
    assert (dbapi.apilevel, dbapi.paramstyle) == ("2.0", "qmark")
    assert dbapi.IntegrityError is sqlite3.IntegrityError
    assert dbapi.sqlite_version_info > (3, 40)


def test_transactions(store, db):
    before = store.version("main").id
    cursor = db.execute("INSERT INTO t(b) VALUES (?), (?)", ("x", "y"))
    assert (cursor.rowcount, cursor.lastrowid, cursor.description) == (2, 2, None)
    assert db.in_transaction
    db.rollback()
    db.rollback()
    assert db.execute("SELECT * FROM t").fetchall() == []
    assert db.in_transaction  # what is read now stays
    db.commit()
    cursor = db.cursor()
    cursor.executemany("INSERT INTO t VALUES (:a, :b)", ({"a": i, "b": str(i)} for i in range(9)))
    assert (cursor.rowcount, cursor.lastrowid) == (9, 8)
    db.commit()
    db.commit()
    assert store.version("main").id == before + 1
    db.execute("SAVEPOINT s")
    db.execute("DELETE FROM t")
    db.execute("ROLLBACK TO s")
    db.commit()
    assert db.execute("SELECT count(*) FROM t").fetchone() == (9,)
    db.rollback()
    db.isolation_level = None
    assert db.execute("-- note\n UPDATE t SET b = b || 'z' WHERE a < 5").rowcount == 5
    assert not db.in_transaction
    assert store.version("main").id == before + 3  # SQLite counts what was undone, too


def test_what_begins_no_transaction(store, db):
    db.execute(" /* by itself */ PRAGMA pagestore_snapshot='one'")
    db.execute("VACUUM")
    db.execute("; ATTACH ':memory:' AS other")
    db.execute("")
    assert not db.in_transaction
    assert list(store.snapshots) == ["one"]
    with pytest.raises(dbapi.OperationalError):
        dbapi.connect(store, at="one").execute("DELETE FROM t")


def test_rows(db):
    cursor = db.cursor()
    assert (cursor.description, cursor.fetchone(), cursor.rowcount) == (None, None, -1)
    cursor.execute("WITH n(i) AS (VALUES (1), (2), (3), (4), (5)) SELECT i, i AS j FROM n")
    assert [column[0] for column in cursor.description] == ["i", "j"]
    assert all(len(column) == 7 for column in cursor.description)
    assert cursor.rowcount == -1
    assert (cursor.fetchone(), cursor.fetchmany()) == ((1, 1), [(2, 2)])
    assert cursor.fetchmany(2) == [(3, 3), (4, 4)]
    assert list(cursor) == [(5, 5)]
    assert cursor.fetchone() is None
    assert cursor.execute("SELECT 1 AS one WHERE 0").description[0][0] == "one"
    returned = cursor.execute("INSERT INTO t(b) VALUES ('r'), ('s') RETURNING a")
    assert (returned.rowcount, returned.fetchall()) == (2, [(1,), (2,)])
    assert cursor.execute("DELETE FROM t WHERE 0").rowcount == 0
    db.create_function("twice", 1, lambda x: 2 * x, deterministic=True)
    assert db.execute("SELECT twice(4)").fetchall() == [(8,)]


def test_errors_are_those_of_sqlite3(store, db):
    db.execute("INSERT INTO t VALUES (1, 1)")
    for sql, values, error in (
        ("INSERT INTO t VALUES (1, 2)", (), sqlite3.IntegrityError),
        ("INSERT INTO t VALUES ('x', 2)", (), sqlite3.IntegrityError),
        ("SELEC 1", (), sqlite3.OperationalError),
        ("SELECT * FROM nothing", (), sqlite3.OperationalError),
        ("SELECT ?", (), sqlite3.ProgrammingError),
        ("SELECT ?", (object(),), sqlite3.ProgrammingError),
    ):
        with pytest.raises(error):
            db.execute(sql, values)
    with pytest.raises(sqlite3.IntegrityError) as caught:
        db.execute("INSERT INTO t VALUES (2, 1)")
    assert caught.value.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_UNIQUE
    other = dbapi.connect(store, timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("DELETE FROM t")
    db.close()
    with pytest.raises(sqlite3.ProgrammingError):
        db.execute("SELECT 1")
    other.close()


def test_an_error_keeps_nothing_alive(store, db):
    def refuse():
        other = dbapi.connect(store)
        with pytest.raises(sqlite3.OperationalError):
            other.execute("SELEC 1")
        return weakref.ref(other)

    gc.collect()
    gc.disable()
    try:
        assert refuse()() is None
    finally:
        gc.enable()


def test_sqlalchemy(store):
    sa = pytest.importorskip("sqlalchemy")
    orm = pytest.importorskip("sqlalchemy.orm")
    base: Any = orm.declarative_base()

    class User(base):  # type: ignore[misc]
        __tablename__ = "users"
        id = sa.Column(sa.Integer, primary_key=True)
        name = sa.Column(sa.String, unique=True)
        born = sa.Column(sa.DateTime)
        photo = sa.Column(sa.LargeBinary)

    engine = sa.create_engine(
        "sqlite://", module=dbapi, creator=lambda: dbapi.connect(store), poolclass=sa.QueuePool
    )
    base.metadata.create_all(engine)
    before = store.version("main").id
    with orm.Session(engine) as session:
        session.add_all([User(name=f"u{i}", photo=b"x" * i) for i in range(50)])
        session.commit()
        assert store.version("main").id == before + 1
        user = session.scalars(sa.select(User).where(User.name == "u7")).one()
        assert user.photo == b"x" * 7
        with pytest.raises(sa.exc.IntegrityError), session.begin_nested():
            user.name = "u8"
        with session.begin_nested():
            user.name = "other"
        session.commit()
        assert session.execute(sa.update(User).values(name=User.name + "!")).rowcount == 50
        session.rollback()
        assert user.name == "other"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM")
        connection.exec_driver_sql("PRAGMA pagestore_snapshot='then'")
    assert [column["name"] for column in sa.inspect(engine).get_columns("users")][1] == "name"
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT 'abc' REGEXP 'b'"))
    engine.dispose()
    assert list(store.snapshots) == ["then"]
    assert list(pagestore.sqlite.changed_rows(store, "then", "main", "users")) == []
