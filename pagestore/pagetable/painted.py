"""Leaves painted page by page, for whoever commits to them again and again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pagestore.format import Extents, IntArray
from pagestore.pagetable.stack import Single, expand

DENSE_PAGES = 1 << 22  # in all painted leaves together: 64 MiB of memory
LONG = 512  # pages: an extent that is painted by itself
PATIENCE = 4  # commits to a leaf, one upon the other, before it is painted
COUNTED_MOST = 1 << 14  # leaves


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
            long = run.length >= LONG
            for page, length, slot, birth in _rows(run.take(long)):
                at = slice(page, page + length)
                painted.slot[at] = np.arange(slot, slot + length) if slot else 0
                painted.birth[at] = birth
            if not long.all():
                painted.with_pages(*expand(run.take(~long)))
        return painted

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
        """Slot (0: zeros) and birth of some sorted pages."""
        if not len(self.slot):
            return np.zeros(len(pages), np.int64), np.zeros(len(pages), np.int64)
        if len(pages) and pages[-1] < len(self.slot):
            return np.maximum(self.slot[pages], 0), self.birth[pages]
        inside = np.minimum(pages, len(self.slot) - 1)
        slot = np.where(pages < len(self.slot), np.maximum(self.slot[inside], 0), 0)
        return slot, np.where(pages < len(self.slot), self.birth[inside], 0)


class DenseLeaves:
    """Leaves painted page by page, for whoever commits to them again and again.

    Only for write transactions, of which there is one at a time: a commit repaints in place.
    """

    def __init__(self) -> None:
        self._leaves: OrderedDict[tuple[int, int], Painted] = OrderedDict()
        self._commits: OrderedDict[tuple[int, int], int] = OrderedDict()  # that led to a leaf

    def get(self, key: tuple[int, int]) -> Painted | None:
        found = self._leaves.get(key)
        if found is not None:
            self._leaves.move_to_end(key)
        return found

    def put(self, key: tuple[int, int], painted: Painted) -> None:
        self._leaves[key] = painted
        while sum(len(p.slot) for p in self._leaves.values()) > DENSE_PAGES:
            self._leaves.popitem(last=False)

    def worth(self, key: tuple[int, int]) -> bool:
        """Whether painting pays: not for who branches a version and commits a few times."""
        return self._commits.get(key, 0) >= PATIENCE

    def replaced(self, old: tuple[int, int], new: tuple[int, int], top: Single) -> None:
        """A commit put `top` on a leaf: let what was painted for it show the one that it became."""
        self._commits[new] = self._commits.pop(old, 0) + 1
        if len(self._commits) > COUNTED_MOST:
            self._commits.popitem(last=False)
        painted = self._leaves.pop(old, None)
        if painted is not None:
            self.put(new, painted.with_pages(*top))


def _rows(e: Extents) -> Iterator[tuple[int, int, int, int]]:
    columns = (column.tolist() for column in (e.page, e.length, e.slot, e.birth))
    return zip(*columns, strict=True)
