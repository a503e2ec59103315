"""W9: eight processes scan while one commits; each against itself alone, phase by phase.

Where there are fewer processors than processes, everybody is slowed by sharing them, which is no
fault of a store. So there are controls: readers beside a process that burns as much processor time
as the writer did, and the writer beside readers of a plain file.
"""

from __future__ import annotations

import multiprocessing
import time
from contextlib import ExitStack
from ctypes import c_double, c_int
from functools import partial
from multiprocessing.sharedctypes import RawArray, RawValue
from pathlib import Path
from typing import Any

from attrs import define, field

from tools.bench.harness import seconds
from tools.bench.peers import Lacks, find
from tools.bench.stores import Bench, Store

TITLE = "Eight processes scan while one commits 4 pages at a time"
IDLE, STORE, PLAIN, STOP = range(4)
UNITS = {"writer": "commits/s", "readers": "scans/s"}
PHASES = (
    "writer alone",
    "readers alone",
    "readers and writer",
    "writer, readers of a plain file",
    "readers, a burning process",
)


def run(bench: Bench) -> None:
    for name in bench.peers:
        if find(name).kind != "limit":
            with bench.lacking(name), bench.fresh(peers=[name, "limit"]) as stores:
                if len(stores) == 2:
                    _measure(bench, stores[0], stores[1])


def _measure(bench: Bench, store: Store, plain: Store) -> None:
    reader = store.peer.reader(store.key(0))
    scan = seconds(reader.scan)
    reader.close()
    share = bench.scale.readers / (multiprocessing.cpu_count() or 1)
    length = min(bench.scale.budget, max(bench.scale.budget / 6, 3 * scan * share))
    enough = round(9 * bench.scale.budget / (len(PHASES) * length))
    rounds = max(1, min(bench.scale.times(6), enough))
    with _Crew(store, plain, bench.scale.readers) as crew:
        for _ in range(rounds):
            for phase in PHASES:
                crew.phase(phase, length)
        for (phase, who), rates in crew.rates.items():
            bench.emit(store, phase, who, rates, unit=UNITS[who])
        what = "processors that the writer used beside readers"
        bench.emit(store, "", what, [crew.share], unit="")
        store.check(store.newest)


@define
class _Crew:
    """The processes: some that scan the store or the file as they are told, and a burner."""

    store: Store
    plain: Store
    count: int
    share: float = 0.5  # processors that the writer used beside readers
    rates: dict[tuple[str, str], list[float]] = field(factory=dict)
    _stack: ExitStack = field(factory=ExitStack)
    _mode: Any = field(factory=lambda: RawValue(c_int, IDLE))
    _burn: Any = field(factory=lambda: RawValue(c_double, 0.0))
    _ready: Any = field(init=False)
    _scans: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ready = RawArray(c_int, self.count)
        self._scans = [RawArray(c_double, self.count) for _ in range(3)]

    def __enter__(self) -> _Crew:
        try:
            self._begin()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _begin(self) -> None:
        peer, context = self.store.peer, multiprocessing.get_context("spawn")
        what = (self.store.name, str(peer.folder), peer.pages, self.store.key(0))
        state = (self._mode, self._ready, self._scans)
        processes = [
            context.Process(target=_reader, args=(i, what, str(self.plain.peer.folder), *state))
            for i in range(self.count)
        ]
        processes.append(context.Process(target=_burner, args=(self._mode, self._burn)))
        for process in processes:
            process.start()
            self._stack.callback(process.join)
        self._stack.callback(self._stop)
        end = time.monotonic() + 60
        while not all(self._ready):
            if any(found < 0 for found in self._ready):
                raise Lacks("a second process cannot open it while it is written")
            if time.monotonic() > end:
                raise Lacks("readers did not come up within a minute")
            time.sleep(0.01)

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _stop(self) -> None:
        self._mode.value = STOP

    def phase(self, phase: str, length: float) -> None:
        self._mode.value = PLAIN if "plain" in phase else STORE if "readers" in phase else IDLE
        self._burn.value = self.share if "burning" in phase else 0.0
        time.sleep(0.1)  # until everybody has noticed
        for numbers in self._scans:
            numbers[:] = [0.0] * self.count
        start = time.perf_counter()
        if "writer" in phase:
            commits, spent, used = self._write(start + length)
            self._note(phase, "writer", commits / spent)
            if phase == "readers and writer":
                self.share = used
        else:
            time.sleep(length)
        took = time.perf_counter() - start
        scans = [list(numbers) for numbers in self._scans]
        self._mode.value, self._burn.value = IDLE, 0.0
        if "readers" in phase and "plain" not in phase:
            self._note(phase, "readers", sum(map(partial(_rate, took), *scans)))
        time.sleep(0.1)

    def _write(self, end: float) -> tuple[int, float, float]:
        """Commits, the seconds that they took, and processors used."""
        count, spent, begun, used = 0, 0.0, time.perf_counter(), time.process_time()
        while time.perf_counter() < end or not count:
            spent += self.store.step(4)
            count += 1
        return count, spent, (time.process_time() - used) / (time.perf_counter() - begun)

    def _note(self, phase: str, who: str, rate: float) -> None:
        self.rates.setdefault((phase, who), []).append(rate)


def _reader(i: int, what: tuple[Any, ...], plain: str, mode: Any, ready: Any, scans: Any) -> None:
    name, folder, pages, key = what
    try:
        peer, other = find(name)(Path(folder), pages), find("limit")(Path(plain), pages)
        peer.open(readonly=True)
        scan = {STORE: peer.reader(key).scan, PLAIN: other.reader("now").scan}
        for act in scan.values():
            act()
    except Exception:  # what it says differs from peer to peer: it cannot be opened here
        ready[i] = -1
        return
    ready[i] = 1
    while (what_now := mode.value) != STOP:
        if what_now == IDLE:
            time.sleep(0.002)
        else:
            scan[what_now]()
            count, first, last = scans
            last[i] = time.monotonic()
            first[i] = first[i] or last[i]
            count[i] += 1


def _rate(took: float, count: float, first: float, last: float) -> float:
    """Scans a second, by the times at which the first and the last of a phase ended."""
    return (count - 1) / (last - first) if count > 1 else count / took


def _burner(mode: Any, burn: Any) -> None:
    while mode.value != STOP:
        if not burn.value:
            time.sleep(0.002)
            continue
        begun, used = time.perf_counter(), time.process_time()
        while burn.value and mode.value != STOP:
            if time.process_time() - used < burn.value * (time.perf_counter() - begun):
                sum(range(2_000))
            else:
                time.sleep(0.0002)
