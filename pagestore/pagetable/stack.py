"""Stacks of runs of extents, newest first: overlaying, resolving, joining, cutting them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pagestore.format import Extents, IntArray, sorted_unique

DENSE = 1 << 13  # extents: from here on a leaf's pages are painted one by one

Single = tuple[IntArray, IntArray, IntArray]
"""Page, slot and birth of single pages, sorted by page."""


def flatten(stack: Sequence[Extents], *, keep_zeros: bool = False) -> Extents:
    """Overlay runs, newest first, into one that is sorted, disjoint and joined up.

    Costs a sort of the extents involved, not of the pages they cover.
    """
    stack = [run for run in stack if len(run)]
    if sum(map(len, stack)) > DENSE and len(stack) > 1:
        return _flatten_dense(stack, keep_zeros=keep_zeros)
    flat = stack[0] if stack else Extents.empty()
    if len(stack) == 2:
        over = _over(*stack)
        if over is not None:
            flat, stack = over, []
    if len(stack) <= 1:
        return flat if keep_zeros or flat.slot.all() else flat.take(flat.slot != 0)
    edges = edges_of(stack)
    start, length = edges[:-1], np.diff(edges)
    slot, birth, known = resolve(stack, start)
    use = known if keep_zeros else known & (slot != 0)
    return join_up(Extents(start[use], length[use], slot[use], birth[use]))


def _over(top: Extents, low: Extents) -> Extents | None:
    """Two runs, none of whose births both have, in one; None where `top` cuts an extent of `low`.

    No extent then continues another: neither is there anything to join.
    """
    end = low.page + low.length
    first = (top.page + top.length).searchsorted(low.page, "right")
    covered = top.page.searchsorted(end, "left") > first
    if top.birth.min() <= low.birth.max():
        return None
    if np.count_nonzero(covered):
        if np.count_nonzero(low.length[covered] > 1):
            return None
        low = low.take(~covered)
    both = Extents.join((top, low))
    return both.take(both.page.argsort(kind="stable"))


def _flatten_dense(stack: Sequence[Extents], *, keep_zeros: bool) -> Extents:
    """Overlay many extents by painting on every page which one it has: faster than sorting once
    most are short. Small numbers, since what costs is memory that is touched for the first time.
    """
    every = Extents.join(stack)
    ends = [int(run.page[-1] + run.length[-1]) for run in stack]
    owner = np.full(max(ends) + 2, -1, np.int32)  # of page - 1: none at either end
    first = len(every)
    for run in reversed(stack):
        first -= len(run)
        index = np.arange(first, first + len(run), dtype=np.int32)
        offset = run.page - (np.cumsum(run.length) - run.length) + 1
        page = np.repeat(offset.astype(np.int32), run.length)
        page += np.arange(len(page), dtype=np.int32)
        owner[page] = np.repeat(index, run.length)
    edge = np.flatnonzero(owner[1:] != owner[:-1])
    who, start, length = owner[edge[:-1] + 1], edge[:-1], np.diff(edge)
    known = who >= 0
    who, start, length = who[known], start[known], length[known]
    slot = every.slot[who]
    stored = slot != 0
    slot = np.where(stored, slot + (start - every.page[who]), 0)
    flat = Extents(start, length, slot, every.birth[who])
    return join_up(flat if keep_zeros or stored.all() else flat.take(stored))


def resolve(stack: Sequence[Extents], pages: IntArray) -> tuple[IntArray, IntArray, Any]:
    """Slot and birth of each page, and which pages any run of the stack has."""
    slot, birth = np.zeros((2, len(pages)), np.int64)
    known = np.zeros(len(pages), np.bool_)
    todo, left = np.arange(len(pages)), pages
    for run in stack:
        if not len(run):
            continue
        found = run.take(run.page.searchsorted(left, "right") - 1)
        inside = left - found.page  # negative where the run begins later: -1 finds its last
        hit = (inside >= 0) & (inside < found.length)
        at = hit.nonzero()[0]
        if not len(at):
            continue
        where, first = todo.take(at), found.slot.take(at)
        slot[where] = np.where(first != 0, first + inside.take(at), 0)
        birth[where] = found.birth.take(at)
        known[where] = True
        if len(at) == len(todo):
            break
        todo = todo[~hit]
        left = pages.take(todo)
    return slot, birth, known


def join_up(e: Extents) -> Extents:
    """Join neighbours that continue each other in pages, slots and birth."""
    if len(e) < 2:
        return e
    end = e.page + e.length
    follows = end[:-1] == e.page[1:]
    if not np.count_nonzero(follows):
        return e
    zero = e.slot == 0
    follows &= e.birth[:-1] == e.birth[1:]
    follows &= np.where(
        zero[:-1], zero[1:], ~zero[1:] & (e.slot[:-1] + e.length[:-1] == e.slot[1:])
    )
    if not follows.any():
        return e
    heads = np.flatnonzero(np.concatenate(([True], ~follows)))
    last = np.concatenate((heads[1:], [len(e)])) - 1
    return Extents(e.page[heads], end[last] - e.page[heads], e.slot[heads], e.birth[heads])


def singles(pages: IntArray, slots: IntArray, birth: int) -> Extents:
    """Extents for pages written one by one; `pages` sorted."""
    columns = np.empty((2, len(pages)), np.int64)
    columns[0], columns[1] = 1, birth
    return join_up(Extents(pages, columns[0], slots, columns[1]))


def expand(e: Extents) -> Single:
    """Page, slot and birth of every single page of some extents."""
    count = int(e.length.sum())
    if count == len(e):
        return e.page, e.slot, e.birth
    within = np.arange(count) - np.repeat(np.cumsum(e.length) - e.length, e.length)
    first = np.repeat(e.slot, e.length)
    slot = np.where(first != 0, first + within, 0)
    return np.repeat(e.page, e.length) + within, slot, np.repeat(e.birth, e.length)


def clip(e: Extents, start: int, stop: int) -> Extents:
    """The part of sorted extents that lies in [start, stop)."""
    a = int(np.searchsorted(e.page + e.length, start, "right"))
    b = int(np.searchsorted(e.page, stop, "left"))
    e = e.take(slice(a, b))
    skip = np.maximum(start - e.page, 0)
    over = np.maximum(e.page + e.length - stop, 0)
    slot = np.where(e.slot != 0, e.slot + skip, 0)
    return Extents(e.page + skip, e.length - skip - over, slot, e.birth)


def edges_of(runs: Iterable[Extents]) -> IntArray:
    """Where extents begin and end: sorted, each once."""
    parts = [edge for run in runs for edge in (run.page, run.page + run.length)]
    return sorted_unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)
