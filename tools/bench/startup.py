"""Does a new process reach its first byte as fast with 20,000 snapshots as with one?"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pagestore
from tools.bench import history
from tools.bench.harness import Row, compare, interleave
from tools.bench.workload import FIRST, Bench

CHILD = """
import sys, time
import pagestore
imported = time.monotonic()
with pagestore.open(sys.argv[1]) as store, store.view(sys.argv[2]) as view:
    byte = view["a"].view("u1")[0]
    print(imported, time.monotonic())
"""


def run(bench: Bench) -> Iterator[Row]:
    path = history.long_store(bench)
    with pagestore.open(path) as store:
        count = len(store.snapshots)
    inside: list[list[float]] = [[], []]

    def start(side: int, store: Path, ref: str) -> float:
        begun = time.monotonic()
        command = [sys.executable, "-c", CHILD, str(store), ref]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        imported, read = map(float, done.stdout.split())
        inside[side].append(read - imported)
        return read - begun

    one = bench.pristine(history.SMALL)
    long, short = interleave(15, lambda: start(0, path, "n100"), lambda: start(1, one, FIRST))
    what = f"{count:,} snapshots against 1"
    note = "most of it is the start of Python and NumPy"
    yield compare(f"process start to first byte, {what}", long, short, 1.5, note=note)
    yield compare("of it: open, view, read", inside[0], inside[1], None)
