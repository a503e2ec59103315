"""Dropping versions that nothing keeps any more, and freeing what only they had.

A version is kept while it is named, a branch's head, kept by ``history="all"``, pinned, or has two
or more kept children. Let V be one to drop, P its nearest kept ancestor, N its only kept child:
the pages and page-table nodes to free are those of V that were born after P and that N does not
have. It costs what changed between V and N, never what V holds.

- R1  A version is dropped only while its lock byte is held exclusively, until the commit.
- R2  A version that is pinned is noted as unkept, and tried again at every commit.
"""

from __future__ import annotations

from collections.abc import Iterable

from pagestore.engine import Engine, Write
from pagestore.errors import NotFoundError
from pagestore.format import (
    NO_VERSION,
    NODE,
    UNKEPT,
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
    todo = [v for v in dict.fromkeys([*touched, *before]) if v != NO_VERSION]
    dropped = 0
    while todo:
        version = todo.pop()
        try:
            record = records.version(version)
        except NotFoundError:
            continue
        named, children = records.kin(version)
        if named or record.keep or len(children) > 1:
            records.delete(number_key(UNKEPT, version))
            continue
        if not engine.pins.try_exclusive(version, mine=int(version == leaving)):
            records.put(number_key(UNKEPT, version), b"")
            continue
        _drop(write, record, [records.version(c) for c in children])
        dropped += 1
        if record.parent != NO_VERSION and not children:  # an only child takes its place
            todo.append(record.parent)
    return dropped


def _drop(write: Write, version: VersionRecord, children: list[VersionRecord]) -> None:
    nodes, records = write.nodes, write.records
    for region in version.regions.values():
        others = tables_of(children, region.id)
        dead = exclusive_nodes(nodes, region.table, others, version.parent)
        for extents in exclusive(nodes, region.table, others, version.parent):
            write.space.give(expand(extents)[1])
        for ref in dead:
            records.delete(number_key(NODE, ref.node))
    records.remove_version(version, [child.id for child in children])


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
