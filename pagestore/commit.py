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

import contextlib
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from pagestore.arena import Arena
from pagestore.diff import changed_pages, page_count
from pagestore.engine import Engine, Write
from pagestore.errors import ConflictError, ExistsError, PagestoreError
from pagestore.format import (
    BRANCH,
    NODE,
    SNAPSHOT,
    IntArray,
    NameRecord,
    Records,
    RegionId,
    RegionRecord,
    SumArray,
    Table,
    VersionId,
    VersionRecord,
    content_hash,
    content_term,
    number_key,
    page_sum,
    page_sums,
    runs_of,
)
from pagestore.pagetable import (
    Difference,
    Nodes,
    differences,
    exclusive_nodes,
    expand,
    lookup,
    singles,
    truncate,
    update,
)
from pagestore.pins import Pin
from pagestore.reclaim import drop_unkept

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


class Committed(NamedTuple):
    """A version that was made, and what the workspace must take over from other writers."""

    version: VersionRecord
    made: bool  # the version is new: the branch stands for it, and the name that was asked for
    pin: Pin  # taken before the commit: nobody can have dropped the version meanwhile
    theirs: dict[str, list[Difference]]
    transaction: int  # LMDB's number of it, if it made the version


def commit(
    engine: Engine,
    branch: str,
    base: VersionRecord,
    changes: Sequence[RegionChange],
    deleted: Mapping[str, RegionRecord],
    *,
    message: str,
    name: str | None,
    new: bool,
    then: Callable[[Committed], None],
) -> Committed:
    """Make the next version of a branch, which may be `new`; also let `name` stand for it.

    `then` is called once the version is durable, also if a signal comes between that and the end.

    Raises
    ------
    ConflictError, FullError, BrokenError, ExistsError
        Nothing was committed (after `BrokenError`: perhaps it was).
    """
    done: Committed | None = None
    try:
        with engine.write() as write:
            record, theirs = _make_version(
                engine, write, branch, base, changes, deleted, message, name, new
            )
            pin = engine.pins.acquire(record.id)
            done = Committed(record, write.head is record, pin, theirs, write.records.id)
    except PagestoreError:
        raise
    except BaseException:
        if done is not None and _stands(engine, done.version):
            then(done)
        raise
    then(done)
    return done


def _stands(engine: Engine, made: VersionRecord) -> bool:
    """Whether a transaction that was interrupted had made its version; its number may be reused."""
    with contextlib.suppress(PagestoreError), engine.read() as (records, _):
        return records.version(made.id).root() == made.root()
    return False


def _make_version(
    engine: Engine,
    write: Write,
    branch: str,
    base: VersionRecord,
    changes: Sequence[RegionChange],
    deleted: Mapping[str, RegionRecord],
    message: str,
    name: str | None,
    new: bool,
) -> tuple[VersionRecord, dict[str, list[Difference]]]:
    page_size = engine.page_size
    records = write.records
    if name is not None:
        records.check_free(name)
    if new:
        records.check_free(branch)
        if name == branch:
            raise ExistsError(f"{name!r} is to be the name of the branch")
    head = records.version(base.id if new else records.head(branch))
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
        record = VersionRecord(
            version, head.id, now, bool(records.number("keep_all")), message, regions
        )
        records.add_version(record)
        write.head = record
    if new or record is not head:
        records.put_name(BRANCH, branch, NameRecord(record.id, now))
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
        self._reservations: list[int] = []

    def apply(self, change: RegionChange, onto: RegionRecord | None) -> RegionRecord:
        """Return the region with a change put on top of what the head has."""
        write = self._write
        if onto is None:
            onto = change.region._replace(
                id=write.records.new_region(), table=_EMPTY, pages=0, content=0
            )
        elif change.reshaped:
            onto = onto._replace(shape=change.region.shape, dtype=change.region.dtype)
        if change.base is not None and change.kept < page_count(change.base, self._arena.page_size):
            onto = self._cut(onto, change.kept)
        early = change.flushed
        if len(early.pages):
            early = early.take(~np.isin(early.pages, change.dirty))
        pages = np.union1d(change.dirty, early.pages) if len(early.pages) else change.dirty
        before = self._before(onto, pages)
        found = store_pages(self._arena, write, change.memory, before.at(change.dirty))
        if len(early.pages):
            found = found.over(self._really_new(early, before.at(early.pages)))
        self._reservations += change.reservations
        if not len(found.pages):
            return onto
        done = self._redirect(onto, found, before.at(found.pages))
        self._forget_passing(onto.table, done.table)
        return done

    def _forget_passing(self, table: Table, final: Table) -> None:
        """Delete the nodes that a cut made in this commit, and that its pages replaced."""
        if table.root is not None and table.root.birth == self._version:
            before = VersionId(self._version - 1)
            for ref in exclusive_nodes(self._write.nodes, table, [final], before):
                self._write.records.delete(number_key(NODE, ref.node))

    def _before(self, region: RegionRecord, pages: IntArray) -> Placed:
        """Where the region has some pages now (slot 0: zeros), and their checksums."""
        slots, _ = lookup(self._write.nodes, region.table, pages)
        if slots.all():
            return Placed(pages, slots, self._write.sums.read(self._write.records, slots))
        sums = np.zeros(len(pages), np.uint64)
        stored = slots != 0
        sums[stored] = self._write.sums.read(self._write.records, slots[stored])
        return Placed(pages, slots, sums)

    def _cut(self, region: RegionRecord, pages: int) -> RegionRecord:
        nodes = self._write.nodes
        table = truncate(nodes, region.table, pages, self._version)
        for gone in differences(nodes, region.table, table):
            lost, _, _ = expand(gone.olds())
            region = _account(region, region.table, self._before(region, lost), Placed())
        return region._replace(table=table)

    def _really_new(self, early: Placed, before: Placed) -> Placed:
        """Leave out flushed pages that turned out to equal what is stored."""
        twins = np.flatnonzero((before.slots != 0) & (early.sums == before.sums))
        pages = self._arena.pages(int(max(before.slots.max(), early.slots.max())) + 1)
        keep = np.ones(len(early.pages), np.bool_)
        for i in twins.tolist():
            keep[i] = pages[before.slots[i]].tobytes() != pages[early.slots[i]].tobytes()
        blank = (early.sums == _zero_sum(self._arena.page_size)) & (before.slots == 0)
        return early.take(keep & ~blank)

    def _redirect(self, region: RegionRecord, found: Placed, before: Placed) -> RegionRecord:
        version = self._version
        new = singles(found.pages, found.slots, version)
        stored = found.slots != 0
        self._placed.append(found if stored.all() else found.take(stored))
        table = update(self._write.nodes, region.table, new, version)
        return _account(region, table, before, found)

    def finish(self) -> None:
        """Note the checksums of the pages, which the end of the write makes durable (M2)."""
        if self._placed:
            self._write.unsynced = True
            slots = np.concatenate([p.slots for p in self._placed])
            self._write.sums.write(
                self._write.records, slots, np.concatenate([p.sums for p in self._placed])
            )
            for number in self._reservations:
                self._write.release_reservation(number, slots)
        else:
            for number in self._reservations:
                self._write.release_reservation(number)


def _account(region: RegionRecord, table: Table, lost: Placed, gained: Placed) -> RegionRecord:
    """The region with another table, its page count and content hash brought up to date."""
    fewer, less = lost.weight()
    more, plus = gained.weight()
    return region._replace(
        table=table,
        pages=region.pages + more - fewer,
        content=(region.content + plus - less) % (1 << 64),
    )


_EMPTY = RegionRecord(RegionId(0), "", np.dtype("u1"), ()).table


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
    zero = sums == np.uint64(_zero_sum(arena.page_size))
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
