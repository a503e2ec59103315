"""From what a workspace changed to one committed version.

Owns: merging a workspace's changes into the newest version of its branch, the order of steps that
makes the commit atomic. Does not know arrays or mappings: it is handed the memory to read pages
from, and `placing` puts them into slots (M1).

- M2  Slots are synced before the catalog's commit makes them visible (I2).
- M3  The first to commit a page wins: a second workspace that changed the same page since their
      common base gets `ConflictError`; one that changed other pages is rebased.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pagestore.conflicts import check_conflicts
from pagestore.diff import last_common, moved_pages, page_count
from pagestore.engine import Engine, Write
from pagestore.errors import ExistsError, PagestoreError
from pagestore.format import (
    BRANCH,
    NO_VERSION,
    NODE,
    SNAPSHOT,
    IntArray,
    NameRecord,
    RegionId,
    RegionRecord,
    Table,
    VersionId,
    VersionRecord,
    number_key,
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
from pagestore.placing import Placed, RegionChange, store_pages, zero_sum
from pagestore.reclaim import drop_unkept
from pagestore.transaction import Transaction


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

    `then` is called once the version is durable, also if a signal comes between that and the end:
    twice, if one comes amid it.

    Raises
    ------
    ConflictError, FullError, BrokenError, ExistsError
        Nothing was committed (after `BrokenError`: perhaps it was).
    """
    done, told = None, False
    try:
        with engine.write() as write:
            record, theirs = _make_version(
                engine, write, branch, base, changes, deleted, message, name, new
            )
            pin = engine.pins.acquire(record.id)
            done = Committed(record, write.head is record, pin, theirs, write.records.id)
        then(done)
        told = True
    except PagestoreError:
        raise
    except BaseException:
        if done is not None and not told and _stands(engine, done.version):
            then(done)
        raise
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
    theirs = differing(records, write.nodes, base, head)
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


def differing(
    records: Transaction, nodes: Nodes, old: VersionRecord, new: VersionRecord
) -> dict[str, list[Difference]]:
    """Where regions that both versions have lie differently."""
    if old.id == new.id:
        return {}
    common = last_common(records, old, new)
    since = common if common == old.id else NO_VERSION
    pairs = ((n, a, new.regions.get(n)) for n, a in old.regions.items())
    return {n: moved_pages(nodes, a, b, since) for n, a, b in pairs if b and a.id == b.id}


# ------------------------------------------------------------------------------------- writing


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
        blank = (early.sums == zero_sum(self._arena.page_size)) & (before.slots == 0)
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
