"""Databases in a store through Python's database API (PEP 249), for SQLAlchemy and its like.

Owns: what a connection and a cursor of that interface do, on top of apsw's. Exceptions are those of
the module `sqlite3`.

A transaction begins with the first statement, whether it reads or writes, and ends with `commit` or
`rollback`; with ``isolation_level = None`` each statement is one. What SQLite does not do within a
transaction begins none: ``PRAGMA``, ``ATTACH``, ``DETACH``, ``VACUUM``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from sqlite3 import (
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Warning,
)
from typing import Any

import apsw

import pagestore
from pagestore.sqlite import connection as connections

__all__ = [
    "Binary", "Connection", "Cursor", "DataError", "DatabaseError", "Error", "IntegrityError",
    "InterfaceError", "InternalError", "NotSupportedError", "OperationalError", "ProgrammingError",
    "Warning", "apilevel", "connect", "paramstyle", "sqlite_version", "sqlite_version_info",
    "threadsafety",
]  # fmt: skip

apilevel, paramstyle, threadsafety = "2.0", "qmark", 1
sqlite_version = apsw.sqlite_lib_version()
sqlite_version_info = tuple(int(part) for part in sqlite_version.split("."))
Binary = memoryview

Values = Sequence[Any] | Mapping[str, Any]
_FIRST_WORD = re.compile(r"(?:\s|;|--[^\n]*(?:\n|$)|/\*.*?\*/)*(\w*)", re.DOTALL)
_BY_THEMSELVES = {"", "ATTACH", "BEGIN", "COMMIT", "DETACH", "END", "PRAGMA", "ROLLBACK", "VACUUM"}
_COUNTED = {"INSERT", "UPDATE", "DELETE", "REPLACE", "WITH"}
_CLASSES: tuple[tuple[type[Exception], type[Error]], ...] = (
    (apsw.ConstraintError, IntegrityError),
    (apsw.MismatchError, IntegrityError),
    (apsw.TooBigError, DataError),
    (apsw.InternalError, InternalError),
    (apsw.CorruptError, DatabaseError),
    (apsw.NotADBError, DatabaseError),
    (apsw.MisuseError, ProgrammingError),
    (apsw.BindingsError, ProgrammingError),
    (apsw.ConnectionClosedError, ProgrammingError),
    (apsw.CursorClosedError, ProgrammingError),
    (apsw.Error, OperationalError),
    (TypeError, ProgrammingError),
)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (apsw.Error, TypeError) as e:
        error: Any = next(ours for theirs, ours in _CLASSES if isinstance(e, theirs))(str(e))
        error.sqlite_errorcode = getattr(e, "extendedresult", -1)
        try:
            raise error from e
        finally:
            del error  # or it and this frame would keep each other


def connect(
    store: pagestore.Store | str | os.PathLike[str],
    name: str = "main.db",
    branch: str = "main",
    *,
    at: str | int | pagestore.Version | None = None,
    timeout: float = 5.0,
) -> Connection:
    """Open a database of a store.

    Parameters
    ----------
    store, name, branch, at
        As for `pagestore.sqlite.connect`.
    timeout : float
        Seconds to wait for another writer.
    """
    with _translated():
        return Connection(connections.connect(store, name, branch, at=at), timeout)


class Connection:
    """A connection of PEP 249, around one of apsw.

    Attributes
    ----------
    apsw : apsw.Connection
        What it stands on.
    isolation_level : str or None
        None: each statement is a transaction.
    """

    def __init__(self, connection: apsw.Connection, timeout: float = 5.0) -> None:
        connection.set_busy_timeout(int(timeout * 1000))
        self.apsw = connection
        self.isolation_level: str | None = ""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self.apsw.in_transaction

    @property
    def begins(self) -> bool:
        """Whether the next statement begins a transaction."""
        return self.isolation_level is not None and not self.apsw.in_transaction

    def cursor(self) -> Cursor:
        """Return a new cursor."""
        return Cursor(self)

    def execute(self, sql: str, values: Values = ()) -> Cursor:
        """Run a statement with a cursor of its own."""
        return self.cursor().execute(sql, values)

    def commit(self) -> None:
        """End the transaction, if there is one, and keep what it did."""
        self._end("COMMIT")

    def rollback(self) -> None:
        """End the transaction, if there is one, and undo what it did."""
        self._end("ROLLBACK")

    def _end(self, how: str) -> None:
        with _translated():
            if self.apsw.in_transaction:
                self.apsw.execute(how)

    def create_function(
        self, name: str, narg: int, func: Callable[..., Any] | None, *, deterministic: bool = False
    ) -> None:
        """Let SQL call a function."""
        with _translated():
            self.apsw.create_scalar_function(name, func, narg, deterministic=deterministic)

    def close(self) -> None:
        """Close; what was not committed is undone."""
        self.apsw.close(force=True)


class Cursor:
    """A cursor of PEP 249; all rows of a result are read at once."""

    arraysize = 1

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.description: tuple[tuple[Any, ...], ...] | None = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self._rows: Iterator[tuple[Any, ...]] = iter(())
        self._writes = False

    def execute(self, sql: str, values: Values = ()) -> Cursor:
        """Run a statement."""
        return self._run(sql, [values])

    def executemany(self, sql: str, rows: Iterable[Values]) -> Cursor:
        """Run a statement once for each of some values; rows that it returns are not kept."""
        self._run(sql, rows)
        self._rows = iter(())
        return self

    def _run(self, sql: str, each: Iterable[Values]) -> Cursor:
        self.description, self.rowcount, self._rows = None, -1, iter(())
        connection, word = self.connection.apsw, _first_word(sql)
        with _translated():
            if self.connection.begins and word not in _BY_THEMSELVES:
                connection.execute("BEGIN")
            cursor = connection.cursor()
            cursor.exec_trace = self._note
            self._writes, changes = False, 0
            for values in each:
                self._rows = iter(list(cursor.execute(sql, values)))
                changes += connection.changes()
        if self._writes and word in _COUNTED:
            self.rowcount, self.lastrowid = changes, connection.last_insert_rowid()
        return self

    def _note(self, cursor: apsw.Cursor, sql: str, values: object) -> bool:
        """Note what a cursor that has come to its end does not tell."""
        names = cursor.get_description()
        self.description = tuple((name, *[None] * 6) for name, _ in names) or None
        self._writes = not cursor.is_readonly
        return True

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row, or None."""
        return next(self._rows, None)

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """Return the next rows, at most so many."""
        return list(itertools.islice(self._rows, self.arraysize if size is None else size))

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all rows that are left."""
        return list(self._rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._rows

    def setinputsizes(self, sizes: object) -> None:
        """Do nothing: no sizes are needed."""

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Do nothing: no sizes are needed."""

    def close(self) -> None:
        """Forget the rows that are left."""
        self._rows = iter(())


def _first_word(sql: str) -> str:
    match = _FIRST_WORD.match(sql)
    return match[1].upper() if match else ""
