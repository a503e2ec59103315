"""How many pages each version refers to, has alone, and brought; from what all of them brought."""

from __future__ import annotations

import numpy as np

import pagestore
from pagestore.cli.report.runs import Ints


class Sizes:
    """Pages by version, as lists in the order of the versions.

    Attributes
    ----------
    referred : list of int
        That it shows and that are not zeros.
    exclusive : list of int
        Of those, what no other kept version refers to.
    new : list of int
        Of those, what its nearest kept ancestor does not refer to.
    """

    def __init__(
        self, steps: list[pagestore.Step], parents: list[int], regions: list[dict[str, int]]
    ) -> None:
        self._parts = [{part.number: part for part in step.brought} for step in steps]
        self._numbers = [set(of.values()) for of in regions]
        self._children: list[list[int]] = [[] for _ in steps]
        for i, parent in enumerate(parents):
            if parent >= 0:
                self._children[parent].append(i)
        self._referred: list[dict[int, int]] = []
        for i, parent in enumerate(parents):
            self._referred.append(self._count(i, self._referred[parent] if parent >= 0 else {}))
        self.referred = [sum(of.values()) for of in self._referred]
        self.new = [sum(len(_stored(p)) for p in of.values()) for of in self._parts]
        self.exclusive = [
            sum(self._alone(i, part) for part in of.values()) for i, of in enumerate(self._parts)
        ]

    def _count(self, i: int, before: dict[int, int]) -> dict[int, int]:
        counts = {number: before.get(number, 0) for number in self._numbers[i]}
        for number, part in self._parts[i].items():
            change = np.count_nonzero(part.slot) - np.count_nonzero(part.before)
            counts[number] = max(0, counts[number] + int(change))  # damaged: below what it is
        return counts

    def _alone(self, i: int, part: pagestore.Brought) -> int:
        """Pages of what a version brought that every child has replaced."""
        alone = _stored(part)
        for child in self._children[i]:
            if part.number in self._numbers[child]:
                heir = self._parts[child].get(part.number)
                alone = np.intersect1d(alone, heir.page, True) if heir else alone[:0]
        return len(alone)


def _stored(part: pagestore.Brought) -> Ints:
    stored: Ints = part.page[part.slot != 0]
    return stored
