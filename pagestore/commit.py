"""From what a workspace changed to one committed version.

Owns: writing pages to free slots, merging a workspace's changes into the newest version of its
branch, the order of steps that makes the commit atomic. Does not know arrays or mappings: it is
handed the memory to read pages from.

- M1  Pages are hashed and written from one copy of them, so checksum and contents agree even if
      another thread writes on.
- M2  Slots are synced before the catalog's commit makes them visible (I2).
- M3  The first to commit a page wins: a second workspace that changed the same page since their
      common base gets `ConflictError`; one that changed other pages is rebased.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from attrs import define, evolve, field

from pagestore.arena import Arena
from pagestore.checksums import read_sums, write_sums
from pagestore.diff import changed_pages, page_count
from pagestore.engine import Engine, Write
from pagestore.errors import ConflictError
from pagestore.format import (
    BRANCH,
    SNAPSHOT,
    Extents,
    IntArray,
    NameRecord,
    Records,
    RegionId,
    RegionRecord,
    SumArray,
    VersionId,
    VersionRecord,
    content_hash,
    page_sum,
    page_sums,
    runs_of,
)
from pagestore.pagetable import (
    Difference,
    Nodes,
    differences,
    expand,
    lookup,
    singles,
    truncate,
    update,
)
from pagestore.pins import Pin
from pagestore.reclaim import drop_unkept

BATCH_BYTES = 4 << 20
NO_PAGES: IntArray = np.empty(0, np.int64)
NO_SUMS: SumArray = np.empty(0, np.uint64)


@define
class Placed:
    """Pages that lie in slots which no version refers to yet; sorted by page."""

    pages: IntArray = NO_PAGES
    slots: IntArray = NO_PAGES
    sums: SumArray = NO_SUMS

    def take(self, index: Any) -> Placed:
        return Placed(self.pages[index], self.slots[index], self.sums[index])

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


@define
class RegionChange:
    """What a workspace did to one region since its base version.

    Attributes
    ----------
    region : RegionRecord
        As the workspace has it; shape and dtype count.
    base : RegionRecord or None
        As the base version has it; None for a region created here.
    memory : ndarray
        The region's memory, one element a page.
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
    memory: np.ndarray[Any, Any] | None = None
    dirty: IntArray = NO_PAGES
    flushed: Placed = field(factory=Placed)
    kept: int = 0
    reservations: list[int] = field(factory=list)

    @property
    def reshaped(self) -> bool:
        base = self.base
        return base is not None and (base.shape, base.dtype) != (
            self.region.shape,
            self.region.dtype,
        )

    def is_change(self, page_size: int) -> bool:
        return (
            self.base is None
            or self.reshaped
            or len(self.dirty) > 0
            or len(self.flushed.pages) > 0
            or self.kept < page_count(self.base, page_size)
        )


@define
class Committed:
    """A version that was made, and what the workspace must take over from other writers."""

    version: VersionRecord
    pin: Pin  # taken before the commit: nobody can have dropped the version meanwhile
    theirs: dict[str, list[Difference]] = field(factory=dict)


def commit(
    engine: Engine,
    branch: str,
    base: VersionRecord,
    changes: Sequence[RegionChange],
    deleted: Mapping[str, RegionRecord],
    *,
    message: str,
    name: str | None,
) -> Committed:
    """Make the next version of a branch; also let `name` stand for it.

    Raises
    ------
    ConflictError, FullError, BrokenError, ExistsError
        Nothing was committed (after `BrokenError`: perhaps it was).
    """
    pin: Pin | None = None
    try:
        with engine.write() as write:
            record, theirs = _make_version(
                engine, write, branch, base, changes, deleted, message, name
            )
            pin = engine.pins.acquire(record.id)
        return Committed(record, pin, theirs)
    except BaseException:
        if pin is not None:
            pin.release()
        raise


def _make_version(
    engine: Engine,
    write: Write,
    branch: str,
    base: VersionRecord,
    changes: Sequence[RegionChange],
    deleted: Mapping[str, RegionRecord],
    message: str,
    name: str | None,
) -> tuple[VersionRecord, dict[str, list[Difference]]]:
    page_size = engine.page_size
    records = write.records
    if name is not None:
        records.check_free(name)
    head = records.version(records.head(branch))
    if head.id != base.id:
        check_conflicts(records, write.nodes, base, head, changes, deleted, page_size)
    theirs = differing(write.nodes, base, head)
    version = records.new_version()
    writer = _Writer(engine, write, version)
    regions = {n: r for n, r in head.regions.items() if n not in deleted}
    for change in changes:
        onto = head.regions.get(change.region.name) if change.base else None
        regions[change.region.name] = writer.apply(change, onto)
    now = time.time_ns()
    writer.finish()
    record = head
    if regions != head.regions:
        record = VersionRecord(version, head.id, now, records.meta.keep_all, message, regions)
        records.add_version(record)
        records.put_name(BRANCH, branch, NameRecord(version, now))
        write.head = record
    if name is not None:
        records.put_name(SNAPSHOT, name, NameRecord(record.id, now))
    if record is not head:
        # after a rebase memory may still show what only the base has: it goes a commit later
        drop_unkept(engine, write, [head.id], leaving=base.id if base.id == head.id else None)
    return record, theirs


def differing(nodes: Nodes, old: VersionRecord, new: VersionRecord) -> dict[str, list[Difference]]:
    """Where regions that both versions have lie differently."""
    if old.id == new.id:
        return {}
    pairs = ((n, a, new.regions.get(n)) for n, a in old.regions.items())
    return {
        n: list(differences(nodes, a.table, b.table)) for n, a, b in pairs if b and a.id == b.id
    }


# ------------------------------------------------------------------------------------- writing


@functools.lru_cache(16)
def _zero_sum(page_size: int) -> int:
    return page_sum(bytes(page_size))


class _Writer:
    """Puts the pages of one commit into slots and their redirects into page tables."""

    def __init__(self, engine: Engine, write: Write, version: VersionId) -> None:
        self._arena = engine.arena
        self._write = write
        self._version = version
        self._placed: list[Placed] = []
        self._used: list[IntArray] = []
        self._reservations: list[int] = []

    def apply(self, change: RegionChange, onto: RegionRecord | None) -> RegionRecord:
        """Return the region with a change put on top of what the head has."""
        write = self._write
        if onto is None:
            onto = evolve(change.region, id=write.records.new_region(), table=_EMPTY, pages=0)
            onto = evolve(onto, content=0)
        elif change.reshaped:
            onto = evolve(onto, shape=change.region.shape, dtype=change.region.dtype)
        if change.base is not None and change.kept < page_count(change.base, self._arena.page_size):
            onto = self._cut(onto, change.kept)
        old_slots, _ = lookup(write.nodes, onto.table, change.dirty)
        assert change.memory is not None or not len(change.dirty)
        found = store_pages(self._arena, write, change.memory, change.dirty, old_slots)
        early = change.flushed.take(~np.isin(change.flushed.pages, change.dirty))
        if len(early.pages):
            found = found.over(self._really_new(early, onto))
        self._reservations += change.reservations
        return self._redirect(onto, found)

    def _cut(self, region: RegionRecord, pages: int) -> RegionRecord:
        nodes = self._write.nodes
        table = truncate(nodes, region.table, pages, self._version)
        for gone in differences(nodes, region.table, table):
            region = self._without(region, gone.olds())
        return evolve(region, table=table)

    def _without(self, region: RegionRecord, extents: Extents) -> RegionRecord:
        pages, slots, _ = expand(extents)
        pages, slots = pages[slots != 0], slots[slots != 0]
        lost = content_hash(pages, read_sums(self._write.records, slots))
        content = (region.content - lost) % (1 << 64)
        return evolve(region, pages=region.pages - len(pages), content=content)

    def _really_new(self, early: Placed, onto: RegionRecord) -> Placed:
        """Leave out flushed pages that turned out to equal what is stored."""
        slots, _ = lookup(self._write.nodes, onto.table, early.pages)
        stored = np.flatnonzero(slots)
        sums = read_sums(self._write.records, slots[stored])
        twin = stored[sums == early.sums[stored]]
        pages = self._arena.pages(int(max(slots.max(), early.slots.max())) + 1)
        keep = np.ones(len(slots), np.bool_)
        for i in twin.tolist():
            keep[i] = pages[slots[i]].tobytes() != pages[early.slots[i]].tobytes()
        blank = (early.sums == _zero_sum(self._arena.page_size)) & (slots == 0)
        return early.take(keep & ~blank)

    def _redirect(self, region: RegionRecord, found: Placed) -> RegionRecord:
        if not len(found.pages):
            return region
        nodes, version = self._write.nodes, self._version
        before, _ = lookup(nodes, region.table, found.pages)
        one = np.ones(len(before), np.int64)
        region = self._without(region, Extents(found.pages, one, before, one))
        stored = found.take(found.slots != 0)
        gained = content_hash(stored.pages, stored.sums)
        table = update(nodes, region.table, singles(found.pages, found.slots, version), version)
        self._placed.append(stored)
        return evolve(
            region,
            table=table,
            pages=region.pages + len(stored.pages),
            content=(region.content + gained) % (1 << 64),
        )

    def finish(self) -> None:
        """Make the pages durable, and note their checksums (M2)."""
        if self._placed:
            self._arena.sync()
            slots = np.concatenate([p.slots for p in self._placed])
            write_sums(self._write.records, slots, np.concatenate([p.sums for p in self._placed]))
            for number in self._reservations:
                self._write.release_reservation(number, slots)
        else:
            for number in self._reservations:
                self._write.release_reservation(number)


_EMPTY = RegionRecord(RegionId(0), "", np.dtype("u1"), ()).table


def store_pages(
    arena: Arena,
    write: Write,
    memory: np.ndarray[Any, Any] | None,
    pages: IntArray,
    old_slots: IntArray,
) -> Placed:
    """Write pages of memory to free slots; leave out those that equal what their slot holds.

    Pages that have become zeros are given slot 0.
    """
    if memory is None or not len(pages):
        return Placed()
    old_sums = np.zeros(len(pages), np.uint64)
    stored = old_slots != 0
    old_sums[stored] = read_sums(write.records, old_slots[stored])
    step = max(1, BATCH_BYTES // arena.page_size)
    parts = []
    for i in range(0, len(pages), step):
        cut = slice(i, i + step)
        parts.append(_store_batch(arena, write, memory, pages[cut], old_slots[cut], old_sums[cut]))
    return Placed(
        np.concatenate([p.pages for p in parts]),
        np.concatenate([p.slots for p in parts]),
        np.concatenate([p.sums for p in parts]),
    )


def _store_batch(
    arena: Arena,
    write: Write,
    memory: np.ndarray[Any, Any],
    pages: IntArray,
    old_slots: IntArray,
    old_sums: SumArray,
) -> Placed:
    batch = memory[pages]  # a copy: hashed and written from here (M1)
    sums = page_sums(batch.view(np.uint8).data, arena.page_size)
    zero = sums == np.uint64(_zero_sum(arena.page_size))
    for i in np.flatnonzero(zero).tolist():
        zero[i] = not batch[i : i + 1].view(np.uint8).any()
    same = (sums == old_sums) & (old_slots != 0)
    if same.any():
        slots_now = arena.pages(int(old_slots.max()) + 1)
        for i in np.flatnonzero(same).tolist():
            same[i] = slots_now[old_slots[i]].tobytes() == batch[i].tobytes()
    same |= zero & (old_slots == 0)
    new = ~same & ~zero
    slots = np.zeros(len(pages), np.int64)
    slots[new] = write.take(int(new.sum()))
    write_pages(arena, batch if new.all() else batch[new], slots[new])
    return Placed(pages[~same], slots[~same], sums[~same])


def write_pages(arena: Arena, batch: np.ndarray[Any, Any], slots: IntArray) -> None:
    """Write pages to slots, one call for each run of slots."""
    data = batch.view(np.uint8).data if len(batch) else memoryview(b"")
    at = 0
    for start, count in runs_of(slots).tolist():
        size = count * arena.page_size
        arena.write(start, data[at : at + size])
        at += size


# ------------------------------------------------------------------------------------ conflicts


def check_conflicts(
    records: Records,
    nodes: Nodes,
    base: VersionRecord,
    head: VersionRecord,
    changes: Sequence[RegionChange],
    deleted: Mapping[str, RegionRecord],
    page_size: int,
) -> None:
    """Raise `ConflictError` where `changes` and what others committed since `base` collide."""
    for name, mine in deleted.items():
        theirs = head.regions.get(name)
        if theirs is not None and theirs != mine:
            raise ConflictError(f"region {name!r}, deleted here, was changed by another writer")
    for change in changes:
        name = change.region.name
        theirs = head.regions.get(name)
        if change.base is None:
            if theirs is not None and name not in deleted:
                raise ConflictError(f"region {name!r} was created by another writer too")
        elif theirs is None or theirs.id != change.base.id:
            raise ConflictError(f"region {name!r}, changed here, was deleted by another writer")
        else:
            _check_pages(records, nodes, change, change.base, theirs, page_size)


def _check_pages(
    records: Records,
    nodes: Nodes,
    change: RegionChange,
    base: RegionRecord,
    theirs: RegionRecord,
    page_size: int,
) -> None:
    name = base.name
    reshaped = (theirs.shape, theirs.dtype) != (base.shape, base.dtype)
    if reshaped and change.reshaped:
        raise ConflictError(f"region {name!r} was resized by another writer too")
    mine = np.union1d(change.dirty, change.flushed.pages)
    changed = changed_pages(records, nodes, base, theirs)
    both = np.intersect1d(mine, changed, assume_unique=True)
    if len(both):
        raise ConflictError(
            f"page {both[0]} of region {name!r} (and {len(both) - 1} more) was changed by another "
            "writer since this workspace began"
        )
    if change.kept < page_count(base, page_size) and (changed >= change.kept).any():
        raise ConflictError(f"region {name!r}, cut here, was changed there by another writer")
    if base.nbytes > change.region.nbytes and (changed >= change.region.nbytes // page_size).any():
        raise ConflictError(f"region {name!r}, cut here, was changed there by another writer")
    if base.nbytes > theirs.nbytes and (mine >= theirs.nbytes // page_size).any():
        raise ConflictError(f"region {name!r}, changed here, was cut by another writer")
