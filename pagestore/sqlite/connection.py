"""Connections to databases in a store."""

from __future__ import annotations

import os
from typing import Any, Literal
from urllib.parse import quote, urlencode

import apsw

import pagestore
from pagestore.sqlite.vfs import NAME, register

LARGEST_DEFAULT, LARGEST = 8192, 65536  # bytes: a page of SQLite's own accord, and at most


def uri(
    store: pagestore.Store | str | os.PathLike[str],
    name: str = "main.db",
    branch: str = "main",
    *,
    at: str | int | pagestore.Version | None = None,
) -> str:
    """Return what SQLite knows a database by: for ``ATTACH``, or for another program.

    Parameters
    ----------
    store : Store or path-like
    name : str
        The database's region.
    branch : str
    at : ref, optional
        A version; the database can then be read only.
    """
    path = store.path if isinstance(store, pagestore.Store) else os.path.abspath(store)
    options = {"vfs": NAME, "db": name, "branch": branch}
    if at is not None:
        options["at"] = str(at.id if isinstance(at, pagestore.Version) else at)
    return f"file:{quote(os.fspath(path))}?{urlencode(options, quote_via=quote)}"


def connect(
    store: pagestore.Store | str | os.PathLike[str],
    name: str = "main.db",
    branch: str = "main",
    *,
    at: str | int | pagestore.Version | None = None,
    flags: int = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE,
    **apsw_args: Any,
) -> apsw.Connection:
    """Open a database of a store, which is made at its first write, as an ordinary connection.

    Parameters
    ----------
    store : Store or path-like
        A store; a path is opened, and created if `flags` say so.
    name, branch, at
        As for `uri`.
    flags : int
        Of ``sqlite3_open_v2``. A store that was opened with mode ``"r"`` is read only.
    **apsw_args
        Passed on to `apsw.Connection`.

    Raises
    ------
    apsw.CantOpenError
        There is no such store, branch, version or database.
    """
    register()
    if not isinstance(store, pagestore.Store):
        with pagestore.open(store, _mode(flags)) as opened:
            return connect(opened, name, branch, at=at, flags=flags, **apsw_args)
    if at is not None or not store.writable:
        flags = flags & ~(apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
        flags |= apsw.SQLITE_OPEN_READONLY
    where = uri(store, name, branch, at=at)
    connection = apsw.Connection(where, flags | apsw.SQLITE_OPEN_URI, **apsw_args)
    if store.page_size > LARGEST_DEFAULT:
        connection.pragma("page_size", min(store.page_size, LARGEST))  # of a new database
    return connection


def _mode(flags: int) -> Literal["a", "r+", "r"]:
    if not flags & apsw.SQLITE_OPEN_READWRITE:
        return "r"
    return "a" if flags & apsw.SQLITE_OPEN_CREATE else "r+"
