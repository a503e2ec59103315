"""Databases between files and stores."""

from __future__ import annotations

import os

import apsw

import pagestore
from pagestore.sqlite.connection import connect

AT_ONCE = 10_000  # pages of a step: an interrupt is heard between two


def import_file(
    store: pagestore.Store,
    path: str | os.PathLike[str],
    name: str = "main.db",
    branch: str = "main",
) -> pagestore.Version:
    """Copy a database file into a store as one version; what the file's WAL holds comes too.

    A database of that name is replaced. Only pages that differ are stored.

    Raises
    ------
    apsw.Error
        There is no such file, it is not a database, or it is in use.
    """
    source = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READONLY)
    target = connect(store, name, branch)
    try:
        _copy(source, target)
        return store.version(branch)
    finally:
        target.close()
        source.close()


def export_file(
    store: pagestore.Store,
    path: str | os.PathLike[str],
    name: str = "main.db",
    *,
    at: str | int | pagestore.Version = "main",
) -> None:
    """Copy a database of any version into a file, over what database is there.

    Raises
    ------
    apsw.Error
        The version has no such database, or the file cannot be written.
    """
    source = connect(store, name, at=at)
    target = apsw.Connection(os.fspath(path))
    try:
        _copy(source, target)
    finally:
        target.close()
        source.close()


def _copy(source: apsw.Connection, target: apsw.Connection) -> None:
    with target.backup("main", source, "main") as backup:
        while not backup.done:
            backup.step(AT_ONCE)
