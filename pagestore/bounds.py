"""What a record may say: numbers read from disk are compared with what can be (I6).

A record with a right checksum may come from a stranger. Owns: the limits that keep whoever
believes one from memory, loops and numbers without end. Does not know how a record is stored.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pagestore.errors import CorruptionError
from pagestore.format import (
    FAN_BITS,
    LEAF_BITS,
    LEAF_SPAN,
    MAX_PAGE,
    MAX_SLOTS,
    MIN_PAGE,
    Extents,
    IntArray,
    Meta,
    RegionRecord,
    VersionRecord,
)

MAX_PAGES = 1 << 40  # of a region
MAX_AXES = 64
MAX_NUMBER = 1 << 63  # ids and counters lie below: they are NumPy's and the kernel's signed numbers
CHECKED_AT_ONCE = 1 << 13  # extents: more would be memory that is touched for the first time
LOG_MOST = 1 << 12  # free-space log records that are read: a writer folds long before


def check_page_size(page_size: int, where: str) -> None:
    """A page size must be one that a store can be created with."""
    if page_size & (page_size - 1) or not MIN_PAGE <= page_size <= MAX_PAGE:
        raise CorruptionError(f"{where}: pages cannot have {page_size} bytes")


def check_meta(meta: Meta) -> None:
    """Counters must leave room for what they count."""
    check_page_size(meta.page_size, "catalog record meta")
    if not 1 <= meta.slots <= MAX_SLOTS:
        raise CorruptionError(f"catalog record meta: an arena cannot have {meta.slots} slots")
    counters = (meta.next_version, meta.next_node, meta.next_region, meta.next_number, meta.moves)
    if max(counters) >= MAX_NUMBER:
        raise CorruptionError("catalog record meta: a counter is larger than it can be")


def check_version(record: VersionRecord) -> None:
    """Ids must grow along a line of work (a walk to the first ends), regions be arrays."""
    if not record.parent < record.id < MAX_NUMBER:
        raise CorruptionError(f"version {record.id}: its parent {record.parent} is not older")
    for region in record.regions.values():
        _check_region(region, f"version {record.id}, region {region.name!r}")


def _check_region(region: RegionRecord, where: str) -> None:
    # NumPy counts an axis of length 0 as 1
    size = math.prod(max(1, e) for e in region.shape) * region.dtype.itemsize
    if size >= MAX_NUMBER or max(region.shape, default=0) >= MAX_NUMBER:
        raise CorruptionError(f"{where}: an array cannot have the shape {region.shape[:4]}...")
    if len(region.shape) > MAX_AXES:
        raise CorruptionError(f"{where}: an array cannot have {len(region.shape)} axes")
    tallest = -(-(MAX_PAGES.bit_length() - 1 - LEAF_BITS) // FAN_BITS)
    if region.table.height > tallest:
        raise CorruptionError(f"{where}: a page table cannot have height {region.table.height}")


def check_extents(extents: Extents) -> Extents:
    """Extents of one run must be sorted, disjoint and within a leaf (T2)."""
    for first in range(0, len(extents), CHECKED_AT_ONCE):
        cut = slice(first, first + CHECKED_AT_ONCE + 1)
        page = extents.page[cut]
        end = page + extents.take(cut).length
        if np.count_nonzero(end[:-1] > page[1:]) or end[-1] > LEAF_SPAN:
            raise CorruptionError("extents of a page table overlap, or leave their leaf (T2)")
    return extents


def check_refs(nodes: np.ndarray[Any, Any], what: str) -> None:
    """A node can stand in one place of a table only, or walks would not end."""
    if len(nodes) > 1:
        ordered = np.sort(nodes)
        if (ordered[1:] == ordered[:-1]).any():
            raise CorruptionError(f"a page-table {what} refers to a node twice")


def expand_runs(runs: np.ndarray[Any, Any], slots: int) -> IntArray:
    """Every slot of some stored runs, all of which must be among the first `slots`."""
    start, length = runs["start"], runs["length"].astype(np.uint64)
    if len(runs) and ((start > slots).any() or (length > slots - start).any()):
        raise CorruptionError("a list of free or reserved slots leads outside the arena")
    if int(length.sum()) > slots:
        raise CorruptionError("a list of free or reserved slots has one of them twice")
    first, count = start.astype(np.int64), length.astype(np.int64)
    within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    found: IntArray = np.repeat(first, count) + within
    return found
