"""Does comparing two versions cost what changed between them, and not what they hold?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pagestore
from tools.bench.harness import Row, compare, interleave, repeat, seconds
from tools.bench.workload import FIRST, REGION, Bench, Changes

CHANGED = 1_000
LIMIT = 10e-3


def run(bench: Bench) -> Iterator[Row]:
    with bench.copy(bench.large) as large, bench.copy(bench.small) as small:
        for store in (large, small):
            with store.begin() as ws:
                Changes(ws, ws[REGION]).make(CHANGED)
                ws.snapshot("second")
        mine, theirs = interleave(
            30, lambda: _diff(large, FIRST, "second"), lambda: _diff(small, FIRST, "second")
        )
        what = f"diff of {bench.large >> 20:,} MiB, {CHANGED:,} changed pages"
        path = large.path
        large.close()
        cold = repeat(10, lambda: _reopened(path, FIRST, "second"))
        yield compare(f"{what}, store just opened", cold, [LIMIT], 1.0)
        yield compare(f"{what}, table cached", mine, [LIMIT], 1.0)
        yield compare(f"    against {bench.small >> 20:,} MiB", mine, theirs, 1.5)
    path = bench.fragmented()
    times = repeat(10, lambda: _reopened(path, "s900", "s1000"))
    yield compare("diff over 100 of 1,000 commits, 10,000 changed pages", times, [LIMIT], None)


def _diff(store: pagestore.Store, a: str, b: str) -> float:
    return seconds(lambda: sum(c.stop - c.start for c in store.diff(a, b)))


def _reopened(path: Path, a: str, b: str) -> float:
    with pagestore.open(path) as store:
        return _diff(store, a, b)
