"""Which part of an array a range of pages is, and which of its values differ."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from attrs import frozen

import pagestore
from pagestore.cli.inspect_pages import index_of

PIECE = 1 << 20  # bytes compared at once


@frozen
class Differing:
    """A value that is not what it was."""

    index: tuple[int, ...]
    old: Any
    new: Any


def elements(change: pagestore.Change, region: pagestore.Region) -> tuple[int, int]:
    """The elements, counted in C order, that lie in a range of pages at least in part."""
    size = region.dtype.itemsize
    if not size or change.start == change.stop:
        return 0, 0
    most = region.nbytes // size
    return min(change.byte_start // size, most), min(-(-change.byte_stop // size), most)


def index_range(first: int, stop: int, shape: tuple[int, ...]) -> str:
    """The smallest index with one slice that has some elements: ``[3, 0:512]``."""
    if first >= stop or not shape:
        return "[]"
    low, high = index_of(first, shape), index_of(stop - 1, shape)
    axis = next((i for i, (a, b) in enumerate(zip(low, high, strict=True)) if a != b), len(low))
    axis = min(axis, len(low) - 1)
    return f"[{', '.join([*map(str, low[:axis]), f'{low[axis]}:{high[axis] + 1}'])}]"


def differing(
    old: pagestore.SnapshotView, new: pagestore.SnapshotView, change: pagestore.Change
) -> Iterator[Differing]:
    """Yield the values in a range of pages whose bytes differ, by their indices in `new`.

    None where the two cannot be compared element by element: another dtype, or longer rows.
    """
    was, now = old.regions[change.region], new.regions[change.region]
    if was.dtype != now.dtype or was.shape[1:] != now.shape[1:]:
        return
    size = now.dtype.itemsize
    first, stop = elements(change, now)
    stop = min(stop, was.nbytes // size) if size else 0
    step = max(1, PIECE // size) if size else 1
    for at in range(first, stop, step):
        count = min(step, stop - at)
        a, b = (np.frombuffer(view.read(change.region, at * size, count * size), "u1")
                for view in (old, new))  # fmt: skip
        unlike = (a != b).reshape(count, size).any(axis=1)
        values = a.view(now.dtype), b.view(now.dtype)
        for i in np.flatnonzero(unlike).tolist():
            yield Differing(index_of(at + i, now.shape), values[0][i], values[1][i])
