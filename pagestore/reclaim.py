"""Dropping versions that nothing keeps any more, freeing what only they had; or telling what.

A version is kept while it is named, a branch's head, kept by ``history="all"``, pinned, or has two
or more kept children. Versions that go at once form lines, each between its nearest kept ancestor P
and the only kept child N of its last, its heir. What goes of a line's oldest version are the pages
and page-table nodes that were born after P and that N does not have; of each later version, those
that were born after the one before it and that N does not have. It costs what changed in the line
and from its oldest version to N, never what the versions hold.

- R1  A version is dropped only while its lock byte is held exclusively, until the commit.
- R2  A version that is pinned is noted as unkept, and tried again at every commit.
- R3  Along a line a page that was replaced does not come back. So a slot belongs to the first of
      its versions that has it, and nothing is freed twice.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator

import numpy as np

from pagestore.engine import Engine, Write
from pagestore.errors import CorruptionError, NotFoundError
from pagestore.format import (
    NO_VERSION,
    NODE,
    UNKEPT,
    VERSION,
    IntArray,
    NodeId,
    NodeRef,
    RegionRecord,
    Table,
    VersionId,
    VersionRecord,
    key_number,
    number_key,
)
from pagestore.pagetable import Nodes, exclusive, exclusive_nodes, expand, lookup, newer
from pagestore.transaction import Transaction


def drop_unkept(
    engine: Engine,
    write: Write,
    touched: Iterable[VersionId],
    *,
    leaving: VersionId | None = None,
) -> int:
    """Drop those of `touched`, and of what was passed over before, that nothing keeps.

    Parameters
    ----------
    touched : iterable of VersionId
        Versions that lost a name, a child or the mark of ``history="all"``.
    leaving : VersionId, optional
        A version that the caller, who has one pin on it, looks at no more once it commits.

    Returns
    -------
    int
        How many versions were dropped.
    """
    records = write.records

    def may_go(version: VersionId) -> bool:
        return engine.pins.try_exclusive(version, mine=int(version == leaving))

    noted = {*unkept(records)}
    going, heirs, staying = _unkept(records, {*touched, *noted}, may_go)
    for version, pinned in staying.items():
        if pinned:
            records.put(number_key(UNKEPT, version), b"")
        elif version in noted:
            records.delete(number_key(UNKEPT, version))
    slots: list[IntArray] = []
    dead: list[NodeId] = []
    for line in _lines(going, heirs):
        heir = _heir(records, heirs[line[-1].id])
        _find_freed(write.nodes, line, heir, slots, dead)
        records.remove_line(line, heir)
    _give(write, slots)
    for node in sorted(dead):
        records.delete(number_key(NODE, node))
    return len(going)


def unkept(records: Transaction) -> list[VersionId]:
    """Versions that were pinned when the last that kept them went."""
    return [VersionId(key_number(k)) for k in records.keys(UNKEPT)]


def _unkept(
    records: Transaction,
    touched: set[VersionId],
    may_go: Callable[[VersionId], bool],
    ignored: Collection[bytes] = (),
) -> tuple[dict[VersionId, VersionRecord], dict[VersionId, VersionId], dict[VersionId, bool]]:
    """What goes, children before their parents; the heir of each (NO_VERSION: none); what stays.

    An heir is the kept version that will take the place of one that goes, as a child of its
    parent. Of what stays: whether `may_go` alone says so (R1, R2). Records whose keys are `ignored`
    keep nothing: links to names, and versions with the mark of ``history="all"``.
    """
    going: dict[VersionId, VersionRecord] = {}
    heirs: dict[VersionId, VersionId] = {}
    staying: dict[VersionId, bool] = {}
    touched.discard(NO_VERSION)
    todo = [-v for v in touched]
    heapq.heapify(todo)
    while todo:
        version = VersionId(-heapq.heappop(todo))
        try:
            record = records.version(version)
        except NotFoundError:
            continue
        named, children = records.kin(version, heirs, ignored)
        marked = record.keep and number_key(VERSION, version) not in ignored
        if named or marked or len(children) > 1:
            staying[version] = False
        elif not may_go(version):
            staying[version] = True
        else:
            going[version], heirs[version] = record, (children or [NO_VERSION])[0]
            if not children and record.parent not in {*touched, NO_VERSION}:
                touched.add(record.parent)  # it has one child less
                heapq.heappush(todo, -record.parent)
    return going, heirs, staying


def _lines(
    going: dict[VersionId, VersionRecord], heirs: dict[VersionId, VersionId]
) -> Iterator[list[VersionRecord]]:
    """Versions that follow each other and have one heir: the oldest of each line first."""
    following: dict[VersionId, VersionRecord] = {}
    first = []
    for version, record in going.items():
        parent = record.parent
        if heirs.get(parent) == heirs[version] and parent not in following:
            following[parent] = record
        else:
            first.append(record)
    for record in first:
        line = [record]
        while (after := following.get(line[-1].id)) is not None:
            line.append(after)
        yield line


def _heir(records: Transaction, heir: VersionId) -> list[VersionRecord]:
    return [records.version(heir)] if heir != NO_VERSION else []


def _find_freed(
    nodes: Nodes, line: list[VersionRecord], heirs: list[VersionRecord], slots: list[IntArray],
    dead: list[NodeId],
) -> None:  # fmt: skip
    """Note what goes with a line (R3)."""
    first = line[0]
    for region in first.regions.values():
        others = tables_of(heirs, region.id)
        dead += [ref.node for ref in exclusive_nodes(nodes, region.table, others, first.parent)]
        slots += [expand(e)[1] for e in exclusive(nodes, region.table, others, first.parent)]
    later = {region.id for version in line[1:] for region in version.regions.values()}
    for number in later:
        kept = next(iter(tables_of(heirs, number)), Table())
        _find_freed_later(nodes, line, number, kept, slots, dead)


def _find_freed_later(
    nodes: Nodes, line: list[VersionRecord], region: int, kept: Table, slots: list[IntArray],
    dead: list[NodeId],
) -> None:  # fmt: skip
    """Note what the versions after the first of a line brought, and the heir has not kept."""
    made: list[NodeRef] = []
    left: list[NodeRef] = []
    found = [
        part
        for before, version in itertools.pairwise(line)
        for table in tables_of([version], region)
        for part in newer(nodes, table, before.id, made)
    ]
    for _ in newer(nodes, kept, line[0].id, left):
        pass  # only its nodes are asked for
    dead += {ref.node for ref in made} - {ref.node for ref in left}
    if found:
        page, slot = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.argsort(page, kind="stable")
        page, slot = page[order], slot[order]
        slots.append(slot[lookup(nodes, kept, page)[0] != slot])


def _give(write: Write, slots: list[IntArray]) -> None:
    if slots:
        write.space.give(_each_once(slots))


def _each_once(slots: list[IntArray]) -> IntArray:
    free = np.sort(np.concatenate(slots)) if slots else np.empty(0, np.int64)
    if (free[1:] == free[:-1]).any():
        raise CorruptionError("versions to be dropped gave up the same slot twice (I3)")
    return free


def tables_of(versions: Iterable[VersionRecord], region: int) -> list[Table]:
    """Page tables that a region has in some versions."""
    return [r.table for v in versions for r in v.regions.values() if r.id == region]


def would_free(
    records: Transaction, nodes: Nodes, touched: set[VersionId], ignored: Collection[bytes] = ()
) -> tuple[list[VersionId], IntArray]:
    """What dropping all that nothing keeps any more would free, versions and slots.

    As `drop_unkept`, but nothing is pinned, and records whose keys are `ignored` are not there.
    """
    going, heirs, _ = _unkept(records, touched, lambda _: True, ignored)
    slots: list[IntArray] = []
    for line in _lines(going, heirs):
        _find_freed(nodes, line, _heir(records, heirs[line[-1].id]), slots, [])
    return list(going), _each_once(slots)


def exclusive_pages(
    records: Transaction, nodes: Nodes, version: VersionRecord, region: RegionRecord
) -> int:
    """How many pages of a region of a version no other kept version refers to."""
    children = [records.version(c) for c in records.children(version.id)]
    others = tables_of(children, region.id)
    return sum(
        int(extents.length.sum())
        for extents in exclusive(nodes, region.table, others, version.parent)
    )
