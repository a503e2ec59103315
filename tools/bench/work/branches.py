"""W5: branch an old version and change a page of it durably."""

from __future__ import annotations

import copy

from tools.bench.harness import interleave, seconds
from tools.bench.peers import Lacks
from tools.bench.stores import Bench, Store

TITLE = "Branch an old version, change a page, commit"
VERSIONS = 20
OLD = 5


def run(bench: Bench) -> None:
    with bench.fresh() as stores:
        for store in stores:
            for _ in range(VERSIONS):
                store.step(100)
            store.peer.prepare(1)
        branching = [_Branching(store) for store in stores]
        able = [each for each in branching if each.try_once(bench)]
        budget = bench.scale.budget * len(able)
        taken = interleave(bench.scale.times(20), *(each.act for each in able), budget=budget)
        for each, times in zip(able, taken, strict=True):
            note = "" if each.branches else "a commit of one page"
            bench.emit(each.store, "", "branch, change, commit", times, note=note)
            if each.branches:
                bench.emit(each.store, "", "branch", each.times[-len(times) :])
                each.check()


class _Branching:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.main = store.model
        self.branches = store.peer.kind != "limit"
        self.times: list[float] = []

    def try_once(self, bench: Bench) -> bool:
        try:
            self.act()
        except Lacks as e:
            bench.emit(self.store, "", "lacks", note=str(e))
            return False
        return True

    def act(self) -> float:
        if not self.branches:
            return self.store.step(1)
        key = self.main.keys[OLD]
        took = seconds(lambda: self.store.peer.branch(key))
        self.times.append(took)
        self.store.model = copy.deepcopy(self.main)
        self.store.model.rewind(OLD)
        return took + self.store.step(1)

    def check(self) -> None:
        """The branch holds its change; the line that it left is as it was."""
        for model, version in ((self.store.model, OLD + 1), (self.main, VERSIONS)):
            pages = model.some(1_000)
            reader = self.store.peer.reader(model.keys[version])
            self.store.model = model
            self.store.compare(version, pages, reader.read(pages))
            self.store.compare_total(version, reader.scan())
            reader.close()
