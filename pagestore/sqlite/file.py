"""A database as SQLite's file: a region of plain bytes of a session's view.

Owns: the bytes that SQLite reads and writes, and the file's length. When its changes become
durable, and what it shows, is the business of the session.

- F1  A region is exactly as long as the file at each commit.
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
import sys
from collections.abc import Iterator

import apsw
import numpy as np

import pagestore
from pagestore.sqlite import pragmas
from pagestore.sqlite.meaning import raise_translated, refused, translated
from pagestore.sqlite.session import NONE, RESERVED, Session

PENDING = 4 << 20  # bytes that are kept here, before they go to the workspace
COUNTERS = 24, 16  # where in the header a change of the file shows, and how many bytes
OTHER_COUNTERS = b"\xff" * 16
FEW_READS = 32  # before memory is laid out for the file


class DatabaseFile:
    """A main database file; its methods are those of ``sqlite3_io_methods``."""

    def __init__(self, session: Session, name: str) -> None:
        self.session = session
        self.name = name
        self.level = NONE
        self.written = False  # since the last commit
        self.synced = False  # since the last write
        self._moved = False
        self._raw: memoryview | None = None  # what the view has of the file, once it is laid out
        self._reads_left = FEW_READS  # before it is
        self._pending: dict[int, bytes] = {}  # what is not in the view yet, by offset
        self._pending_bytes = 0
        self._pending_page = 0  # the size of each
        self._room = self._kept = self._size = 0  # of the region, what counts of it, of the file
        session.members.append(self)
        self.bind()

    def bind(self, *, moved: bool = False) -> None:
        """Show what the session's view has now, and nothing else."""
        self.release()
        self._moved |= moved
        self.written = self.synced = False
        self._pending, self._pending_bytes = {}, 0
        region = self.session.view.regions.get(self.name)
        self.exists = region is not None  # the view has such a region
        if region is not None and (region.dtype != np.uint8 or len(region.shape) != 1):
            raise apsw.CantOpenError(f"region {self.name!r} is an array, not a database")
        self._room = self._kept = self._size = 0 if region is None else region.nbytes

    def release(self) -> None:
        """Let go of the region's memory: it can only be laid out anew where nobody looks at it."""
        self._raw = None

    # ------------------------------------------------------------------------------- reading

    def xRead(self, amount: int, offset: int) -> bytes | memoryview:
        if self._pending:
            return self._read_pending(amount, offset)
        if self._moved and (offset, amount) == COUNTERS:
            self._moved = False
            return OTHER_COUNTERS
        raw = self._raw
        return self._look(amount, offset) if raw is None else raw[offset : offset + amount]

    @translated
    def _look(self, amount: int, offset: int) -> bytes | memoryview:
        """Read where memory is not laid out: who opens a branch may want a few pages only."""
        amount = min(amount, self._kept - offset)
        if amount <= 0:
            return b""
        if self._reads_left:
            self._reads_left -= 1
            return self.session.view.read(self.name, offset, amount)
        self._raw = self.session.view.peek(self.name).data[: self._kept]
        return self._raw[offset : offset + amount]

    @translated
    def _read_pending(self, amount: int, offset: int) -> bytes | memoryview:
        data = self._pending.get(offset)
        if data is not None and len(data) == amount:
            return data
        page = self._pending_page
        if data is not None or amount != page or offset % page:
            self.flush()  # other pieces than were written: not while a transaction goes on, mostly
        raw = self._raw
        return self._look(amount, offset) if raw is None else raw[offset : offset + amount]

    def xFileSize(self) -> int:
        return self._size

    # ------------------------------------------------------------------------------- writing

    @translated
    def xWrite(self, data: bytes, offset: int) -> None:
        if self.level < RESERVED:
            raise apsw.ReadOnlyError(f"{self.name} is not locked for writing")
        if self._pending and len(data) != self._pending_page:
            self.flush()
        self._pending_page = len(data)
        self._pending[offset] = bytes(data) if offset else _without_wal(bytes(data))
        self._size = max(self._size, offset + len(data))
        self.written, self.synced = True, False
        self._pending_bytes += len(data)
        if self._pending_bytes > PENDING or offset % len(data):
            self.flush()

    @translated
    def xTruncate(self, size: int) -> None:
        self.flush()
        self._size = self._kept = size
        self.release()
        self.written, self.synced = True, False

    def flush(self) -> None:
        """Bring the workspace's region to the file's length (F1) and contents."""
        workspace = self._workspace
        if not self.exists:
            workspace.create(self.name, 0)
            self.exists = True
        for size in (self._kept, self._size):  # what was cut off between reads as zeros
            if size != self._room:
                self.release()
                workspace.truncate(self.name, size)
                self._room = size
        for offset, data in _runs(self._pending):
            workspace.write(self.name, offset, data)
        self._pending, self._pending_bytes = {}, 0
        self._kept = self._size

    def committed(self) -> None:
        """Begin anew after a commit of what was written: all else is as it was."""
        self.written = self.synced = False

    @property
    def _workspace(self) -> pagestore.Workspace:
        view = self.session.view
        assert isinstance(view, pagestore.Workspace)
        return view

    # --------------------------------------------------------------------- locks and commits

    def xLock(self, level: int) -> None:
        if level > self.level:
            try:  # by itself: each read transaction comes by
                self.session.lock(self, level)
            except Exception as e:
                raise_translated(e)

    def xUnlock(self, level: int) -> None:
        if level < self.level < RESERVED:  # nothing was written
            self.level = level
        elif level < self.level:
            self._unlock(level)

    @translated
    def _unlock(self, level: int) -> None:
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
        except Exception as e:  # only after these two does SQLite forget what it has in its cache
            full = isinstance(e, pagestore.FullError | apsw.FullError)
            raise refused(apsw.SQLITE_FULL if full else apsw.SQLITE_IOERR, str(e)) from e

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
        if not sys.is_finalizing():  # when the interpreter ends the kernel lets go of everything
            self.session.leave(self)


def _without_wal(page: bytes) -> bytes:
    """A first page that a copy brings, as that of a database which uses no WAL."""
    return page[:18] + b"\1\1" + page[20:] if page[18:20] == b"\2\2" else page


def _runs(pieces: dict[int, bytes]) -> Iterator[tuple[int, bytes]]:
    """Pieces, by offset, joined where they continue each other."""
    start, end = 0, -1
    run: list[bytes] = []
    for offset, data in sorted(pieces.items()):
        if offset != end:
            if run:
                yield start, b"".join(run)
            start, run = offset, []
        run.append(data)
        end = offset + len(data)
    if run:
        yield start, b"".join(run)
