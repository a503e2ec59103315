"""W8: from the start of a process to the first byte of a version, and importing alone."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from tools.bench.harness import interleave, seconds
from tools.bench.peers import find
from tools.bench.stores import Bench, Store

TITLE = "Process start to first byte, by versions in the store"
COUNT = 4


def run(bench: Bench) -> None:
    small = bench.scale.small
    for versions in (0, bench.scale.history, bench.scale.long):
        with bench.history(COUNT, versions, small, readonly=False) as stores:
            for store in stores:
                if versions and store.peer.kind == "versions":
                    grown = (store.space()[0] - store.first[0]) / store.newest
                    case = f"{versions:,} versions of {COUNT} pages"
                    bench.emit(store, case, "space a version", [grown], unit="B")
                store.reopen(readonly=True)
            able = [store for store in stores if store.peer.start]
            acts = [partial(_start, store) for store in able]
            budget = bench.scale.budget * len(acts)
            taken = interleave(bench.scale.times(15), *acts, budget=budget)
            for store, times in zip(able, taken, strict=True):
                case = f"{versions:,} versions" if versions else "1 version"
                note, x = bench.short(store, versions), store.newest + 1
                bench.emit(store, case, "start to first byte", times, x=x, note=note)
    _imports(bench)


def _start(store: Store) -> float:
    command = [sys.executable, "-c", store.peer.start]
    ask = [str(store.peer.folder), store.key(store.newest)]
    return seconds(lambda: subprocess.run(command + ask, check=True, capture_output=True))


def _imports(bench: Bench) -> None:
    able = [(name, find(name).imports) for name in bench.peers]
    able = [(name, module) for name, module in able if module]
    acts = [partial(_import, module) for module in ("numpy", *(module for _, module in able))]
    budget = bench.scale.budget * len(acts)
    numpy, *taken = interleave(bench.scale.times(20), *acts, budget=budget)
    for (name, _), times in zip(able, taken, strict=True):
        bench.emit(name, "", "import", times)
        bench.emit(name, "", "import numpy, in turns with it", numpy)


def _import(module: str) -> float:
    return seconds(lambda: subprocess.run([sys.executable, "-c", f"import {module}"], check=True))
