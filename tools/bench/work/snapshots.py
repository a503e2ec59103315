"""W1: a durable snapshot after 0, 1, 100 and 10,000 random pages were changed: time and space."""

from __future__ import annotations

from functools import partial

from tools.bench.harness import interleave
from tools.bench.peers.limit import Limit
from tools.bench.stores import Bench, Store

TITLE = "A durable snapshot, by pages changed since the last"


def run(bench: Bench) -> None:
    with bench.fresh() as stores:
        for count, rounds in ((0, 60), (1, 60), (100, 60), (bench.scale.many, 10)):
            _case(bench, stores, count, bench.scale.times(rounds))
        for store in stores:
            if isinstance(store.peer, Limit):
                for what in (store.peer.fork, store.peer.copy):
                    times = interleave(5, what)[0]
                    bench.emit(store, "not durable", what.__name__, times)
            store.check(store.newest, 0)
    for count in (4, 100):
        with bench.history(count, bench.scale.history, readonly=False) as stores:
            for store in stores:
                if store.newest:
                    grown = store.space() - store.first
                    note = bench.short(store, bench.scale.history)
                    _space(bench, store, count, grown / store.newest, note)


def _space(bench: Bench, store: Store, count: int, grown: float, note: str = "") -> None:
    if store.peer.kind == "versions":
        bench.emit(store, f"{count:,} pages", "space", [grown], unit="B", x=count, note=note)


def _case(bench: Bench, stores: list[Store], count: int, rounds: int) -> None:
    case = f"{count:,} pages" if count != 1 else "1 page"
    for store in stores:
        store.peer.prepare(count)
    steps = [partial(store.step, count) for store in stores]
    budget = bench.scale.budget * len(stores)
    interleave(max(2, rounds // 4), *steps, budget=budget / 4)
    before = [store.space() for store in stores]
    taken = interleave(rounds, *steps, budget=budget)
    for store, times, then in zip(stores, taken, before, strict=True):
        n = len(times)
        bench.emit(store, case, "change and commit", times, x=count)
        bench.emit(store, case, "commit", store.commits[-n:], x=count)
        if count == bench.scale.many:
            _space(bench, store, count, (store.space() - then) / n)
