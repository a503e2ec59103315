"""A database as SQLite's file: a region of plain bytes of a session's view.

Owns: the bytes that SQLite reads and writes, and the file's length. When its changes become
durable, and what it shows, is the business of the session.

- F1  A region is exactly as long as the file was at each commit; between commits it may have room.
- F2  SQLite's cache never outlives the version it was read from: where the view has moved, SQLite
      finds another change counter.

SQLite ends a transaction in two phases: it writes its pages and syncs each file; then, file by
file, it cuts the file if that became shorter, and says ``SQLITE_FCNTL_COMMIT_PHASETWO``. That is
the moment of the commit: all that belongs to the transaction is there, and an error still undoes
it. With a super-journal, where files elsewhere take part, SQLite does not listen to errors by
then: the commit is at the sync.
"""

from __future__ import annotations

import ctypes

import apsw
import numpy as np

import pagestore
from pagestore.sqlite import pragmas
from pagestore.sqlite.meaning import translated
from pagestore.sqlite.session import NONE, RESERVED, Session

GROWTH = 256 << 10  # bytes a region grows by at least: SQLite grows a file page by page
COUNTERS = 24, 16  # where in the header a change of the file shows, and how many bytes
OTHER_COUNTERS = b"\xff" * 16


class DatabaseFile:
    """A main database file; its methods are those of ``sqlite3_io_methods``."""

    def __init__(self, session: Session, name: str) -> None:
        self.session = session
        self.name = name
        self.level = NONE
        self.written = False  # since the last commit
        self.synced = False  # since the last write
        self._moved = False
        self._raw = memoryview(b"")
        self._room = self._size = 0
        session.members.append(self)
        self.bind()

    def bind(self, *, moved: bool = False) -> None:
        """Show what the session's view has now."""
        self.release()
        self._moved |= moved
        self.written = self.synced = False
        try:
            array = self.session.view.peek(self.name)
        except pagestore.NotFoundError:
            array = np.empty(0, np.uint8)
        if array.dtype != np.uint8 or array.ndim != 1:
            raise apsw.CantOpenError(f"region {self.name!r} is an array, not a database")
        self._raw = array.data
        self._room = self._size = len(array)

    def release(self) -> None:
        """Let go of the region's memory: it can only be laid out anew where nobody looks at it."""
        self._raw = memoryview(b"")

    @property
    def exists(self) -> bool:
        """Whether the view has such a region."""
        return self.name in self.session.view

    # ------------------------------------------------------------------------------- reading

    def xRead(self, amount: int, offset: int) -> bytes | memoryview:
        if self._moved and (offset, amount) == COUNTERS:
            self._moved = False
            return OTHER_COUNTERS
        return self._raw[offset : offset + amount]

    def xFileSize(self) -> int:
        return self._size

    # ------------------------------------------------------------------------------- writing

    @translated
    def xWrite(self, data: bytes, offset: int) -> None:
        end = offset + len(data)
        if end > self._size:
            if end > self._room:
                self._resize(max(end, self._room + GROWTH))
            self._size = end
        self._workspace.write(self.name, offset, data)
        self.written, self.synced = True, False

    @translated
    def xTruncate(self, size: int) -> None:
        self._resize(size)
        self._size = size
        self.written, self.synced = True, False

    def trim(self) -> None:
        """Let the region be as long as the file (F1)."""
        if self._room != self._size:
            self._resize(self._size)

    def _resize(self, size: int) -> None:
        workspace = self._workspace
        self.release()
        if not self.exists:
            workspace.create(self.name, 0)
        workspace.truncate(self.name, size)
        self._room = size
        self._raw = workspace.peek(self.name).data

    @property
    def _workspace(self) -> pagestore.Workspace:
        view = self.session.view
        if not isinstance(view, pagestore.Workspace) or self.level < RESERVED:
            raise apsw.ReadOnlyError(f"{self.name} is not locked for writing")
        return view

    # --------------------------------------------------------------------- locks and commits

    @translated
    def xLock(self, level: int) -> None:
        if level > self.level:
            self.session.lock(self, level)

    @translated
    def xUnlock(self, level: int) -> None:
        if level < self.level:
            self.session.unlock(self, level)

    @translated
    def xCheckReservedLock(self) -> bool:
        return self.session.reserved(self)

    def xSync(self, flags: int) -> None:
        """Nothing to do: the commit syncs."""

    def xFileControl(self, op: int, pointer: int) -> bool:
        if op == apsw.SQLITE_FCNTL_PRAGMA:
            return pragmas.answer(self.session, apsw.VFSFcntlPragma(pointer))
        if op == apsw.SQLITE_FCNTL_SYNC:
            self.synced = True
            if pointer:  # the name of a super-journal
                self._commit()
        elif op == apsw.SQLITE_FCNTL_COMMIT_PHASETWO:
            self._commit()
        elif op == apsw.SQLITE_FCNTL_PDB:
            self._join(ctypes.c_void_p.from_address(pointer).value or 0)
        else:
            return False
        return True

    def _commit(self) -> None:
        try:
            self.session.commit(self)
        except (pagestore.FullError, apsw.FullError) as e:
            raise apsw.FullError(str(e)) from e
        except Exception as e:  # only after these two does SQLite forget what it has in its cache
            raise apsw.IOError(str(e)) from e

    @translated
    def _join(self, connection: int) -> None:
        session = self.session.join(self, connection)
        if session is not self.session:
            self.session = session
            self.bind()

    # -------------------------------------------------------------------------------- the rest

    def xSectorSize(self) -> int:
        return self.session.store.page_size

    def xDeviceCharacteristics(self) -> int:
        """A snapshot cannot change: SQLite needs no locks and keeps its cache."""
        if self.session.frozen:
            return apsw.SQLITE_IOCAP_IMMUTABLE
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE

    @translated
    def xClose(self) -> None:
        self.release()
        self.session.leave(self)
