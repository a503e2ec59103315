"""Compaction: gathering pages into long runs, and giving free space back to the disk.

Pages are moved in rounds, each one transaction: copy to a fresh long run, sync, rewrite the
extents that name the old slots, free those. Contents, births and content hashes stay, so every
version remains exactly what was committed.

- D1  Only pages whose every version is unpinned are moved: all their lock bytes are held until the
      round has committed, and a reader that comes meanwhile waits and reads the new tables.
- D2  A page is compared with its checksum before it is moved: damage is reported, not copied.
- D3  Holes are punched only where free slots lie: no version, so no pin, can reach them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

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

ROUND_BYTES = 128 << 20
MOST_ROUNDS = 64
BATCH_BYTES = 4 << 20
WINDOW = 512  # pages of a region looked at together
MOST_RUNS = 8  # a window in more runs than this is fragmented
SEGMENT = 256  # slots looked at together
MOST_HOLES = 4  # a segment with more free runs than this is evacuated
HOLE_BYTES = 1 << 20  # shorter holes are not worth punching


class Compaction(NamedTuple):
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
    moved, todo = 0, 1
    while moved < todo:
        with engine.write(spare=True) as write:
            done, left = _round(engine, write)
        # only what was scattered at first: a round is never the reason for another
        todo = done + left if moved == 0 else todo
        moved += done
        if progress is not None:
            progress(moved, todo)
        if not done:
            break
    return Compaction(moved, _punch(engine))


def _round(engine: Engine, write: Write) -> tuple[int, int]:
    """Move some pages; return how many, and how many are scattered yet."""
    versions = {v.id: v for v in write.records.versions()}
    pinned = np.zeros(write.space.slots, np.bool_)
    for version in [v for v in versions if not engine.pins.try_exclusive(v)]:
        for region in versions[version].regions.values():
            pinned[expand(extents(write.nodes, region.table))[1]] = True
    scattered = list(_scattered(write, versions, pinned))
    slots = np.concatenate(scattered) if scattered else np.empty(0, np.int64)
    # finding them costs the same in every round: few rounds, whatever the store's size
    most = max(ROUND_BYTES // engine.page_size, write.space.slots // MOST_ROUNDS, 1)
    now = slots[:most]
    if len(now):
        _move(engine, write, versions.values(), now)
    return len(now), len(slots) - len(now)


def _scattered(
    write: Write, versions: dict[VersionId, VersionRecord], pinned: np.ndarray[Any, Any]
) -> Iterator[IntArray]:
    """Slots that should move, in the order in which they should lie."""
    holey = write.space.holey(SEGMENT, MOST_HOLES)
    seen = pinned.copy()
    for held in _in_order(write, versions):
        slots = held[~seen[held]]
        seen[slots] = True
        for i in range(0, len(slots), WINDOW):
            window = slots[i : i + WINDOW]
            runs = len(runs_of(window))
            if runs > max(1, MOST_RUNS * len(window) // WINDOW) or holey[window // SEGMENT].any():
                yield window


def _in_order(write: Write, versions: dict[VersionId, VersionRecord]) -> Iterator[IntArray]:
    """Slots by region and page: branch heads first, then what older versions have else."""
    heads = dict.fromkeys(record.version for _, record in write.records.names(BRANCH))
    for head in heads:
        for region in versions[head].regions.values():
            yield expand(extents(write.nodes, region.table))[1]
    for version in sorted(versions, reverse=True):
        if version in heads:
            continue
        parent = versions.get(versions[version].parent)
        for region in versions[version].regions.values():
            before = Table()
            for other in parent.regions.values() if parent else ():
                before = other.table if other.id == region.id else before
            parts = [expand(d.news())[1] for d in differences(write.nodes, before, region.table)]
            slots = np.concatenate(parts) if parts else np.empty(0, np.int64)
            yield slots[slots != 0]


def _move(engine: Engine, write: Write, versions: Iterable[VersionRecord], slots: IntArray) -> None:
    target = write.take(len(slots), long=True)
    sums = write.sums.read(write.records, slots)
    step = max(1, BATCH_BYTES // engine.page_size)
    for i in range(0, len(slots), step):
        cut = slice(i, i + step)
        _copy(engine, slots[cut], target[cut], sums[cut])
    engine.arena.sync()
    write.sums.write(write.records, target, sums)
    moves = np.arange(write.space.slots)
    moves[slots] = target
    _rewrite(write.nodes, versions, moves)
    write.space.give(np.sort(slots))
    write.records.change_meta(moves=write.records.meta.moves + 1)


def _copy(engine: Engine, slots: IntArray, target: IntArray, sums: SumArray) -> None:
    arena = engine.arena
    raw = memoryview(b"".join(arena.read(s, n) for s, n in runs_of(slots).tolist()))
    bad = slots[page_sums(raw, arena.page_size) != sums]
    if len(bad):
        raise CorruptionError(f"{arena.path}: slot {bad[0]} does not match its checksum")
    for start, count in runs_of(target).tolist():
        size = count * arena.page_size
        arena.write(start, raw[:size])
        raw = raw[size:]


def _rewrite(nodes: Nodes, versions: Iterable[VersionRecord], moves: IntArray) -> None:
    """Let every extent that names a moved slot name the new one; each shared node once."""
    done: set[int] = set()
    tables = [region.table for version in versions for region in version.regions.values()]
    for table in tables:
        for _, node in leaves(nodes, table):
            if node in done:
                continue
            done.add(node)
            leaf = nodes.leaf(node)
            inline = _moved(leaf.inline, moves)
            if inline is not None:
                nodes.replace(node, Leaf(inline, leaf.runs))
            for run in set(leaf.runs["node"].tolist()) - done:
                done.add(run)
                moved = _moved(nodes.run(run), moves)
                if moved is not None:
                    nodes.replace(run, moved)


def _moved(old: Extents, moves: IntArray) -> Extents | None:
    pages, slots, births = expand(old)
    new = moves[slots]
    if np.array_equal(new, slots):
        return None
    return join_up(Extents(pages, np.ones(len(pages), np.int64), new, births))


def _punch(engine: Engine) -> int:
    """Give the space of long free runs back to the file system; return how much that was."""
    arena = engine.arena
    with engine.write(spare=True) as write:  # so that nobody takes a slot that is being punched
        before = os.fstat(arena.fd).st_blocks
        for start, count in write.space.free_runs(max(1, HOLE_BYTES // engine.page_size)):
            arena.punch(start, count)
        return max(0, before - os.fstat(arena.fd).st_blocks) * 512
