"""Free slots: which there are, and which to take next.

Owns: the free-space records and the policy that keeps commits in long runs. Does not know
versions; it is told what became free.

On disk the free set is a bitmap in chunks of 8192 slots plus a short log of what transactions
took and gave since; the log is folded into the bitmap when it has grown. A commit that frees a
hundred scattered slots thus writes one small record, not a hundred places of the bitmap.

- S1  A slot is free on disk only when no committed version refers to it.
- S2  What one transaction freed is taken by a later one, never by the same: a crash before the
      commit must find the old pages as they were.
- S3  In memory the set is believed only while no other process has committed since it was read.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Any

import numpy as np

from pagestore.bounds import LOG_MOST, expand_runs
from pagestore.errors import CorruptionError, FullError
from pagestore.format import (
    FREE,
    FREE_CHUNK,
    MAX_SLOTS,
    SPACE_LOG,
    IntArray,
    Records,
    key_number,
    number_key,
    pack_runs,
    runs_of,
    sorted_unique,
    unpack_runs,
)

LOG_RECORDS = 64
LOG_RUNS = 1 << 15
SHORT_RUN = 64  # slots: below this, growing beats filling gaps while garbage is small
GARBAGE = 2  # the arena grows rather than use short runs while under 1/2 of it is free
LOOK_LEAST = 1024  # slots freed before the free runs are looked for again
ALIGNED = 512  # slots: 2 MiB of 4 KiB pages
GROW_LEAST = 256
FEW_RUNS = 16  # up to here slices are faster than an index of every slot
GROW_MOST = 16384
SMALL = 32  # slots: a growth for at most so many is written out at once (docs/decisions/025)


Grow = Callable[[int, bool], None]


class Space:
    """The free slots of one arena, as a transaction sees and changes them."""

    def __init__(self) -> None:
        self._free = np.zeros(0, np.bool_)
        self.free = 0
        self._seen = -1  # the LMDB transaction that the set in memory equals
        self._begun = False  # the transaction under way has looked at it
        self._log: list[int] = []  # numbers of the log records
        self._logged = 0  # runs in all of them
        self._forget()

    def _forget(self) -> None:
        self._head: tuple[int, int] | None = None  # the run that is being filled: length, start
        self._runs: list[tuple[int, int]] = []  # other known free runs, shortest first
        self._freed_since = 1 << 62  # frees since the runs were looked for
        self._taken: list[tuple[int, int]] = []
        self._given: list[IntArray] = []

    # ------------------------------------------------------------------------------- loading

    def begin(self, records: Records, transaction: int, slots: int) -> None:
        """Make the set equal what the transaction sees (`transaction` is its LMDB number)."""
        known = self._seen == transaction - 1 and len(self._free) == slots
        self._seen = -1  # what an aborted transaction leaves is not believed
        if not known:
            self._free, self._log, self._logged = load(records, slots)
            self.free = int(np.count_nonzero(self._free))
            self._forget()
        self._begun = True

    @property
    def slots(self) -> int:
        return len(self._free)

    # ------------------------------------------------------------------------ taking, giving

    def take(self, count: int, grow: Grow, *, long: bool = False) -> IntArray:
        """Take `count` free slots, in as few runs as may be.

        `grow` makes the arena's file so many slots long, and writes to the new ones if told to.

        With `long`, the arena grows rather than that short runs are used.

        Raises
        ------
        FullError
            When the disk is full and there are not enough free slots.
        """
        parts: list[IntArray] = []
        least = ALIGNED if count >= ALIGNED else min(count, SHORT_RUN)
        while count:
            length, start = self._next_run(count, least, grow, long)
            used = min(length, count)
            self._head = (length - used, start + used) if used < length else None
            self._free[start : start + used] = False
            self.free -= used
            self._taken.append((start, used))
            parts.append(np.arange(start, start + used))
            count -= used
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _next_run(self, count: int, least: int, grow: Grow, long: bool) -> tuple[int, int]:
        head, self._head = self._head, None
        if head is not None and head[0] >= count:
            return head
        if head is not None:
            bisect.insort(self._runs, head)
        if self._runs and self._runs[-1][0] >= least:
            return self._runs.pop()
        if self._freed_since >= max(LOOK_LEAST, self.free >> 2):
            self._look()
            return self._next_run(count, least, grow, long)
        if long or self.free * GARBAGE < len(self._free) or not self._runs:
            try:
                return self._grow(count, grow)
            except FullError:
                self._look()
                if long or not self._runs:
                    raise
        return self._runs.pop()

    def _look(self) -> None:
        """Find the free runs that S2 allows, shortest first."""
        free = self.usable() if self._given else self._free
        edges = np.flatnonzero(np.diff(free.astype(np.int8), prepend=0, append=0))
        runs = edges.reshape(-1, 2)
        length = runs[:, 1] - runs[:, 0]
        order = np.lexsort((runs[:, 0], length))
        self._head = None
        self._runs = list(zip(length[order].tolist(), runs[order, 0].tolist(), strict=True))
        self._freed_since = 0

    def usable(self) -> np.ndarray[Any, Any]:
        """A copy of the free set that S2 allows: one bool a slot."""
        free = self._free.copy()
        if self._given:
            free[np.concatenate(self._given)] = False
        return free

    def take_these(self, slots: IntArray) -> None:
        """Take some usable slots; sorted."""
        self._free[slots] = False
        self.free -= len(slots)
        self._taken += map(tuple, runs_of(slots).tolist())
        self._head, self._runs = None, []
        self._freed_since = 1 << 62  # the runs that are known are no longer true

    def free_runs(self, least: int) -> list[tuple[int, int]]:
        """Free runs of at least `least` slots, as (start, length)."""
        self._look()
        return [(start, length) for length, start in self._runs if length >= least]

    def _grow(self, count: int, grow: Grow) -> tuple[int, int]:
        have = len(self._free)
        if have + count > MAX_SLOTS:
            raise FullError(f"the arena cannot have more than {MAX_SLOTS} slots")
        # a long run begins where a huge page does: the page cache can then hold it in huge pages
        skip = -have % ALIGNED if count >= ALIGNED else 0
        small = count <= SMALL
        step = skip + max(count, min(max(0 if small else have >> 4, GROW_LEAST), GROW_MOST))
        step += -(have + step) % ALIGNED if skip or count >= ALIGNED else 0
        try:
            grow(have + step, small)
        except FullError:
            skip, step = 0, count
            grow(have + step, False)
        self._free = np.concatenate((self._free, np.ones(step, np.bool_)))
        self.free += step
        self._given.append(np.arange(have, have + step))
        if skip:
            bisect.insort(self._runs, (skip, have))
        return step - skip, have + skip

    def give(self, slots: IntArray) -> None:
        """Free slots that nothing will refer to once the transaction commits."""
        if not len(slots):
            return
        if slots.min() < 1 or slots.max() >= len(self._free) or self._free[slots].any():
            raise CorruptionError("slots to be freed are free already, or not in the arena (I3)")
        self._free[slots] = True
        self.free += len(slots)
        self._given.append(slots)
        self._freed_since += len(slots)

    # -------------------------------------------------------------------------------- saving

    def save(self, records: Records, number: Callable[[], int]) -> None:
        """Write what the transaction took and gave into its records."""
        if not (self._taken or self._given):
            return
        given = []
        if self._given:
            given = runs_of(sorted_unique(np.concatenate(self._given))).tolist()
        payload = pack_runs(given, self._taken)
        count = len(given) + len(self._taken)
        if len(self._log) >= LOG_RECORDS or self._logged + count > LOG_RUNS:
            self._fold(records)
            return
        at = number()
        records.put(number_key(SPACE_LOG, at), payload)
        self._log.append(at)
        self._logged += count

    def _fold(self, records: Records) -> None:
        stored = dict(records.scan(FREE))
        for chunk in range(-(-len(self._free) // FREE_CHUNK)):
            key = number_key(FREE, chunk)
            bits = self._free[chunk * FREE_CHUNK : (chunk + 1) * FREE_CHUNK]
            payload = np.packbits(bits).tobytes().ljust(FREE_CHUNK // 8, b"\0")
            if payload == stored.get(key):
                continue
            if bits.any():
                records.put(key, payload)
            elif key in stored:
                records.delete(key)
        for number in self._log:
            records.delete(number_key(SPACE_LOG, number))
        self._log, self._logged = [], 0

    def aborted(self) -> None:
        """A transaction of this process came to nothing: so does what it took and gave."""
        self._begun = False

    def committed(self, transaction: int) -> None:
        """A transaction of this process is durable: the set in memory stands."""
        believed = self._begun or self._seen == transaction - 1
        self._taken, self._given, self._begun = [], [], False
        if believed:
            self._seen = transaction

    def unchanged(self, transaction: int) -> None:
        """A transaction of this process wrote nothing; the last before it was `transaction`."""
        if self._begun:  # else it was not asked what others have done meanwhile
            self._seen, self._begun = transaction, False


def free_runs(free: np.ndarray[Any, Any], segment: int) -> IntArray:
    """How many free runs begin in each piece of `segment` slots."""
    starts = np.flatnonzero(np.diff(free.astype(np.int8), prepend=0) == 1)
    return np.bincount(starts // segment, minlength=-(-len(free) // segment))


def _mark(free: np.ndarray[Any, Any], runs: np.ndarray[Any, Any], slots: int, value: bool) -> None:
    if len(runs) > FEW_RUNS:
        free[expand_runs(runs, slots)] = value
        return
    left = slots
    for start, length in runs.tolist():
        left -= length
        if start + length > slots or left < 0:
            raise CorruptionError("a list of free slots leads outside the arena, or has one twice")
        free[start : start + length] = value


def load(records: Records, slots: int) -> tuple[np.ndarray[Any, Any], list[int], int]:
    """Read the free set: one bool a slot; the log records it was read from, and their runs."""
    free = np.zeros(-(-slots // FREE_CHUNK) * FREE_CHUNK, np.bool_)
    for key, raw in records.scan(FREE):
        start = key_number(key) * FREE_CHUNK
        if len(raw) != FREE_CHUNK // 8 or start >= len(free):
            raise CorruptionError("a free-space chunk has the wrong size or place")
        free[start : start + FREE_CHUNK] = np.unpackbits(np.frombuffer(raw, np.uint8))
    log, runs = [], 0
    for key, raw in records.scan(SPACE_LOG):
        given, taken = unpack_runs(raw, 2)
        _mark(free, given, slots, True)
        _mark(free, taken, slots, False)
        log.append(key_number(key))
        runs += len(given) + len(taken)
        if len(log) > LOG_MOST:
            raise CorruptionError("the free-space log has more records than any writer leaves")
    if free[slots:].any() or free[:1].any():
        raise CorruptionError("a free-space record names a slot outside the arena")
    return free[:slots], log, runs
