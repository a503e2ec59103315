"""W4: sum all bytes of a version as uint64s, fresh and after many random commits."""

from __future__ import annotations

from functools import partial

from tools.bench.harness import interleave, seconds
from tools.bench.stores import Bench, Store

TITLE = "Scan the whole region"


def run(bench: Bench) -> None:
    with bench.history(0, 0) as stores:
        _case(bench, stores, "fresh", 1, 0)
    for count in (4, 100):
        with bench.history(count, bench.scale.history) as stores:
            for share, place in ((1, "newest"), (0.5, "half way")):
                case = f"commits of {count} pages, {place}"
                _case(bench, stores, case, share, bench.scale.history)


def _case(bench: Bench, stores: list[Store], case: str, share: float, versions: int) -> None:
    scans = [_Scan(store, round(share * store.newest)) for store in stores]
    budget = bench.scale.budget * len(scans)
    interleave(bench.scale.times(9), *(partial(scan.act) for scan in scans), budget=budget)
    size = bench.scale.pages * 4096
    for scan in scans:
        note = bench.short(scan.store, versions)
        bench.emit(scan.store, case, "first pass", scan.firsts, x=size, note=note)
        bench.emit(scan.store, case, "later passes", scan.laters, x=size)


class _Scan:
    def __init__(self, store: Store, version: int) -> None:
        self.store = store
        self.version = version
        self.firsts: list[float] = []
        self.laters: list[float] = []

    def act(self) -> float:
        found = []
        reader = self.store.peer.reader(self.store.key(self.version))
        self.firsts.append(seconds(lambda: found.append(reader.scan())))
        for _ in range(2 if self.firsts[-1] < 0.3 else 1):
            self.laters.append(seconds(lambda: found.append(reader.scan())))
        reader.close()
        for total in found:
            self.store.compare_total(self.version, total)
        return self.firsts[-1]
