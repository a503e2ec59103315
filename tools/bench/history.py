"""Does commit number 20,000, each one named, cost what the first did?

The first commits are measured twice: as they happened, and again in a new store of the same
shape, turn by turn with the last ones of the long history, so that a slower minute of this
machine does not count.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pagestore
from tools.bench.harness import Row, compare, interleave, seconds
from tools.bench.workload import REGION, Bench, Changes

PAGES = 4
SAMPLE = 200
SMALL = 64 << 20
SHARED = "history"


def run(bench: Bench) -> Iterator[Row]:
    path, new = bench.share(SHARED)
    if new:
        bench.copy_to(path, SMALL)
    yield from _history(bench, path, SMALL, 2_000 if bench.quick else 20_000, 80.0)
    if not bench.quick:
        path = bench.path("history")
        bench.copy_to(path, bench.large)
        yield from _history(bench, path, bench.large, 20_000, 50.0)
        shutil.rmtree(path)


def long_store(bench: Bench) -> Path:
    """The store with the long history of the small region; made here if it was not measured."""
    path, new = bench.share(SHARED)
    if new:
        bench.copy_to(path, SMALL)
        list(_history(bench, path, SMALL, 2_000 if bench.quick else 20_000, 80.0))
    return path


def _history(bench: Bench, path: Path, size: int, wanted: int, patience: float) -> Iterator[Row]:
    with pagestore.open(path) as store, store.begin() as ws, bench.copy(size) as other:
        commit = _committer(ws)
        first = [commit() for _ in range(SAMPLE)]
        count, end = SAMPLE, time.monotonic() + patience
        while count < wanted - SAMPLE // 2 and time.monotonic() < end:
            commit()
            count += 1
        with other.begin() as young:
            last, again = interleave(SAMPLE, commit, _committer(young))
    what = f"commit number {count + len(last) // 2:,} of {size >> 20:,} MiB"
    note = f"when the history was young: {sorted(first)[len(first) // 2] * 1e3:.3g} ms"
    yield compare(f"{what}, against the first", last, again, 1.2, note=note)


def _committer(ws: pagestore.Workspace) -> Callable[[], float]:
    changes, count = Changes(ws, ws[REGION]), 0

    def commit() -> float:
        nonlocal count
        count += 1
        changes.make(PAGES)
        return seconds(lambda: ws.snapshot(f"n{count}"))

    return commit
