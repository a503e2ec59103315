"""How the versions follow from each other: what each one brought, page by page.

Owns: one walk over every kept version, from its nearest kept ancestor, in one look at the catalog.
It costs what the versions changed, together. Everything about sharing follows from it: a page that
a version shows is that of the nearest version on its line that brought it.

- L1  An ancestor comes before its descendants.
- L2  What a version shows of a region is what its ancestor shows, overlaid with what it brought.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pagestore.checksums import read_sums
from pagestore.engine import Engine
from pagestore.errors import CorruptionError
from pagestore.format import (
    BRANCH,
    SNAPSHOT,
    IntArray,
    RegionRecord,
    SumArray,
    Table,
    VersionId,
    VersionRecord,
    sorted_unique,
)
from pagestore.history import Version
from pagestore.pagetable import Difference, Nodes, differences, expand
from pagestore.transaction import Transaction


class Brought(NamedTuple):
    """Pages of a region that a version places elsewhere than its nearest kept ancestor.

    All of them, if the ancestor does not have the region. Columns are sorted by page.

    Attributes
    ----------
    region : str
    number : int
        The region's own: one that was deleted and created again has another.
    page : numpy.ndarray of int64
    slot, before : numpy.ndarray of int64
        Where the page lies, and where it lies for the ancestor; 0 for zeros.
    checksum : numpy.ndarray of uint64
        Of what the page holds; 0 for zeros. Equal where contents are.
    """

    region: str
    number: int
    page: IntArray
    slot: IntArray
    before: IntArray
    checksum: SumArray


class Step(NamedTuple):
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
    with engine.read() as (records, nodes):
        versions = {record.id: record for record in _versions(records, damaged)}
        names = _names(records, damaged)
        steps = []
        for number in sorted(versions):
            record = versions[number]
            brought = tuple(_brought(nodes, versions.get(record.parent), record, damaged))
            if record.parent not in versions:
                record = record._replace(parent=VersionId(0))
            steps.append(Step(Version.of(record, names.get(number, ())), brought))
        return _with_checksums(records, steps, damaged)


def _spoilt(error: CorruptionError, where: str, damaged: list[str] | None) -> None:
    """Note what cannot be read, if the caller wants the rest."""
    if damaged is None:
        raise error
    damaged.append(f"{where}: {error}")


def _versions(records: Transaction, damaged: list[str] | None) -> Iterator[VersionRecord]:
    try:
        yield from records.versions()
    except CorruptionError as e:
        _spoilt(e, "versions", damaged)


def _names(records: Transaction, damaged: list[str] | None) -> dict[VersionId, list[str]]:
    names: dict[VersionId, list[str]] = {}
    for kind in (SNAPSHOT, BRANCH):
        try:
            for name, record in records.names(kind):
                names.setdefault(record.version, []).append(name)
        except CorruptionError as e:
            _spoilt(e, "names", damaged)
    return names


def _brought(
    nodes: Nodes, before: VersionRecord | None, version: VersionRecord, damaged: list[str] | None
) -> Iterator[Brought]:
    olds = {region.id: region for region in before.regions.values()} if before else {}
    for region in version.regions.values():
        old = olds.get(region.id)
        if old is None or old.table != region.table:
            try:
                yield _compared(nodes, old, region)
            except CorruptionError as e:
                _spoilt(e, f"version {version.id}, region {region.name!r}", damaged)


def _compared(nodes: Nodes, old: RegionRecord | None, region: RegionRecord) -> Brought:
    found = list(differences(nodes, old.table if old else Table(), region.table))
    page, slot, before = _columns(found)
    return Brought(region.name, region.id, page, slot, before, np.zeros(len(page), np.uint64))


def _columns(found: list[Difference]) -> tuple[IntArray, IntArray, IntArray]:
    """Page, new slot and old slot of every single page of some differences."""
    parts = [(*expand(part.news())[:2], expand(part.olds())[1]) for part in found]
    parts.append((np.empty(0, np.int64),) * 3)
    page, slot, before = (np.concatenate(column) for column in zip(*parts, strict=True))
    return page, slot, before


def _with_checksums(
    records: Transaction, steps: list[Step], damaged: list[str] | None
) -> list[Step]:
    """Read the checksums of all slots at once: each record of them is then read once."""
    every = [part.slot for step in steps for part in step.brought]
    slots = sorted_unique(np.concatenate(every)) if every else np.empty(0, np.int64)
    slots = slots[slots != 0]
    try:
        sums = read_sums(records, slots)
    except CorruptionError as e:
        _spoilt(e, "checksums", damaged)
        sums = slots.astype(np.uint64)  # then a page is taken for equal where it is the same
    # slot 0 is found in front, as zeros
    slots, sums = np.append(0, slots), np.append(np.uint64(0), sums)

    def known(part: Brought) -> Brought:
        return part._replace(checksum=sums[np.searchsorted(slots, part.slot)])

    return [step._replace(brought=tuple(map(known, step.brought))) for step in steps]
