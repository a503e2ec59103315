"""A region in a workspace: the memory that shows it, and which of its pages were changed.

Owns: one region's memory, its dirty and early-written pages, and growing, cutting and restoring
it. Does not know branches, names or other regions; `commit` stores what it reports.

- K2  Pages that the kernel reports are noted before anything is done with them: whatever fails,
      the change is still known.
- K3  After a commit memory stays as it is: a private page already holds what was committed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from pagestore import kernel
from pagestore.diff import page_count
from pagestore.direct import Direct
from pagestore.engine import Engine
from pagestore.errors import FullError, InvalidError, PagestoreError
from pagestore.format import (
    Extents,
    IntArray,
    RegionRecord,
    VersionId,
    page_sums,
    runs_of,
    sorted_unique,
)
from pagestore.pagetable import clip, count, extents, lookup, singles
from pagestore.pins import Reservation
from pagestore.placing import BATCH_BYTES, NO_PAGES, Placed, RegionChange, write_pages
from pagestore.wiring import RESERVE_LEAST, Anchor, Wiring

COMPARE_BATCH = 1024
FLUSH_PIECES = 4096  # mappings that one flush may leave behind in a region


class Draft:
    """One region as a workspace has it.

    Attributes
    ----------
    region : RegionRecord
        Name, dtype and shape as they are now.
    base : RegionRecord or None
        As the workspace's base version has it; None for a region created since.
    kept : int
        Pages from this number on are not the base's: the region was shorter meanwhile.
    flushed : Placed
        Pages that were written early.
    """

    def __init__(
        self, engine: Engine, anchor: Anchor, region: RegionRecord, base: RegionRecord | None
    ) -> None:
        self._engine = engine
        self._anchor = anchor
        self._wiring: Wiring | None = None
        self._direct = Direct(engine.arena)  # while there is no wiring
        self._exposed = False  # an array was handed out: only the kernel knows what it wrote
        self._unsure = False  # what the kernel watches, or said last, was not seen through
        self._reservations: list[Reservation] = []
        self.region = region
        self.base = base
        self.kept = page_count(base, engine.page_size) if base else 0
        self._dirty = NO_PAGES
        # noted, but not merged yet: writes come one by one, and merging takes memory
        self._touched: list[IntArray] = []
        self._reported: list[kernel.Ranges] = []
        self.flushed = Placed()

    @property
    def dirty(self) -> IntArray:
        """Sorted pages that may differ from the base and from what was flushed."""
        if self._touched or self._reported:
            ratio = self._engine.page_size // kernel.PAGE_SIZE
            reported = [_store_pages(ranges, ratio) for ranges in self._reported]
            parts = [part for part in (self._dirty, *self._touched, *reported) if len(part)]
            if len(parts) > 1:
                parts = [sorted_unique(np.concatenate(parts))]
            self._dirty = parts[0] if parts else NO_PAGES
            self._touched, self._reported = [], []
        return self._dirty

    @dirty.setter
    def dirty(self, pages: IntArray) -> None:
        self._dirty, self._touched, self._reported = pages, [], []

    @property
    def pages(self) -> int:
        """Pages of the region as it is now."""
        return page_count(self.region, self._engine.page_size)

    # -------------------------------------------------------------------------------- memory

    @property
    def wiring(self) -> Wiring:
        """The region's memory, laid out on first use."""
        if self._wiring is None:
            wiring, aside = self._lay_out(self.pages), self._direct.pages
            if len(aside):
                wiring.page_array()[aside] = self._direct[aside]
                self.touch(aside)
            self._wiring = wiring
            self._direct.clear()
        return self._wiring

    def _lay_out(self, pages: int) -> Wiring:
        """Wire fresh memory as the base has the region."""
        try:
            wiring = Wiring(
                self._engine.arena, pages, self._anchor,
                growable=True, portable=self._engine.portable,
            )  # fmt: skip
        except OSError as e:
            raise FullError(f"no address space for region {self.region.name!r}: {e}") from e
        wiring.wire(clip(self._base_extents(), 0, min(self.kept, pages)))
        return wiring

    def _base_extents(self) -> Extents:
        if self.base is None:
            return Extents.empty()
        with self._engine.read() as (_, nodes):
            return extents(nodes, self.base.table)

    def _count(self, most: int) -> int:
        if self.base is None:
            return 0
        with self._engine.read() as (_, nodes):
            return count(nodes, self.base.table, most)

    def array(self) -> np.ndarray[Any, Any]:
        """Return the region as a writable array; from now on the kernel notes what it writes."""
        wiring = self.wiring
        if not self._exposed and self.region.nbytes:  # an empty array has nothing to write to
            self._watch(0, wiring.pages)
            self._exposed = True
        array: np.ndarray[Any, Any] = wiring.array(
            self.region.dtype, self.region.shape, writable=True
        )
        return array

    def _watch(self, start: int, stop: int) -> None:
        size = self._engine.page_size
        if stop > start:
            self._engine.tracker.watch(self.wiring.address + start * size, (stop - start) * size)

    def write(self, start: int, raw: np.ndarray[Any, Any]) -> None:
        """Write bytes from byte `start` on, and declare their pages dirty."""
        size, stop = self._engine.page_size, start + len(raw)
        if self._wiring is None and self._direct.suffices(len(raw), self._count):
            self._direct.write(self._known_slots, start, raw)
            return
        memory = self.wiring.bytes()
        self.touch(np.arange(start // size, -(-stop // size)))  # first: a signal may come between
        memory[start:stop] = raw

    def read(self, start: int, stop: int) -> bytes:
        """Bytes from byte `start` up to `stop`."""
        if self._wiring is None and self._direct.suffices(stop - start, self._count):
            return self._direct.read(self._known_slots, start, stop)
        return self.wiring.bytes()[start:stop].tobytes()

    def touch(self, pages: IntArray) -> None:
        """Note sorted pages as dirty."""
        self._touched.append(pages)

    def retire(self, version: VersionId) -> None:
        """Leave memory to the arrays that still look into it, with a pin of its own."""
        if self._wiring is not None:
            memory, self._wiring = self._wiring.memory, None
            try:
                memory.close()
            except BufferError:
                pin = self._engine.pins.acquire(version)
                memory.anchor = (Anchor(pin), list(self._reservations))
        self._exposed = False

    # -------------------------------------------------------------------------- dirty pages

    def collect(self) -> RegionChange:
        """Return what changed since the base, what the kernel saw included."""
        self.note_written()
        dirty, wiring = self.dirty, self._wiring
        memory: Direct | np.ndarray[Any, Any] = self._direct
        if wiring is not None and len(dirty):
            if dirty[-1] == self.pages - 1:
                self._zero(self.region.nbytes, self.pages)
            self._break_whole(wiring)
            memory = wiring.page_array()
        return RegionChange(
            self.region,
            self.base,
            memory,
            self.dirty,
            self.flushed,
            self.kept,
            [r.number for r in self._reservations],
        )

    def _break_whole(self, wiring: Wiring) -> None:
        """Make all of each dirty page private: the rest of it shows a slot that a commit frees."""
        ratio = wiring.page_size // kernel.PAGE_SIZE
        if ratio == 1 or wiring.portable:
            return
        first = wiring.bytes().reshape(-1, kernel.PAGE_SIZE)[:, 0]
        parts = (self.dirty[:, None] * ratio + np.arange(ratio)).reshape(-1)
        first[parts] = first[parts]
        if self._exposed:
            self._engine.tracker.written(wiring.address, wiring.nbytes)

    def note_written(self) -> None:
        """Add what the kernel saw written to the dirty pages (K2)."""
        wiring = self._wiring
        if wiring is None:
            self.dirty = self._direct.pages
            return
        if not self._exposed or not wiring.pages:
            return
        tracker = self._engine.tracker
        again, self._unsure = self._unsure, True  # until it is noted: a signal may come between
        ranges = tracker.written(wiring.address, wiring.nbytes, again=again)
        if not tracker.exact or again:
            pages = _store_pages(ranges, wiring.page_size // kernel.PAGE_SIZE)
            pages = self._really_written(wiring, pages)
            if len(pages):
                self.touch(pages)
        elif len(ranges):
            self._reported.append(ranges)
        self._unsure = False

    def pending_bytes(self) -> int:
        """Bytes of private memory that a flush would let go of."""
        wiring, size = self._wiring, self._engine.page_size
        if wiring is None:
            return len(self._direct.pages) * size
        known = len(self.dirty) * size
        if not self._exposed or not wiring.pages or self._unsure:
            return known
        pending = self._engine.tracker.pending(wiring.address, wiring.nbytes)
        return known + pending * kernel.PAGE_SIZE

    def _really_written(self, wiring: Wiring, pages: IntArray) -> IntArray:
        """Keep the candidates that differ from what the base (or a flush) holds."""
        pages = pages[~np.isin(pages, self.dirty)]
        slots = self._known_slots(pages)
        memory = wiring.page_array()
        stored = self._engine.arena.pages(int(slots.max(initial=0)) + 1)
        zero = np.zeros(1, memory.dtype)[0]
        keep = np.zeros(len(pages), np.bool_)
        for i in range(0, len(pages), COMPARE_BATCH):
            cut = slice(i, i + COMPARE_BATCH)
            theirs = stored[slots[cut]]
            theirs[slots[cut] == 0] = zero
            a, b = (x.view(np.uint64).reshape(len(x), -1) for x in (memory[pages[cut]], theirs))
            keep[cut] = (a != b).any(axis=1)
        return pages[keep]

    def _known_slots(self, pages: IntArray) -> IntArray:
        """Slots that hold the pages' contents, changes apart; 0 for zeros."""
        slots = np.zeros(len(pages), np.int64)
        if self.base is not None:
            with self._engine.read() as (_, nodes):
                slots, _ = lookup(nodes, self.base.table, pages)
            slots[pages >= self.kept] = 0
        if len(self.flushed.pages):
            _, where, place = np.intersect1d(
                pages, self.flushed.pages, assume_unique=True, return_indices=True
            )
            slots[where] = self.flushed.slots[place]
        return slots

    def rewire(self, pieces: Extents) -> None:
        """Show other slots in memory; that does not count as written."""
        wiring = self._wiring
        if wiring is None or not len(pieces):
            return
        mapped = pieces  # should it fail, any of them may be
        with self._remapping():
            try:
                done = wiring.rewire(pieces)
                assert done is not None  # private memory can always be copied into
                mapped = done
            finally:
                self._watch_again(wiring, pieces, mapped)

    @contextlib.contextmanager
    def _remapping(self) -> Iterator[None]:
        """Where it is not seen through, what the kernel says next may not be all."""
        before, self._unsure = self._unsure, True
        yield
        self._unsure = before

    def _watch_again(self, wiring: Wiring, pieces: Extents, mapped: Extents) -> None:
        if not self._exposed:
            return
        for page, length in zip(mapped.page.tolist(), mapped.length.tolist(), strict=True):
            self._watch(page, page + length)
        if len(mapped) < len(pieces):
            self._engine.tracker.written(wiring.address, wiring.nbytes)

    # ------------------------------------------------------------------------------ resizing

    def resize(self, region: RegionRecord) -> None:
        """Take another shape; bytes stay, and new ones are zeros."""
        try:
            self._resize(region)
        except (PagestoreError, MemoryError):
            raise
        except BaseException:
            self._resize(region)  # a signal came amid it: half of it is no state to leave
            raise

    def _resize(self, region: RegionRecord) -> None:
        if self._grows_unseen(region.nbytes):
            self.region = region  # pages that are neither the base's nor aside are zeros
            return
        after = page_count(region, self._engine.page_size)
        before = self.pages if self._wiring is None else self._wiring.pages
        if len(self._direct.pages):
            _ = self.wiring  # brings what is aside into memory
        if region.nbytes > self.region.nbytes:
            self._clear_tail()
        if after > before:
            if after > self.wiring.capacity:
                self._move(after)
            self._grow(after)
        if region.nbytes < self.region.nbytes:
            self._cut(region.nbytes, after)
        self.region = region

    def _grows_unseen(self, nbytes: int) -> bool:
        """Whether the region can become so long without memory for it, which would have room."""
        old = self.region.nbytes
        return (
            self._wiring is None
            and old % self._engine.page_size == 0
            and old <= nbytes <= RESERVE_LEAST
        )

    def _grow(self, pages: int) -> None:
        before = self.wiring.pages
        with self._remapping():
            self.wiring.grow(pages)
            if self._exposed:
                self._watch(before, pages)

    def _shrink(self, pages: int) -> None:
        with self._remapping():
            self.wiring.shrink(pages)

    def _cut(self, nbytes: int, pages: int) -> None:
        """Forget what lies beyond `nbytes`: it must read as zeros should the region grow again."""
        self.note_written()
        if nbytes % self._engine.page_size or self._wiring is not None:
            self._shrink(pages)  # first: where it fails nothing is cut
        self._zero(nbytes, pages)
        self.kept = min(self.kept, pages)
        self.dirty = self.dirty[self.dirty < pages]
        self.flushed = self.flushed.take(self.flushed.pages < pages)

    def _clear_tail(self) -> None:
        """Forget what arrays of an older, longer shape wrote into the last page."""
        self.note_written()
        self._zero(self.region.nbytes, self.pages)

    def _zero(self, nbytes: int, pages: int) -> None:
        if nbytes % self._engine.page_size:
            tail = self.wiring.bytes()[nbytes : pages * self._engine.page_size]
            if tail.any():
                tail[:] = 0
                self.touch(np.array([pages - 1]))

    def _move(self, pages: int) -> None:
        """Lay the region out at other addresses, where it can grow to `pages`."""
        old = self.wiring
        self.note_written()
        new = self._lay_out(pages)
        new.pages = old.pages
        new.rewire(singles(self.flushed.pages, self.flushed.slots, 0))
        new.page_array()[self.dirty] = old.page_array()[self.dirty]
        exposed = self._exposed
        self._exposed, self._wiring = False, new
        try:
            old.memory.close()
        except BufferError:
            self._exposed, self._wiring = exposed, old
            raise InvalidError(
                f"arrays of region {self.region.name!r} are in use: it can grow to "
                f"{old.capacity * old.page_size} bytes in place; release them to grow further"
            ) from None

    # ------------------------------------------------------------------- commit and rollback

    def settle(self, region: RegionRecord, anchor: Anchor) -> None:
        """Stand on a committed state that memory already shows (K3)."""
        if len(self.flushed.pages):
            self._settle_flushed(region)
        self.dirty, self._reservations = NO_PAGES, []  # the commit ended them
        self._direct.clear()
        self.adopt(region, anchor)

    def _settle_flushed(self, region: RegionRecord) -> None:
        """Show the version's slots where it did not take those that were written early."""
        pages = self.flushed.pages
        with self._engine.read() as (_, nodes):
            slots, _ = lookup(nodes, region.table, pages)
        other = slots != self.flushed.slots
        self.flushed, self._reservations = Placed(), []
        self.rewire(singles(pages[other], slots[other], 0))

    def adopt(self, region: RegionRecord, anchor: Anchor) -> None:
        """Let `region` be the base, and the region as it is now."""
        self.region = self.base = region
        self.kept = self.pages
        self._hold(anchor)

    def _hold(self, anchor: Anchor) -> None:
        self._anchor = anchor
        if self._wiring is not None:
            self._wiring.memory.anchor = (anchor, list(self._reservations))

    def has_room(self, pages: int) -> bool:
        """Whether memory, as it is laid out, could show that many pages."""
        return self._wiring is None or pages <= self._wiring.capacity

    def take_over(self, moved: Extents, pages: int) -> bool:
        """Show what others committed, in a region that now has `pages`; False if memory cannot."""
        wiring = self._wiring
        if wiring is None:
            return True
        if pages > wiring.capacity:
            return False
        if pages < wiring.pages:
            self._shrink(pages)
        elif pages > wiring.pages:
            self._grow(pages)
        self.rewire(clip(moved, 0, pages))
        return True

    def restore(self) -> None:
        """Show the base again, whatever was changed."""
        base = self.base
        assert base is not None
        self.note_written()
        pages = page_count(base, self._engine.page_size)
        wiring = self._wiring
        if wiring is not None:
            lost = np.union1d(self.dirty, self.flushed.pages)
            lost = np.union1d(lost, np.arange(self.kept, pages))
            if wiring.pages > pages:
                self._shrink(pages)
            self._grow(pages)
            lost = self.dirty = lost[lost < pages]  # known, should what follows fail
            self.kept, self.flushed = pages, Placed()
            self.rewire(singles(lost, self._known_slots(lost), 0))
        self.dirty, self.flushed, self._reservations = NO_PAGES, Placed(), []
        self._direct.clear()
        self.adopt(base, self._anchor)

    # ------------------------------------------------------------------- larger than memory

    def flush(self) -> None:
        """Write dirty pages to slots set aside, and let go of their memory."""
        self.note_written()
        if not len(self.dirty):
            return
        wiring, engine = self.wiring, self._engine
        pages = _blocks(self.dirty, wiring.pages)
        again = np.isin(pages, self.flushed.pages)
        slots = np.zeros(len(pages), np.int64)
        slots[again] = self.flushed.slots[np.searchsorted(self.flushed.pages, pages[again])]
        if not again.all():
            with engine.write() as write:
                slots[~again] = write.take(int((~again).sum()))
                reservation = write.reserve(slots[~again])
            self._reservations.append(reservation)
            self._hold(self._anchor)
        self.flushed = _write_early(engine, wiring, pages, slots).over(self.flushed)
        self.dirty = np.setdiff1d(self.dirty, pages, assume_unique=True)
        self.rewire(singles(pages, slots, 0))

    def release(self) -> None:
        """Let go of private pages that hold what is committed."""
        if self._wiring is not None and not self._engine.portable:
            self._unsure = True
            self._wiring.wire(self._base_extents())  # not cleared: it shows this all along
            if self._exposed:
                self._watch(0, self._wiring.pages)
            self._unsure = False


def _write_early(engine: Engine, wiring: Wiring, pages: IntArray, slots: IntArray) -> Placed:
    step = max(1, BATCH_BYTES // wiring.page_size)
    memory = wiring.page_array()
    sums = []
    for i in range(0, len(pages), step):
        batch = memory[pages[i : i + step]]
        sums.append(page_sums(batch.view(np.uint8).data, wiring.page_size))
        write_pages(engine.arena, batch, slots[i : i + step])
    return Placed(pages, slots, np.concatenate(sums))


def _blocks(pages: IntArray, limit: int) -> IntArray:
    """Pages to let go of together: whole blocks where single ones would take many mappings."""
    size = 1
    while len(runs_of(np.unique(pages // size))) > FLUSH_PIECES:
        size = size * 4 if size > 1 else 16
    if size == 1:
        return pages
    blocks = np.unique(pages // size)
    whole = (blocks[:, None] * size + np.arange(size)).reshape(-1)
    return whole[whole < limit]


def _store_pages(ranges: kernel.Ranges, ratio: int) -> IntArray:
    """Store pages that ranges of system pages touch, sorted."""
    if not len(ranges):
        return NO_PAGES
    start, stop = ranges[:, 0], ranges[:, 1]
    if ratio != 1:
        start, stop = start // ratio, -(-stop // ratio)
    length = stop - start
    if ratio == 1 and not np.count_nonzero(length != 1):
        return start
    within = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
    pages = np.repeat(start, length) + within
    return pages if ratio == 1 else np.unique(pages)
