"""Is reading through a view as fast as np.memmap, also after a thousand scattered commits?"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pagestore
from pagestore.wiring import BUDGET
from tools.bench.harness import Row, compare, interleave, mappings, repeat, seconds
from tools.bench.workload import FIRST, REGION, Bench

OPEN_LIMIT = 60e-3


def run(bench: Bench) -> Iterator[Row]:
    yield from _scans(bench, bench.pristine(bench.large), FIRST, "whole version", 1.05)
    path = bench.fragmented()
    yield from _fragmented(bench, path, "after 1,000 commits")
    start = time.perf_counter()
    with pagestore.open(path) as store:
        done = store.compact()
    took = time.perf_counter() - start
    note = f"compact() took {took:.2f} s and moved {done.moved_pages:,} pages"
    yield from _fragmented(bench, path, "and compact()", note)


def _fragmented(bench: Bench, path: Path, when: str, note: str = "") -> Iterator[Row]:
    def cold() -> float:
        with pagestore.open(path) as store, store.view("s1000") as view:
            return seconds(lambda: view[REGION])

    yield compare(f"open the view {when}", repeat(5, cold), [OPEN_LIMIT], 1.0, note=note)
    before = mappings()
    with pagestore.open(path) as store, store.view("s1000") as view:
        view[REGION]
        count = mappings()
    note = f"{count - before:,} of them are the view's; the limit is the process's budget"
    yield Row(f"mappings {when}", count, BUDGET.limit, 1.0, unit="", note=note)
    yield from _scans(bench, path, "s1000", when, 1.2)


def _scans(bench: Bench, path: Path, ref: str, what: str, target: float) -> Iterator[Row]:
    plain = bench.path("plain")
    firsts: list[list[float]] = [[], []]
    laters: list[list[float]] = [[], []]
    with pagestore.open(path) as store:
        with store.view(ref) as view:
            _write(plain, view[REGION])

        def scan(array: np.ndarray[Any, Any], side: int) -> float:
            firsts[side].append(seconds(lambda: total.add(int(array.sum()))))
            laters[side].extend(seconds(array.sum) for _ in range(3))
            return 0.0

        def ours() -> float:
            with store.view(ref) as view:
                return scan(view[REGION], 0)

        total: set[int] = set()
        np.fromfile(plain, np.int64)  # both are in the page cache
        interleave(7, ours, lambda: scan(np.memmap(plain, np.int64, "r"), 1), budget=15.0)
    plain.unlink()
    if len(total) != 1:
        raise AssertionError(f"the view and the file differ: {total}")
    yield compare(f"scan, first pass, {what}", firsts[0], firsts[1], target)
    yield compare(f"scan, later passes, {what}", laters[0], laters[1], target)


def _write(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Write a file as a store would, so that it lies as well on the disk and in the cache."""
    data: Any = array.view(np.uint8)
    with path.open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, len(data))
        for i in range(0, len(data), 4 << 20):
            file.write(data[i : i + (4 << 20)])
        os.fsync(file)
