"""Where the time of a commit, of naming a snapshot and of opening a view goes, step by step.

Wraps the library's functions with timers that count each step's own time (what it calls is
counted there). A step whose function is gone is left out and named, so that this file survives
changes of the library. The wrappers cost about 0.5 µs a call.
"""

from __future__ import annotations

import functools
import importlib
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tools.bench.peers.pagestore_arrays import PagestoreArrays
from tools.bench.stores import Bench, Store

US = 1e6
TOTAL, REST = "(all)", "(outside every step)"

STEPS = {
    "pagestore.dirty.userfault:UserfaultTracker.written": "scan (dirty pages)",
    "pagestore.dirty.userfault:UserfaultTracker.watch": "watch (register, arm)",
    "pagestore.placing:_store_batch": "gather, zero and same tests",
    "pagestore.format:page_sums": "hash pages",
    "pagestore.checksums:KnownSums.read": "sums: read",
    "pagestore.checksums:KnownSums.write": "sums: write",
    "pagestore.format:content_terms": "content hash",
    "pagestore.engine:Write.take": "take slots",
    "pagestore.engine:Write.finish": "finish (space log, meta)",
    "pagestore.space:Space._look": "space: look for runs",
    "pagestore.space:Space._fold": "space: fold log into bitmap",
    "pagestore.space:Space.begin": "space: begin",
    "pagestore.space:Space.save": "space: save log",
    "pagestore.space:Space.give": "space: give",
    "pagestore.placing:write_pages": "write pages: runs",
    "pagestore.arena:FileIO.pwrite": "pwrite",
    "pagestore.arena:FileIO.fdatasync": "fdatasync",
    "pagestore.arena:FileIO.allocate": "fallocate arena",
    "pagestore.pagetable.table:lookup": "table: lookup",
    "pagestore.pagetable.table:update": "table: update",
    "pagestore.pagetable.table:extents": "table: extents",
    "pagestore.transaction:Transaction.__init__": "records: begin (meta)",
    "pagestore.transaction:Transaction.get": "records: get",
    "pagestore.transaction:Transaction.get_many": "records: get many",
    "pagestore.transaction:Transaction.put": "records: put",
    "pagestore.transaction:Transaction.delete": "records: delete",
    "pagestore.transaction:Transaction.names_of": "records: names_of",
    "pagestore.transaction:Transaction.children": "records: children",
    "pagestore.transaction:Transaction.version": "records: version (decode)",
    "pagestore.transaction:Transaction.write_versions": "records: version (encode)",
    "pagestore.transaction:Transaction.finish": "records: save meta",
    "pagestore.transaction:Transaction.put_name": "records: put name",
    "pagestore.catalog:Catalog._reserve": "catalog: reserve blocks",
    "pagestore.commit:drop_unkept": "drop unkept: rest",
    "pagestore.reclaim:_find_freed": "drop: versions",
    "pagestore.pagetable.compare:exclusive_nodes": "drop: exclusive nodes",
    "pagestore.pagetable.compare:_leaf_difference": "difference of leaves",
    "pagestore.engine:Engine._note_head": "head copy",
    "pagestore.engine:Engine.pin": "pin: rest",
    "pagestore.pins:Pins.acquire": "pins",
    "pagestore.pins:Pins.try_exclusive": "pins",
    "pagestore.pins:Pins.end_exclusive": "pins",
    "pagestore.pins:Pins.settle": "pins",
    "pagestore.workspace:Workspace._changes": "workspace: collect changes",
    "pagestore.workspace:Workspace._settle": "workspace: settle",
    "pagestore.workspace:Workspace._adopt": "workspace: adopt",
    "pagestore.kernel:total_memory": "kernel: total_memory",
    "pagestore.kernel:private_bytes": "kernel: private_bytes",
    "pagestore.history:Version.of": "version for the user",
    "pagestore.wiring:_reserve": "wiring: reserve addresses",
    "pagestore.wiring:Wiring.__init__": "wiring: init",
    "pagestore.wiring:Wiring._map": "wiring: map",
    "pagestore.wiring:Wiring._bridge": "wiring: bridge",
    "pagestore.arena:Arena.read_into": "wiring: copy pages",
    "pagestore.wiring:MappingBudget.take": "wiring: budget",
    "pagestore.commit:commit": "commit(): rest",
    "pagestore.commit:differing": "commit: differing",
    "pagestore.commit:store_pages": "commit: store pages, rest",
    "pagestore.commit:_Writer.apply": "commit: apply, rest",
    "pagestore.commit:_Writer._redirect": "commit: redirect, rest",
    "pagestore.commit:_Writer.finish": "commit: finish, rest",
    "pagestore.pagetable.table:_push": "table: push (merge)",
    "pagestore.pagetable.stack:flatten": "table: flatten",
    "pagestore.pagetable.stack:resolve": "table: resolve",
    "pagestore.pagetable.stack:singles": "table: singles",
    "pagestore.pagetable.stack:expand": "table: expand",
    "pagestore.store:Store.snapshot": "store.snapshot: rest",
    "pagestore.store:Store.view": "store.view: rest",
    "pagestore.view:View.__getitem__": "view[...]: rest",
    "pagestore.view:View.close": "view.close",
}


class Clock:
    """Own time of each step, from nested timers."""

    def __init__(self) -> None:
        self.own: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._inner = [0.0]
        self.missing: list[str] = []
        self.on = False

    def timed(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        inner, own, calls, now = self._inner, self.own, self.calls, time.perf_counter

        @functools.wraps(function)
        def wrapper(*args: Any, **options: Any) -> Any:
            if not self.on:
                return function(*args, **options)
            inner.append(0.0)
            start = now()
            try:
                return function(*args, **options)
            finally:
                took = now() - start
                own[label] += took - inner.pop()
                calls[label] += 1
                inner[-1] += took

        return wrapper

    def install(self) -> None:
        for where, label in STEPS.items():
            module, path = where.split(":")
            try:
                self._wrap(module, path, label)
            except (ImportError, AttributeError, KeyError):
                self.missing.append(where)
        self._wrap_lmdb()

    def _wrap(self, module_name: str, path: str, label: str) -> None:
        module = importlib.import_module(module_name)
        owner: Any = module
        *outer, name = path.split(".")
        for part in outer:
            owner = getattr(owner, part)
        original = owner.__dict__[name]
        if isinstance(original, classmethod):
            setattr(owner, name, classmethod(self.timed(label, original.__func__)))
            return
        wrapped = self.timed(label, original)
        setattr(owner, name, wrapped)
        if not outer:  # also where it was imported by name
            for other in [m for n, m in sys.modules.items() if n.startswith("pagestore")]:
                if other.__dict__.get(name) is original:
                    setattr(other, name, wrapped)

    def _wrap_lmdb(self) -> None:
        catalog = importlib.import_module("pagestore.catalog")
        transaction = importlib.import_module("pagestore.transaction")
        clock = self

        class Txn:
            def __init__(self, txn: Any) -> None:
                self.txn = txn
                self.commit = clock.timed("LMDB commit", txn.commit)
                self.abort = txn.abort

            def __enter__(self) -> Any:
                return self.txn

            def __exit__(self, *error: Any) -> None:
                clock.timed("LMDB read transaction: end", self.txn.abort)()

        class Env:
            def __init__(self, env: Any) -> None:
                self._env = env
                self._begin = clock.timed("LMDB begin", env.begin)

            def begin(self, **options: Any) -> Any:
                return Txn(self._begin(**options))

            def __getattr__(self, name: str) -> Any:
                return getattr(self._env, name)

        opened = catalog.Catalog._open
        begun = transaction.Transaction.__init__
        catalog.Catalog._open = lambda self: Env(opened(self))
        transaction.Transaction.__init__ = lambda self, txn, **more: begun(
            self, getattr(txn, "txn", txn), **more
        )

    def table(
        self,
        what: str,
        n: int,
        act: Callable[[int], Any],
        prepare: Callable[[int], Any] = lambda i: None,
    ) -> Iterator[str]:
        """Run `act` n times; return its steps in µs a run, largest first."""
        runs: list[dict[str, float]] = []
        self.calls.clear()
        for i in range(n):
            prepare(i)
            self.own.clear()
            self.on = True
            start = time.perf_counter()
            act(i)
            total = time.perf_counter() - start
            self.on = False
            runs.append({TOTAL: total, REST: total - sum(self.own.values()), **self.own})
        middle = {step: _middle(runs, step) for step in {s for run in runs for s in run}}
        mean = {step: sum(run.get(step, 0.0) for run in runs) / n for step in middle}
        yield f"\n## {what}: {middle[TOTAL] * US:,.0f} µs (median of {n})\n"
        yield f"    {'step':32}{'median µs':>12}{'mean µs':>12}{'calls':>9}"
        for step in sorted(middle, key=lambda step: -mean[step]):
            if mean[step] * 300 > mean[TOTAL]:
                calls = self.calls.get(step, n) / n
                line = f"{middle[step] * US:12,.1f}{mean[step] * US:12,.1f}{calls:9.1f}"
                yield f"    {step:32}{line}"


def _middle(runs: Sequence[dict[str, float]], step: str) -> float:
    return statistics.median(run.get(step, 0.0) for run in runs)


def run(bench: Bench) -> Iterator[str]:
    """Tables of steps, as Markdown."""
    clock = Clock()
    clock.install()
    yield f"Own time of each step, {time.ctime()}; gone: {', '.join(clock.missing) or 'none'}"
    with bench.fresh(peers=["pagestore_arrays", "limit"]) as (ours, least):
        peer = ours.peer
        assert isinstance(peer, PagestoreArrays)
        for count, n in ((4, 100), (100, 100), (bench.scale.many, 10), (100, 60), (4, 60)):
            yield from _commits(clock, ours, least, count, bench.scale.times(n))
        n = bench.scale.times(100)
        yield from clock.table("name an unchanged head", n, lambda i: peer.commit())

        def look(version: int) -> None:
            reader = peer.reader(ours.key(version))
            reader.read(ours.model.some(1))
            reader.close()

        n = bench.scale.times(30)
        yield from clock.table("open the first version, read a page", n, lambda i: look(0))
        newest = ours.newest
        yield from clock.table("open the newest, read a page", n, lambda i: look(newest))


def _commits(clock: Clock, ours: Store, least: Store, count: int, n: int) -> Iterator[str]:
    """Commits of so many pages, in turns with the limit."""
    limits: list[float] = []

    def prepare(i: int) -> None:
        pages, rows = ours.model.change(count)
        for peer in (least.peer, ours.peer):
            peer.change(pages, rows)
        start = time.perf_counter()
        least.peer.commit()
        limits.append(time.perf_counter() - start)

    def commit(i: int) -> None:
        ours.model.keys.append(ours.peer.commit())

    for i in range(min(n // 3, 20)):
        prepare(i)
        commit(i)
    limits.clear()
    yield from clock.table(f"commit and name {count:,} pages", n, commit, prepare)
    yield f"    (the limit, median: {statistics.median(limits) * US:,.0f} µs)"
