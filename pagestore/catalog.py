"""The catalog: versions, names and every other record, in one LMDB environment.

Owns: opening the environment safely, transactions over sealed records, versions and their
kinship, snapshot and branch names. Does not know the arena, nor what a page table means.

- C1  LMDB runs with sync and metasync on and writemap off; the commit of its write transaction is
      the instant a version exists.
- C2  No transaction outlives a call: an open read transaction would make the file grow for ever.
- C3  The file's size is compared with what its meta page promises before the first transaction:
      LMDB maps the file, and reading past its end kills the process.
- C4  Room for a commit is reserved before it: LMDB reports a full disk as an I/O error.
- C5  LMDB trusts its pages, and a flipped bit in one can kill the process: whoever opens a store
      that nobody has open reads the file first. One that is as it was left is believed; another,
      after a crash or a change, is examined page by page (up to 64 MiB of it).
- C6  Every transaction that changes a record changes the meta record too: its own number, and the
      sum of all other records. A page of the file that went back in time cannot agree with both.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import xxhash
from attrs import evolve

from pagestore import kernel
from pagestore.bounds import check_meta, check_version
from pagestore.errors import (
    BrokenError,
    CorruptionError,
    ExistsError,
    FullError,
    InvalidError,
    NotFoundError,
    PagestoreError,
    ReadOnlyError,
)
from pagestore.format import (
    BRANCH,
    MAX_NAME,
    META,
    NO_VERSION,
    SNAPSHOT,
    UNKEPT,
    VERSION,
    VERSION_KEY_SIZE,
    CatalogSeal,
    Meta,
    NameRecord,
    NodeId,
    RegionId,
    VersionId,
    VersionRecord,
    child_key,
    key_name,
    name_key,
    named_key,
    number_key,
    record_sum,
    seal,
    split_version_key,
    unseal,
)
from pagestore.structure import unsound

MAP_SIZE = 1 << 40  # address space only; halved until the process is allowed it
MAX_READERS = 2048
LOCK_ROOM = (MAX_READERS + 64) * 64  # bytes: what LMDB's lock file needs at most
RESERVE = 1 << 20
EXAMINED_MOST = 64 << 20


@functools.lru_cache(16)
def _meta(raw: bytes) -> Meta:
    meta = Meta.unpack(raw)
    check_meta(meta)
    return meta


class Transaction:
    """Sealed records within one LMDB transaction."""

    def __init__(self, txn: lmdb.Transaction, *, writing: bool = False) -> None:
        self._txn = txn
        self.written = 0
        raw = self.get(META)
        if raw is None:
            raise CorruptionError("the catalog has no meta record: it was emptied or replaced")
        self.meta = _meta(raw)
        last = self.id - writing
        if self.meta.transaction != last:
            raise CorruptionError(
                f"the catalog's meta record is of transaction {self.meta.transaction}, the catalog "
                f"of {last}: a part of it is older, or was not written by pagestore (C6)"
            )
        self._sum = self.meta.records

    @property
    def id(self) -> int:
        """LMDB's number of this transaction: what it sees, or what it makes."""
        return int(self._txn.id())

    # ------------------------------------------------------------------------------- records

    def get(self, key: bytes) -> bytes | None:
        value = self._txn.get(key)
        return None if value is None else unseal(key, bytes(value))

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        with self._txn.cursor() as cursor:
            return {bytes(k): unseal(bytes(k), bytes(v)) for k, v in cursor.getmulti(keys)}

    def put(self, key: bytes, payload: bytes) -> None:
        value = seal(key, payload)
        self.written += len(value)
        self._sum += record_sum(value)
        if not self._txn.put(key, value, overwrite=False):
            self._sum -= record_sum(bytes(self._txn.get(key) or b""))
            self._txn.put(key, value)

    def delete(self, key: bytes) -> bool:
        value = self._txn.pop(key)
        if value is None:
            return False
        self._sum -= record_sum(bytes(value))
        self.written += 256
        return True

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Records whose keys begin with `prefix`, in order."""
        with self._txn.cursor() as cursor:
            if cursor.set_range(prefix):
                for raw, value in cursor:
                    key = bytes(raw)
                    if not key.startswith(prefix):
                        return
                    yield key, unseal(key, bytes(value))

    def keys(self, prefix: bytes) -> Iterator[bytes]:
        """Keys that begin with `prefix`, in order; a damaged one is not taken for a key."""
        return (key for key, _ in self.scan(prefix))

    def has(self, prefix: bytes) -> bool:
        """Whether any key begins with `prefix`."""
        with self._txn.cursor() as cursor:
            return bool(cursor.set_range(prefix)) and bytes(cursor.key()).startswith(prefix)

    def count(self, prefix: bytes) -> int:
        """How many keys begin with `prefix`."""
        return sum(1 for _ in self.keys(prefix))

    # ------------------------------------------------------------------------------ counters

    def _next(self, counter: str) -> int:
        value: int = getattr(self.meta, counter)
        changed: Any = {counter: value + 1}
        self.meta = evolve(self.meta, **changed)
        return value

    def new_version(self) -> VersionId:
        return VersionId(self._next("next_version"))

    def new_node(self) -> NodeId:
        return NodeId(self._next("next_node"))

    def new_region(self) -> RegionId:
        return RegionId(self._next("next_region"))

    def new_number(self) -> int:
        return self._next("next_number")

    def save_meta(self) -> None:
        """Have the meta record speak of this transaction, if it wrote anything (C6)."""
        if self.written:
            self.meta = evolve(self.meta, transaction=self.id, records=self._sum % (1 << 64))
            value = seal(META, self.meta.pack())
            self.written += len(value)
            self._txn.put(META, value)

    def add_up(self) -> int:
        """The sum of every record as it is: what the meta record must say (C6)."""
        parts = []
        with self._txn.cursor() as cursor:
            for raw, value in cursor:
                key, sealed = bytes(raw), bytes(value)
                if key != META:
                    unseal(key, sealed)
                    parts.append(sealed[:8])
        sums = np.frombuffer(b"".join(parts), "<u8")
        return int(np.add.reduce(sums, dtype=np.uint64))

    # ------------------------------------------------------------------------------ versions

    def version(self, version: VersionId) -> VersionRecord:
        """Return a kept version; `NotFoundError` if there is none of that id."""
        if not isinstance(version, int) or not 0 < version < 1 << 63:
            raise NotFoundError(f"there is no version {version}")
        raw = self.get(number_key(VERSION, version))
        if raw is None:
            raise NotFoundError(f"there is no version {version}: dropped, or never made")
        record = _version(raw)
        if record.id != version:
            raise CorruptionError(f"the record of version {version} says it is {record.id}")
        return record

    def put_version(self, record: VersionRecord) -> None:
        self.put(number_key(VERSION, record.id), record.pack())

    def add_version(self, record: VersionRecord) -> None:
        self.put_version(record)
        if record.parent != NO_VERSION:
            self.put(child_key(record.parent, record.id), b"")

    def remove_version(self, record: VersionRecord) -> None:
        """Forget a version of at most one child, which becomes a child of its parent."""
        for child in self.children(record.id):
            self.delete(child_key(record.id, child))
            self.put_version(evolve(self.version(child), parent=record.parent))
            if record.parent != NO_VERSION:
                self.put(child_key(record.parent, child), b"")
        if record.parent != NO_VERSION:
            self.delete(child_key(record.parent, record.id))
        self.delete(number_key(VERSION, record.id))
        self.delete(number_key(UNKEPT, record.id))

    def children(self, version: VersionId) -> list[VersionId]:
        rests = (split_version_key(key)[2] for key in self.keys(child_key(version)))
        return [VersionId(int.from_bytes(rest, "big")) for rest in rests]

    def versions(self) -> Iterator[VersionRecord]:
        for key, raw in self.scan(VERSION):
            if len(key) == VERSION_KEY_SIZE:
                record = _version(raw)
                if record.id != split_version_key(key)[0]:
                    raise CorruptionError(f"version {record.id} lies under another's key")
                yield record

    def count_versions(self) -> int:
        return sum(1 for key in self.keys(VERSION) if len(key) == VERSION_KEY_SIZE)

    def kinship(self) -> Iterator[tuple[VersionId, bytes, bytes]]:
        """Version, kind and rest of every record that belongs to a version."""
        for key, _ in self.scan(VERSION):
            if len(key) != VERSION_KEY_SIZE:
                yield split_version_key(key)

    # --------------------------------------------------------------------------------- names

    def name(self, kind: bytes, name: str) -> NameRecord | None:
        try:
            raw = self.get(name_key(kind, name)) if len(name) <= MAX_NAME else None
        except UnicodeEncodeError:
            return None
        return None if raw is None else NameRecord.unpack(raw)

    def head(self, branch: str) -> VersionId:
        """The newest version of a branch."""
        if not isinstance(branch, str):
            raise InvalidError(f"a branch is named by a string, not {type(branch).__name__}")
        record = self.name(BRANCH, branch)
        if record is None:
            raise NotFoundError(f"there is no branch {branch!r}")
        return record.version

    def put_name(self, kind: bytes, name: str, record: NameRecord) -> VersionId:
        """Let a name stand for a version; return what it stood for (0: nothing)."""
        old = self.name(kind, name)
        if old is not None:
            self.delete(named_key(old.version, kind, name))
        self.put(name_key(kind, name), record.pack())
        self.put(named_key(record.version, kind, name), b"")
        self.delete(number_key(UNKEPT, record.version))
        return old.version if old else NO_VERSION

    def remove_name(self, kind: bytes, name: str) -> VersionId:
        old = self.name(kind, name)
        if old is None:
            raise NotFoundError(f"there is no {_KINDS[kind]} {name!r}")
        self.delete(name_key(kind, name))
        self.delete(named_key(old.version, kind, name))
        return old.version

    def check_free(self, name: str) -> None:
        """Raise `ExistsError` if a snapshot or a branch has this name."""
        for kind in (SNAPSHOT, BRANCH):
            if self.name(kind, name) is not None:
                raise ExistsError(f"there is a {_KINDS[kind]} {name!r} already")

    def names(self, kind: bytes) -> Iterator[tuple[str, NameRecord]]:
        for key, raw in self.scan(kind):
            yield key_name(key[1:]), NameRecord.unpack(raw)

    def names_after(self, kind: bytes, after: str, count: int) -> list[str]:
        """Up to `count` names that sort behind `after` (by their bytes)."""
        with self._txn.cursor() as cursor:
            if not cursor.set_range(name_key(kind, after) + b"\0" * bool(after)):
                return []
            found = itertools.takewhile(lambda row: row[0][:1] == kind, cursor)
            names = []
            for key, value in itertools.islice(found, count):
                unseal(bytes(key), bytes(value))  # a damaged key must not be taken for a name
                names.append(key_name(bytes(key[1:])))
            return names

    def names_of(self, version: VersionId) -> list[tuple[bytes, str]]:
        """Kind and name of everything that stands for a version."""
        return [
            (kind, key_name(split_version_key(key)[2]))
            for kind in (SNAPSHOT, BRANCH)
            for key in self.keys(named_key(version, kind))
        ]

    def is_named(self, version: VersionId) -> bool:
        return any(self.has(named_key(version, kind)) for kind in (SNAPSHOT, BRANCH))

    def resolve(self, ref: object) -> VersionRecord:
        """Return the version that a name, an id or ``NAME~2`` refers to."""
        if isinstance(ref, int) and not isinstance(ref, bool):
            return self.version(VersionId(ref))
        if not isinstance(ref, str):
            raise InvalidError(
                f"a version is named by a string, an id or a Version, not {type(ref).__name__}"
            )
        base, tilde, steps = ref.partition("~")
        if tilde and steps and not (steps.isascii() and steps.isdigit()):
            raise InvalidError(f"{ref!r}: '~' takes a number of ancestors")
        record = self._resolve_name(base)
        # more steps than there are versions say the same as any number that is too large
        for _ in range(int(steps.lstrip("0")[:20] or "0") if steps else len(tilde)):
            if record.parent == NO_VERSION:
                raise NotFoundError(f"{ref!r}: version {record.id} has no kept ancestor")
            record = self.version(record.parent)
        return record

    def _resolve_name(self, name: str) -> VersionRecord:
        for kind in (SNAPSHOT, BRANCH):
            found = self.name(kind, name) if name else None
            if found is not None:
                return self.version(found.version)
        if name.isascii() and name.isdigit() and len(name) < 20:
            return self.version(VersionId(int(name)))
        raise NotFoundError(f"there is no snapshot or branch {name!r}")


@functools.lru_cache(256)
def _version(raw: bytes) -> VersionRecord:
    record = VersionRecord.unpack(raw)
    check_version(record)
    return record


_KINDS = {SNAPSHOT: "snapshot", BRANCH: "branch"}


def seal_of(path: Path) -> CatalogSeal:
    """Size and hash of a catalog file that nobody writes."""
    size, digest = 0, xxhash.xxh3_128()
    with path.open("rb", buffering=0) as file:
        while part := file.read(1 << 22):
            size += len(part)
            digest.update(part)
    return CatalogSeal(size, digest.digest())


_FULL = lmdb.MapFullError | lmdb.ReadersFullError | lmdb.TlsFullError | lmdb.TxnFullError


def _meaning(e: lmdb.Error, path: Path) -> PagestoreError:
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


def _missing(env: lmdb.Environment, path: Path) -> int:
    """How many bytes the file is shorter than its meta page says.

    Not zero in a sound one too: LMDB does not write pages that one transaction took at the end of
    the file and gave back. A writer makes up for it at once, unless it is killed before.
    """
    for pause in (0.01, 0.1, 0.0):
        promised = (int(env.info()["last_pgno"]) + 1) * int(env.stat()["psize"])
        missing = promised - path.stat().st_size
        if missing <= 0:
            return 0
        time.sleep(pause)
    return missing


def examine(path: Path, seal: CatalogSeal | None) -> None:
    """Raise `CorruptionError` where LMDB could be led astray by its own file (C5)."""
    if path.stat().st_size > EXAMINED_MOST or seal_of(path) == seal:
        return
    faults = unsound(path)
    if faults:
        raise CorruptionError(f"{path}: damaged: {faults[0]} ({len(faults)} such findings)")


def _prepare_lock(path: Path, flags: int = 0) -> None:
    """Have every page of LMDB's lock file on the disk: LMDB stores into a mapping of it.

    Where that finds a hole, and the disk full, the process gets SIGBUS. The length is LMDB's
    business: it tells the number of readers. Not while LMDB has the file open in this process:
    closing it would drop LMDB's own locks.
    """
    with contextlib.suppress(OSError):
        fd = os.open(f"{path}-lock", os.O_RDWR | os.O_CLOEXEC | flags, 0o666)
        try:
            if not os.fstat(fd).st_size:
                kernel.overwrite_in_place(fd)
            kernel.allocate(fd, 0, LOCK_ROOM, keep_size=True)
        finally:
            os.close(fd)


class Catalog:
    """The LMDB environment of one store in this process."""

    @staticmethod
    def create(path: Path, meta: Meta) -> None:
        """Make a catalog that holds nothing but its meta record."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        kernel.overwrite_in_place(fd)
        os.close(fd)
        _prepare_lock(path, os.O_CREAT)
        try:
            with (
                lmdb.open(str(path), map_size=1 << 26, subdir=False) as env,
                env.begin(write=True) as t,
            ):
                t.put(META, seal(META, meta.pack()))
        except lmdb.Error as e:
            if os.strerror(errno.ENOSPC) in str(e):  # what there is of it goes: nothing is lost
                raise FullError(f"{path}: {e}") from e
            raise _meaning(e, path) from e

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path = path
        self.writable = writable
        self.broken: str | None = None
        self._reserved = 0
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
                    str(self.path), map_size=size, subdir=False, readonly=not self.writable,
                    metasync=True, sync=True, writemap=False, map_async=False, create=False,
                    lock=True, max_readers=MAX_READERS, max_dbs=0, readahead=False,
                )  # fmt: skip
                break
            except (lmdb.MemoryError, MemoryError) as e:
                size //= 2
                if size < 1 << 26:
                    raise self._too_large() from e
            except lmdb.Error as e:
                lock = Path(f"{self.path}-lock")
                if lock.exists() and not os.access(lock, os.W_OK):
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
        if missing and unsound(self.path):
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
        return self.path.stat().st_size

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A consistent look at every record; short-lived (C2)."""
        mark = object()
        self._under_way.add(mark)
        try:
            with self._env.begin(buffers=False) as txn:
                yield Transaction(txn)
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
            yield transaction
            transaction.save_meta()
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

    def _lengthen(self) -> None:
        """Let the file hold every page that its meta page counts (see `_missing`)."""
        promised = (int(self._env.info()["last_pgno"]) + 1) * self._page
        size = os.fstat(self._fd).st_size
        if size < promised:
            with contextlib.suppress(OSError):
                kernel.allocate(self._fd, size, promised - size)

    def _reserve(self, written: int, spare: Callable[[], bool] | None) -> None:
        """Have blocks for what the transaction may append, or fail before it begins (C4)."""
        end = (int(self._env.info()["last_pgno"]) + 1) * self._page
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
