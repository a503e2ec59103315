"""The catalog: one LMDB environment, opened, read, written and kept from harm.

Owns: opening the environment safely, beginning and committing transactions, room for them. Does
not know what stands in a record (`transaction`), nor the arena.

- C1  LMDB runs with sync and metasync on and writemap off; the commit of its write transaction is
      the instant a version exists.
- C2  No transaction outlives a call: an open read transaction would make the file grow for ever.
- C3  The file's size is compared with what its meta page promises before the first transaction:
      LMDB maps the file, and reading past its end kills the process.
- C4  Room for a commit is reserved before it: LMDB reports a full disk as an I/O error.
- C5  LMDB trusts its pages, and a flipped bit in one can kill the process: whoever opens a store
      that nobody has open reads the file first. One that is as it was left is believed; another,
      after a crash or a change, is examined page by page.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import lmdb
import xxhash

from pagestore import kernel
from pagestore.errors import (
    BrokenError,
    CorruptionError,
    FullError,
    PagestoreError,
    ReadOnlyError,
)
from pagestore.format import (
    META,
    CatalogSeal,
    Meta,
    seal,
)
from pagestore.later import Later
from pagestore.transaction import Transaction

if TYPE_CHECKING:
    from pagestore import soundness as _soundness
    from pagestore import structure as _structure
else:
    _soundness = Later("pagestore.soundness")
    _structure = Later("pagestore.structure")

MAP_SIZE = 1 << 40  # address space only; halved until the process is allowed it
MAX_READERS = 2048
READERS_LOOKED_AT = 64  # after so many transactions: whether they are still alive
LOCK_ROOM = (MAX_READERS + 64) * 64  # bytes: what LMDB's lock file needs at most
RESERVE = 1 << 20
LOOKS = 4  # at a meta record that does not fit, before it counts as damaged
HASHED_AT_ONCE = 1 << 18  # bytes: what was read is hashed while it is in the processor's cache


def seal_of(path: str) -> CatalogSeal:
    """Size and hash of a catalog file that nobody writes."""
    size, digest = 0, xxhash.xxh3_128()
    piece = memoryview(bytearray(HASHED_AT_ONCE))
    with open(path, "rb", buffering=0) as file:
        while got := file.readinto(piece):
            size += got
            digest.update(piece[:got])
    return CatalogSeal(size, digest.digest())


def trim(path: str) -> None:
    """Cut off what was written ahead of LMDB: zeros, in a file that nobody has open."""
    end = _structure.used(path)
    with open(path, "r+b", buffering=0) as file:
        tail = os.pread(file.fileno(), 2 * RESERVE, end)
        if not tail.strip(b"\0") and len(tail) < 2 * RESERVE:
            file.truncate(end)


_FULL = lmdb.MapFullError | lmdb.ReadersFullError | lmdb.TlsFullError | lmdb.TxnFullError


def _meaning(e: lmdb.Error, path: str) -> PagestoreError:
    """What an error of LMDB says to the caller."""
    failed = isinstance(e, lmdb.PanicError | lmdb.DiskError)
    if failed or os.strerror(errno.EIO) in str(e):
        return BrokenError(f"{path}: {e}; reopen the store")
    if isinstance(e, lmdb.MemoryError):
        return FullError(f"{path}: no memory: {e}")
    if isinstance(e, _FULL) or os.strerror(errno.ENOSPC) in str(e):
        return FullError(f"{path}: LMDB is full: {e}")
    if isinstance(e, lmdb.ReadonlyError):
        return ReadOnlyError(f"{path}: {e}")
    return CorruptionError(f"{path}: {e}")


def _missing(env: lmdb.Environment, path: str) -> int:
    """How many bytes the file is shorter than its meta page says.

    Not zero in a sound one too: LMDB does not write pages that one transaction took at the end of
    the file and gave back. A writer makes up for it at once, unless it is killed before.
    """
    for pause in (0.01, 0.1, 0.0):
        promised = (int(env.info()["last_pgno"]) + 1) * int(env.stat()["psize"])
        missing = promised - os.stat(path).st_size
        if missing <= 0:
            return 0
        time.sleep(pause)
    return missing


def examine(path: str, seal: CatalogSeal | None) -> bool:
    """Raise `CorruptionError` where LMDB could be led astray by its own file (C5).

    Whether the file is as it was left; if so, nothing else was asked.
    """
    if seal_of(path) == seal:
        return True
    fault = _soundness.unsound(path)
    if fault:
        raise CorruptionError(f"{path}: damaged: {fault}")
    return False


def _prepare_lock(path: str) -> None:
    """Have every page of LMDB's lock file on the disk: LMDB stores into a mapping of it.

    Where that finds a hole, and the disk full, the process gets SIGBUS. The length is LMDB's
    business: it tells the number of readers. Not while LMDB has the file open in this process:
    closing it would drop LMDB's own locks.
    """
    try:
        fd = os.open(f"{path}-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        return
    try:
        if not os.fstat(fd).st_size:
            kernel.overwrite_in_place(fd)
        kernel.allocate(fd, 0, LOCK_ROOM, keep_size=True)
    except OSError as e:
        # XFS refuses on a full disk even where there is nothing to do
        if e.errno in kernel.NO_SPACE and os.fstat(fd).st_blocks * 512 < LOCK_ROOM:
            raise FullError(f"{path}-lock: {e.strerror}") from e
    finally:
        os.close(fd)


class Catalog:
    """The LMDB environment of one store in this process."""

    @staticmethod
    def create(path: str, meta: Meta) -> None:
        """Make a catalog that holds nothing but its meta record."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        kernel.overwrite_in_place(fd)
        os.close(fd)
        _prepare_lock(path)
        try:
            with (
                lmdb.open(path, map_size=1 << 26, subdir=False) as env,
                env.begin(write=True) as t,
            ):
                t.put(META, seal(META, meta.pack()))
        except lmdb.Error as e:
            if os.strerror(errno.ENOSPC) in str(e):  # what there is of it goes: nothing is lost
                raise FullError(f"{path}: {e}") from e
            raise _meaning(e, path) from e

    def __init__(self, path: str, *, writable: bool) -> None:
        self.path = path
        self.writable = writable
        self.broken: str | None = None
        self._reserved = 0  # bytes of the file that have blocks
        self._end = 0  # of what LMDB uses, as the transaction under way began
        self._ended = -1  # the transaction of this process that left it so
        self._under_way: set[object] = set()  # transactions, for `forget`
        self._lock = threading.RLock()
        self._fd = -1
        self._env = self._open()
        if writable:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            self._lengthen()

    def _open(self) -> lmdb.Environment:
        size = MAP_SIZE
        _prepare_lock(self.path)
        while True:
            try:
                env = lmdb.open(
                    self.path, map_size=size, subdir=False, readonly=not self.writable,
                    metasync=True, sync=True, writemap=False, map_async=False, create=False,
                    lock=True, max_readers=MAX_READERS, max_dbs=0, readahead=False,
                )  # fmt: skip
                break
            except (lmdb.MemoryError, MemoryError) as e:
                size //= 2
                if size < 1 << 26:
                    raise self._too_large() from e
            except lmdb.Error as e:
                lock = f"{self.path}-lock"
                if os.path.exists(lock) and not os.access(lock, os.W_OK):
                    raise ReadOnlyError(
                        f"{lock} may not be written, which readers must too: allow it, or mount "
                        "the file system read-only"
                    ) from e
                raise self._translated(e) from e
        self._check_size(env)
        self._page = int(env.stat()["psize"])
        return env

    def _too_large(self) -> PagestoreError:
        """LMDB maps at least what its meta page says is in use: was that too much, or anything?"""
        with contextlib.suppress(OSError):
            kernel.reserve(max(1 << 28, 2 * self.size)).close()
            return CorruptionError(f"{self.path} claims more pages than there can be")
        return FullError(f"{self.path}: no address space for the catalog")

    def _check_size(self, env: lmdb.Environment) -> None:
        missing = _missing(env, self.path)
        if missing and _soundness.unsound(self.path):
            env.close()
            raise CorruptionError(f"{self.path} is {missing} bytes too short: the file was cut")
        flags = env.flags()
        if not (flags["sync"] and flags["metasync"] and not flags["writemap"]):
            env.close()
            raise BrokenError(f"{self.path}: LMDB did not take the durable mode (C1)")

    def forget(self) -> None:
        """In a forked child: let go of the environment, so that the child can open its own.

        Not amid a transaction of the parent, which closing would end in the memory they share.
        """
        if not self._under_way:
            self._env.close()

    def close(self) -> None:
        self._env.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def size(self) -> int:
        return os.stat(self.path).st_size

    @property
    def used(self) -> int:
        """Bytes of the pages that hold records."""
        try:
            stat = self._env.stat()
        except lmdb.Error as e:
            raise self._translated(e) from e
        pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return int(pages * stat["psize"])

    @property
    def last(self) -> int:
        """LMDB's number of the newest transaction; none of its records are read."""
        try:
            txn = self._env.begin()  # leaving a `with` block costs as much as all of this
            number = int(txn.id())
            txn.abort()
            return number
        except lmdb.Error as e:
            raise self._translated(e) from e

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A consistent look at every record; short-lived (C2)."""
        mark = object()
        self._under_way.add(mark)
        try:
            for left in reversed(range(LOOKS)):
                with self._env.begin(buffers=False) as txn:
                    try:
                        records = Transaction(txn)
                    except CorruptionError:
                        # held up while two commits ended, a reader gets the number of the older
                        # transaction from LMDB, and the records of the newer
                        if not left:
                            raise
                        continue
                    yield records
                    return
        except lmdb.Error as e:
            raise self._translated(e) from e
        finally:
            self._under_way.discard(mark)

    @contextmanager
    def write(self, spare: Callable[[], bool] | None = None) -> Iterator[Transaction]:
        """A write transaction: commits on leaving the block, aborts on an exception.

        Waits for the writer of another thread or process. With `spare`, a full disk calls it once
        to make room (deleting needs space before it gives any back).
        """
        if not self.writable:
            raise ReadOnlyError(f"{self.path}: the store was opened read-only")
        with self._lock:
            if self.broken:
                raise BrokenError(f"{self.path}: {self.broken}; reopen the store")
            mark = object()
            self._under_way.add(mark)
            try:
                yield from self._write(spare)
            finally:
                self._under_way.discard(mark)

    def _write(self, spare: Callable[[], bool] | None) -> Iterator[Transaction]:
        try:
            txn = self._env.begin(write=True, buffers=False)
        except lmdb.Error as e:
            raise self._translated(e) from e
        try:
            transaction = Transaction(txn, writing=True)
            number = transaction.id
            if number % READERS_LOOKED_AT == 0:
                self._env.reader_check()  # one that was killed in a look holds back freed pages
            self._fill_ahead(number)
            yield transaction
            transaction.finish()
            self._reserve(transaction.written, spare)
        except BaseException as e:
            txn.abort()
            if isinstance(e, lmdb.Error):
                raise self._translated(e) from e
            raise
        try:
            txn.commit()
        except (lmdb.Error, MemoryError) as e:
            # the head may be the old or the new one: only a fresh look can tell
            txn.abort()
            self.broken = f"the commit's outcome is unknown ({e})"
            raise BrokenError(f"{self.path}: {self.broken}; reopen the store") from e
        with contextlib.suppress(MemoryError):  # the commit stands, whatever there is no room for
            self._lengthen()
            self._ended = number

    def _lengthen(self) -> None:
        """Let the file hold every page that its meta page counts (see `_missing`)."""
        promised = self._end = (int(self._env.info()["last_pgno"]) + 1) * self._page
        size = os.fstat(self._fd).st_size
        if size < promised:
            with contextlib.suppress(OSError):
                kernel.allocate(self._fd, size, promised - size)

    def _fill_ahead(self, transaction: int) -> None:
        """Write zeros behind LMDB's last page: what it appends then needs no journal.

        Only as a transaction begins: a large one writes pages there before it commits.
        """
        if self._ended != transaction - 1:
            self._end = (int(self._env.info()["last_pgno"]) + 1) * self._page
        start, stop = max(self._end, self._reserved), self._end + RESERVE
        if start + RESERVE // 2 < stop:
            with contextlib.suppress(OSError, MemoryError):
                written = max(start, os.fstat(self._fd).st_size)
                kernel.allocate(self._fd, start, stop - start)
                os.pwrite(self._fd, bytes(max(0, stop - written)), written)
                self._reserved = stop

    def _reserve(self, written: int, spare: Callable[[], bool] | None) -> None:
        """Have blocks for what the transaction may append, or fail before it begins (C4)."""
        end = self._end
        need = end + 3 * written + (64 << 10)
        if need <= self._reserved:
            return
        # the ballast may be all the room there is: then no more than what is needed
        for stop, make_room in ((need + RESERVE, None), (need, None), (need, spare)):
            if make_room is not None and not make_room():
                break
            try:
                kernel.allocate(self._fd, end, stop - end, keep_size=True)
            except OSError as e:
                if e.errno not in kernel.NO_SPACE:
                    self.broken = f"reserving space failed ({e})"
                    raise BrokenError(f"{self.path}: {self.broken}; reopen the store") from e
                refused = e
            else:
                self._reserved = stop
                return
        raise FullError(f"{self.path}: no space left for the catalog") from refused

    def _translated(self, e: lmdb.Error) -> PagestoreError:
        meaning = _meaning(e, self.path)
        if isinstance(meaning, BrokenError):
            self.broken = self.broken or f"LMDB failed ({e})"
        return meaning
