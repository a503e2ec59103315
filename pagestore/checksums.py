"""Page checksums, by slot: one record in the catalog for 128 neighbouring slots.

A commit fills a long run of slots, so it touches few of these records; a page keeps its checksum
however its table is merged. Entries of free slots mean nothing.
"""

from __future__ import annotations

import numpy as np

from pagestore.errors import CorruptionError
from pagestore.format import (
    SUMS,
    SUMS_CHUNK,
    IntArray,
    Records,
    SumArray,
    number_key,
    sorted_unique,
)

_SIZE = SUMS_CHUNK * 8


def _chunks(slots: IntArray) -> tuple[IntArray, list[bytes]]:
    chunks = sorted_unique(slots // SUMS_CHUNK)
    return chunks, [number_key(SUMS, c) for c in chunks.tolist()]


def read_sums(records: Records, slots: IntArray) -> SumArray:
    """Checksums of the pages in some slots (in any order)."""
    if not len(slots):
        return np.empty(0, np.uint64)
    chunks, keys = _chunks(slots)
    found = records.get_many(keys)
    try:
        raw = b"".join([found[k] for k in keys])
    except KeyError as e:
        raise CorruptionError("the checksums of slots in use are missing") from e
    if len(raw) != _SIZE * len(keys):
        raise CorruptionError("a record of checksums has the wrong size")
    table = np.frombuffer(raw, np.uint64).reshape(-1, SUMS_CHUNK)
    return table[np.searchsorted(chunks, slots // SUMS_CHUNK), slots % SUMS_CHUNK]


def write_sums(records: Records, slots: IntArray, sums: SumArray) -> None:
    """Note the checksums of pages that were written to some slots."""
    if not len(slots):
        return
    chunks, keys = _chunks(slots)
    found = records.get_many(keys)
    table = np.zeros((len(keys), SUMS_CHUNK), np.uint64)
    for i, key in enumerate(keys):
        if key in found:
            table[i] = np.frombuffer(found[key], np.uint64)
    table[np.searchsorted(chunks, slots // SUMS_CHUNK), slots % SUMS_CHUNK] = sums
    for i, key in enumerate(keys):
        records.put(key, table[i].tobytes())
