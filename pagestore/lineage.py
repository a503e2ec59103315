"""How the versions follow from each other: what each one brought, page by page.

Owns: one walk over every kept version, from its nearest kept ancestor, in one look at the catalog.
It costs what the versions changed, together. Everything about sharing follows from it: a page that
a version shows is that of the nearest version on its line that brought it.

- L1  An ancestor comes before its descendants.
- L2  What a version shows of a region is what its ancestor shows, overlaid with what it brought.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from attr import evolve, frozen

from pagestore import history
from pagestore.checksums import read_sums
from pagestore.engine import Engine
from pagestore.errors import CorruptionError
from pagestore.format import (
    NO_VERSION,
    IntArray,
    RegionRecord,
    SumArray,
    Table,
    VersionId,
    VersionRecord,
    sorted_unique,
)
from pagestore.history import Version
from pagestore.pagetable import Nodes, differences, expand, newer
from pagestore.transaction import Transaction

Spoilt = Callable[..., None]
Columns = tuple[IntArray, IntArray, IntArray]
_NONE: Columns = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64))


@frozen(eq=False)
class Brought:
    """Pages of a region that a version places elsewhere than its nearest kept ancestor.

    All of them, if the ancestor does not have the region. Columns are sorted by page.

    Attributes
    ----------
    region : str
    number : int
        The region's own: one that was deleted and created again has another.
    page : array of int64
    slot, before : array of int64
        Where the page lies, and where it lies for the ancestor; 0 for zeros.
    checksum : array of uint64
        Of what the page holds; 0 for zeros. Equal where contents are.
    """

    region: str
    number: int
    page: IntArray
    slot: IntArray
    before: IntArray
    checksum: SumArray


@frozen(eq=False)
class Step:
    """A version, and what it has differently from its nearest kept ancestor.

    Attributes
    ----------
    version : Version
    brought : tuple of Brought
        By region; none for a region that is as it was.
    """

    version: Version
    brought: tuple[Brought, ...]


def lineage(engine: Engine, damaged: list[str] | None) -> list[Step]:
    """Every kept version with what it brought, ancestors first (L1)."""

    def spoilt(error: CorruptionError, where: str = "") -> None:
        if damaged is None:
            raise error
        damaged.append(f"{where}{error}")

    with engine.read() as (records, nodes):
        versions = history.versions(records, damaged=spoilt)
        found = {record.id: record for record in records.versions(lambda _: None)}
        brought = [tuple(_brought(nodes, found, v, spoilt)) for v in versions]
        sums = _Sums(records, brought, spoilt)
    return [
        Step(
            version if version.parent in found else evolve(version, parent=None),
            tuple(evolve(part, checksum=sums.of(part.slot)) for part in parts),
        )
        for version, parts in zip(versions, brought, strict=True)
    ]


def _brought(
    nodes: Nodes, versions: Mapping[VersionId, VersionRecord], version: Version, spoilt: Spoilt
) -> Iterator[Brought]:
    """What a version places elsewhere; the checksums come later, of all of them at once."""
    before = versions.get(VersionId(version.parent or NO_VERSION))
    olds = {region.id: region for region in before.regions.values()} if before else {}
    since = before.id if before else NO_VERSION
    for region in versions[VersionId(version.id)].regions.values():
        old = olds.get(region.id)
        if old is None or old.table != region.table:
            columns = _NONE
            try:
                columns = _compared(nodes, old, region, since)
            except CorruptionError as e:
                spoilt(e, f"version {version.id}, region {region.name!r}: ")
            yield Brought(region.name, region.id, *columns, np.empty(0, np.uint64))


def _compared(
    nodes: Nodes, old: RegionRecord | None, region: RegionRecord, since: VersionId
) -> Columns:
    """Page, slot and slot before of every page that lies elsewhere than in version `since`."""
    before = old.table if old else Table()
    came = [_NONE[:2], *newer(nodes, region.table, since, [])]
    went = [
        _NONE[:2],
        *(expand(d.olds())[:2] for d in differences(nodes, before, region.table, -1)),
    ]
    (new_page, new_slot), (old_page, old_slot) = (
        (np.concatenate(column) for column in zip(*parts, strict=True)) for parts in (came, went)
    )
    page = sorted_unique(np.concatenate((new_page, old_page)))
    slot, there = np.zeros((2, len(page)), np.int64)
    slot[page.searchsorted(new_page)] = new_slot
    there[page.searchsorted(old_page)] = old_slot
    return page, slot, there


class _Sums:
    """The checksums of many slots: each record of them is read once."""

    def __init__(
        self, records: Transaction, brought: list[tuple[Brought, ...]], spoilt: Spoilt
    ) -> None:
        every = [_NONE[0], *(part.slot for parts in brought for part in parts)]
        slots = sorted_unique(np.concatenate(every))
        slots = slots[slots != 0]
        try:
            sums = read_sums(records, slots)
        except CorruptionError as e:
            spoilt(e, "checksums: ")
            sums = slots.astype(np.uint64)  # then a page is taken for equal where it is the same
        self._slots = np.append(0, slots)  # zeros in front
        self._sums = np.append(np.uint64(0), sums)

    def of(self, slots: IntArray) -> SumArray:
        sums: SumArray = self._sums[np.searchsorted(self._slots, slots)]
        return sums
