"""The virtual file system that SQLite opens databases through.

Owns: the name ``pagestore`` in SQLite, and what a database's name means. Everything but databases
is left to the system's own file system; their journals are kept in memory, as nothing has to
outlive the process for a rollback. Not so a super-journal: the journals of files refer to it.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NamedTuple

import apsw

import pagestore
from pagestore.sqlite.file import DatabaseFile
from pagestore.sqlite.meaning import translated
from pagestore.sqlite.session import Session

NAME = "pagestore"
JOURNALS = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL
SUFFIXES = "-journal", "-wal"


class Place(NamedTuple):
    """Where a database is."""

    store: Path
    name: str
    branch: str
    at: str | None


class PagestoreVFS(apsw.VFS):
    """Databases are regions of stores: ``file:/path/to/store?vfs=pagestore&db=NAME&branch=NAME``.

    Parameters
    ----------
    name : str
        What SQLite knows it by.
    default : bool
        Whether databases are opened through it where no file system is asked for.
    """

    def __init__(self, name: str = NAME, *, default: bool = False) -> None:
        super().__init__(name, "", default, 0)

    def place(self, name: str | apsw.URIFilename | None) -> Place:
        """What a name and its parameters stand for."""
        if isinstance(name, apsw.URIFilename):
            parameter = name.uri_parameter
            path, at = Path(name.filename()), parameter("at")
            return Place(path, parameter("db") or "main.db", parameter("branch") or "main", at)
        return Place(Path(str(name)), "main.db", "main", None)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        if flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            return self._open(self.place(name), flags)  # type: ignore[return-value]
        if flags[0] & JOURNALS:
            return apsw.VFSFile("memdb", None, flags)
        return super().xOpen(name, flags)

    @translated
    def _open(self, place: Place, flags: list[int]) -> DatabaseFile:
        store = _store(place.store, flags[0])
        try:
            session = Session(store, place.branch, place.at)
        except BaseException:
            store.close()
            raise
        try:
            file = DatabaseFile(session, place.name)
            create = flags[0] & apsw.SQLITE_OPEN_CREATE and store.writable and place.at is None
            if not create and not file.exists:
                raise apsw.CantOpenError(f"{place.store} has no database {place.name!r}")
        except BaseException:
            session.close()
            raise
        # a file "in memory": its journal is kept in memory, and none is needed across files
        flags[1] = flags[0] | apsw.SQLITE_OPEN_MEMORY
        if not store.writable or place.at is not None:
            flags[1] &= ~(apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
            flags[1] |= apsw.SQLITE_OPEN_READONLY
        return file

    def xAccess(self, pathname: str, flags: int) -> bool:
        """No journal of a database is ever found: there is nothing to recover."""
        if pathname.endswith(SUFFIXES):
            return False
        return super().xAccess(pathname, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """Journals of databases are gone by themselves; a super-journal is a file (see `file`)."""
        if not filename.endswith(SUFFIXES):
            super().xDelete(filename, syncdir)


def _store(path: Path, flags: int) -> pagestore.Store:
    if flags & apsw.SQLITE_OPEN_READWRITE:
        try:
            return pagestore.open(path, "a" if flags & apsw.SQLITE_OPEN_CREATE else "r+")
        except pagestore.ReadOnlyError:
            pass  # SQLite falls back to reading, too
    return pagestore.open(path, "r")


_registered: list[PagestoreVFS] = []
_lock = threading.Lock()


def register() -> None:
    """Let SQLite know the file system, once."""
    with _lock:
        if not _registered:
            _registered.append(PagestoreVFS())
