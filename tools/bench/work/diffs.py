"""W6: list what changed between two versions that are ten commits apart, in two sizes of region."""

from __future__ import annotations

import time
from functools import partial

import numpy as np

from tools.bench.harness import interleave
from tools.bench.stores import Bench, Store

TITLE = "List what changed between two versions, ten commits of 100 pages apart"
APART = 10
COUNT = 100


def run(bench: Bench) -> None:
    small, large = bench.scale.small, bench.scale.pages
    with bench.fresh(small) as few, bench.fresh(large) as many:
        for store in (*few, *many):
            for _ in range(APART):
                store.step(COUNT)
        _case(bench, [(_size(small), s) for s in few] + [(_size(large), s) for s in many])
    with bench.history(COUNT, bench.scale.history) as stores:
        case = f"{_size(large)}, at the end of a long history"
        _case(bench, [(case, store) for store in stores])


def _size(pages: int) -> str:
    return f"{pages >> 8:,} MiB"


def _case(bench: Bench, found: list[tuple[str, Store]]) -> None:
    able = []
    for case, store in found:
        with bench.lacking(store, case):
            _diff(store, cold=True)
            able.append((case, store))
    acts = [partial(_diff, store, cold=cold) for _, store in able for cold in (True, False)]
    taken = interleave(bench.scale.times(20), *acts, budget=bench.scale.budget * len(acts))
    for i, (case, store) in enumerate(able):
        x = store.peer.pages * 4096
        bench.emit(store, case, "diff, store just opened", taken[2 * i], x=x)
        bench.emit(store, case, "diff", taken[2 * i + 1], x=x)


def _diff(store: Store, *, cold: bool) -> float:
    old, new = max(0, store.newest - APART), store.newest
    if cold:
        store.reopen(readonly=True)
    start = time.perf_counter()
    pages = store.peer.diff(store.key(old), store.key(new))
    took = time.perf_counter() - start
    if not np.array_equal(pages, store.model.changed(old, new)):
        raise AssertionError(f"{store.name}: other pages differ than were changed")
    return took
