"""W3: open an old version in a store that was just opened, and read 1,000 random pages.

Also how much private memory the open version takes before anything is read.
"""

from __future__ import annotations

import multiprocessing
from functools import partial
from pathlib import Path
from typing import Any

from tools.bench.harness import interleave, seconds
from tools.bench.peers import find
from tools.bench.stores import Bench, Store

TITLE = "Open a version of a long history, and read 1,000 random pages"
PRIVATE = ("RssAnon", "VmPTE")


def run(bench: Bench) -> None:
    for count in (4, 100):
        with bench.history(count, bench.scale.history) as stores:
            found = [_Opening(store) for store in stores]
            for share in (0, 0.1, 1):
                _case(bench, found, count, share)
            for store in stores:
                _memory(bench, store, count)


def _case(bench: Bench, found: list[_Opening], count: int, share: float) -> None:
    for opening in found:
        newest = opening.store.newest
        opening.look(min(newest, max(1, round(share * newest))))
    budget = bench.scale.budget * len(found)
    acts = [partial(opening.act) for opening in found]
    interleave(bench.scale.times(9), *acts, budget=budget)
    for opening in found:
        place = {0: "first", 0.1: "a tenth in", 1: "newest"}[share]
        case = f"{count} pages a version, {place}"
        note = bench.short(opening.store, bench.scale.history)
        for metric, times in opening.times.items():
            bench.emit(opening.store, case, metric, times, x=opening.version, note=note)


class _Opening:
    """Opens one version again and again, each time in a store that was just opened."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def look(self, version: int) -> None:
        self.version = version
        self.times: dict[str, list[float]] = {"open": [], "read": [], "open again": []}

    def act(self) -> float:
        store, key = self.store, self.store.key(self.version)
        store.reopen(readonly=True)
        pages = store.model.some(1_000)
        reader: Any = None
        rows: Any = None

        def opens() -> None:
            nonlocal reader
            reader = store.peer.reader(key)

        def reads() -> None:
            nonlocal rows
            rows = reader.read(pages)

        self.times["open"].append(seconds(opens))
        self.times["read"].append(seconds(reads))
        store.compare(self.version, pages, rows)
        rows = None
        reader.close()
        self.times["open again"].append(seconds(opens))
        reader.close()
        return self.times["open"][-1]


def _memory(bench: Bench, store: Store, count: int) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        peer = store.peer
        ask = (store.name, str(peer.folder), peer.pages, store.key(0), store.key(store.newest))
        private = pool.apply(_private_memory, ask)
    bench.emit(store, f"{count} pages a version, newest", "memory", [private], unit="B")


def _private_memory(name: str, folder: str, pages: int, first: str, key: str) -> int:
    """Bytes of its own that a process takes to open a version, with its page tables."""
    peer = find(name)(Path(folder), pages)
    peer.open(readonly=True)
    peer.reader(first).close()
    before = _status()
    reader = peer.reader(key)
    grown = _status() - before
    reader.close()
    peer.close()
    return grown


def _status() -> int:
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(line[1]) << 10 for line in lines if line and line[0][:-1] in PRIVATE)
