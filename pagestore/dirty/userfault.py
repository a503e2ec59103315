"""Exactly the pages written, from asynchronous write protection (Linux 6.7 and newer).

Owns the one userfaultfd that the trackers of a process share, and which page tables are armed.
Does not know where pages come from: what is remapped has to be watched again.

Only a page that the process has a copy of can have been written, so nothing is prepared for pages
that were never touched, and a scan passes over them 512 at a time. A block is what one page table
maps. Once a page of a block has been written the whole block is armed:

- T1  Every page that was written and not reported is mapped and not armed, in whichever block.
- T2  In an armed block no other page is. Elsewhere a page may have been read only: the kernel is
      asked which of them are copies.

Where the kernel refuses (a range that was remapped and not watched again, no memory for page
tables or for the answer, no mapping left), part of an answer may be lost. The tracker then stops
being exact, for good, and reports everything: a write is never left out.
"""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Iterator
from typing import Final

import numpy as np

from pagestore import kernel
from pagestore.kernel import (
    HUGE,
    MAPPED,
    PAGE_SIZE,
    TOUCHED,
    TOUCHED_KINDS,
    WRITTEN,
    WRITTEN_KINDS,
    Found,
    Query,
    Ranges,
)

_BLOCK: Final = PAGE_SIZE // 8 * PAGE_SIZE
_ARMED, _TABLE, _HUGE = b"a", b"t", b"h"  # kinds of block: armed; not armed, and what it has
_RUN: Final = re.compile(b"a+|t+|h+")
_LONG_RUN: Final = re.compile(b"a{32,}")  # worth a call of its own, to the kernel's fast loop
_QUERIES: Final = {_ARMED: TOUCHED, _TABLE: WRITTEN_KINDS, _HUGE: TOUCHED_KINDS}
_SHELF: Final = 4096  # blocks
_NOTHING: Final[Found] = np.empty((0, 3), np.int64)


class UserfaultTracker:
    """Exact, as long as the kernel plays along. In a forked child every call is an OSError."""

    name = "userfault"

    def __init__(self) -> None:
        self._userfault = _shared()
        self._exact = True
        self._armed = _BlockSet()

    @property
    def exact(self) -> bool:
        """Whether the kernel has answered every call so far."""
        return self._exact

    def watch(self, address: int, nbytes: int) -> None:
        """Register the range, parts of which may be registered, and count it as clean."""
        if self._exact:
            try:
                self._userfault.register(address, nbytes)
                self._arm(_Grid(address, nbytes))
            except (OSError, MemoryError) as error:
                self._degrade(error)

    def written(self, address: int, nbytes: int) -> Ranges:
        """Pages written since `watch` or the last call; clean from now on."""
        if self._exact:
            try:
                return kernel.pages(self._scan(_Grid(address, nbytes)), address)
            except (OSError, MemoryError) as error:
                self._degrade(error)
        return np.array([[0, nbytes // PAGE_SIZE]], np.int64)

    def pending(self, address: int, nbytes: int) -> int:
        """How many pages `written` would report; changes nothing."""
        if self._exact:
            try:
                found = self._scan(_Grid(address, nbytes), arm=False)
                return int((found[:, 1] - found[:, 0]).sum()) // PAGE_SIZE
            except (OSError, MemoryError) as error:
                self._degrade(error)
        return nbytes // PAGE_SIZE

    def close(self) -> None:
        """Nothing to let go of: the descriptor is shared, and unmapping a range unregisters it."""

    def _degrade(self, error: Exception) -> None:
        if self._userfault.forked:
            raise error
        self._exact = False
        warnings.warn(
            f"written pages are no longer tracked, all are compared: {error}",
            RuntimeWarning,
            stacklevel=3,
        )

    def _arm(self, grid: _Grid) -> None:
        self._armed.discard(grid)
        if not self._userfault.arms_gaps:
            self._userfault.arm(grid.address, grid.nbytes)
            self._armed.add(grid, 0, grid.blocks)
            return
        self._userfault.arm_tables(grid.address, grid.nbytes)
        if grid.nbytes < _BLOCK:
            return
        mapped = self._userfault.scan(grid.address, grid.nbytes, MAPPED, arm=False)
        tables = kernel.pages(mapped[mapped[:, 2] != HUGE], 0) * PAGE_SIZE
        for start, stop in tables.tolist():
            self._armed.add(grid, grid.block(start + _BLOCK - 1), grid.block(stop))

    def _scan(self, grid: _Grid, *, arm: bool = True) -> Found:
        """Find the pages that were written and not reported; each is armed as it is found."""
        armed, done = self._armed.of(grid), 0
        found: list[Found] = []
        for run in _LONG_RUN.finditer(armed):
            found += self._find(grid, done, run.start(), armed, arm=arm)
            found.append(self._look(grid, *run.span(), WRITTEN, arm=arm))
            done = run.end()
        found += self._find(grid, done, grid.blocks, armed, arm=arm)
        return found[0] if len(found) == 1 else np.concatenate((_NOTHING, *found))

    def _find(
        self, grid: _Grid, start: int, stop: int, armed: bytes, *, arm: bool
    ) -> Iterator[Found]:
        """The same in some blocks: look where something was touched, then ask what was written."""
        touched = self._look(grid, start, stop, TOUCHED, arm=False)
        for run in _RUN.finditer(_kinds(touched, grid, armed)):
            kind = run[0][:1]
            found = self._look(grid, *run.span(), _QUERIES[kind], arm=arm)
            yield found if kind == _ARMED else kernel.copies(found)
            if arm and kind == _TABLE:
                self._armed.add(grid, *run.span())

    def _look(self, grid: _Grid, start: int, stop: int, query: Query, *, arm: bool = True) -> Found:
        first = grid.start(start)
        return self._userfault.scan(first, grid.start(stop) - first, query, arm=arm)


class _Grid:
    """A range of memory and the blocks that it lies in."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.address, self.nbytes, self.stop = address, nbytes, address + nbytes
        self.first = address // _BLOCK
        self.blocks = self.block(self.stop + _BLOCK - 1)

    def block(self, address: int) -> int:
        """In which block an address lies."""
        return address // _BLOCK - self.first

    def start(self, block: int) -> int:
        """Where the part of the range begins that lies in a block or in later ones."""
        return min(max((self.first + block) * _BLOCK, self.address), self.stop)


class _BlockSet:
    """A set of blocks, by their number in all of memory."""

    def __init__(self) -> None:
        self._shelves: dict[int, bytearray] = {}

    def of(self, grid: _Grid) -> bytes:
        """A byte for each block of a range: 0 for those not in the set."""
        return b"".join(shelf[cut] for shelf, cut in self._pieces(grid.first, grid.blocks))

    def add(self, grid: _Grid, start: int, stop: int) -> None:
        """Take in those of some blocks that lie in the range whole: the rest may be another's."""
        start = max(start, grid.block(grid.address + _BLOCK - 1))
        stop = min(stop, grid.block(grid.stop))
        for shelf, cut in self._pieces(grid.first + start, stop - start):
            shelf[cut] = _ARMED * (cut.stop - cut.start)

    def discard(self, grid: _Grid) -> None:
        """Leave out every block that the range touches."""
        for shelf, cut in self._pieces(grid.first, grid.blocks):
            shelf[cut] = bytes(cut.stop - cut.start)

    def _pieces(self, first: int, n: int) -> Iterator[tuple[bytearray, slice]]:
        while n > 0:
            shelf, at = divmod(first, _SHELF)
            size = min(n, _SHELF - at)
            yield self._shelves.setdefault(shelf, bytearray(_SHELF)), slice(at, at + size)
            first, n = first + size, n - size


def _kinds(touched: Found, grid: _Grid, armed: bytes) -> bytearray:
    """A byte for each block: of what kind it is if it holds something touched, else 0."""
    kinds = bytearray(len(armed))
    ends = (touched[:, :2] - (0, 1)) // _BLOCK - grid.first
    for first, last, kind in set(zip(*ends.T.tolist(), touched[:, 2].tolist(), strict=True)):
        for at in range(first, last + 1):
            kinds[at : at + 1] = _HUGE if kind else _ARMED if armed[at] else _TABLE
    return kinds


_lock = threading.Lock()
_current: kernel.Userfault | None = None


def _shared() -> kernel.Userfault:
    global _current
    with _lock:
        if _current is None:
            _current = kernel.Userfault()
        return _current


def _forget() -> None:
    # A child can use neither what it inherits nor a lock that some thread held at the fork.
    global _current, _lock
    _lock = threading.Lock()
    if _current is not None:
        _current.close()
        _current = None


os.register_at_fork(after_in_child=_forget)
