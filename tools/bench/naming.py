"""Is naming a snapshot of an unchanged head about as cheap as an empty durable commit?"""

from __future__ import annotations

from collections.abc import Iterator

from tools.bench.floor import Floor
from tools.bench.harness import Row, compare, interleave, seconds
from tools.bench.workload import REGION, Bench


def run(bench: Bench) -> Iterator[Row]:
    floor = Floor(bench.path("floor"))
    with bench.copy(bench.large) as store, store.begin() as ws:
        ws[REGION][0]

        def through_store() -> float:
            took = seconds(lambda: store.snapshot("now"))
            store.delete_snapshot("now")
            return took

        def through_workspace() -> float:
            took = seconds(lambda: ws.snapshot("now"))
            store.delete_snapshot("now")
            return took

        n = 60 if bench.quick else 200
        interleave(10, through_store, through_workspace)
        ours, wide, empty = interleave(n, through_store, through_workspace, floor.record)
    floor.close()
    yield compare("name an unchanged head: store.snapshot", ours, empty, 2.0)
    yield compare(
        "the same: workspace.snapshot", wide, empty, None, note="it first looks for changed pages"
    )
