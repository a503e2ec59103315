"""Pages of a region that no memory is wired for: read one call at a time, changed ones kept aside.

Owns: reading bytes from the arena through a page table, and whole pages that were written. Does
not know versions or workspaces: it is told how to find the slots of pages.

Wiring costs what is scattered in a region (docs/decisions/020); a call here costs what it reads,
and as much as to wire some 40 pieces. So in a region of few pieces only the first calls suffice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pagestore.arena import Arena
from pagestore.format import IntArray

LEAST_CALLS, MOST_CALLS = 1, 64
PIECES = 40  # to wire so many costs as much as a call
MOST_BYTES = 1 << 20  # of one call


SlotsOf = Callable[[IntArray], IntArray]
"""From sorted pages to the slots that hold them; 0 for zeros."""


class Direct:
    """Bytes of one region without memory for it.

    How to find slots is said with each call: kept here, it would be a cycle that keeps a view and
    its pin until the garbage collector comes.
    """

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._aside: dict[int, np.ndarray[Any, Any]] = {}
        self._calls = 0
        self._most = -1  # of them; not known yet

    def suffices(self, nbytes: int, count: Callable[[int], int]) -> bool:
        """Whether one more call, for so many bytes, is better than wiring memory.

        `count` says in how many pieces the region is, up to some number.
        """
        if self._most < 0:
            pieces = count(MOST_CALLS * PIECES)
            self._most = min(MOST_CALLS, LEAST_CALLS + pieces // PIECES)
        self._calls += 1
        return self._calls <= self._most and nbytes <= MOST_BYTES

    def read(self, slots_of: SlotsOf, start: int, stop: int) -> bytes:
        """Bytes from `start` up to `stop`."""
        size = self._arena.page_size
        first, last = start // size, -(-stop // size)
        found = self._load(slots_of, np.arange(first, last)).reshape(-1)
        return found[start - first * size : stop - first * size].tobytes()

    def write(self, slots_of: SlotsOf, start: int, raw: np.ndarray[Any, Any]) -> None:
        """Keep bytes from `start` on aside."""
        size, stop = self._arena.page_size, start + len(raw)
        pages = np.arange(start // size, -(-stop // size))
        whole = (pages * size >= start) & ((pages + 1) * size <= stop)
        loaded = self._load(slots_of, pages[~whole])
        new = dict(zip(pages[~whole].tolist(), loaded, strict=True))
        for page, held in new.items():
            a, b = max(start, page * size), min(stop, (page + 1) * size)
            held[a - page * size : b - page * size] = raw[a - start : b - start]
        for page in pages[whole].tolist():
            new[page] = raw[page * size - start :][:size].copy()
        self._aside.update(new)  # last: what fails before has changed nothing

    def _load(self, slots_of: SlotsOf, pages: IntArray) -> np.ndarray[Any, Any]:
        """A copy of each page, a row of bytes each."""
        size = self._arena.page_size
        found = np.zeros((len(pages), size), np.uint8)
        kept = np.array([page in self._aside for page in pages.tolist()], np.bool_)
        slots = np.zeros(len(pages), np.int64)
        if not kept.all():
            slots[~kept] = slots_of(pages[~kept])
        rows, one = slots.nonzero()[0], np.ones(len(pages), np.int64)
        self._arena.check_slots(int(slots.max(initial=0)) + 1)
        self._arena.read_into(found.ctypes.data + rows * size, slots[rows], one[: len(rows)])
        for row in kept.nonzero()[0].tolist():
            found[row] = self._aside[int(pages[row])]
        return found

    def __getitem__(self, pages: IntArray) -> np.ndarray[Any, Any]:
        """Copies of pages that are aside, one element each."""
        size = self._arena.page_size
        rows = [self._aside[page] for page in pages.tolist()]
        return (
            np.concatenate(rows).view(np.dtype(("V", size))) if rows else np.empty(0, ("V", size))
        )

    @property
    def pages(self) -> IntArray:
        """Numbers of the pages that are aside, sorted."""
        return np.array(sorted(self._aside), np.int64)

    def clear(self) -> None:
        """Forget what is aside."""
        self._aside.clear()
