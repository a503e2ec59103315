"""Whether what a workspace changed collides with what others committed meanwhile (M3).

Owns: that question, page by page and for shapes and whole regions. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pagestore.diff import changed_pages, page_count
from pagestore.errors import ConflictError
from pagestore.format import IntArray, RegionRecord, VersionRecord
from pagestore.pagetable import Nodes
from pagestore.placing import RegionChange
from pagestore.transaction import Transaction


def check_conflicts(
    records: Transaction,
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
            changed = changed_pages(records, nodes, base, head, name)
            _check_pages(change, change.base, theirs, changed, page_size)


def _check_pages(
    change: RegionChange,
    base: RegionRecord,
    theirs: RegionRecord,
    changed: IntArray,
    page_size: int,
) -> None:
    name = base.name
    reshaped = (theirs.shape, theirs.dtype) != (base.shape, base.dtype)
    if reshaped and change.reshaped:
        raise ConflictError(f"region {name!r} was resized by another writer too")
    mine = np.union1d(change.dirty, change.flushed.pages)
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
