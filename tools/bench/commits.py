"""What does a durable commit of k random pages cost over the floor?

*Steady*: a long-lived workspace whose slots are reused, after commits of 10,000 pages have
scattered its table and its free slots. *Young*: the same region, just written, its arena growing.
*Named*: every version is kept, so each commit takes fresh file space, which the floor does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import evolve

import pagestore
from tools.bench.floor import Floor
from tools.bench.harness import Row, compare, interleave, seconds
from tools.bench.workload import REGION, Bench, Changes

FEW = (4, 100)


def run(bench: Bench) -> Iterator[Row]:
    n = 40 if bench.quick else 150
    with bench.copy(bench.large) as store, store.begin() as ws:
        changes = Changes(ws, ws[REGION])
        for k in FEW:
            yield _row(bench, changes, k, n, "young", None, ws.commit)
        reach_steady_state(store, changes, bench.many)
        stats = store.stats()
        note = f"the arena holds {stats.arena_bytes >> 20:,} MiB, {stats.free_bytes >> 20:,} free"
        row = _row(bench, changes, bench.many, 15, "steady", 2.5, ws.commit)
        yield evolve(row, note=note)
        for k in reversed(FEW):
            yield _row(bench, changes, k, n, "steady", 2.5, ws.commit)
        named = _Namer(ws)
        for k in FEW:
            yield _row(bench, changes, k, n // 3, "each named", None, named.commit)
        yield _row(bench, changes, bench.many, 7, "each named", None, named.commit)


class _Namer:
    def __init__(self, ws: pagestore.Workspace) -> None:
        self._ws = ws
        self._count = 0

    def commit(self) -> object:
        self._count += 1
        return self._ws.snapshot(f"v{self._count}")


def _row(
    bench: Bench,
    changes: Changes,
    k: int,
    n: int,
    kind: str,
    target: float | None,
    commit: Callable[[], object],
) -> Row:
    floor = Floor(bench.path("floor"), k)

    def ours() -> float:
        changes.make(k)
        return seconds(commit)

    interleave(max(3, min(n // 3, 30)), ours, lambda: floor.commit(changes.memory, changes.pages))
    mine, least = interleave(n, ours, lambda: floor.commit(changes.memory, changes.pages))
    floor.close()
    return compare(f"commit of {k:,} pages, {kind}", mine, least, target)


def reach_steady_state(store: pagestore.Store, changes: Changes, k: int) -> None:
    """Commit until the arena has stopped growing."""
    arena = Path(store.path) / "arena"
    size, quiet = 0, 0
    for _ in range(60):
        changes.make(k)
        changes.ws.commit()
        now = arena.stat().st_size
        quiet = quiet + 1 if now == size else 0
        size = now
        if quiet == 6:
            return
