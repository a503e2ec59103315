"""Contents that come back: which pages hold again what some version held in the same place.

A version that undoes a change writes its pages anew, yet does not differ from what was before.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

import pagestore
from pagestore.cli.report.runs import Ints

Sums = npt.NDArray[np.uint64]


def origins(steps: list[pagestore.Step]) -> Iterator[Ints]:
    """For each `Brought`, and each page of it: number of the first version with such contents."""
    parts = [(i, part) for i, step in enumerate(steps) for part in step.brought]
    if not parts:
        return
    ends = np.cumsum([len(part.page) for _, part in parts])
    version = np.repeat([i for i, _ in parts], np.diff(ends, prepend=0))
    page = np.concatenate([part.page for _, part in parts])
    region = np.repeat([part.number for _, part in parts], np.diff(ends, prepend=0))
    checksum = np.concatenate([part.checksum for _, part in parts])
    again = _perhaps_again(region, page, checksum)
    version[again] = _first(region[again], page[again], checksum[again], version[again])
    yield from np.split(version, ends[:-1])


def _perhaps_again(region: Ints, page: Ints, checksum: Sums) -> Ints:
    """Places of what may be there twice: a sort of one number each finds that there are none."""
    mixed = checksum ^ (page.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    mixed ^= region.astype(np.uint64) << np.uint64(40)
    ordered = np.sort(mixed)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    return np.flatnonzero(np.isin(mixed, twice)) if len(twice) else np.empty(0, np.int64)


def _first(region: Ints, page: Ints, checksum: Sums, version: Ints) -> Ints:
    """The smallest version of those that have the same region, page and checksum."""
    order = np.lexsort((version, checksum, page, region))
    columns = [c[order] for c in (region, page, checksum)]
    new = np.ones(len(order), np.bool_)
    new[1:] = np.logical_or.reduce([c[1:] != c[:-1] for c in columns])
    found = np.empty_like(version)
    found[order] = version[order][new][np.cumsum(new) - 1]
    return found
