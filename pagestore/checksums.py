"""Page checksums, by slot: one record in the catalog for 128 neighbouring slots.

A commit fills a long run of slots, so it touches few of these records; a page keeps its checksum
however its table is merged. Entries of free slots mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pagestore.errors import CorruptionError
from pagestore.format import (
    SUMS,
    SUMS_CHUNK,
    IntArray,
    Records,
    SumArray,
    number_key,
    number_keys,
    sorted_unique,
)

_SIZE = SUMS_CHUNK * 8
LOADED_AT_ONCE = 100  # records: memory that is used again, not touched for the first time
_WITHIN = np.arange(SUMS_CHUNK)


def read_sums(records: Records, slots: IntArray) -> SumArray:
    """Checksums of the pages in some slots (in any order)."""
    order = np.argsort(slots, kind="stable")
    ordered = slots[order]
    chunk, within = ordered // SUMS_CHUNK, ordered % SUMS_CHUNK
    sums, chunks = np.empty(len(slots), np.uint64), sorted_unique(chunk)
    for i in range(0, len(chunks), LOADED_AT_ONCE):
        some = chunks[i : i + LOADED_AT_ONCE]
        cut = slice(*chunk.searchsorted((some[0], some[-1] + 1)))
        rows = _load(records, some, missing=False)
        sums[order[cut]] = rows[some.searchsorted(chunk[cut]), within[cut]]
    return sums


def forget_sums(records: Records, free: Iterable[tuple[int, int]]) -> None:
    """Delete the records all of whose slots lie in runs (start, length) that are free."""
    for start, length in free:
        for chunk in range(-(-start // SUMS_CHUNK), (start + length) // SUMS_CHUNK):
            records.delete(number_key(SUMS, chunk))


def _load(records: Records, chunks: IntArray, *, missing: bool) -> SumArray:
    keys = number_keys(SUMS, chunks)
    found = records.get_many(keys)
    if missing and len(found) < len(keys):
        found = [records.get(key) or bytes(_SIZE) for key in keys]
    raw = b"".join(found)
    if len(raw) != _SIZE * len(keys):
        raise CorruptionError("the checksums of slots in use are missing, or of the wrong size")
    return np.frombuffer(raw, "<u8").reshape(-1, SUMS_CHUNK).astype(np.uint64, copy=False)


def _slots_of(chunks: IntArray) -> IntArray:
    """The slots whose checksums share a record: a row for each record."""
    return chunks[:, None] * SUMS_CHUNK + _WITHIN


def _chunks_of(slots: IntArray) -> list[int]:
    """Numbers of the records that have the checksums of some slots, in order."""
    return sorted(set((slots // SUMS_CHUNK).tolist()))


class KnownSums:
    """The checksums that this process has seen, one word a slot.

    Believed, as the free slots are, only while no other process has committed in between.
    """

    def __init__(self) -> None:
        self._sums: SumArray = np.zeros(0, "<u8")
        self._known: set[int] = set()  # chunks
        self._seen = -1

    def begin(self, transaction: int) -> None:
        """Forget all unless the last transaction was this process's."""
        if self._seen != transaction - 1:
            self._known.clear()
        self._seen = -1  # an aborted transaction leaves nothing to believe

    def committed(self, transaction: int) -> None:
        """A transaction of this process is durable: what is known stands."""
        self._seen = transaction

    def read(self, records: Records, slots: IntArray) -> SumArray:
        """As `read_sums`, asking the catalog only for what is not known."""
        self._learn(records, _chunks_of(slots), missing=False)
        sums: SumArray = self._sums[slots]
        return sums

    def write(self, records: Records, slots: IntArray, sums: SumArray) -> None:
        """Note the checksums of pages that were written to some slots."""
        chunks = _chunks_of(slots)
        self._learn(records, chunks, missing=True)
        self._sums[slots] = sums
        for number in chunks:
            at = number * SUMS_CHUNK
            records.put(number_key(SUMS, number), self._sums[at : at + SUMS_CHUNK].tobytes())

    def _learn(self, records: Records, chunks: list[int], *, missing: bool) -> None:
        unknown = [chunk for chunk in chunks if chunk not in self._known]
        if unknown:
            self._make_room((unknown[-1] + 1) * SUMS_CHUNK)
            numbers = np.array(unknown)
            self._sums[_slots_of(numbers)] = _load(records, numbers, missing=missing)
            self._known.update(unknown)

    def _make_room(self, slots: int) -> None:
        short = slots - len(self._sums)
        if short > 0:
            short += len(self._sums) >> 3
            self._sums = np.concatenate((self._sums, np.zeros(short, "<u8")))
