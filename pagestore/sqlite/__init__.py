"""SQLite databases in a store: ordinary connections, with snapshots, branches and time travel."""

from pagestore.sqlite.changes import RowChange, TableChange, changed_rows, changed_tables
from pagestore.sqlite.connection import connect, uri
from pagestore.sqlite.files import export_file, import_file
from pagestore.sqlite.versions import at, branch, snapshot
from pagestore.sqlite.vfs import PagestoreVFS, register

__all__ = [
    "PagestoreVFS",
    "RowChange",
    "TableChange",
    "at",
    "branch",
    "changed_rows",
    "changed_tables",
    "connect",
    "export_file",
    "import_file",
    "register",
    "snapshot",
    "uri",
]
