"""A workspace: a private view of a branch's head whose broken pages a commit makes durable.

Owns: which regions and pages were changed since the base version, and the memory that shows them.
Does not know how pages are stored: `commit` does.

- K1  A page is written to the arena if its contents differ from the base, and never otherwise.
- K2  Whatever fails, the workspace still holds its changes: pages reported by the kernel are noted
      before anything is written.
- K3  After a commit memory stays as it is: a private page already holds what was committed.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
from attrs import define, evolve, field

from pagestore import kernel
from pagestore.commit import (
    NO_PAGES,
    Committed,
    Placed,
    RegionChange,
    check_conflicts,
    commit,
    differing,
    write_pages,
)
from pagestore.diff import page_count
from pagestore.engine import Engine
from pagestore.errors import ExistsError, FullError, InvalidError, NotFoundError, ReadOnlyError
from pagestore.format import (
    Extents,
    IntArray,
    RegionId,
    RegionRecord,
    VersionRecord,
    check_name,
    page_sums,
    runs_of,
)
from pagestore.history import Version
from pagestore.pagetable import Difference, clip, extents, lookup, singles
from pagestore.view import View, check_range
from pagestore.wiring import Anchor, Wiring

MAX_PAGES = 1 << 40
COMPARE_BATCH = 1024
FLUSH_PIECES = 4096  # mappings that one flush may leave behind in a region
FLUSH_CHECK_SECONDS = 0.05


@define
class _State:
    """One region in the workspace. `base` is None for a region created here."""

    region: RegionRecord
    base: RegionRecord | None
    kept: int
    wiring: Wiring | None = None
    exposed: bool = False  # an array was handed out: only the kernel knows what it wrote
    dirty: IntArray = NO_PAGES
    flushed: Placed = field(factory=Placed)
    reservations: list[_Reservation] = field(factory=list)

    def touch(self, pages: IntArray) -> None:
        self.dirty = np.union1d(self.dirty, pages) if len(self.dirty) else pages


class _Reservation:
    """Slots written before their commit; given up when neither state nor memory refers to it."""

    def __init__(self, engine: Engine, number: int) -> None:
        self.number = number
        weakref.finalize(self, engine.pins.unreserve_later, number).atexit = False


class Workspace(View):
    """A transaction: plain NumPy arrays whose changes `commit` makes the branch's next version.

    As a context manager it commits on leaving the block and rolls back on an exception. One
    workspace may be used by several threads, but none may write to its arrays while `commit`,
    `flush`, `rollback` or `refresh` runs. After a `fork` the child cannot use it.
    """

    _writable = True
    _growable = True

    def __init__(self, engine: Engine, branch: str) -> None:
        if not engine.writable:
            raise ReadOnlyError(f"{engine.path} is not writable")
        record, pin = engine.pin_branch(branch)
        super().__init__(engine, record, pin)
        self.branch = branch
        self._lock = threading.RLock()
        self._states: dict[str, _State] = {}
        self._deleted: dict[str, RegionRecord] = {}
        self._next_flush_check = 0.0
        self._adopt(record)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and not self._closed:
                self.commit()
        finally:
            self.close()

    # --------------------------------------------------------------------------- the mapping

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        """Return a region as a writable array; it stays valid across commits.

        Raises
        ------
        NotFoundError
            There is no region of that name.
        """
        with self._lock:
            self._flush_if_large()
            state = self._state(name)
            wiring = self._wired(state)
            if not state.exposed and wiring.pages:
                self._engine.tracker.watch(wiring.address, wiring.nbytes)
                state.exposed = True
            array: np.ndarray[Any, Any] = wiring.array(
                state.region.dtype, state.region.shape, writable=True
            )
            return array

    def _regions(self) -> Mapping[str, RegionRecord]:
        self._check()
        return {name: state.region for name, state in self._states.items()}

    def _region(self, name: str) -> RegionRecord:
        return self._state(name).region

    def _state(self, name: str) -> _State:
        self._check()
        try:
            return self._states[name]
        except (KeyError, TypeError):
            raise NotFoundError(f"there is no region {name!r} in this workspace") from None

    def _wiring(self, name: str) -> Wiring:
        return self._wired(self._state(name))

    def _wired(self, state: _State) -> Wiring:
        if state.wiring is None:
            state.wiring = self._lay_out(state)
        return state.wiring

    def _lay_out(self, state: _State) -> Wiring:
        """Wire fresh memory as the base has the region; what is dirty is not in it."""
        pages = page_count(state.region, self._engine.page_size)
        try:
            wiring = Wiring(
                self._engine.arena, pages, self._anchor,
                growable=True, portable=self._engine.portable,
            )  # fmt: skip
        except OSError as e:
            raise FullError(e.errno or 12, f"no memory for region {state.region.name!r}") from e
        if state.base is not None:
            kept = min(state.kept, pages)
            wiring.wire(clip(self._extents(state.base), 0, kept))
        return wiring

    # ------------------------------------------------------------------------------ changing

    def create(
        self, name: str, shape: int | tuple[int, ...], dtype: Any = "u1"
    ) -> np.ndarray[Any, Any]:
        """Make a region of zeros and return it; pages that stay zeros take no space.

        Parameters
        ----------
        name : str
        shape : int or tuple of int
        dtype : dtype-like
            Anything without Python objects.

        Raises
        ------
        ExistsError
            There is a region of that name.
        InvalidError
            The name, shape or dtype cannot be stored.
        FullError
            No address space for it.
        """
        with self._lock:
            self._check()
            check_name(name, "region")
            if name in self._states:
                raise ExistsError(f"there is a region {name!r} already")
            region = RegionRecord(RegionId(0), name, _dtype(dtype), _shape(shape))
            self._limit(region)
            state = _State(region, None, 0)
            self._wired(state)
            self._states[name] = state
            return self[name]

    def write(self, name: str, offset: int, data: Any) -> None:
        """Write bytes into a region; pages written only so need no search for changes.

        Parameters
        ----------
        name : str
        offset : int
            In bytes, from the region's start.
        data : bytes-like or ndarray
            An array is written as its bytes in C order.

        Raises
        ------
        InvalidError
            The range is not within the region, or `data` has no bytes.
        """
        with self._lock:
            self._flush_if_large()
            state = self._state(name)
            raw = _as_bytes(data)
            start, stop = check_range(state.region, offset, len(raw))
            if start == stop:
                return
            self._wired(state).bytes()[start:stop] = raw
            size = self._engine.page_size
            state.touch(np.arange(start // size, -(-stop // size)))

    def resize(self, name: str, shape: int | tuple[int, ...]) -> np.ndarray[Any, Any]:
        """Give a region another shape, and return it; its bytes stay, in C order.

        Bytes that come anew are zeros. Arrays that were handed out keep the old shape: where both
        have a byte they show and change the same one; what an old array has beyond the new size
        is not stored any more.

        Raises
        ------
        InvalidError
            The shape is not one, or the region outgrew the addresses that were set aside for it
            while arrays still look into it: release them first.
        """
        with self._lock:
            state = self._state(name)
            region = evolve(state.region, shape=_shape(shape))
            self._limit(region)
            size = self._engine.page_size
            before, after = page_count(state.region, size), page_count(region, size)
            wiring = self._wired(state) if region.nbytes % size or after != before else state.wiring
            if wiring is not None and after > wiring.capacity:
                wiring = self._move(state, after)
            if region.nbytes < state.region.nbytes:
                self._cut(state, region.nbytes, after)
            elif wiring is not None and after > before:
                wiring.grow(after)
                if state.exposed:
                    self._engine.tracker.watch(
                        wiring.address + before * size, (after - before) * size
                    )
            state.region = region
            return self[name]

    def _cut(self, state: _State, nbytes: int, pages: int) -> None:
        """Forget what lies beyond `nbytes`: it must read as zeros should the region grow again."""
        size = self._engine.page_size
        self._note_written(state)
        if nbytes % size:
            tail = self._wired(state).bytes()[nbytes : pages * size]
            if tail.any():
                tail[:] = 0
                state.touch(np.array([pages - 1]))
        if state.wiring is not None:
            state.wiring.shrink(pages)
        state.kept = min(state.kept, pages)
        state.dirty = state.dirty[state.dirty < pages]
        state.flushed = state.flushed.take(state.flushed.pages < pages)

    def _move(self, state: _State, pages: int) -> Wiring:
        """Lay a region out at other addresses, where it can grow to `pages`."""
        old = state.wiring
        assert old is not None
        self._note_written(state)
        keep = old.page_array()[state.dirty]  # a copy
        try:
            old.memory.close()
        except BufferError:
            raise InvalidError(
                f"arrays of region {state.region.name!r} are in use: it can grow to "
                f"{old.capacity * old.page_size} bytes in place; release them to grow further"
            ) from None
        wanted, state.region = state.region, _pages_region(state.region, pages, old.page_size)
        wiring = self._lay_out(state)
        state.region = wanted
        wiring.rewire(singles(state.flushed.pages, state.flushed.slots, 0))
        wiring.page_array()[state.dirty] = keep
        wiring.pages = old.pages
        state.wiring = wiring
        state.exposed = False
        return wiring

    def delete(self, name: str) -> None:
        """Remove a region; arrays that were handed out keep showing what it held.

        Raises
        ------
        NotFoundError
            There is no region of that name.
        """
        with self._lock:
            state = self._state(name)
            self._retire(state)
            if state.base is not None:
                self._deleted[name] = state.base
            del self._states[name]

    def _retire(self, state: _State) -> None:
        """Leave memory to the arrays that still look into it, pinned where it is."""
        if state.wiring is not None:
            memory = state.wiring.memory
            state.wiring = None
            try:
                memory.close()
            except BufferError:
                memory.anchor = (
                    Anchor(self._engine.pins.acquire(self._record.id)),
                    list(state.reservations),
                )
        state.exposed = False

    def _limit(self, region: RegionRecord) -> None:
        if page_count(region, self._engine.page_size) > MAX_PAGES:
            raise InvalidError(f"region {region.name!r} is larger than 2**40 pages")

    # ---------------------------------------------------------------------------- committing

    def commit(self, message: str = "") -> Version:
        """Make the changes durable, as the branch's next version, and return it.

        Without changes no version is made: the one that the workspace is based on is returned.

        Raises
        ------
        ConflictError
            Another writer changed a page that was changed here too.
        FullError
            No space; the workspace still holds the changes.
        BrokenError
            The disk failed; reopen the store to learn whether the version exists.
        """
        return self._commit(message, None)

    def snapshot(self, name: str, message: str = "") -> Version:
        """Commit, and name the version; both happen or neither.

        Raises
        ------
        ExistsError
            The name is taken; nothing was committed.
        """
        return self._commit(message, check_name(name, "snapshot"))

    def _commit(self, message: str, name: str | None) -> Version:
        if not isinstance(message, str):
            raise InvalidError(f"a message is a string, not {type(message).__name__}")
        with self._lock:
            self._check()
            changes = self._changes()
            if changes or self._deleted or name is not None:
                done = self._run_commit(changes, message, name)
                if done.version.id != self._record.id:
                    self._settle(done)
                else:
                    self._forget_changes(done.version)
            return self.version

    def _run_commit(
        self, changes: list[RegionChange], message: str, name: str | None
    ) -> Committed:
        if not (changes or self._deleted):
            # nothing to store: the version at hand gets the name, wherever the branch has gone
            from_here = self._engine.name_version(self._record.id, str(name), message)
            return Committed(from_here)
        return commit(
            self._engine, self.branch, self._record, changes, self._deleted,
            message=message, name=name, pins=1,
        )  # fmt: skip

    def _settle(self, done: Committed) -> None:
        """Stand on the version that was committed; memory already shows it (K3)."""
        pin = self._engine.pins.acquire(done.version.id)
        self._forget_changes(done.version)
        self._take_over(done.theirs, done.version)
        self._deleted.clear()
        self._anchor.move(pin)
        self._adopt(done.version)
        self._release_if_large()

    def _forget_changes(self, record: VersionRecord) -> None:
        for name, state in self._states.items():
            state.dirty = NO_PAGES
            if len(state.flushed.pages):
                self._settle_flushed(state, record.regions[name])
            if state.wiring is not None:
                state.wiring.memory.anchor = self._anchor

    def _settle_flushed(self, state: _State, region: RegionRecord) -> None:
        """Show the version's slots where it did not take those that were written early."""
        pages = state.flushed.pages
        with self._engine.read() as (_, nodes):
            slots, _ = lookup(nodes, region.table, pages)
        other = slots != state.flushed.slots
        state.flushed, state.reservations = Placed(), []
        self._rewire(state, singles(pages[other], slots[other], 0))

    def _adopt(self, record: VersionRecord) -> None:
        """Let every region's base be what `record` has."""
        self._record = record
        size = self._engine.page_size
        for name in [n for n in self._states if n not in record.regions]:
            self._retire(self._states.pop(name))
        for name, region in record.regions.items():
            state = self._states.setdefault(name, _State(region, region, 0))
            if state.region.id not in (RegionId(0), region.id):
                self._retire(state)
            state.region = state.base = region
            state.kept = page_count(region, size)

    def _changes(self) -> list[RegionChange]:
        found = []
        for state in self._states.values():
            self._note_written(state)
            change = RegionChange(
                state.region,
                state.base,
                state.wiring.page_array() if state.wiring and state.wiring.pages else None,
                state.dirty,
                state.flushed,
                state.kept,
                [r.number for r in state.reservations],
            )
            if change.is_change(self._engine.page_size):
                found.append(change)
        return found

    # -------------------------------------------------------------------------- dirty pages

    def _note_written(self, state: _State) -> None:
        """Add what the kernel saw written to the region's dirty pages (K2)."""
        wiring = state.wiring
        if wiring is None or not state.exposed or not wiring.pages:
            return
        tracker = self._engine.tracker
        ranges = tracker.written(wiring.address, wiring.nbytes)
        pages = _whole_pages(ranges, wiring.page_size // kernel.PAGE_SIZE)
        if not tracker.exact:
            pages = self._really_written(state, wiring, pages)
        if len(pages):
            state.touch(pages)

    def _really_written(self, state: _State, wiring: Wiring, pages: IntArray) -> IntArray:
        """Keep the candidates that differ from what the base (or a flush) holds."""
        pages = pages[~np.isin(pages, state.dirty)]
        slots = self._base_slots(state, pages)
        memory, zero = wiring.page_array(), np.zeros(1, wiring.page_array().dtype)
        arena = self._engine.arena
        stored = arena.pages(int(slots.max(initial=0)) + 1)
        keep = np.zeros(len(pages), np.bool_)
        for i in range(0, len(pages), COMPARE_BATCH):
            cut = slice(i, i + COMPARE_BATCH)
            theirs = stored[slots[cut]]
            theirs[slots[cut] == 0] = zero[0]
            a, b = (x.view(np.uint64).reshape(len(x), -1) for x in (memory[pages[cut]], theirs))
            keep[cut] = (a != b).any(axis=1)
        return pages[keep]

    def _base_slots(self, state: _State, pages: IntArray) -> IntArray:
        slots = np.zeros(len(pages), np.int64)
        if state.base is not None:
            with self._engine.read() as (_, nodes):
                slots, _ = lookup(nodes, state.base.table, pages)
            slots[pages >= state.kept] = 0
        early, where, place = np.intersect1d(
            pages, state.flushed.pages, assume_unique=True, return_indices=True
        )
        slots[where] = state.flushed.slots[place]
        return slots

    def _rewire(self, state: _State, pieces: Extents) -> None:
        """Show other slots in a region's memory; what that writes does not count as written."""
        wiring = state.wiring
        if wiring is None or not len(pieces):
            return
        mapped = wiring.rewire(pieces)
        if not state.exposed:
            return
        tracker, size = self._engine.tracker, wiring.page_size
        for page, length in zip(
            (mapped or pieces).page.tolist(), (mapped or pieces).length.tolist(), strict=True
        ):
            tracker.watch(wiring.address + page * size, length * size)
        if mapped is None or len(mapped) < len(pieces):
            tracker.written(wiring.address, wiring.nbytes)

    # ------------------------------------------------------------------ other writers' work

    def refresh(self) -> bool:
        """Move to the branch's head, keeping uncommitted changes.

        Returns
        -------
        bool
            Whether the head had moved.

        Raises
        ------
        ConflictError
            The head changed a page that was changed here too; nothing has moved.
        """
        with self._lock:
            self._check()
            changes = self._changes()
            head, pin = self._engine.pin_branch(self.branch)
            if head.id == self._record.id:
                pin.release()
                return False
            try:
                with self._engine.read() as (records, nodes):
                    check_conflicts(
                        records, nodes, self._record, head, changes, self._deleted,
                        self._engine.page_size,
                    )  # fmt: skip
                    theirs = differing(nodes, self._record, head)
            except BaseException:
                pin.release()
                raise
            self._take_over(theirs, head)
            self._anchor.move(pin)
            self._rebase(head, {c.region.name: c for c in changes})
            return True

    def _take_over(self, theirs: dict[str, list[Difference]], head: VersionRecord) -> None:
        """Bring memory to what others committed; their pages and ours are disjoint."""
        for name, parts in theirs.items():
            state = self._states.get(name)
            if state is None or state.wiring is None:
                continue
            size = self._engine.page_size
            pages = page_count(head.regions[name], size)
            if state.base is not None and page_count(state.base, size) == state.wiring.pages > pages:
                state.wiring.shrink(pages)
            grown = max(pages, state.wiring.pages)
            if grown > state.wiring.capacity:
                self._retire(state)
                continue
            before = state.wiring.pages
            state.wiring.grow(grown)
            if state.exposed and grown > before:
                self._engine.tracker.watch(
                    state.wiring.address + before * size, (grown - before) * size
                )
            if parts:
                self._rewire(state, clip(Extents.join(p.news() for p in parts), 0, grown))

    def _rebase(self, head: VersionRecord, changes: dict[str, RegionChange]) -> None:
        mine = dict(self._states)
        kept = {n: s.kept for n, s in mine.items()}
        regions = {n: s.region for n, s in mine.items()}
        self._adopt_except_created(head)
        for name, change in changes.items():
            state = self._states[name]
            state.kept = min(kept[name], state.kept) if change.base is not None else 0
            if change.base is None or change.reshaped:
                state.region = evolve(state.region, shape=regions[name].shape)

    def _adopt_except_created(self, head: VersionRecord) -> None:
        created = {n: s for n, s in self._states.items() if s.base is None}
        deleted = self._deleted
        for name in created:
            del self._states[name]
        self._adopt(head)
        for name in deleted:
            self._states.pop(name, None)
        self._states.update(created)
        self._deleted = {n: head.regions[n] for n in deleted if n in head.regions}

    # ------------------------------------------------------------------- going back, leaving

    def rollback(self) -> None:
        """Undo everything since the last commit; arrays show the base version again."""
        with self._lock:
            self._check()
            for name, state in list(self._states.items()):
                self._note_written(state)
                if state.base is None:
                    self._retire(state)
                    del self._states[name]
                else:
                    self._restore(state, state.base)
            for name, base in self._deleted.items():
                self._states[name] = _State(base, base, page_count(base, self._engine.page_size))
            self._deleted.clear()

    def _restore(self, state: _State, base: RegionRecord) -> None:
        pages = page_count(base, self._engine.page_size)
        wiring = state.wiring
        if wiring is not None:
            lost = np.union1d(state.dirty, state.flushed.pages)
            lost = np.union1d(lost, np.arange(state.kept, pages))
            lost = lost[lost < pages]
            if wiring.pages > pages:
                wiring.shrink(pages)
            before = wiring.pages
            wiring.grow(pages)
            if state.exposed and pages > before:
                size = wiring.page_size
                self._engine.tracker.watch(wiring.address + before * size, (pages - before) * size)
            state.flushed = Placed()
            state.kept = pages
            slots = self._base_slots(state, lost)
            self._rewire(state, singles(lost, slots, 0))
            wiring.memory.anchor = self._anchor
        state.region, state.kept = base, pages
        state.dirty, state.flushed, state.reservations = NO_PAGES, Placed(), []

    def close(self) -> None:
        """End the workspace; changes that were not committed are dropped.

        Arrays that were handed out stay as they are.
        """
        with self._lock:
            for state in self._states.values():
                state.wiring = None
            self._states.clear()
            super().close()

    # ------------------------------------------------------------------ larger than memory

    def flush(self) -> None:
        """Write changed pages early and let go of their memory; the commit stays all or nothing.

        Raises
        ------
        FullError
            No space; the workspace still holds the changes.
        """
        with self._lock:
            self._check()
            for state in self._states.values():
                self._note_written(state)
                if state.wiring is not None and len(state.dirty):
                    self._flush(state, state.wiring)

    def _flush(self, state: _State, wiring: Wiring) -> None:
        pages = _blocks(state.dirty, wiring.pages)
        again = np.isin(pages, state.flushed.pages)
        slots = np.zeros(len(pages), np.int64)
        slots[again] = state.flushed.slots[np.searchsorted(state.flushed.pages, pages[again])]
        if not again.all():
            with self._engine.write() as write:
                slots[~again] = write.take(int((~again).sum()))
                number = write.reserve(slots[~again])
            state.reservations.append(_Reservation(self._engine, number))
            wiring.memory.anchor = (self._anchor, list(state.reservations))
        placed = _write_early(self._engine, wiring, pages, slots)
        state.flushed = placed.over(state.flushed)
        state.dirty = np.setdiff1d(state.dirty, pages, assume_unique=True)
        self._rewire(state, singles(pages, slots, 0))

    def _flush_if_large(self) -> None:
        """Flush once private memory takes more than its share (looked at now and then)."""
        now = time.monotonic()
        if now < self._next_flush_check:
            return
        self._next_flush_check = now + FLUSH_CHECK_SECONDS
        limit = self._engine.flush_share * kernel.total_memory()
        if kernel.private_bytes() > limit and self._pending() * kernel.PAGE_SIZE > limit / 4:
            self.flush()

    def _pending(self) -> int:
        tracker, ratio = self._engine.tracker, self._engine.page_size // kernel.PAGE_SIZE
        return sum(
            len(s.dirty) * ratio
            + (tracker.pending(s.wiring.address, s.wiring.nbytes) if s.exposed else 0)
            for s in self._states.values()
            if s.wiring is not None and s.wiring.pages
        )

    def _release_if_large(self) -> None:
        """Let go of committed private pages once they take more than their share."""
        if kernel.private_bytes() <= self._engine.flush_share * kernel.total_memory():
            return
        for state in self._states.values():
            if state.wiring is not None and state.base is not None and not self._engine.portable:
                state.wiring.clear()
                state.wiring.wire(self._extents(state.base))
                if state.exposed:
                    self._engine.tracker.watch(state.wiring.address, state.wiring.nbytes)


def _write_early(engine: Engine, wiring: Wiring, pages: IntArray, slots: IntArray) -> Placed:
    step = max(1, (4 << 20) // wiring.page_size)
    memory = wiring.page_array()
    sums = []
    for i in range(0, len(pages), step):
        batch = memory[pages[i : i + step]]
        sums.append(page_sums(memoryview(batch.view(np.uint8)), wiring.page_size))
        write_pages(engine.arena, batch, slots[i : i + step])
    return Placed(pages, slots, np.concatenate(sums))


def _blocks(pages: IntArray, limit: int) -> IntArray:
    """Pages to let go of together: whole blocks where single ones would take too many mappings."""
    size = 1
    while len(runs_of(np.unique(pages // size))) > FLUSH_PIECES:
        size = size * 4 if size > 1 else 16
    if size == 1:
        return pages
    blocks = np.unique(pages // size)
    whole = (blocks[:, None] * size + np.arange(size)).reshape(-1)
    return whole[whole < limit]


def _whole_pages(ranges: kernel.Ranges, ratio: int) -> IntArray:
    """Store pages that ranges of system pages touch, sorted."""
    if not len(ranges):
        return NO_PAGES
    start, stop = ranges[:, 0] // ratio, -(-ranges[:, 1] // ratio)
    length = stop - start
    within = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
    pages = np.repeat(start, length) + within
    return pages if ratio == 1 else np.unique(pages)


def _pages_region(region: RegionRecord, pages: int, page_size: int) -> RegionRecord:
    return evolve(region, dtype=np.dtype("u1"), shape=(pages * page_size,))


def _dtype(dtype: Any) -> np.dtype[Any]:
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError) as e:
        raise InvalidError(f"{dtype!r} is not a dtype: {e}") from None
    if found.hasobject or found.kind == "T":
        raise InvalidError(f"dtype {found} holds Python objects, which cannot be stored")
    if found.itemsize == 0:
        raise InvalidError(f"dtype {found} has no size: say how long its items are")
    return found


def _shape(shape: Any) -> tuple[int, ...]:
    extents = shape if isinstance(shape, tuple | list) else (shape,)
    try:
        found = tuple(int(e.__index__()) for e in extents)
    except (AttributeError, TypeError):
        raise InvalidError(f"{shape!r} is not a shape: integers are") from None
    if any(e < 0 for e in found) or len(found) > 64:
        raise InvalidError(f"{shape!r} is not a shape: extents are from 0 on, at most 64 of them")
    if any(e >= 1 << 63 for e in found):
        raise InvalidError(f"{shape!r} is too large")
    return found


def _as_bytes(data: Any) -> Any:
    try:
        if isinstance(data, np.ndarray):
            if data.dtype.hasobject:
                raise InvalidError("an array of Python objects has no bytes to write")
            return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        return np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)
    except (TypeError, ValueError, BufferError) as e:
        if isinstance(e, InvalidError):
            raise
        raise InvalidError(f"{type(data).__name__} has no bytes to write") from None
