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
            if type(store.peer) is Limit:
                forks, copies = interleave(5, store.peer.fork, store.peer.copy)
                bench.emit(store, "fork", "not durable", forks)
                bench.emit(store, "copy of all memory", "not durable", copies)
            store.check(store.newest, 0)
    for count in (4, 100):
        with bench.history(count, bench.scale.history, readonly=False) as stores:
            for store in stores:
                _space(bench, store, count, store.first, store.newest)


def _space(bench: Bench, store: Store, count: int, before: tuple[int, int], versions: int) -> None:
    """What each of so many versions has added."""
    if store.peer.kind == "versions" and versions:
        note = bench.short(store, bench.scale.history) if count != bench.scale.many else ""
        grown = [(now - then) / versions for now, then in zip(store.space(), before, strict=True)]
        case = f"{count:,} pages"
        bench.emit(store, case, "space", grown[:1], unit="B", x=count, note=note)
        bench.emit(store, case, "space, with what is set aside", grown[1:], unit="B", x=count)


def _case(bench: Bench, stores: list[Store], count: int, rounds: int) -> None:
    case = f"{count:,} pages" if count != 1 else "1 page"
    for store in stores:
        store.peer.prepare(count)
    steps = [partial(store.step, count) for store in stores]
    budget = bench.scale.budget * len(stores)
    before = [(store.space(), store.newest) for store in stores]
    interleave(max(2, rounds // 4), *steps, budget=budget / 4)
    taken = interleave(rounds, *steps, budget=budget)
    for store, times, then in zip(stores, taken, before, strict=True):
        n = len(times)
        bench.emit(store, case, "change and commit", times, x=count)
        bench.emit(store, case, "commit", store.commits[-n:], x=count)
        if count == bench.scale.many:
            _space(bench, store, count, then[0], store.newest - then[1])
