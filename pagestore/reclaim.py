"""Dropping versions that nothing keeps any more, and freeing what only they had.

A version is kept while it is named, a branch's head, kept by ``history="all"``, pinned, or has two
or more kept children. Versions that go at once form lines, each between its nearest kept ancestor P
and the only kept child N of its last. A line is walked from its oldest version on: at each step the
pages and page-table nodes to free are those that were born after P and that the next version does
not have. It costs what changed from step to step, never what the versions hold.

- R1  A version is dropped only while its lock byte is held exclusively, until the commit.
- R2  A version that is pinned is noted as unkept, and tried again at every commit.
- R3  A slot or node is freed once, where it leaves the line: what the next version does not have
      none of those that follow has.
"""

from __future__ import annotations

import heapq
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
    Table,
    VersionId,
    VersionRecord,
    key_number,
    number_key,
)
from pagestore.pagetable import Nodes, exclusive, exclusive_nodes, expand
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
    nodes, floor = write.nodes, line[0].parent
    heirs = [write.records.version(heir)] if heir != NO_VERSION else []
    for version, following in zip(line, [*([v] for v in line[1:]), heirs], strict=True):
        for region in version.regions.values():
            others = tables_of(following, region.id)
            dead += [ref.node for ref in exclusive_nodes(nodes, region.table, others, floor)]
            slots += [expand(e)[1] for e in exclusive(nodes, region.table, others, floor)]
    write.records.remove_line(line, heirs)


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
