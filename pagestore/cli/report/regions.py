"""The regions of all versions: which there were, and what each version has of them differently.

- G1  A region that was deleted and created again is two regions, of one name.
- G2  A version takes the regions of its ancestor over, but for what is said of it: so a thousand
      regions of a thousand versions are a thousand lines, not a million.
"""

from __future__ import annotations

from typing import Any

import pagestore
from pagestore.cli.output import printable

Change = tuple[list[list[Any]], list[int]]
"""Regions that are new or have another shape, and places of those that are gone."""


class Regions:
    """Every region there was, and its place in the page's list.

    Attributes
    ----------
    of : list of dict
        For each version, the store's number of each region by name.
    names : list of str
        By place; sorted.
    place : dict
        Name and number to place.
    changes : list of (Change or None)
        For each version, against its ancestor (G2).
    longest : list of int
        By place: most pages that it ever had.
    """

    def __init__(self, steps: list[pagestore.Step], parents: list[int], page_size: int) -> None:
        self._page_size = page_size
        self.of: list[dict[str, int]] = []
        for step, parent in zip(steps, parents, strict=True):
            before = self.of[parent] if parent >= 0 else {}
            new = {part.region: part.number for part in step.brought}
            names = step.version.regions
            self.of.append({name: new[name] if name in new else before[name] for name in names})
        every = sorted({pair for regions in self.of for pair in regions.items()})
        self.names = [name for name, _ in every]
        self.place = {pair: place for place, pair in enumerate(every)}
        self.changes = [
            self._change(
                i, steps[i].version, parent, steps[parent].version if parent >= 0 else None
            )
            for i, parent in enumerate(parents)
        ]
        self.longest = [0] * len(every)
        for rows, _ in filter(None, self.changes):
            for place, pages, *_ in rows:
                self.longest[place] = max(self.longest[place], pages)

    def _change(
        self, i: int, version: pagestore.Version, parent: int, ancestor: pagestore.Version | None
    ) -> Change | None:
        before = self.of[parent] if ancestor else {}
        rows = [
            self._row(region, self.of[i][name])
            for name, region in version.regions.items()
            if before.get(name) != self.of[i][name]
            or not ancestor
            or ancestor.regions[name] != region
        ]
        gone = [self.place[pair] for pair in before.items() if self.of[i].get(pair[0]) != pair[1]]
        return (rows, gone) if rows or gone else None

    def _row(self, region: pagestore.Region, number: int) -> list[Any]:
        """Place, pages, dtype and shape."""
        return [
            self.place[region.name, number],
            -(-region.nbytes // self._page_size),
            printable(str(region.dtype)),
            list(region.shape),
        ]
