"""Which kept versions share a page: one pass over what each of them changed.

Owns: counting, for every slot of the arena, the kept versions that refer to it. Knows versions as
records and their page tables, nothing of names or files.

A version takes over what its nearest kept ancestor has, brings pages of its own, and lets others
go; what went does not come back (R3). So those that refer to a slot are a version and all that come
from it, without those that come from where the slot was let go. Two numbers for each version, how
many come from it and the sum of their places in a list, are added where a slot comes and taken away
where it goes: what is left says how many refer to the slot, and where it is one, which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from attr import frozen

from pagestore.errors import CorruptionError
from pagestore.format import NO_VERSION, IntArray, RegionId, RegionRecord, VersionId, VersionRecord
from pagestore.pagetable import Nodes, differences, expand, extents, newer


@frozen
class VersionSpace:
    """What one kept version takes; sizes in bytes.

    Attributes
    ----------
    version : int
        Its id.
    referred_bytes : int
        Pages that it refers to (zeros take none).
    exclusive_bytes : int
        Those of them that no other kept version refers to.
    new_bytes : int
        Those of them that its nearest kept ancestor does not have.
    """

    version: int
    referred_bytes: int
    exclusive_bytes: int
    new_bytes: int


@frozen(eq=False)
class Sharing:
    """Who refers to the slots of an arena.

    Attributes
    ----------
    holders : array of int64
        For each slot, how many of the versions refer to it.
    places : array of int64
        For each slot, the sum of their places among the versions.
    new : list of int
        For each version, how many pages it has that its nearest kept ancestor has not.
    """

    holders: IntArray
    places: IntArray
    new: list[int]

    def exclusive(self) -> IntArray:
        """For each version, how many pages no other one refers to."""
        return np.bincount(self.places[self.holders == 1], minlength=len(self.new))


def count(
    nodes: Nodes, versions: Sequence[VersionRecord], slots: int, region: RegionId | None = None
) -> Sharing:
    """Count who refers to each of `slots` slots; `versions` are all that are kept, by their ids.

    Costs what all versions changed together, of one region if that is all that is asked for.
    """
    place = {version.id: i for i, version in enumerate(versions)}
    size, total = _descendants(versions, place)
    sharing = Sharing(np.zeros(slots, np.int64), np.zeros(slots, np.int64), [0] * len(versions))

    def add(found: IntArray, i: int, sign: int) -> None:
        if len(found) and not 0 < found.min() <= found.max() < slots:
            raise CorruptionError(f"version {versions[i].id} refers to slots outside the arena")
        sharing.holders[found] += sign * size[i]
        sharing.places[found] += sign * total[i]

    for i, version in enumerate(versions):
        parent = versions[place[version.parent]] if version.parent != NO_VERSION else None
        before = _regions(parent, region)
        after = _regions(version, region)
        for now in after.values():
            for _, found in newer(nodes, now.table, version.parent, []):
                sharing.new[i] += len(found)
                add(found, i, 1)
        for number, was in before.items():
            for found in _gone(nodes, was, after.get(number)):
                add(found, i, -1)
    return sharing


def _descendants(
    versions: Sequence[VersionRecord], place: Mapping[VersionId, int]
) -> tuple[list[int], list[int]]:
    """How many versions come from each, itself included, and the sum of their places."""
    size, total = [1] * len(versions), list(range(len(versions)))
    for i in reversed(range(len(versions))):
        parent = versions[i].parent
        if parent == NO_VERSION:
            continue
        if parent not in place:
            raise CorruptionError(f"version {versions[i].id}: its parent {parent} is missing")
        size[place[parent]] += size[i]
        total[place[parent]] += total[i]
    return size, total


def _regions(version: VersionRecord | None, only: RegionId | None) -> dict[RegionId, RegionRecord]:
    regions = version.regions.values() if version else ()
    return {r.id: r for r in regions if only is None or r.id == only}


def _gone(nodes: Nodes, was: RegionRecord, now: RegionRecord | None) -> list[IntArray]:
    """Slots that a region had, and has no more."""
    if now is None:
        return [expand(extents(nodes, was.table))[1]]
    found = [expand(d.olds())[1] for d in differences(nodes, was.table, now.table, -1)]
    return [slots[slots != 0] for slots in found]


def space(
    nodes: Nodes, versions: Sequence[VersionRecord], slots: int, page_size: int
) -> dict[int, VersionSpace]:
    """What each of all kept versions takes, by its id."""
    sharing = count(nodes, versions, slots)
    exclusive = sharing.exclusive().tolist()
    return {
        version.id: VersionSpace(
            version.id,
            sum(region.pages for region in version.regions.values()) * page_size,
            exclusive[i] * page_size,
            sharing.new[i] * page_size,
        )
        for i, version in enumerate(versions)
    }
