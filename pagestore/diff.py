"""What changed between two versions: page ranges, at a cost that follows what changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from attr import frozen

from pagestore.checksums import read_sums
from pagestore.errors import PagestoreError
from pagestore.format import (
    NO_VERSION,
    IntArray,
    RegionRecord,
    VersionId,
    VersionRecord,
    content_hash,
    runs_of,
)
from pagestore.pagetable import Difference, Nodes, differences, expand
from pagestore.transaction import Transaction

MOST_ANCESTORS = 1000  # to look for one that two versions share: then both are compared whole


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
    records: Transaction, nodes: Nodes, old: VersionRecord, new: VersionRecord, page_size: int
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
            yield from _written(name, changed_pages(records, nodes, old, new, name), page_size)


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


def changed_pages(
    records: Transaction, nodes: Nodes, old: VersionRecord, new: VersionRecord, region: str
) -> IntArray:
    """Sorted numbers of the pages whose contents differ in a region that both versions have.

    What differs was written after the last version that both come from: page tables tell that at
    once, however they were merged since. That no page is left out (of zeros nothing may be left) is
    proven by the regions' content hashes, which differ by those pages.
    """
    a, b = old.regions[region], new.regions[region]
    for since in _since(records, old, new):
        tables = differences(nodes, a.table, b.table, since=since)
        found = [_compared(records, part) for part in tables if len(part)]
        if since == NO_VERSION or _is_all(a, b, found):
            break
    parts = [part.pages[part.differ] for part in found]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _since(records: Transaction, old: VersionRecord, new: VersionRecord) -> Iterator[VersionId]:
    """Versions from which both may come, the likeliest first; the last one is none."""
    first = min(old.id, new.id)
    yield first  # if the other one comes from it
    common = last_common(records, old, new)
    if common not in (first, NO_VERSION):
        yield common
    yield NO_VERSION


def last_common(records: Transaction, a: VersionRecord, b: VersionRecord) -> VersionId:
    """The last version that both come from, which may be one of them; 0: none, or too far away."""
    for _ in range(MOST_ANCESTORS):
        if a.id == b.id:
            return a.id
        if a.id < b.id:
            a, b = b, a
        try:
            a = records.version(a.parent)
        except PagestoreError:  # there is none, or it cannot be read: neither is needed
            break
    return NO_VERSION


def moved_pages(
    nodes: Nodes, old: RegionRecord, new: RegionRecord, since: VersionId = NO_VERSION
) -> list[Difference]:
    """Where two states of a region place pages differently, whatever those contain.

    With `since`, the older one is of that version and the newer one of one that comes from it: only
    what was written later is looked at. A page of zeros may have left nothing behind: then the
    numbers of stored pages tell that it is missing.
    """
    found = list(differences(nodes, old.table, new.table, since=since))
    if since and new.pages - old.pages != sum(map(_growth, found)):
        found = list(differences(nodes, old.table, new.table))
    return found


def _growth(found: Difference) -> int:
    """How many more pages are stored."""
    return int(found.length[found.new_slot != 0].sum() - found.length[found.old_slot != 0].sum())


class _Compared(NamedTuple):
    """Pages that lie differently: which of them differ, and what both add to a content hash."""

    pages: IntArray
    differ: np.ndarray[Any, np.dtype[np.bool_]]
    old: int
    new: int


def _compared(records: Transaction, found: Difference) -> _Compared:
    pages, old, _ = expand(found.olds())
    new = expand(found.news())[1]
    slots = np.concatenate((old, new))
    stored = slots != 0
    sums = np.zeros(len(slots), np.uint64)
    sums[stored] = read_sums(records, slots[stored])
    olds, news = sums[: len(old)], sums[len(old) :]
    had, has = old != 0, new != 0
    return _Compared(
        pages,
        ~(had & has & (olds == news)),  # the others were stored again with the same contents
        content_hash(pages[had], olds[had]),
        content_hash(pages[has], news[has]),
    )


def _is_all(a: RegionRecord, b: RegionRecord, found: Sequence[_Compared]) -> bool:
    """Whether some pages are all that two states of a region differ in."""
    grown = sum(part.new - part.old for part in found)
    return (b.content - a.content - grown) % (1 << 64) == 0
