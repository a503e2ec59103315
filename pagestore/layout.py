"""Where the pages of a version lie: page tables as arrays, and what each region takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from attr import frozen

from pagestore.checksums import read_sums
from pagestore.decoded import Damage
from pagestore.diff import page_count
from pagestore.errors import CorruptionError
from pagestore.format import Extents, IntArray, RegionRecord, SumArray, VersionRecord
from pagestore.pagetable import Nodes, expand, extents, extents_within
from pagestore.reclaim import exclusive_pages
from pagestore.sharing import count
from pagestore.transaction import Transaction


@frozen
class RegionLayout:
    """How the pages of a region of one version lie; sizes in bytes.

    Attributes
    ----------
    name : str
    pages : int
        That the region's bytes take.
    stored_pages : int
        Those that have a slot; all others are zeros.
    runs : int
        Pieces of the arena that they lie in, in their order: 1 at best.
    referred_bytes : int
        Of the stored pages.
    exclusive_bytes : int
        Of those that no other kept version refers to.
    """

    name: str
    pages: int
    stored_pages: int
    runs: int
    referred_bytes: int
    exclusive_bytes: int

    @property
    def zero_pages(self) -> int:
        """Pages without a slot."""
        return self.pages - self.stored_pages


@frozen(eq=False)
class PageTable:
    """The pages of a range that have a slot, as arrays side by side; all others are zeros.

    Attributes
    ----------
    version : int
    region : str
    start, stop : int
        The half-open range of page numbers that was asked for, within the region.
    page_size : int
    page : array of int64
        Page numbers, ascending.
    slot : array of int64
        Where each lies in the arena: slot s begins at byte s * page_size.
    birth : array of int64
        The version that wrote it, which need not be kept any more.
    checksum : array of uint64
        XXH3 of its contents.
    holders : array of int64 or None
        How many kept versions refer to the same slot, this one included; None if not asked for.
    """

    version: int
    region: str
    start: int
    stop: int
    page_size: int
    page: IntArray
    slot: IntArray
    birth: IntArray
    checksum: SumArray
    holders: IntArray | None

    def __len__(self) -> int:
        return len(self.page)

    @property
    def runs(self) -> int:
        """In how many pieces of the arena the pages lie, in their order."""
        return _runs(self.page, self.page + 1, self.slot, self.slot + 1)


def layout(
    records: Transaction,
    nodes: Nodes,
    version: VersionRecord,
    page_size: int,
    damaged: Damage | None = None,
) -> dict[str, RegionLayout]:
    """How each region of a version lies, by its name."""
    found = {}
    for name, region in version.regions.items():
        try:
            found[name] = RegionLayout(
                name,
                page_count(region, page_size),
                region.pages,
                _runs_of(extents(nodes, region.table)),
                region.pages * page_size,
                exclusive_pages(records, nodes, version, region) * page_size,
            )
        except CorruptionError as e:
            if damaged is None:
                raise
            damaged(CorruptionError(f"version {version.id}, region {name!r}: {e}"))
    return found


def page_table(
    records: Transaction,
    nodes: Nodes,
    version: VersionRecord,
    region: RegionRecord,
    start: int,
    stop: int | None,
    page_size: int,
    *,
    sharing: bool,
) -> PageTable:
    """Return what is stored of some pages of a region, as arrays."""
    pages = page_count(region, page_size)
    start, stop = min(max(start, 0), pages), pages if stop is None else min(max(stop, 0), pages)
    page, slot, birth = expand(extents_within(nodes, region.table, start, stop))
    holders = None
    if sharing:
        slots = records.meta.slots
        holders = count(nodes, list(records.versions()), slots, region.id).holders[slot]
    return PageTable(
        version.id, region.name, start, stop, page_size,
        page, slot, birth, read_sums(records, slot), holders,
    )  # fmt: skip


def _runs_of(e: Extents) -> int:
    return _runs(e.page, e.page + e.length, e.slot, e.slot + e.length)


def _runs(page: IntArray, page_end: IntArray, slot: IntArray, slot_end: IntArray) -> int:
    if not len(page):
        return 0
    breaks: Any = (page_end[:-1] != page[1:]) | (slot_end[:-1] != slot[1:])
    return 1 + int(np.count_nonzero(breaks))
