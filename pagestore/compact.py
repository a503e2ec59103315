"""Compaction: pages go home or into long runs, and free space goes back to the disk.

Pages are moved in rounds, each one transaction: copy to free slots, sync, rewrite the extents that
name the old slots, free those. Contents, births and content hashes stay, so every version remains
exactly what was committed.

- D1  Only pages whose every version is unpinned are moved: all their lock bytes are held until the
      round has committed, and a reader that comes meanwhile waits and reads the new tables.
- D2  A page is compared with its checksum before it is moved: damage is reported, not copied.
- D3  Holes are punched only where free slots lie: no version, so no pin, can reach them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from attr import frozen

from pagestore.checksums import forget_sums
from pagestore.engine import Engine, Write
from pagestore.errors import CorruptionError
from pagestore.format import (
    BRANCH,
    Extents,
    IntArray,
    SumArray,
    Table,
    VersionId,
    VersionRecord,
    page_sums,
    runs_of,
)
from pagestore.pagetable import Leaf, Nodes, differences, expand, extents, join_up, leaves
from pagestore.space import free_runs

ROUND_BYTES = 256 << 20
MOST_ROUNDS = 64
BATCH_BYTES = 4 << 20
WINDOW = 512  # pages of a region looked at together
MOST_RUNS = 8  # a window in more runs than this is fragmented
SEGMENT = 256  # slots looked at together
MOST_HOLES = 4  # a segment with more free runs than this is evacuated
HOLE_BYTES = 1 << 20  # shorter holes are not worth punching
NONE: IntArray = np.empty(0, np.int64)
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]


@frozen
class Compaction:
    """What a compaction did.

    Attributes
    ----------
    moved_pages : int
    freed_bytes : int
        Given back to the file system.
    """

    moved_pages: int
    freed_bytes: int


def compact(engine: Engine, progress: Callable[[int, int], None] | None) -> Compaction:
    """Move what is scattered, round by round, then punch the free runs out of the arena."""
    moved = todo = 0
    placed = _Placed()
    while True:  # until a round finds nothing: what `placed` says makes it end
        with engine.write(spare=True) as write:
            now, left = _round(engine, write, placed)
        moved += now
        todo = max(todo, moved + left)
        if progress is not None:
            progress(moved, todo)
        if not now:
            return Compaction(moved, _punch(engine))


class _Placed:
    """Where pages lie that earlier rounds moved side by side, not home."""

    def __init__(self) -> None:
        self.windows = [NONE]  # with their window: they move no more
        self.others = [NONE]  # they can yet go home, or with their window


def _round(engine: Engine, write: Write, placed: _Placed) -> tuple[int, int]:
    """Move some pages; return how many, and how many are scattered yet."""
    versions = {v.id: v for v in write.records.versions()}
    pinned = np.zeros(write.space.slots, np.bool_)
    pinned[np.concatenate(placed.windows)] = True
    for version in [v for v in versions if not engine.pins.try_exclusive(v)]:
        for region in versions[version].regions.values():
            pinned[_slots(write, region.table)] = True
    plan = _plan(write, versions, pinned, np.concatenate(placed.others))
    # planning costs the same in every round: few rounds, whatever the store's size
    most = max(ROUND_BYTES // engine.page_size, write.space.slots // MOST_ROUNDS, 1)
    now, together = plan.slots[:most], plan.together[:most]
    left = len(plan.slots) - len(now) + plan.later
    if len(now):
        target = _move(engine, write, versions.values(), now, plan.homes[:most])
        placed.windows.append(target[together])
        placed.others.append(target[~together & (plan.homes[:most] == 0)])
    return len(now), left


# ------------------------------------------------------------------------------------ planning


class _Plan(NamedTuple):
    """What to move, in the order in which it should lie, and where to."""

    slots: IntArray
    homes: IntArray  # which are free; 0: side by side with the next, anywhere
    together: Mask  # its window moves
    later: int  # how many will move once these have


class _Pages(NamedTuple):
    """Slots of one table in the order of its pages, and what is known of each."""

    slots: IntArray
    window: IntArray  # its number
    housed: Mask  # most of its window lies in one run, and says where it should lie
    right: Mask  # it lies there
    waits: Mask  # another page lies there, and can leave
    shut_out: Mask  # another page lies there, and is at home itself; its window can move
    homes: IntArray  # where it can go now; 0: nowhere


def _plan(
    write: Write, versions: dict[VersionId, VersionRecord], pinned: Mask, evacuated: IntArray
) -> _Plan:
    """Find what lies badly.

    Most pages of a branch's head lie as most of their window does, and stay. The others have a
    home among them. Where that is free they go there; where a page of an older version lies in
    it, that one leaves first. Windows without a majority, and what older versions have else,
    move side by side if they are in many pieces, and so do those of which many pages are shut
    out. So does what lies among many holes.
    """
    heads = dict.fromkeys(record.version for _, record in write.records.names(BRANCH))
    tables = [region.table for head in heads for region in versions[head].regions.values()]
    free, seen, staying = write.space.usable(), pinned.copy(), pinned.copy()
    settled = np.zeros(len(free), np.bool_)
    for table in tables:
        slots = _slots(write, table)
        staying[slots] = True
        settled[slots[_homes(slots, len(free)) == slots]] = True
    in_the_way = np.zeros(len(free), np.bool_)
    groups = []
    for table in tables:
        slots = _slots(write, table)
        home, window = _homes(slots, len(free)), np.arange(len(slots)) // WINDOW
        mine = _first_seen(slots, seen)
        shared = np.bincount(window[~mine], minlength=len(slots) // WINDOW + 1)
        slots, home, window = slots[mine], home[mine], window[mine]
        right = home == slots
        goes = np.flatnonzero((home > 0) & ~right & free[home])
        goes = goes[np.unique(home[goes], return_index=True)[1]]
        homes = np.zeros(len(slots), np.int64)
        homes[goes] = home[goes]
        free[homes[goes]] = False
        waits = (home > 0) & ~right & (homes == 0) & ~staying[home] & ~free[home]
        in_the_way[home[waits]] = True
        shut_out = (home > 0) & ~right & settled[home] & (shared[window] == 0)
        groups.append(_Pages(slots, window, home > 0, right, waits, shut_out, homes))
    hit = np.repeat(free_runs(free, SEGMENT) > MOST_HOLES, SEGMENT)[: len(free)]
    leaving = hit.copy()
    leaving[evacuated] = False
    found = [_moving(pages, hit, leaving) for pages in groups]
    later = 0
    for slots in _of_older(write, versions, heads):
        slots = slots[_first_seen(slots, seen)]
        no = np.zeros(len(slots), np.bool_)
        none = np.zeros(len(slots), np.int64)
        window = np.arange(len(slots)) // WINDOW
        alone = _Pages(slots, window, no, no, no, no, none)
        found.append(_moving(alone, hit, leaving | in_the_way))
        later += int(in_the_way[slots].sum())
    if not found:
        return _Plan(NONE, NONE, np.zeros(0, np.bool_), later)
    moving, homes, together = (np.concatenate(column) for column in zip(*found, strict=True))
    return _Plan(moving, homes, together, later)


def _slots(write: Write, table: Table) -> IntArray:
    return expand(extents(write.nodes, table))[1]


def _first_seen(slots: IntArray, seen: Mask) -> Mask:
    first: Mask = ~seen[slots]
    seen[slots] = True
    return first


def _homes(slots: IntArray, limit: int) -> IntArray:
    """Where each would lie in one run with most of its window; 0: nowhere below `limit`."""
    home = np.zeros(len(slots), np.int64)
    rank = np.arange(len(slots))
    whole = len(slots) - len(slots) % WINDOW
    for start, stop in ((0, whole), (whole, len(slots))):
        if start < stop:
            width = min(WINDOW, stop - start)
            apart = (slots - rank)[start:stop].reshape(-1, width)
            middle = np.partition(apart, width // 2, axis=1)[:, width // 2, None]
            most = 2 * np.count_nonzero(apart == middle, axis=1, keepdims=True) > width
            home[start:stop] = np.where(most, middle + rank[start:stop].reshape(-1, width), 0).flat
    home[(home < 1) | (home >= limit)] = 0
    return home


def _moving(pages: _Pages, holey: Mask, leaving: Mask) -> tuple[IntArray, IntArray, Mask]:
    """Which of some pages move, where to, and which of them with their windows.

    Of each slot is said whether it lies among many holes, and whether a page that is not at home
    leaves it.
    """
    slots = pages.slots
    if not len(slots):
        return slots, slots, pages.right
    starts = np.flatnonzero(np.diff(pages.window, prepend=-1))
    size = np.diff(np.append(starts, len(slots)))

    def count(mask: Mask) -> IntArray:
        counted: IntArray = np.add.reduceat(mask, starts, dtype=np.int64)
        return counted

    hit = holey[slots]
    most = np.maximum(1, MOST_RUNS * size // WINDOW)
    begins = np.diff(slots, prepend=-1) != 1
    scattered = (count(hit) > 0) | (count(begins) > most)
    badly_housed = (count(hit & pages.right) > 0) | (count(begins & pages.shut_out) > most)
    whole = np.where(count(pages.housed) > 0, badly_housed, scattered)
    together = np.repeat(whole, size)
    move = together | (pages.homes > 0) | (leaving[slots] & ~pages.right & ~pages.waits)
    return slots[move], np.where(together, 0, pages.homes)[move], together[move]


def _of_older(
    write: Write, versions: dict[VersionId, VersionRecord], heads: Container[VersionId]
) -> Iterator[IntArray]:
    """Slots of what each version but the heads placed anew, by region and page."""
    for version in sorted(versions, reverse=True):
        if version in heads:
            continue
        parent = versions.get(versions[version].parent)
        for region in versions[version].regions.values():
            before = Table()
            for other in parent.regions.values() if parent else ():
                before = other.table if other.id == region.id else before
            for found in differences(write.nodes, before, region.table):
                slots = expand(found.news())[1]
                yield slots[slots != 0]


# -------------------------------------------------------------------------------------- moving


def _move(
    engine: Engine,
    write: Write,
    versions: Iterable[VersionRecord],
    slots: IntArray,
    homes: IntArray,
) -> IntArray:
    """Put pages into their homes, or side by side; return where each lies now."""
    target, anywhere = homes.copy(), homes == 0
    write.space.take_these(np.sort(homes[~anywhere]))
    target[anywhere] = write.take(int(anywhere.sum()), long=True)
    found, order = target, np.argsort(slots)  # what commits wrote side by side is read at once
    slots, target = slots[order], target[order]
    sums = write.sums.read(write.records, slots)
    step = max(1, BATCH_BYTES // engine.page_size)
    buffer = np.empty((min(step, len(slots)), engine.page_size), np.uint8)
    for i in range(0, len(slots), step):
        cut = slice(i, i + step)
        _copy(engine, slots[cut], target[cut], sums[cut], buffer)
    engine.arena.sync()
    write.sums.write(write.records, target, sums)
    moves = np.arange(write.space.slots)
    moves[slots] = target
    _rewrite(write.nodes, versions, moves)
    write.space.give(np.sort(slots))
    write.records.change_meta(moves=write.records.meta.moves + 1)
    return found


def _copy(
    engine: Engine, slots: IntArray, target: IntArray, sums: SumArray, buffer: np.ndarray[Any, Any]
) -> None:
    arena, size = engine.arena, engine.page_size
    one = np.ones(len(slots), np.int64)
    arena.read_into(buffer.ctypes.data + np.arange(len(slots)) * size, slots, one)
    raw = buffer[: len(slots)].reshape(-1).data
    bad = slots[page_sums(raw, size) != sums]
    if len(bad):
        raise CorruptionError(f"{arena.path}: slot {bad[0]} does not match its checksum")
    for start, count in runs_of(target).tolist():
        arena.write(start, raw[: count * size])
        raw = raw[count * size :]


def _rewrite(nodes: Nodes, versions: Iterable[VersionRecord], moves: IntArray) -> None:
    """Let every extent that names a moved slot name the new one; each shared node once."""
    before = np.concatenate(([0], np.cumsum(moves != np.arange(len(moves)))))
    done: set[int] = set()
    tables = [region.table for version in versions for region in version.regions.values()]
    for table in tables:
        for _, node in leaves(nodes, table):
            if node in done:
                continue
            done.add(node)
            leaf = nodes.leaf(node)
            inline = _moved(leaf.inline, moves, before)
            if inline is not None:
                nodes.replace(node, Leaf(inline, leaf.runs))
            for run in set(leaf.runs["node"].tolist()) - done:
                done.add(run)
                moved = _moved(nodes.run(run), moves, before)
                if moved is not None:
                    nodes.replace(run, moved)


def _moved(old: Extents, moves: IntArray, before: IntArray) -> Extents | None:
    """The same extents with the new slots; `before` counts the moved slots below each."""
    stop = np.where(old.slot != 0, old.slot + old.length, 0)
    some = before[stop] != before[old.slot]
    if not some.any():
        return None
    pages, slots, births = expand(old.take(some))
    new = Extents(pages, np.ones(len(pages), np.int64), moves[slots], births)
    every = Extents.join((old.take(~some), new))
    return join_up(every.take(np.argsort(every.page)))


def _punch(engine: Engine) -> int:
    """Give the space of long free runs back to the file system; return how much that was."""
    arena = engine.arena
    with engine.write(spare=True) as write:  # so that nobody takes a slot that is being punched
        before = os.fstat(arena.fd).st_blocks
        for start, count in write.space.free_runs(max(1, HOLE_BYTES // engine.page_size)):
            arena.punch(start, count)
        forget_sums(write.records, write.space.free_runs(1))
        engine.compacted = True
        return max(0, before - os.fstat(arena.fd).st_blocks) * 512
