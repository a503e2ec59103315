"""SQLite databases in a store: ordinary connections, with snapshots, branches and time travel."""

from pagestore.sqlite.connection import connect, uri
from pagestore.sqlite.vfs import PagestoreVFS, register

__all__ = ["PagestoreVFS", "connect", "register", "uri"]
