"""The stores that are measured: made, kept for several questions, compared with their model.

Owns: how large things are (`Scale`), stores with histories that several work items share, and what
is noted (`Sample`). Knows no peer by name.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
from attrs import asdict, define, field, frozen

from tools.bench.harness import seconds, settle
from tools.bench.model import Model
from tools.bench.peers import Key, Lacks, Pages, Peer, Rows, find


@frozen
class Scale:
    """How large and how long; `rounds` is a share of the usual number of repetitions."""

    name: str
    pages: int
    small: int
    huge: int
    many: int
    history: int
    long: int
    longest: int
    rounds: float
    least: int
    patience: float  # seconds that a store may take to be made
    budget: float  # seconds that a case may take
    readers: int

    def times(self, n: int) -> int:
        return max(self.least, round(n * self.rounds))


LOADING = 8  # times the patience of a scale
FULL = Scale("full", 1 << 18, 1 << 14, 1 << 21, 10_000, 1_000, 20_000, 100_000, 1, 3, 15, 4, 8)
QUICK = Scale("quick", 1 << 14, 1 << 12, 1 << 15, 1_000, 60, 150, 300, 0.2, 3, 5, 2, 8)
SMOKE = Scale("smoke", 1 << 11, 1 << 9, 1 << 12, 100, 12, 20, 30, 0.01, 1, 1, 0.2, 2)
SCALES = {scale.name: scale for scale in (FULL, QUICK, SMOKE)}


@frozen
class Sample:
    """What was measured: `values` in seconds, bytes or plain numbers; text alone says what lacks.

    `x` is the number that a case stands for (pages changed, versions, bytes), for plots.
    """

    work: str
    case: str
    peer: str
    metric: str
    values: list[float] = field(factory=list)
    unit: str = "s"
    x: float | None = None
    note: str = ""


@define
class Store:
    """A peer, and the model of what it must hold."""

    peer: Peer
    model: Model
    name: str
    first: tuple[int, int] = (0, 0)  # the space of the first version
    changes: list[float] = field(factory=list)
    commits: list[float] = field(factory=list)

    @property
    def newest(self) -> int:
        return len(self.model.keys) - 1

    def key(self, version: int) -> Key:
        return self.model.keys[version]

    def step(self, count: int) -> float:
        """Change random pages and commit; seconds of both, which are noted apart too."""
        took = 0.0
        if count:
            pages, rows = self.model.change(count)
            took = seconds(lambda: self.peer.change(pages, rows))
        start = time.perf_counter()
        key = self.peer.commit()
        self.commits.append(time.perf_counter() - start)
        self.changes.append(took)
        if count:
            self.model.keys.append(key)
        else:
            self.model.keys[-1] = key  # the same contents once more
        return took + self.commits[-1]

    def space(self) -> tuple[int, int]:
        """Bytes on the disk, without and with those that are only set aside for later."""
        used = self.peer.used()
        return used - self.peer.reserved(), used

    def reopen(self, *, readonly: bool = False) -> None:
        self.peer.close()
        self.peer.open(readonly=readonly)

    def shown(self, version: int) -> int:
        """Which version a reader gets: a peer without old versions shows the newest."""
        return version if self.peer.keeps_old else self.newest

    def compare(self, version: int, pages: Pages, rows: Rows) -> None:
        """P4: what was read is what must be there."""
        if not np.array_equal(rows, self.model.rows(self.shown(version), pages)):
            raise AssertionError(f"{self.name}: other pages in version {version} than written")

    def compare_total(self, version: int, found: int) -> None:
        if found != self.model.total(self.shown(version)):
            raise AssertionError(f"{self.name}: version {version} does not add up")

    def check(self, *versions: int) -> None:
        """Compare versions with the model: 1,000 pages byte by byte, and the sum of all."""
        self.reopen()
        for version in {self.shown(version) for version in versions}:
            reader = self.peer.reader(self.key(version))
            pages = self.model.some(1_000)
            self.compare(version, pages, reader.read(pages))
            self.compare_total(version, reader.scan())
            reader.close()


@define
class Bench:
    """One work item for some peers, in one process."""

    work: str
    peers: Sequence[str]
    folder: Path
    scale: Scale
    out: TextIO
    _count: int = 0

    def emit(
        self,
        store: Store | str,
        case: str,
        metric: str,
        values: Sequence[float] = (),
        *,
        unit: str = "s",
        x: float | None = None,
        note: str = "",
    ) -> None:
        """Note a result at once, so that it is not lost if this process is stopped."""
        name = store if isinstance(store, str) else store.name
        sample = Sample(self.work, case, name, metric, list(values), unit, x, note)
        self.out.write(json.dumps(asdict(sample)) + "\n")
        self.out.flush()

    @staticmethod
    def short(store: Store, versions: int) -> str:
        """What is to be said of a history that was stopped before it was complete."""
        short = store.newest < versions and store.peer.kind != "limit"
        return f"{store.newest:,} versions: no time for more" if short else ""

    @contextlib.contextmanager
    def lacking(self, store: Store | str, case: str = "") -> Iterator[None]:
        """Note what a peer refuses to do, and go on."""
        try:
            yield
        except Lacks as e:
            self.emit(store, case, "lacks", note=str(e))

    @contextlib.contextmanager
    def fresh(
        self, pages: int | None = None, peers: Sequence[str] | None = None
    ) -> Iterator[list[Store]]:
        """Stores of one version, to be changed and then gone; those of the peers that can."""
        with contextlib.ExitStack() as stack:
            stores = []
            for name in self.peers if peers is None else peers:
                with self.lacking(name):
                    self._count += 1
                    folder = self.folder / f"{self.work}-{self._count}-{name}"
                    store = self._fresh(name, folder, pages or self.scale.pages)
                    stack.callback(shutil.rmtree, folder, ignore_errors=True)
                    stack.callback(store.peer.close)
                    stores.append(store)
            settle(self.folder, LOADING * self.scale.patience * self.scale.rounds)
            yield stores

    def _fresh(self, name: str, folder: Path, pages: int) -> Store:
        """A copy of what was loaded once, since some peers take minutes to load."""
        if pages > self.scale.pages or not find(name).copies:
            return self._load(name, folder, pages)
        loaded = self._history(name, pages, 0, 0)
        subprocess.run(["cp", "-a", str(loaded.peer.folder), str(folder)], check=True)
        subprocess.run(["sync", "-f", str(folder)], check=True)
        store = Store(find(name)(folder, pages), loaded.model, name, loaded.first)
        store.peer.open()
        return store

    @contextlib.contextmanager
    def history(
        self,
        count: int,
        versions: int,
        pages: int | None = None,
        peers: Sequence[str] | None = None,
        *,
        last: bool = False,
        readonly: bool = True,
    ) -> Iterator[list[Store]]:
        """Stores of many versions of `count` pages each, which later work items find again.

        A peer that is too slow gets fewer versions. With `last` they are gone afterwards.
        """
        with contextlib.ExitStack() as stack:
            stores = []
            for name in self.peers if peers is None else peers:
                with self.lacking(name):
                    store = self._history(name, pages or self.scale.pages, count, versions)
                    if last:
                        stack.callback(shutil.rmtree, store.peer.folder, ignore_errors=True)
                    store.peer.open(readonly=readonly)
                    stack.callback(store.peer.close)
                    stores.append(store)
            yield stores

    def _history(self, name: str, pages: int, count: int, versions: int) -> Store:
        """Such a store, closed; made now if it was not."""
        folder = self.folder / f"history-{name}-{pages}-{count}-{versions}"
        mark = folder.with_suffix(".model")
        if mark.exists():
            model, first = pickle.loads(mark.read_bytes())
            return Store(find(name)(folder, pages), model, name, first)
        store = self._fresh(name, folder, pages) if versions else self._load(name, folder, pages)
        longer = max(1.0, versions / (10 * self.scale.history))
        if name.startswith("pagestore"):
            longer *= 3  # what is judged should be seen at its full length
        end = time.monotonic() + longer * self.scale.patience
        versions *= store.peer.kind != "limit"  # which is the same whatever was committed
        while store.newest < versions and time.monotonic() < end:
            store.step(count)
        store.peer.close()
        mark.write_bytes(pickle.dumps((store.model, store.first)))
        return store

    def _load(self, name: str, folder: Path, pages: int) -> Store:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        model = Model(pages, 1)
        peer = find(name)(folder, pages)
        model.keys.append(peer.load(self._patiently(model.chunks())))
        store = Store(peer, model, name)
        store.reopen()
        store.first = store.space()
        return store

    def _patiently(self, chunks: Iterable[Rows]) -> Iterator[Rows]:
        """The same, for as long as a load may take."""
        patience = LOADING * self.scale.patience
        end = time.monotonic() + patience
        for rows in chunks:
            if time.monotonic() > end:
                raise Lacks(f"could not be loaded in {patience:.0f} s")
            yield rows
