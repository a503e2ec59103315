"""One open store in this process: its files, locks and caches, and how they open and close.

Owns: opening and closing what lies in the directory, the order of steps in a write. Knows versions
only as records; what they mean is the business of the layers above. E1 is that of `directory`.

- E2  A marked arena never starts with an empty catalog, one of another store, or one that is
      older than the head that the arena remembers.
- E3  One engine for a directory in a process (LMDB demands it); handles share it by count.
- E4  A forked child may read what it inherited; every use of the store there raises.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from pagestore import kernel
from pagestore.arena import Arena
from pagestore.bounds import expand_runs
from pagestore.catalog import Catalog, examine, seal_of, trim
from pagestore.checksums import KnownSums
from pagestore.directory import (
    ARENA,
    BALLAST,
    CATALOG,
    COPY,
    PINS,
    create,
    has_content,
    is_directory,
    refused,
)
from pagestore.dirty import Tracker, choose
from pagestore.errors import (
    BrokenError,
    ClosedError,
    CorruptionError,
    ExistsError,
    FormatError,
    InvalidError,
    NotFoundError,
    PagestoreError,
    ReadOnlyError,
)
from pagestore.format import (
    NO_VERSION,
    RESERVED,
    SNAPSHOT,
    HeadCopy,
    IntArray,
    NameRecord,
    VersionRecord,
    key_number,
    number_key,
    pack_runs,
    runs_of,
    unpack_runs,
)
from pagestore.later import Later
from pagestore.pagetable import DenseLeaves, NodeCache, Nodes
from pagestore.pins import Pin, Pins, Reservation
from pagestore.space import Space
from pagestore.transaction import Transaction

if TYPE_CHECKING:
    from pagestore import dense as _dense
else:
    _dense = Later("pagestore.dense")

BALLAST_SIZE = 1 << 20


class Write:
    """One write transaction, with what it changes beside the catalog."""

    def __init__(self, engine: Engine, records: Transaction) -> None:
        self._engine = engine
        self.records = records
        self.nodes = Nodes(
            records, engine.cache, records.number("moves"), records.new_node, engine.dense
        )
        self.sums = engine.sums
        self.sums.begin(records.id)
        self.head: VersionRecord | None = None  # the version it makes, if any
        self.unsynced = False  # pages were written that it refers to
        self._space: Space | None = None

    @property
    def space(self) -> Space:
        """The free slots, read on first use; reservations of dead processes are free again."""
        if self._space is None:
            space = self._engine.space
            space.begin(self.records, self.records.id, self.records.number("slots"))
            self._space = space
            for key, _ in list(self.records.scan(RESERVED)):
                number = key_number(key)
                if self._engine.pins.abandoned(number):
                    self.release_reservation(number)
        return self._space

    def take(self, count: int, *, long: bool = False) -> IntArray:
        """Free slots for `count` pages; grows the arena where needed."""
        return self.space.take(count, self._engine.arena.grow, long=long)

    def reserve(self, slots: IntArray) -> Reservation:
        """Set slots aside for a transaction that goes on; freed should its process die."""
        held = None
        while held is None:
            held = self._engine.pins.reserve(self.records.new_number())
        self.records.put(number_key(RESERVED, held.number), pack_runs(runs_of(slots).tolist()))
        return held

    def release_reservation(self, number: int, used: IntArray | None = None) -> None:
        """End a reservation; what was not used of it becomes free."""
        key = number_key(RESERVED, number)
        raw = self.records.get(key)
        if raw is None:
            raise CorruptionError(f"reservation {number} is missing from the catalog")
        slots = expand_runs(unpack_runs(raw, 1)[0], self.space.slots)
        self.records.delete(key)
        if used is not None:
            slots = np.setdiff1d(slots, used, assume_unique=True)
        self.space.give(slots)

    def finish(self) -> None:
        if self._space is not None:
            self._space.save(self.records, self.records.new_number)
            slots = self._space.slots
            if slots > self.records.number("slots"):
                # no slot is counted that a crash could cut off (I2)
                self.unsynced |= slots > self._engine.arena.durable
                self.records.change_meta(slots=slots)
        self.records.write_versions()
        if self.unsynced:  # last: meanwhile the disk writes what was given to it
            self._engine.arena.sync()


class Engine:
    """The shared inside of every `Store` handle on one directory."""

    def __init__(self, path: str, *, tracking: str, mapping: str, flush_share: float) -> None:
        # files are opened for writing where that is allowed, whatever the first handle's mode
        writable = all(os.access(os.path.join(path, name), os.W_OK) for name in (ARENA, CATALOG))
        self.path = path
        self.handles = 0
        self.mapping = mapping
        self._flush_share = flush_share
        self.inherited = False  # this process was forked from the one that opened the store
        self.cache = NodeCache()
        self.dense = DenseLeaves()
        self.space = Space()
        self.sums = KnownSums()
        self.lock = threading.RLock()
        self.closed = False
        self.compacted = False  # whoever closes the store last makes the catalog dense
        self._wrote = False
        self._writing = False
        self.tracker: Tracker = choose(tracking)
        with contextlib.ExitStack() as undo:
            self.arena = _open_arena(path, writable)
            undo.callback(self.arena.close)
            self.pins = _open_pins(path)
            undo.callback(self.pins.close)
            self.pins.enter(lambda: _examine_catalog(path, self.arena))
            self.catalog = _open_catalog(path, writable)
            undo.callback(self.catalog.close)
            self._verify_identity()
            if writable:
                self._restore_ballast()
            undo.pop_all()

    @property
    def page_size(self) -> int:
        return self.arena.page_size

    @property
    def writable(self) -> bool:
        return self.arena.writable

    @property
    def broken(self) -> str | None:
        return self.arena.broken or self.catalog.broken

    def _verify_identity(self) -> None:
        head = self.arena.read_head()  # before the catalog is read: commits may go on meanwhile
        with self.catalog.read() as records:
            meta = records.meta
            if (meta.store_id, meta.page_size) != (
                self.arena.superblock.store_id,
                self.arena.page_size,
            ):
                raise CorruptionError(f"{self.path}: the catalog belongs to another store")
            if head is not None:
                self._verify_head(head, records)
        self.arena.check_slots(meta.slots)

    def _verify_head(self, head: HeadCopy, records: Transaction) -> None:
        if head.next_version > records.meta.next_version or head.transaction > records.id:
            raise CorruptionError(
                f"{self.path}: the catalog went back in time: the arena has seen transaction "
                f"{head.transaction} and version {head.version}, the catalog ends at transaction "
                f"{records.id}"
            )
        with contextlib.suppress(NotFoundError):
            if records.version(head.version).root() != head.root:
                raise CorruptionError(
                    f"{self.path}: version {head.version} is not the one that was committed"
                )

    # ---------------------------------------------------------------------------------- use

    def check_open(self) -> None:
        if self.closed:
            raise ClosedError(f"the store {self.path} is closed")
        if self.inherited:
            raise ClosedError(
                f"the store {self.path} was opened before fork: open it again in the child"
            )

    @contextlib.contextmanager
    def read(self) -> Iterator[tuple[Transaction, Nodes]]:
        """A consistent look at the records."""
        self.check_open()
        with self.catalog.read() as records:
            yield records, Nodes(records, self.cache, records.meta.moves)

    @contextlib.contextmanager
    def write(self, *, spare: bool = False) -> Iterator[Write]:
        """A write transaction: durable on leaving the block, undone on an exception.

        `spare` lets it use the ballast on a full disk: for what gives space back.
        """
        self.check_open()
        with self.lock, self._alone():
            if self.arena.broken:
                raise BrokenError(f"{self.path}: {self.arena.broken}; reopen the store")
            try:
                with self.catalog.write(self._drop_ballast if spare else None) as records:
                    write = Write(self, records)
                    self._wrote = True
                    transaction = records.id
                    yield write
                    write.finish()
            except BaseException:
                self.space.aborted()
                raise
            finally:
                try:
                    self.pins.end_exclusive()
                except BaseException:
                    self.pins.end_exclusive()  # or who pins such a version would wait for ever
                    raise
            # the transaction is durable: what follows must not say otherwise
            with contextlib.suppress(PagestoreError, MemoryError):
                if write.records.written:  # LMDB gives one that wrote nothing no number
                    self.space.committed(transaction)
                    self.sums.committed(transaction)
                    self._note_head(write, transaction)
                else:
                    self.space.unchanged(transaction - 1)
                    self.sums.committed(transaction - 1)
                write.nodes.committed()
            if spare:
                self._restore_ballast()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Refuse a write transaction within another: what it gives up would be the other's."""
        if self._writing:
            raise InvalidError(
                f"{self.path} is being written to by this thread: "
                "a finalizer or signal handler that runs amid that cannot write, too"
            )
        self._writing = True
        try:
            yield
        finally:
            self._writing = False

    def name_version(
        self, ref: object, name: str, message: str = ""
    ) -> tuple[VersionRecord, list[str]]:
        """Let a new snapshot name stand for a version; return that and all its names."""
        with self.write() as write:
            records = write.records
            record = records.resolve(ref)
            records.check_free(name)
            records.put_name(SNAPSHOT, name, NameRecord(record.id, time.time_ns(), message))
            return record, [known for _, known in records.names_of(record.id)]

    def _note_head(self, write: Write, transaction: int) -> None:
        records, made = write.records, write.head
        if made is not None:
            version, root = made.id, records.roots[made.id]
        else:
            before = self.arena.read_head()
            version, root = (before.version, before.root) if before else (NO_VERSION, bytes(16))
        next_version = records.number("next_version")
        self.arena.write_head(HeadCopy(version, next_version, transaction, root))

    @functools.cached_property
    def private_limit(self) -> float:
        """Bytes of private memory from which on workspaces write early."""
        return self._flush_share * kernel.total_memory()

    @property
    def portable(self) -> bool:
        """Whether pages are copied instead of mapped."""
        return self.mapping == "portable"

    def pin_branch(self, branch: str) -> tuple[VersionRecord, Pin]:
        """Pin the head of a branch (a snapshot's name will not do)."""
        with self.read() as (records, _):
            records.head(branch)
        return self.pin(branch)

    def pin(self, ref: object) -> tuple[VersionRecord, Pin]:
        """Resolve a ref and pin its version: from now on nothing of it is freed."""
        while True:
            with self.read() as (records, _):
                record = records.resolve(ref)
            pin = self.pins.acquire(record.id)
            with self.read() as (records, _):
                try:
                    if records.resolve(ref).id == record.id:
                        return records.version(record.id), pin
                except NotFoundError:
                    pin.release()
                    raise
            pin.release()  # the name moved on meanwhile

    def close(self) -> None:
        """Let go of one handle; the last one closes the files.

        A finalizer may call it, in the midst of anything that its thread does.
        """
        with _registry_lock:
            _leaving.append(self)
            if not _attaching:
                _let_go()

    def seal(self) -> None:
        """Note how the catalog's file was left, so that the next to open it can trust it."""
        if self._wrote and not self.broken:
            file, exchanged = os.path.join(self.path, CATALOG), False
            with contextlib.suppress(OSError, PagestoreError, MemoryError):
                if self.compacted:
                    exchanged = _dense.exchange(file, os.path.join(self.path, COPY))
            with contextlib.suppress(OSError, PagestoreError, MemoryError):
                if exchanged:
                    kernel.sync(self.path)
                trim(file)
                self.arena.write_seal(seal_of(file))

    # ------------------------------------------------------------------------------- ballast

    def _drop_ballast(self) -> bool:
        path = os.path.join(self.path, BALLAST)
        try:
            had = os.stat(path).st_blocks > 0
            os.truncate(path, 0)
        except OSError:
            return False
        return had

    def _restore_ballast(self) -> None:
        path = os.path.join(self.path, BALLAST)
        with contextlib.suppress(OSError, MemoryError):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                if os.fstat(fd).st_size < BALLAST_SIZE:
                    kernel.allocate(fd, 0, BALLAST_SIZE)
            finally:
                os.close(fd)


def _let_go() -> None:
    while _leaving:
        _detach(_leaving.pop())


def _detach(engine: Engine) -> None:
    engine.handles -= 1
    if engine.handles > 0:
        return
    engine.closed = True
    for key, registered in list(_registry.items()):
        if registered is engine:
            del _registry[key]
    if not engine.inherited:
        with engine.lock, contextlib.ExitStack() as last_first:  # each, whatever another raises
            last_first.callback(engine.tracker.close)
            last_first.callback(engine.pins.close)
            last_first.callback(engine.arena.close)
            last_first.callback(engine.pins.leave, engine.seal)
            last_first.callback(engine.catalog.close)


# ------------------------------------------------------------------------------------- opening

_registry: dict[tuple[int, int], Engine] = {}
_registry_lock = threading.RLock()
_attaching: list[str] = []  # what this thread opens, if it has the lock
_leaving: list[Engine] = []  # closed by a finalizer that ran meanwhile


def _after_fork() -> None:
    global _registry_lock
    _registry_lock = threading.RLock()
    _attaching.clear()
    for engine in _registry.values():
        engine.inherited = True
        engine.catalog.forget()
    _registry.clear()


os.register_at_fork(after_in_child=_after_fork)


def attach(
    path: str,
    mode: str,
    *,
    page_size: int,
    keep_all: bool,
    tracking: str,
    mapping: str,
    flush_share: float,
) -> Engine:
    """Open (and, as the mode says, create) the store at `path`; share it if it is open."""
    writable = mode != "r"
    if mode == "x" and os.path.lexists(path):
        raise ExistsError(f"{path} exists already")
    try:
        if mode in "ax" and not has_content(path):
            create(path, page_size, keep_all)
        if not os.path.lexists(path):
            raise NotFoundError(f"there is no store at {path}")
        if not is_directory(path):
            raise FormatError(
                f"{path} is not a pagestore: it is a file, and a store is a directory"
            )
        status = os.stat(path)
    except OSError as e:
        raise refused(path, e) from e
    with _registry_lock, _attachment(path):
        key = (status.st_dev, status.st_ino)
        engine = _registry.get(key)
        if engine is None:
            engine = Engine(path, tracking=tracking, mapping=mapping, flush_share=flush_share)
            _registry[key] = engine
        if writable and not engine.writable:
            engine.handles += 1
            _detach(engine)
            raise ReadOnlyError(f"{path} is not writable: open the store with mode 'r'")
        engine.handles += 1
        return engine


@contextlib.contextmanager
def _attachment(path: str) -> Iterator[None]:
    """What is closed meanwhile by finalizers of this thread is let go of afterwards."""
    _attaching.append(path)
    try:
        yield
    finally:
        _attaching.pop()
        if not _attaching:
            _let_go()


def _open_arena(path: str, writable: bool) -> Arena:
    file = os.path.join(path, ARENA)
    try:
        return Arena(file, writable=writable)
    except FileNotFoundError:
        if os.path.exists(os.path.join(path, CATALOG)):
            raise CorruptionError(f"{path}: the arena is missing") from None
        raise FormatError(f"{path} is not a pagestore: it holds no arena") from None
    except OSError as e:
        raise refused(file, e) from e


def _open_catalog(path: str, writable: bool) -> Catalog:
    file = os.path.join(path, CATALOG)
    try:
        if os.stat(file).st_size < 2 * kernel.PAGE_SIZE:
            raise CorruptionError(f"{file} is empty or cut, though the store was initialised")
        return Catalog(file, writable=writable)
    except FileNotFoundError:
        raise CorruptionError(f"{path}: the catalog is missing") from None
    except OSError as e:
        raise refused(file, e) from e


def _examine_catalog(path: str, arena: Arena) -> None:
    """Look at a catalog that nobody has open, if it is not as it was left."""
    as_left = True
    with contextlib.suppress(OSError):  # opening it says better what is wrong
        file = os.path.join(path, CATALOG)
        copy = os.path.join(path, COPY)
        if os.path.lexists(copy):  # a process died while it made it
            with contextlib.suppress(OSError):
                os.unlink(copy)
        if os.stat(file).st_size >= 2 * kernel.PAGE_SIZE:
            as_left = examine(file, arena.read_seal())
    if not as_left and arena.writable:
        try:
            kernel.sync(path)  # who died may have exchanged the file, and not come so far
        except OSError as e:
            raise refused(path, e) from e


def _open_pins(path: str) -> Pins:
    file = os.path.join(path, PINS)
    try:
        return Pins(file)
    except FileNotFoundError:
        raise ReadOnlyError(f"{file} is missing, and may not be made here") from None
    except OSError as e:
        raise refused(file, e) from e
