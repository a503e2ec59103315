"""Leaves painted page by page, for whoever commits to them again and again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pagestore.format import Extents, IntArray
from pagestore.pagetable.stack import Single, expand

DENSE_PAGES = 1 << 22  # in all painted leaves together: 64 MiB of memory


class Painted(NamedTuple):
    """Slot (-1: never written, 0: zeros) and birth of every page from a leaf's first on."""

    slot: IntArray
    birth: IntArray

    @classmethod
    def of(cls, stack: Sequence[Extents]) -> Painted:
        """Paint runs, newest first, over each other."""
        end = max((int(run.page[-1] + run.length[-1]) for run in stack if len(run)), default=0)
        painted = cls(np.full(end, -1, np.int64), np.zeros(end, np.int64))
        for run in reversed(stack):
            painted = painted.over(run)
        return painted

    def over(self, run: Extents) -> Painted:
        """Paint one more run; in place where it fits."""
        return self.with_pages(*expand(run)) if len(run) else self

    def with_pages(self, pages: IntArray, slots: IntArray, births: IntArray) -> Painted:
        """Paint some sorted pages, at least one; in place where it fits."""
        short = int(pages[-1]) + 1 - len(self.slot)
        painted = self
        if short > 0:
            painted = Painted(
                np.concatenate((self.slot, np.full(short, -1, np.int64))),
                np.concatenate((self.birth, np.zeros(short, np.int64))),
            )
        painted.slot[pages], painted.birth[pages] = slots, births
        return painted

    def at(self, pages: IntArray) -> tuple[IntArray, IntArray]:
        """Slot (0: zeros) and birth of some pages."""
        if not len(self.slot):
            return np.zeros(len(pages), np.int64), np.zeros(len(pages), np.int64)
        inside = np.minimum(pages, len(self.slot) - 1)
        slot = np.where(pages < len(self.slot), np.maximum(self.slot[inside], 0), 0)
        return slot, np.where(pages < len(self.slot), self.birth[inside], 0)


class DenseLeaves:
    """Leaves painted page by page, for whoever commits to them again and again.

    Only for write transactions, of which there is one at a time: a commit repaints in place.
    """

    def __init__(self) -> None:
        self._leaves: OrderedDict[tuple[int, int], Painted] = OrderedDict()

    def get(self, key: tuple[int, int]) -> Painted | None:
        found = self._leaves.get(key)
        if found is not None:
            self._leaves.move_to_end(key)
        return found

    def put(self, key: tuple[int, int], painted: Painted) -> None:
        self._leaves[key] = painted
        while sum(len(p.slot) for p in self._leaves.values()) > DENSE_PAGES:
            self._leaves.popitem(last=False)

    def repaint(self, old: tuple[int, int], new: tuple[int, int], top: Single) -> None:
        """Let what was painted for a leaf show the one that replaced it."""
        painted = self._leaves.pop(old, None)
        if painted is not None:
            self.put(new, painted.with_pages(*top))
