"""Checking that a store is what was committed: the invariants of the design, one by one.

Owns: the walk over every kept version. It reads the catalog and, if asked, every page, through
`pread` and checksums only: nothing is mapped, so a damaged store is looked at safely.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from attr import frozen

from pagestore import kernel
from pagestore.arena import Arena
from pagestore.bounds import expand_runs
from pagestore.checksums import read_sums
from pagestore.engine import Engine
from pagestore.errors import CorruptionError, FullError
from pagestore.format import (
    BRANCH,
    CHILD,
    NO_VERSION,
    NODE,
    RESERVED,
    SNAPSHOT,
    UNKEPT,
    Extents,
    IntArray,
    RegionRecord,
    SumArray,
    Table,
    VersionId,
    VersionRecord,
    content_hash,
    key_name,
    key_number,
    page_sums,
    runs_of,
    unpack_runs,
)
from pagestore.pagetable import Nodes, differences, exclusive_nodes, expand
from pagestore.space import load
from pagestore.transaction import Transaction

READ_BYTES = 4 << 20
LITTLE_MEMORY = 1 << 26  # bytes: any machine has as much
BYTES_A_SLOT = 32  # of memory: some flags, and where all are in use its number and checksum


@frozen
class Finding:
    """Something that is not as it must be.

    Attributes
    ----------
    invariant : str
        Which promise is broken: ``"I1"`` to ``"I6"`` of docs/design.md.
    where : str
        The version, region, slot or record.
    what : str
    """

    invariant: str
    where: str
    what: str


class _Walk:
    def __init__(self, records: Transaction, nodes: Nodes, arena: Arena) -> None:
        self.records = records
        self.nodes = nodes
        self.arena = arena
        self.versions: dict[VersionId, VersionRecord] = {}
        self.children: Counter[VersionId] = Counter()
        self.referred: Any = None  # one bool a slot: some version refers to it
        self.live_nodes: set[int] = set()


def check(engine: Engine, *, data: bool) -> Iterator[Finding]:
    """Yield what is wrong; nothing when the store is exactly what was committed."""
    found: list[Finding] = []
    try:
        with engine.read() as (records, nodes):
            _check_memory(records.meta.slots)
            walk = _Walk(records, nodes, engine.arena)
            walk.referred = np.zeros(records.meta.slots, np.bool_)
            for step in (_records, _versions, _names, _tables, _space, _nodes):
                _guard(step, walk, found)
            slots = np.flatnonzero(walk.referred)
            sums = read_sums(records, slots) if not found or data else np.empty(0, np.uint64)
    except CorruptionError as e:
        yield from found
        yield Finding("I5", str(engine.path), str(e))
        return
    yield from found
    if data:
        # the pages are read outside the transaction (C2): one that is freed meanwhile may differ
        yield from _pages(engine, slots, sums)


def _check_memory(slots: int) -> None:
    """An arena may be sparse and claim any length: rather say so than be killed for it."""
    need = slots * BYTES_A_SLOT
    if need > LITTLE_MEMORY and need > kernel.total_memory():
        raise FullError(f"to check {slots} slots takes {need >> 20} MiB of memory")


def _guard(step: Callable[[_Walk], Iterator[Finding]], walk: _Walk, found: list[Finding]) -> None:
    try:
        found.extend(step(walk))
    except CorruptionError as e:
        found.append(Finding("I5", step.__name__.strip("_"), str(e)))


def _records(walk: _Walk) -> Iterator[Finding]:
    """Every record is whole and all belong to one state: a sound older page is found only so."""
    if walk.records.add_up() != walk.records.meta.records:
        yield Finding("I5", "the catalog", "its records are not those of the last transaction")


def _versions(walk: _Walk) -> Iterator[Finding]:
    for record in walk.records.versions():
        walk.versions[record.id] = record
    links = {
        (version, VersionId(int.from_bytes(rest, "big")))
        for version, kind, rest in walk.records.kinship()
        if kind == CHILD
    }
    wanted = {(r.parent, r.id) for r in walk.versions.values() if r.parent != NO_VERSION}
    walk.children.update(parent for parent, child in links if child in walk.versions)
    for parent, child in sorted(links ^ wanted):
        yield Finding("I4", f"version {child}", f"its kinship with version {parent} is one-sided")
    for record in walk.versions.values():
        where = f"version {record.id}"
        if record.parent != NO_VERSION and record.parent not in walk.versions:
            yield Finding("I4", where, f"its parent {record.parent} is missing")
        if record.id >= walk.records.meta.next_version:
            yield Finding("I5", where, "its id was never given out")


def _names(walk: _Walk) -> Iterator[Finding]:
    kept: set[VersionId] = set()
    forward = set()
    for kind in (SNAPSHOT, BRANCH):
        for name, record in walk.records.names(kind):
            forward.add((record.version, kind, name))
            kept.add(record.version)
            if record.version not in walk.versions:
                yield Finding("I4", f"name {name!r}", f"version {record.version} is missing")
    backward = {
        (version, kind, key_name(rest))
        for version, kind, rest in walk.records.kinship()
        if kind != CHILD
    }
    for number, _, name in sorted(forward ^ backward):
        yield Finding("I4", f"name {name!r}", f"and version {number} do not know each other")
    kept |= {VersionId(key_number(k)) for k, _ in walk.records.scan(UNKEPT)}
    for version in walk.versions.values():
        if version.id not in kept and not version.keep and walk.children[version.id] < 2:
            yield Finding("I4", f"version {version.id}", "nothing keeps it, yet it is there")


def _tables(walk: _Walk) -> Iterator[Finding]:
    """Follow every version from its parent: costs what changed between them."""
    for record in walk.versions.values():
        parent = walk.versions.get(record.parent)
        before = {r.id: r for r in parent.regions.values()} if parent else {}
        for region in record.regions.values():
            yield from _table(walk, record, region, before.get(region.id), parent)


def _table(
    walk: _Walk,
    version: VersionRecord,
    region: RegionRecord,
    before: RegionRecord | None,
    parent: VersionRecord | None,
) -> Iterator[Finding]:
    where = f"version {version.id}, region {region.name!r}"
    old = before.table if before else Table()
    floor = parent.id if parent else NO_VERSION
    fresh = exclusive_nodes(walk.nodes, region.table, [old], -1)
    if any(ref.node in walk.live_nodes for ref in fresh):
        yield Finding("I3", where, "a page-table node of it is another table's too")
        return  # to follow it again and again would cost more than the store has
    walk.live_nodes.update(ref.node for ref in fresh)
    if not all(floor < ref.birth <= version.id for ref in fresh):
        yield Finding("I4", where, "a page-table node was born in a version that did not write it")
    count, content = (before.pages, before.content) if before else (0, 0)
    limit = -(-region.nbytes // walk.arena.page_size)
    for found in differences(walk.nodes, old, region.table):
        gone = _stored(found.olds())
        come = _stored(found.news())
        slots = come[1]
        if len(slots) and (slots.min() < 1 or slots.max() >= len(walk.referred)):
            yield Finding("I6", where, "its table names slots outside the arena")
            return
        if len(come[0]) and come[0].max() >= limit:
            yield Finding("I6", where, "its table names pages beyond its end")
        if walk.referred[slots].any() or len(np.unique(slots)) != len(slots):
            yield Finding("I3", where, "a slot is referred to for two pages")
        births = np.repeat(found.new_birth, found.length)[expand(found.news())[1] != 0]
        if len(births) and (births.min() <= floor or births.max() > version.id):
            yield Finding("I4", where, "a page was born in a version that did not write it")
        walk.referred[slots] = True
        count += len(come[0]) - len(gone[0])
        content += content_hash(come[0], read_sums(walk.records, come[1]))
        content -= content_hash(gone[0], read_sums(walk.records, gone[1]))
    if count != region.pages:
        yield Finding("I5", where, f"holds {count} pages, but says {region.pages}")
    if content % (1 << 64) != region.content:
        yield Finding("I5", where, "is not what was committed: its content hash differs")


def _stored(extents: Extents) -> tuple[IntArray, IntArray]:
    pages, slots, _ = expand(extents)
    return pages[slots != 0], slots[slots != 0]


def _space(walk: _Walk) -> Iterator[Finding]:
    slots = walk.records.meta.slots
    if walk.arena.slots < slots:
        yield Finding("I6", str(walk.arena.path), f"holds {walk.arena.slots} of {slots} slots")
    free, _, _ = load(walk.records, slots)
    reserved = np.zeros(slots, np.bool_)
    for key, raw in walk.records.scan(RESERVED):
        mine = expand_runs(unpack_runs(raw, 1)[0], slots)
        if reserved[mine].any():
            yield Finding("I3", f"reservation {key_number(key)}", "has slots of another one")
            return
        reserved[mine] = True
    uses = free.astype(np.int8) + walk.referred + reserved
    uses[0] += 1
    for what, bad in (
        ("in use and free at once", uses > 1),
        ("neither in use nor free: it leaks", uses == 0),
    ):
        for start, count in runs_of(np.flatnonzero(bad)).tolist():
            yield Finding("I3", f"slots {start} to {start + count - 1}", f"are {what}")


def _nodes(walk: _Walk) -> Iterator[Finding]:
    stored = {key_number(k) for k, _ in walk.records.scan(NODE)}
    for node in sorted(stored - walk.live_nodes):
        yield Finding("I3", f"page-table node {node}", "belongs to no version: it leaks")
    for node in sorted(walk.live_nodes - stored):
        yield Finding("I5", f"page-table node {node}", "is missing")


def _pages(engine: Engine, slots: IntArray, sums: SumArray) -> Iterator[Finding]:
    step = max(1, READ_BYTES // engine.page_size)
    at, wrong = 0, [np.empty(0, np.int64)]  # places in `slots`
    for start, count in runs_of(slots).tolist():
        for first in range(start, start + count, step):
            size = min(step, start + count - first)
            try:
                raw = memoryview(engine.arena.read(first, size))
            except CorruptionError as e:
                yield Finding("I6", f"slots {first} to {first + size - 1}", str(e))
            else:
                differs = page_sums(raw, engine.page_size) != sums[at : at + size]
                wrong.append(np.flatnonzero(differs) + at)
            at += size
    bad = np.concatenate(wrong)
    for slot in _still_wrong(engine, slots[bad], sums[bad]):
        yield Finding("I1", f"slot {slot}", "does not match its checksum: it was damaged")


def _still_wrong(engine: Engine, slots: IntArray, sums: SumArray) -> list[int]:
    """Leave out slots that were freed, and perhaps written again, while they were read."""
    if not len(slots):
        return []
    with engine.read() as (records, _):
        free, _, _ = load(records, records.meta.slots)
        same = read_sums(records, slots) == sums
    found: list[int] = slots[same & ~free[slots]].tolist()
    return found
