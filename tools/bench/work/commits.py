"""W2: 500 durable commits of 4 random pages, beside two bare syncs of a page."""

from __future__ import annotations

import os
from functools import partial

from tools.bench.harness import interleave, seconds
from tools.bench.stores import Bench

TITLE = "500 durable commits of 4 random pages"
COUNT = 4
CASE = f"{COUNT} pages"


def run(bench: Bench) -> None:
    path = bench.folder / "syncs"
    path.write_bytes(bytes(1 << 20))
    file = os.open(path, os.O_RDWR)
    os.fsync(file)
    with bench.fresh() as stores:
        for store in stores:
            store.peer.prepare(COUNT)
        steps = [partial(store.step, COUNT) for store in stores]
        acts = [partial(_two_syncs, file), *steps]
        interleave(20, *acts, budget=bench.scale.budget / 2)
        budget = 3 * bench.scale.budget * len(acts)
        bare, *taken = interleave(bench.scale.times(500), *acts, budget=budget)
        bench.emit("syncs", CASE, "change and commit", bare)
        for store, times in zip(stores, taken, strict=True):
            rate = len(times) / sum(times)
            note = f"{len(times)} commits, {rate:,.0f} a second all in all"
            bench.emit(store, CASE, "change and commit", times, note=note)
            bench.emit(store, CASE, "commit", store.commits[-len(times) :])
            store.check(store.newest, store.newest // 2)
    os.close(file)


def _two_syncs(file: int) -> float:
    def act() -> None:
        for _ in range(2):
            os.pwrite(file, os.urandom(4096), 0)
            os.fdatasync(file)

    return seconds(act)
