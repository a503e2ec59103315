"""Memory wired to slots: one contiguous range of addresses for a region.

Owns: which slots are mapped and which pages are copied, and the life of the range. Does not know
versions: whoever wires says which slot each page has.

- W1  Numbers that come from disk are checked against the arena's size and the range's length
      before memory is touched.
- W2  The range belongs to one Python mmap object that every array holds: memory is unmapped when
      the last array is gone, never before.
- W3  A process never uses more than a budget of kernel mappings; what does not fit is copied.

A region whose pages lie in few runs is mapped run by run. A fragmented one is *bridged*: runs
that continue each other across a gap are mapped as one, and the pages that the bridge shows
wrongly are copied over it (breaking copy-on-write in the process's own memory).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from pagestore import kernel
from pagestore.arena import Arena
from pagestore.errors import CorruptionError, FullError
from pagestore.format import Extents, sorted_unique
from pagestore.pagetable import join_up
from pagestore.pins import Pin

FEW = 256  # pieces that are mapped one by one, whatever their length
LONG = 16  # pages: mapping a run costs about as much as copying this many
BRIDGE_GAP = 64  # pages
HUGE = 2 << 20  # bytes: a huge page
NOTHING = np.iinfo(np.int64).min  # where no slot is shown: as no slot is that far from its page
RESERVE_FACTOR = 4
RESERVE_LEAST = 16 << 30


class MappingBudget:
    """How many kernel mappings this process may use (W3)."""

    def __init__(self) -> None:
        self.limit = max(256, kernel.mapping_limit() // 2)
        self._used = 0
        self._patience = 0
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Whether `count` more mappings are within the budget."""
        with self._lock:
            if self._used + count > self.limit:
                # mappings go away and merge unseen: count them, but not at every refusal
                self._patience -= 1
                if self._patience > 0:
                    return False
                try:
                    self._used = kernel.count_mappings()
                except OSError:  # no descriptor left to look with
                    return False
                self._patience = 100
                if self._used + count > self.limit:
                    return False
            self._used += count
            return True


BUDGET = MappingBudget()


class Anchor:
    """Holds a pin for as long as anything refers to the anchor: a view, or a range of memory."""

    def __init__(self, pin: Pin) -> None:
        self._held = [pin]

    @property
    def pin(self) -> Pin:
        return self._held[0]

    def move(self, pin: Pin) -> None:
        """Hold another pin instead: the memory has been brought to that version."""
        self._held.append(pin)
        self._held.pop(0).release()

    def keep(self, pin: Pin) -> None:
        """Hold another pin too: the memory may show some of that version."""
        self._held.append(pin)


class Wiring:
    """A range of memory that shows a region's pages.

    Parameters
    ----------
    arena : Arena
    pages : int
        Pages of the region now.
    anchor : Anchor
        Kept alive by the memory.
    shared : bool
        Map MAP_SHARED and read-only (a live view) instead of MAP_PRIVATE.
    growable : bool
        Reserve addresses beyond the region, so that it can grow where it is.
    portable : bool
        Copy every page instead of mapping it: what a system without MAP_FIXED gets.
    """

    def __init__(
        self,
        arena: Arena,
        pages: int,
        anchor: Anchor,
        *,
        shared: bool = False,
        growable: bool = False,
        portable: bool = False,
    ) -> None:
        self.arena = arena
        self.page_size = arena.page_size
        self.pages = pages
        self.shared = shared
        self.portable = portable
        self.memory = _reserve(max(1, pages) * self.page_size + HUGE, growable)
        self.memory.anchor = anchor
        self._offset: int | None = None  # of the first page in the memory, once it is wired
        self.capacity = (len(self.memory) - HUGE) // self.page_size
        self._shown = pages  # the most there ever were: older arrays can write up to there

    @property
    def nbytes(self) -> int:
        return self.pages * self.page_size

    @property
    def address(self) -> int:
        """Address of the first page."""
        return self.memory.address + (self._offset or 0)

    def array(self, dtype: np.dtype[Any], shape: tuple[int, ...], *, writable: bool) -> Any:
        """Return the range as an array; it keeps the memory and the pin alive."""
        size = dtype.itemsize
        for extent in shape:
            size *= extent
        if size > self.nbytes:
            raise CorruptionError("a region is larger than the memory wired for it (W1)")
        if size == 0:
            return np.empty(shape, dtype)
        source = self.memory if writable else memoryview(self.memory).toreadonly()
        flat = np.frombuffer(source, np.uint8, size, self._offset or 0)
        return flat.view(dtype).reshape(shape)

    def bytes(self) -> np.ndarray[Any, Any]:
        """Every byte of the range: for the layers above, not for users."""
        return np.frombuffer(self.memory, np.uint8, self.nbytes, self._offset or 0)

    def page_array(self) -> np.ndarray[Any, Any]:
        """The range as one element a page."""
        page = np.dtype(("V", self.page_size))
        return np.frombuffer(self.memory, page, self.pages, self._offset or 0)

    # -------------------------------------------------------------------------------- wiring

    def wire(self, extents: Extents) -> None:
        """Lay the slots of a whole table over the range: fresh and zeroed, or showing the same."""
        self._check(extents)
        extents = _joined(extents)
        if self._offset is None:
            self._offset = self._best_offset(extents)
        if self.portable:
            self._copy(extents)
        elif not len(extents) or (len(extents) <= FEW and BUDGET.take(2 * len(extents))):
            self._map(extents, shared=self.shared)
        else:
            self._bridge(extents)

    def _best_offset(self, extents: Extents) -> int:
        """Where to begin so that the longest run lies in memory as it lies in the file.

        The page cache holds large folios, which the kernel maps whole only where address and file
        offset agree modulo the size of a huge page: a first scan is half as slow again otherwise.
        """
        if not len(extents):
            return 0
        i = int(np.argmax(extents.length))
        apart = (int(extents.slot[i]) - int(extents.page[i])) * self.page_size
        return (apart - self.memory.address) % HUGE

    def rewire(self, extents: Extents) -> Extents | None:
        """Lay other slots (0: zeros) over pages of a range in use.

        Returns the pieces that were mapped anew (the rest was copied), or None where that is not
        possible within the budget and the whole range must be wired again.
        """
        self._check(extents)
        if self.portable:
            self._copy(extents)
            return Extents.empty()
        mapped = np.ones(len(extents), np.bool_)
        if not self.shared and len(extents) > FEW // 4:
            mapped = extents.length >= LONG
        if not BUDGET.take(2 * int(mapped.sum())):
            if self.shared:
                return None
            mapped[:] = False
        try:
            self._map(extents.take(mapped), shared=self.shared)
        except FullError:
            if self.shared:
                raise
            # some may be mapped by now: in the caller's eyes all of them were
            self._copy(extents)
            return extents.take(mapped)
        self._copy(extents.take(~mapped))
        return extents.take(mapped)

    def clear(self) -> None:
        """Make the whole range zeros again, to be wired anew."""
        if self.portable:
            self.bytes()[:] = 0
        else:
            column = (np.array([v], np.int64) for v in (0, max(1, self.pages), 0, 0))
            self._map(Extents(*column), shared=False)

    def grow(self, pages: int) -> None:
        """Show more pages of the reserved range; they are zeros."""
        if pages > self.capacity:
            raise FullError(f"a region in use can grow to {self.capacity} pages here")
        before, self.pages = self.pages, pages
        try:
            self._blank(before, min(pages, self._shown))
        except BaseException:
            self.pages = before  # or they would be taken for zeros the next time
            raise
        self._shown = max(self._shown, pages)

    def shrink(self, pages: int) -> None:
        """Show fewer pages; the ones cut off read as zeros from now on."""
        self._blank(pages, self.pages)
        self.pages = pages

    def _blank(self, start: int, stop: int) -> None:
        if start >= stop:
            return
        column = (np.array([v], np.int64) for v in (start, stop - start, 0, 0))
        if self.portable:
            self._copy(Extents(*column))
        else:
            self._map(Extents(*column), shared=False)

    # ------------------------------------------------------------------------------- details

    def _check(self, extents: Extents) -> None:
        if len(extents):
            if extents.page[0] < 0 or int((extents.page + extents.length).max()) > self.pages:
                raise CorruptionError("a page table names pages beyond its region (W1)")
            ends = np.where(extents.slot != 0, extents.slot + extents.length, 0)
            self.arena.check_slots(int(ends.max()))

    def _map(self, extents: Extents, *, shared: bool) -> None:
        try:
            self._map_each(extents, shared=shared)
        except OSError as e:
            raise FullError(f"the kernel refused to map a region's pages: {e}") from e

    def _map_each(self, extents: Extents, *, shared: bool) -> None:
        page_size, fd = self.page_size, self.arena.fd
        for page, length, slot in _rows(extents):
            address, size = self.address + page * page_size, length * page_size
            if slot:
                kernel.map_file(
                    address, size, fd, slot * page_size, shared=shared, writable=not shared
                )
            else:
                kernel.map_zero(address, size, writable=True)

    def _copy(self, extents: Extents) -> None:
        """Put the contents of slots into writable memory."""
        size, zero = self.page_size, extents.slot == 0
        stored = extents.take(~zero)
        self.arena.read_into(self.address + stored.page * size, stored.slot, stored.length)
        target = self.bytes()
        for page, length, _ in _rows(extents.take(zero)):
            target[page * size : (page + length) * size] = 0

    def _bridge(self, extents: Extents) -> None:
        """Map the longest bridges of a fragmented region, then copy what they show wrongly."""
        bridges = _bridges(extents)
        while len(bridges) and not BUDGET.take(2 * len(bridges)):
            bridges = bridges.take(slice((len(bridges) + 1) // 2, None))
            if len(bridges) == 1:
                break
        self._map(bridges, shared=False)
        self._copy(_shown_wrongly(_without_gaps(extents), bridges))


def _joined(e: Extents) -> Extents:
    """The same extents, joined up whichever version wrote them."""
    return join_up(Extents(e.page, e.length, e.slot, np.zeros(len(e), np.int64)))


def _bridges(extents: Extents) -> Extents:
    """Runs that continue each other across small gaps, as one piece each; the fullest last."""
    apart = extents.slot - extents.page
    order = np.argsort(apart, kind="stable")
    e, apart = extents.take(order), apart[order]
    end = e.page + e.length
    breaks = (apart[1:] != apart[:-1]) | (e.page[1:] - end[:-1] > BRIDGE_GAP)
    heads = np.flatnonzero(np.concatenate(([True], breaks)))
    tails = np.concatenate((heads[1:], [len(e)])) - 1
    filled = np.add.reduceat(e.length, heads)
    found = Extents(e.page[heads], end[tails] - e.page[heads], e.slot[heads], filled)
    found = found.take(filled >= LONG)
    return found.take(np.argsort(found.birth, kind="stable"))


def _without_gaps(e: Extents) -> Extents:
    """The same extents, and zeros for the pages between them."""
    end = e.page + e.length
    gaps = np.flatnonzero(e.page[1:] != end[:-1])
    start, length = end[gaps], e.page[gaps + 1] - end[gaps]
    columns = ((e.page, start), (e.length, length), (e.slot, 0), (e.birth, 0))
    return Extents(*(np.insert(column, gaps + 1, new) for column, new in columns))


def _shown_wrongly(wanted: Extents, bridges: Extents) -> Extents:
    """The parts of `wanted`, which has no gaps, that these bridges show wrongly.

    A bridge hides those before it. Where there is none memory shows zeros.
    """
    ends = np.stack((bridges.page, bridges.page + bridges.length), axis=1)
    edges = sorted_unique(ends.reshape(-1))
    seen = np.full(len(edges) + 1, NOTHING)  # slot - page, before and from each edge on
    spans, apart = np.searchsorted(edges, ends) + 1, bridges.slot - bridges.page
    for (first, last), distance in zip(spans.tolist(), apart.tolist(), strict=True):
        seen[first:last] = distance
    at = np.searchsorted(wanted.page, edges)
    inside = edges != np.append(wanted.page, -1)[at]
    who = np.insert(np.arange(len(wanted)), at[inside], at[inside] - 1)
    page = np.insert(wanted.page, at[inside], edges[inside])
    part = wanted.take(who)
    cut = page - part.page
    slot = np.where(part.slot != 0, part.slot + cut, 0)
    until = np.append(page[1:], wanted.page[-1:] + wanted.length[-1:])
    borders = np.concatenate(([0], np.searchsorted(page, edges), [len(page)]))
    shown = np.repeat(seen, np.diff(borders))
    wrong = shown != np.where(slot != 0, slot - page, NOTHING)
    return Extents(page, until - page, slot, part.birth).take(wrong)


def _rows(extents: Extents) -> Iterator[tuple[int, int, int]]:
    return zip(extents.page.tolist(), extents.length.tolist(), extents.slot.tolist(), strict=True)


def _reserve(size: int, growable: bool) -> kernel.Memory:
    wanted = max(RESERVE_FACTOR * size, RESERVE_LEAST) if growable else size
    while wanted > size:
        with contextlib.suppress(OSError, OverflowError):
            return kernel.reserve(wanted)
        wanted = max(size, wanted // 4)
    try:
        return kernel.reserve(size)
    except (OSError, OverflowError) as e:
        raise FullError(f"no address space for {size} bytes: {e}") from e
