"""What is measured: stores that hold one region of random numbers, and random changes to it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define, field

import pagestore

PAGE = 4096
REGION = "a"
FIRST = "first"
GIB = 1 << 30
Pages = np.ndarray[Any, np.dtype[np.int64]]


@define
class Bench:
    """One run: where its files go, how large things are, and what several questions share."""

    folder: Path
    quick: bool
    _shared: dict[str, Path] = field(factory=dict)
    _count: int = 0

    @property
    def large(self) -> int:
        """Bytes of the region W."""
        return 64 << 20 if self.quick else GIB

    @property
    def small(self) -> int:
        """A region whose size makes no difference where only changes should count."""
        return self.large // (4 if self.quick else 16)

    @property
    def many(self) -> int:
        """Pages of the largest commit."""
        return 1_000 if self.quick else 10_000

    def path(self, what: str) -> Path:
        self._count += 1
        return self.folder / f"{self._count}-{what}"

    def pristine(self, nbytes: int) -> Path:
        """A store with one snapshot, "first", of a region written in one commit: only look."""
        key = f"pristine-{nbytes}"
        if key not in self._shared:
            path = self._shared[key] = self.path(key)
            with pagestore.open(path) as store, store.begin() as ws:
                fill(ws, nbytes)
                ws.snapshot(FIRST)
        return self._shared[key]

    def forget(self, nbytes: int) -> None:
        """Remove such a store, where nobody will need it again."""
        shutil.rmtree(self._shared.pop(f"pristine-{nbytes}"))

    @contextlib.contextmanager
    def copy(self, nbytes: int) -> Iterator[pagestore.Store]:
        """The same, to be changed, and gone afterwards."""
        path = self.path("copy")
        self.copy_to(path, nbytes)
        try:
            with pagestore.open(path) as store:
                yield store
        finally:
            shutil.rmtree(path)

    def copy_to(self, path: Path, nbytes: int) -> None:
        subprocess.run(["cp", "-r", str(self.pristine(nbytes)), str(path)], check=True)

    def share(self, key: str) -> tuple[Path, bool]:
        """A path that questions share, and whether it still has to be filled."""
        new = key not in self._shared
        if new:
            self._shared[key] = self.path(key)
        return self._shared[key], new

    def fragmented(self) -> Path:
        """A large region after 1,000 commits of 100 random pages; every 100th is named."""
        path, new = self.share("fragmented")
        if new:
            with pagestore.open(path) as store, store.begin() as ws:
                changes = Changes(ws, fill(ws, self.large))
                ws.snapshot(FIRST)
                for i in range(1, 1001):
                    changes.make(100)
                    if i % 100 == 0:
                        ws.snapshot(f"s{i}")
                    else:
                        ws.commit()
        return path


class Changes:
    """Changes random whole pages of a workspace's region, through plain NumPy."""

    def __init__(self, ws: pagestore.Workspace, array: np.ndarray[Any, Any]) -> None:
        self.ws = ws
        self.memory = array.view(np.dtype(("V", PAGE)))
        self.pages: Pages = np.empty(0, np.int64)  # sorted: those changed last
        self._rows = array.reshape(-1, PAGE // 8)
        self._random = np.random.default_rng(len(array))

    def make(self, count: int) -> None:
        self.pages = np.sort(self._random.choice(len(self._rows), count, replace=False))
        self._rows[self.pages] += self._random.integers(1, 1 << 40)


def fill(ws: pagestore.Workspace, nbytes: int) -> np.ndarray[Any, Any]:
    """Create the region, and write numbers that no two pages share."""
    array = ws.create(REGION, (nbytes // 8,), "i8")
    step = (8 << 20) // 8
    chunk = np.random.default_rng(1).integers(0, 1 << 40, step)
    for i in range(0, len(array), step):
        array[i : i + step] = chunk[: len(array) - i] + i
    return array


def first_byte(view: pagestore.SnapshotView) -> int:
    return int(view[REGION].view(np.uint8)[0])
