"""W7: delete all versions but the newest, and give their space back to the file system.

Afterwards the newest is opened and scanned: what is left should be as good as new.
"""

from __future__ import annotations

import time

from tools.bench.harness import seconds
from tools.bench.stores import Bench, Store

TITLE = "Delete all old versions of a history, and get their space back"
COUNT = 100


def run(bench: Bench) -> None:
    versions = bench.scale.history
    few = max(2, versions // 10)
    with bench.fresh() as stores:
        for store in stores:
            for _ in range(few):
                store.step(COUNT)
            _delete(bench, store, f"{few:,} versions of {COUNT} pages")
    with bench.history(COUNT, versions, last=True, readonly=False) as stores:
        for store in stores:
            _delete(bench, store, f"{versions:,} versions of {COUNT} pages")


def _delete(bench: Bench, store: Store, case: str) -> None:
    peer, n = store.peer, store.newest
    with bench.lacking(store, case):
        before = peer.used()
        delete = seconds(peer.delete_old)
        back = seconds(peer.give_back)
        after = peer.used()
        share = (before - after) / (before - store.first[0])
        note = f"{n:,} versions; {before / 1e6:,.0f} MB before, {after / 1e6:,.0f} MB after"
        bench.emit(store, case, "delete and give back", [delete + back], x=n, note=note)
        bench.emit(store, case, "delete", [delete], x=n)
        bench.emit(store, case, "give back", [back], x=n)
        bench.emit(store, case, "bytes back", [share], unit="", x=n)
        store.check(n)
        store.reopen(readonly=True)
        start = time.perf_counter()
        reader = peer.reader(store.key(n))
        took = time.perf_counter() - start
        bench.emit(store, case, "open afterwards", [took], x=n)
        bench.emit(store, case, "scan afterwards", [seconds(reader.scan) for _ in range(3)], x=n)
        reader.close()
