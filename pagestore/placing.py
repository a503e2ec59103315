"""Pages put into slots that no version refers to yet.

Owns: writing pages to free slots, and what a workspace reports of one region for that. Does not
know versions or branches, nor how a commit makes the slots count.

- M1  Pages are hashed and written from one copy of them, so checksum and contents agree even if
      another thread writes on.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, Protocol

import numpy as np

from pagestore.arena import Arena
from pagestore.diff import page_count
from pagestore.engine import Write
from pagestore.format import (
    IntArray,
    RegionRecord,
    SumArray,
    content_hash,
    content_term,
    page_sum,
    page_sums,
    runs_of,
)

BATCH_BYTES = 4 << 20
FEW = 16  # pages: up to here whole numbers one by one are faster than arrays
NO_PAGES: IntArray = np.empty(0, np.int64)
NO_SUMS: SumArray = np.empty(0, np.uint64)


class Pages(Protocol):
    """Contents of pages by their numbers, one element a page."""

    def __getitem__(self, pages: IntArray, /) -> np.ndarray[Any, Any]: ...


class Placed(NamedTuple):
    """Pages that lie in slots which no version refers to yet; sorted by page."""

    pages: IntArray = NO_PAGES
    slots: IntArray = NO_PAGES
    sums: SumArray = NO_SUMS

    def take(self, index: Any) -> Placed:
        return Placed(self.pages[index], self.slots[index], self.sums[index])

    def at(self, pages: IntArray) -> Placed:
        """Those of some of these pages."""
        return self if pages is self.pages else self.take(np.searchsorted(self.pages, pages))

    def weight(self) -> tuple[int, int]:
        """How many of the pages have a slot, and what those add to the content hash."""
        if len(self.pages) > FEW:
            stored = self.take(self.slots != 0)
            return len(stored.pages), content_hash(stored.pages, stored.sums)
        rows = zip(self.pages.tolist(), self.slots.tolist(), self.sums.tolist(), strict=True)
        terms = [content_term(page, checksum) for page, slot, checksum in rows if slot]
        return len(terms), sum(terms)

    def over(self, older: Placed) -> Placed:
        """These pages, and those of `older` that are not among them."""
        left = older.take(~np.isin(older.pages, self.pages))
        pages = np.concatenate((self.pages, left.pages))
        both = Placed(
            pages,
            np.concatenate((self.slots, left.slots)),
            np.concatenate((self.sums, left.sums)),
        )
        return both.take(np.argsort(pages, kind="stable"))


class RegionChange(NamedTuple):
    """What a workspace did to one region since its base version.

    Attributes
    ----------
    region : RegionRecord
        As the workspace has it; shape and dtype count.
    base : RegionRecord or None
        As the base version has it; None for a region created here.
    memory : ndarray or Direct
        Gives pages by their numbers, one element a page.
    dirty : IntArray
        Sorted pages that may differ from the base and from what was flushed.
    flushed : Placed
        Pages written early.
    kept : int
        Pages from this number on are not the base's: the region was shorter meanwhile.
    reservations : list of int
        Under which `flushed` slots are set aside.
    """

    region: RegionRecord
    base: RegionRecord | None
    memory: Pages
    dirty: IntArray
    flushed: Placed
    kept: int
    reservations: list[int]

    @property
    def reshaped(self) -> bool:
        base = self.base
        return base is not None and (base.shape, base.dtype) != (
            self.region.shape,
            self.region.dtype,
        )

    def is_change(self, page_size: int) -> bool:
        return (
            len(self.dirty) > 0
            or self.base is None
            or self.reshaped
            or len(self.flushed.pages) > 0
            or self.kept < page_count(self.base, page_size)
        )


@functools.lru_cache(16)
def zero_sum(page_size: int) -> int:
    return page_sum(bytes(page_size))


def store_pages(arena: Arena, write: Write, memory: Pages, before: Placed) -> Placed:
    """Write pages of memory to free slots; leave out those that equal what is stored `before`.

    Pages that have become zeros are given slot 0.
    """
    if not len(before.pages):
        return Placed()
    step = max(1, BATCH_BYTES // arena.page_size)
    parts = [
        _store_batch(arena, write, memory, before.take(slice(i, i + step)))
        for i in range(0, len(before.pages), step)
    ]
    if len(parts) == 1:
        return parts[0]
    return Placed(
        np.concatenate([p.pages for p in parts]),
        np.concatenate([p.slots for p in parts]),
        np.concatenate([p.sums for p in parts]),
    )


def _store_batch(arena: Arena, write: Write, memory: Pages, before: Placed) -> Placed:
    batch = memory[before.pages]  # a copy: hashed and written from here (M1)
    sums = page_sums(batch.view(np.uint8).data, arena.page_size)
    zero = sums == np.uint64(zero_sum(arena.page_size))
    same = (sums == before.sums) & (before.slots != 0)
    if not np.count_nonzero(zero | same):
        slots = write.take(len(batch))
        write_pages(arena, batch, slots)
        return Placed(before.pages, slots, sums)
    for i in zero.nonzero()[0].tolist():
        zero[i] = not batch[i : i + 1].view(np.uint8).any()
    for i in same.nonzero()[0].tolist():
        # equal checksums are not yet equal pages
        same[i] = arena.read(int(before.slots[i])) == batch[i].tobytes()
    same |= zero & (before.slots == 0)
    new = ~same & ~zero
    slots = np.zeros(len(batch), np.int64)
    slots[new] = write.take(int(np.count_nonzero(new)))
    write_pages(arena, batch if new.all() else batch[new], slots[new])
    return Placed(before.pages[~same], slots[~same], sums[~same])


def write_pages(arena: Arena, batch: np.ndarray[Any, Any], slots: IntArray) -> None:
    """Write pages to slots, one call for each run of slots."""
    data = batch.view(np.uint8).data if len(batch) else memoryview(b"")
    at = 0
    for start, count in runs_of(slots).tolist():
        size = count * arena.page_size
        arena.write(start, data[at : at + size])
        at += size
    if at:
        arena.start_writing()
