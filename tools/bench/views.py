"""Does opening a view take the same short time, however large the version is?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pagestore
from tools.bench.harness import Row, compare, repeat, seconds
from tools.bench.workload import FIRST, GIB, REGION, Bench, first_byte

LIMIT = 2e-3


def run(bench: Bench) -> Iterator[Row]:
    sizes = (bench.small, bench.large, 2 * bench.large if bench.quick else 4 * GIB)
    for size in sizes:
        path = bench.pristine(size)
        yield _row(path, f"open a view of {size >> 20:,} MiB, first byte", FIRST)
        if size > GIB:
            bench.forget(size)
    path = bench.path("sparse")
    with pagestore.open(path) as store, store.begin() as ws:
        array = ws.create(REGION, 8 * GIB)
        array[:: 8 * GIB // 64] = 7
        ws.snapshot(FIRST)
        del array
    yield _row(path, "open a view of 8 GiB, 64 pages of it written", FIRST)


def _row(path: Path, what: str, ref: str) -> Row:
    """Judges the first look after the store was opened: nothing is cached yet."""

    def cold() -> float:
        with pagestore.open(path) as store:
            return _look(store, ref)

    with pagestore.open(path) as store:
        warm = repeat(50, lambda: _look(store, ref))
    found = repeat(30, cold)
    note = f"with the table cached: {sorted(warm)[len(warm) // 2] * 1e3:.2f} ms"
    return compare(what, found, [LIMIT], 1.0, note=note)


def _look(store: pagestore.Store, ref: str) -> float:
    view = None

    def look() -> None:
        nonlocal view
        view = store.view(ref)
        first_byte(view)

    took = seconds(look)
    assert view is not None
    view.close()
    return took
