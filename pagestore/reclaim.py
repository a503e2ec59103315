"""Dropping versions that nothing keeps any more, and freeing what only they had.

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
from collections.abc import Iterable, Iterator

import numpy as np

from pagestore.engine import Engine, Write
from pagestore.errors import CorruptionError, NotFoundError
from pagestore.format import (
    NO_VERSION,
    NODE,
    UNKEPT,
    IntArray,
    NodeId,
    NodeRef,
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
    before = [VersionId(key_number(k)) for k in records.keys(UNKEPT)]
    going, heirs = _unkept(engine, records, {*touched, *before} - {NO_VERSION}, leaving)
    slots: list[IntArray] = []
    dead: list[NodeId] = []
    for line in _lines(going, heirs):
        _free_line(write, line, heirs[line[-1].id], slots, dead)
    _give(write, slots)
    for node in sorted(dead):
        records.delete(number_key(NODE, node))
    return len(going)


def _unkept(
    engine: Engine, records: Transaction, touched: set[VersionId], leaving: VersionId | None
) -> tuple[dict[VersionId, VersionRecord], dict[VersionId, VersionId]]:
    """What can go, children before their parents, and the heir of each (NO_VERSION: none).

    What cannot is noted or forgotten (R1, R2). An heir is the kept version that will take the
    place of one that goes, as a child of its parent.
    """
    going: dict[VersionId, VersionRecord] = {}
    heirs: dict[VersionId, VersionId] = {}
    todo = [-v for v in touched]
    heapq.heapify(todo)
    while todo:
        version = VersionId(-heapq.heappop(todo))
        try:
            record = records.version(version)
        except NotFoundError:
            continue
        named, children = records.kin(version, heirs)
        if named or record.keep or len(children) > 1:
            records.delete(number_key(UNKEPT, version))
        elif not engine.pins.try_exclusive(version, mine=int(version == leaving)):
            records.put(number_key(UNKEPT, version), b"")
        else:
            going[version], heirs[version] = record, (children or [NO_VERSION])[0]
            if not children and record.parent not in {*touched, NO_VERSION}:
                touched.add(record.parent)  # it has one child less
                heapq.heappush(todo, -record.parent)
    return going, heirs


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


def _free_line(
    write: Write, line: list[VersionRecord], heir: VersionId, slots: list[IntArray],
    dead: list[NodeId],
) -> None:  # fmt: skip
    """Note what goes with a line (R3), and let its heir be a child of its parent."""
    nodes, first = write.nodes, line[0]
    heirs = [write.records.version(heir)] if heir != NO_VERSION else []
    for region in first.regions.values():
        others = tables_of(heirs, region.id)
        dead += [ref.node for ref in exclusive_nodes(nodes, region.table, others, first.parent)]
        slots += [expand(e)[1] for e in exclusive(nodes, region.table, others, first.parent)]
    later = {region.id for version in line[1:] for region in version.regions.values()}
    for number in later:
        kept = next(iter(tables_of(heirs, number)), Table())
        _free_later(nodes, line, number, kept, slots, dead)
    write.records.remove_line(line, heirs)


def _free_later(
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
        free = np.sort(np.concatenate(slots))
        if (free[1:] == free[:-1]).any():
            raise CorruptionError("versions to be dropped gave up the same slot twice (I3)")
        write.space.give(free)


def tables_of(versions: Iterable[VersionRecord], region: int) -> list[Table]:
    """Page tables that a region has in some versions."""
    return [r.table for v in versions for r in v.regions.values() if r.id == region]


def exclusive_pages(records: Transaction, nodes: Nodes, version: VersionRecord) -> int:
    """How many pages dropping a version would free, were nothing else to keep it."""
    children = [records.version(c) for c in records.children(version.id)]
    return sum(
        int(extents.length.sum())
        for region in version.regions.values()
        for extents in exclusive(
            nodes, region.table, tables_of(children, region.id), version.parent
        )
    )
