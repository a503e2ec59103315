"""W10: does the same commit cost the same in a larger region, and after many versions?

A large region, or a long history, takes turns with a small or a new one of the same peer.
"""

from __future__ import annotations

import itertools
import time
from contextlib import ExitStack
from functools import partial

from tools.bench.harness import interleave
from tools.bench.peers import find
from tools.bench.stores import Bench, Store

TITLE = "Growth: the same commit by size of the region and by number of versions"
COUNTS = (4, 100)


def run(bench: Bench) -> None:
    for name in bench.peers:
        _sizes(bench, name)
        if find(name).kind == "versions":
            _versions(bench, name)


def _sizes(bench: Bench, name: str) -> None:
    scale, stores, took = bench.scale, [], 0.0
    with ExitStack() as stack:
        for pages in (scale.small, scale.pages, scale.huge):
            expected = 8 * took
            if expected > _patience(bench, name, 4):
                note = f"{_size(pages)} not measured: it would take {expected:.0f} s to load"
                bench.emit(name, _size(pages), "lacks", note=note)
                break
            start = time.perf_counter()
            stores += stack.enter_context(bench.fresh(pages, [name]))
            took = time.perf_counter() - start
        for store in stores:
            store.check(store.newest)  # reads it all: what the cache lacks is another question
        for count in COUNTS:
            taken = _commits(bench, stores, count)
            for store, times in zip(stores, taken, strict=True):
                case = f"{_size(store.peer.pages)}, {count} pages"
                x = store.peer.pages * 4096
                bench.emit(store, case, "commit, by size of the region", times, x=x)
        for store in stores:
            store.check(store.newest)
            times = interleave(scale.times(15), partial(_open, store), budget=scale.budget)[0]
            case = _size(store.peer.pages)
            bench.emit(store, case, "open, first byte", times, x=store.peer.pages * 4096)


def _versions(bench: Bench, name: str) -> None:
    scale = bench.scale
    for versions in (scale.history, scale.long):
        last = versions == scale.long
        with bench.history(4, versions, scale.small, [name], last=last, readonly=False) as olds:
            for old in olds:
                _compare(bench, old, versions)
                if last and old.newest >= versions:
                    _continue(bench, old)


def _continue(bench: Bench, old: Store) -> None:
    """Go on to the longest history."""
    end = time.monotonic() + _patience(bench, old.name, 1)
    while old.newest < bench.scale.longest and time.monotonic() < end:
        old.step(4)
    _compare(bench, old, bench.scale.longest)


def _patience(bench: Bench, name: str, share: float) -> float:
    """Seconds for what is large; the subject has more, so that it is seen at its largest."""
    return bench.scale.patience * (12 if name.startswith("pagestore") else share)


def _compare(bench: Bench, old: Store, versions: int) -> None:
    note, x = bench.short(old, versions), old.newest
    with bench.fresh(bench.scale.small, [old.name]) as stores:
        for new, count in itertools.product(stores, COUNTS):
            times, first = _commits(bench, [old, new], count)
            case = f"{versions:,} versions, {count} pages"
            bench.emit(old, case, "commit, after so many versions", times, x=x, note=note)
            bench.emit(old, case, "the same in a new store, in turns with it", first, x=x)
    old.check(old.newest)


def _commits(bench: Bench, stores: list[Store], count: int) -> list[list[float]]:
    for store in stores:
        store.peer.prepare(count)
    acts = [partial(store.step, count) for store in stores]
    budget = bench.scale.budget * len(acts)
    interleave(20, *acts, budget=budget / 4)
    return interleave(bench.scale.times(100), *acts, budget=budget)


def _open(store: Store) -> float:
    store.reopen(readonly=True)
    start = time.perf_counter()
    reader = store.peer.reader(store.key(store.newest))
    reader.read(store.model.some(1))
    took = time.perf_counter() - start
    reader.close()
    return took


def _size(pages: int) -> str:
    return f"{pages >> 8:,} MiB"
