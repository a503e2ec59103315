"""What changed between two versions: page ranges, at a cost that follows what changed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from attr import frozen

from pagestore.checksums import read_sums
from pagestore.format import IntArray, Records, RegionRecord, VersionRecord, runs_of
from pagestore.pagetable import Difference, Nodes, differences, expand


@frozen
class Change:
    """A run of pages of a region that differs between two versions.

    Attributes
    ----------
    region : str
    start, stop : int
        Half-open range of page numbers.
    kind : str
        ``"written"``; ``"created"`` or ``"deleted"`` when only one version has the region (the
        range is then all of it); ``"resized"`` when its shape or dtype differs (an empty range).
    page_size : int
        Bytes a page.
    """

    region: str
    start: int
    stop: int
    kind: str
    page_size: int

    @property
    def byte_start(self) -> int:
        """First byte of the range, from the region's start."""
        return self.start * self.page_size

    @property
    def byte_stop(self) -> int:
        """The byte behind the range."""
        return self.stop * self.page_size


def page_count(region: RegionRecord, page_size: int) -> int:
    """Pages that a region's bytes take."""
    return -(-region.nbytes // page_size)


def changes(
    records: Records, nodes: Nodes, old: VersionRecord, new: VersionRecord, page_size: int
) -> Iterator[Change]:
    """What `new` has differently from `old`, by region name and page."""
    for name in sorted(old.regions.keys() | new.regions.keys()):
        a, b = old.regions.get(name), new.regions.get(name)
        if a and (b is None or a.id != b.id):
            yield Change(name, 0, page_count(a, page_size), "deleted", page_size)
        if b and (a is None or a.id != b.id):
            yield Change(name, 0, page_count(b, page_size), "created", page_size)
        if a and b and a.id == b.id:
            if (a.shape, a.dtype) != (b.shape, b.dtype):
                yield Change(name, 0, 0, "resized", page_size)
            yield from _written(name, changed_pages(records, nodes, a, b), page_size)


_FIELDS = [
    Change.__dict__[name].__set__ for name in ("region", "start", "stop", "kind", "page_size")
]


def _written(region: str, pages: IntArray, page_size: int) -> list[Change]:
    """A change for each run of pages: what `Change` would make, in half the time."""
    set_region, set_start, set_stop, set_kind, set_page_size = _FIELDS
    made = []
    for start, count in runs_of(pages).tolist():
        change = object.__new__(Change)
        set_region(change, region)
        set_start(change, start)
        set_stop(change, start + count)
        set_kind(change, "written")
        set_page_size(change, page_size)
        made.append(change)
    return made


def changed_pages(records: Records, nodes: Nodes, a: RegionRecord, b: RegionRecord) -> IntArray:
    """Sorted numbers of the pages whose contents differ between two states of a region."""
    parts = [
        _really(records, found) for found in differences(nodes, a.table, b.table) if len(found)
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def moved_pages(nodes: Nodes, a: RegionRecord, b: RegionRecord) -> Iterator[Difference]:
    """Where the two states place pages differently, whatever they contain."""
    yield from differences(nodes, a.table, b.table)


def _really(records: Records, found: Difference) -> IntArray:
    """Pages of a difference, without those that were stored again with the same contents."""
    pages, old, _ = expand(found.olds())
    new = expand(found.news())[1]
    both = np.flatnonzero((old != 0) & (new != 0))
    sums = read_sums(records, np.concatenate((old[both], new[both])))
    return np.delete(pages, both[sums[: len(both)] == sums[len(both) :]])
