"""What every version must hold: plain arrays, names and parents, and no cleverness.

The model knows three answers to "is this a conflict?". A page that was written but not changed may
count as changed or not, since only some trackers see it.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import numpy as np
from attrs import define, evolve, field, frozen

_uids = itertools.count(1)


@frozen(eq=False)
class Region:
    """One region of a version, or of a workspace (whose `data` then changes)."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    data: np.ndarray[Any, Any]  # its bytes
    uid: int = field(factory=lambda: next(_uids))
    stamp: int = 0  # the version that last touched it, even if to no effect

    @classmethod
    def zeros(cls, dtype: Any, shape: tuple[int, ...]) -> Region:
        dtype = np.dtype(dtype)
        return cls(dtype, shape, np.zeros(int(np.prod(shape)) * dtype.itemsize, np.uint8))

    @property
    def nbytes(self) -> int:
        return len(self.data)

    def copy(self) -> Region:
        return evolve(self, data=self.data.copy())

    def reshaped(self, shape: tuple[int, ...]) -> Region:
        new = evolve(Region.zeros(self.dtype, shape), uid=self.uid, stamp=self.stamp)
        size = min(new.nbytes, self.nbytes)
        new.data[:size] = self.data[:size]
        return new

    def page_count(self, page_size: int) -> int:
        return -(-self.nbytes // page_size)

    def pages(self, page_size: int, count: int) -> np.ndarray[Any, Any]:
        """The first `count` pages, zeros beyond the end."""
        padded = np.zeros(count * page_size, np.uint8)
        size = min(len(padded), self.nbytes)
        padded[:size] = self.data[:size]
        return padded.reshape(count, page_size)

    def same(self, other: Region | None) -> bool:
        return (
            other is not None
            and (self.uid, self.shape, self.dtype) == (other.uid, other.shape, other.dtype)
            and np.array_equal(self.data, other.data)
        )


Regions = Mapping[str, Region]


def differing_pages(a: Region, b: Region, page_size: int) -> set[int]:
    """Pages whose bytes differ; what is beyond an end is zeros."""
    count = max(a.page_count(page_size), b.page_count(page_size))
    unlike = (a.pages(page_size, count) != b.pages(page_size, count)).any(axis=1)
    return set(np.flatnonzero(unlike).tolist())


class Conflict(enum.IntEnum):
    NO = 0
    MAYBE = 1
    YES = 2


@define(eq=False)
class Work:
    """A workspace: the base, what is there now, and what was touched since."""

    branch: str
    base: int
    origin: dict[str, Region]
    page_size: int
    regions: dict[str, Region] = field(init=False)
    touched: dict[str, set[int]] = field(init=False)
    kept: dict[str, int] = field(init=False)  # pages from here on are not the base's
    unsure: bool = False  # bytes that no region has were written: a commit may find a change

    def __attrs_post_init__(self) -> None:
        self.start(self.base, self.origin)

    def start(self, base: int, origin: Regions) -> None:
        self.base, self.origin = base, dict(origin)
        self.regions = {name: region.copy() for name, region in origin.items()}
        self.touched = {name: set() for name in origin}
        self.kept = {name: r.page_count(self.page_size) for name, r in origin.items()}
        self.unsure = False

    def create(self, name: str, region: Region) -> None:
        self.regions[name] = region
        self.touched[name], self.kept[name] = set(), 0

    def delete(self, name: str) -> None:
        for there in (self.regions, self.touched, self.kept):
            del there[name]  # type: ignore[attr-defined]

    def write(self, name: str, offset: int, data: np.ndarray[Any, Any]) -> None:
        """Write bytes; those beyond the region's end are lost, though their page was touched."""
        region, size = self.regions[name], self.page_size
        fits = data[: max(0, region.nbytes - offset)]
        region.data[offset : offset + len(fits)] = fits
        pages = range(offset // size, -(-(offset + len(data)) // size))
        self.touched[name] |= {p for p in pages if p < region.page_count(size)}
        self.unsure |= len(fits) < len(data)

    def resize(self, name: str, shape: tuple[int, ...]) -> None:
        old = self.regions[name]
        new = self.regions[name] = old.reshaped(shape)
        end = min(old.nbytes, new.nbytes)
        if end % self.page_size:  # the rest of this page may be blanked
            self.touched[name].add(end // self.page_size)
        count = new.page_count(self.page_size)
        self.kept[name] = min(self.kept[name], count)
        self.touched[name] = {p for p in self.touched[name] if p < count}

    # ---------------------------------------------------------------------------- changes

    def based(self, name: str) -> Region | None:
        """The base's region that this one goes on from."""
        mine, base = self.regions.get(name), self.origin.get(name)
        return base if mine and base and mine.uid == base.uid else None

    @property
    def deleted(self) -> set[str]:
        return {name for name in self.origin if self.based(name) is None}

    def real_changes(self) -> set[str]:
        """Names of regions that are not what the base has."""
        unlike = {n for n, r in self.regions.items() if not r.same(self.based(n))}
        return unlike | self.deleted

    def perhaps_changed(self) -> bool:
        """Whether something was touched, though it may be as it was."""
        cut = any(self.is_cut(name) for name in self.regions)
        return self.unsure or cut or any(self.touched.values())

    def is_cut(self, name: str) -> bool:
        base = self.based(name)
        return base is not None and self.kept[name] < base.page_count(self.page_size)

    # --------------------------------------------------------------------------- conflicts

    def conflict(self, head: Regions) -> Conflict:
        """Whether a commit on top of `head` collides with what is there since the base."""
        answers = [self._deletion(name, head.get(name)) for name in self.deleted]
        for name in self.regions:
            base, theirs = self.based(name), head.get(name)
            if base is None:
                taken = theirs is not None and name not in self.deleted
                answers.append(Conflict.YES if taken else Conflict.NO)
            else:
                answers.append(self._change(name, base, theirs))
        return max(answers, default=Conflict.NO)

    def _deletion(self, name: str, theirs: Region | None) -> Conflict:
        base = self.origin[name]
        if theirs is None or (theirs.same(base) and theirs.stamp == base.stamp):
            return Conflict.NO
        return Conflict.MAYBE if theirs.same(base) else Conflict.YES

    def _change(self, name: str, base: Region, theirs: Region | None) -> Conflict:
        mine, size = self.regions[name], self.page_size
        real, cut = differing_pages(base, mine, size), self.is_cut(name)
        touched = self.touched[name]
        if theirs is None or theirs.uid != base.uid:
            if real or mine.shape != base.shape:
                return Conflict.YES
            return Conflict.MAYBE if touched or cut else Conflict.NO
        changed = differing_pages(base, theirs, size)
        mine_reshaped, reshaped = mine.shape != base.shape, theirs.shape != base.shape
        ends = [mine_reshaped and reshaped, cut and any(p >= self.kept[name] for p in changed)]
        if mine.nbytes < base.nbytes:
            ends.append(any(p >= mine.nbytes // size for p in changed))
        beyond = theirs.nbytes // size if theirs.nbytes < base.nbytes else 1 << 62
        if any(ends) or real & changed or any(p >= beyond for p in real):
            return Conflict.YES
        maybe = touched & changed or any(p >= beyond for p in touched)
        return Conflict.MAYBE if maybe else Conflict.NO

    def merged(self, head: Regions) -> dict[str, Region]:
        """What the branch holds once the changes are on top of `head`."""
        result = {name: r for name, r in head.items() if name not in self.deleted}
        for name, mine in self.regions.items():
            base, theirs = self.based(name), head.get(name)
            if base is None:
                result[name] = mine.copy()
            elif theirs is not None and theirs.uid == base.uid:
                result[name] = self._merged(name, base, mine, theirs)
        return result

    def _merged(self, name: str, base: Region, mine: Region, theirs: Region) -> Region:
        size = self.page_size
        result = theirs.reshaped(mine.shape if mine.shape != base.shape else theirs.shape)
        count = result.page_count(size)
        pages, ours = result.pages(size, count), mine.pages(size, count)
        for page in differing_pages(base, mine, size):
            if page < count:
                pages[page] = ours[page]
        result.data[:] = pages.reshape(-1)[: result.nbytes]
        return result

    def rebase(self, base: int, head: Regions) -> None:
        """Go on from another base with the same changes (`merged` is what is there then)."""
        created = {n for n in self.regions if n not in self.origin}
        anew = {n for n in self.regions if n in self.origin and self.based(n) is None}
        regions = {n: r.copy() for n, r in self.merged(head).items()}
        touched = {n: self.touched.get(n, set()) for n in regions}
        kept = {}
        for name in regions:
            if name in created | anew:
                kept[name] = 0
            elif name in self.kept and self.is_cut(name):
                kept[name] = self.kept[name]
            else:
                kept[name] = head[name].page_count(self.page_size)
        self.base, self.origin = base, dict(head)
        self.regions, self.touched, self.kept = regions, touched, kept


# --------------------------------------------------------------------------------- the store


@define
class Kept:
    """A version that the store must have."""

    parent: int | None
    regions: dict[str, Region]
    time: datetime
    keep: bool


@define
class Model:
    """Every kept version and every name."""

    keep_all: bool
    versions: dict[int, Kept]
    snapshots: dict[str, int] = field(factory=dict)
    branches: dict[str, int] = field(factory=dict)

    def head(self, branch: str) -> dict[str, Region]:
        return self.versions[self.branches[branch]].regions

    def names(self) -> dict[str, int]:
        return self.branches | self.snapshots

    def ancestor(self, version: int, steps: int) -> int | None:
        here: int | None = version
        for _ in range(steps):
            here = None if here is None else self.versions[here].parent
        return here

    def children(self, version: int) -> list[int]:
        return [v for v, kept in self.versions.items() if kept.parent == version]

    def add(self, branch: str, version: int, regions: dict[str, Region], time: datetime) -> None:
        head = self.branches[branch]
        stamped = {
            name: region if region.same(self.versions[head].regions.get(name))
            else evolve(region, stamp=version)
            for name, region in regions.items()
        }  # fmt: skip
        self.versions[version] = Kept(head, stamped, time, self.keep_all)
        self.branches[branch] = version

    def drop(self, pinned: Collection[int]) -> None:
        """Forget what nothing keeps: invariant I4, said in one sentence."""
        while True:
            wanted = {*self.snapshots.values(), *self.branches.values(), *pinned}
            loose = [
                v for v, kept in self.versions.items()
                if v not in wanted and not kept.keep and len(self.children(v)) < 2
            ]  # fmt: skip
            if not loose:
                return
            gone = self.versions[loose[0]]
            for child in self.children(loose[0]):
                self.versions[child].parent = gone.parent
            del self.versions[loose[0]]
