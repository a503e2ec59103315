"""The floor: the least that a durable commit of some pages can cost on this machine.

The same bytes gathered from memory, written side by side into cached, allocated file space and
synced, and one small durable LMDB commit. No checksums, no page table, no conflict check.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from tools.bench.harness import seconds

PAGE = 4096
AREAS = 4  # written in turn, as a store does not write the same slots twice in a row


class Floor:
    """A file and an LMDB environment that do only what must be done."""

    def __init__(self, folder: Path, pages: int = 1) -> None:
        folder.mkdir()
        self._env = lmdb.open(str(folder / "lmdb"), map_size=1 << 26, subdir=False)
        self._file = os.open(folder / "file", os.O_RDWR | os.O_CREAT)
        self._size = pages * PAGE
        self._area = 0
        for i in range(AREAS):
            os.pwrite(self._file, np.random.default_rng(i).bytes(self._size), i * self._size)
        os.fsync(self._file)
        for _ in range(20):
            self.record()

    def record(self) -> float:
        """Seconds that one small durable LMDB commit takes."""
        return seconds(self._record)

    def commit(self, memory: np.ndarray[Any, Any], pages: np.ndarray[Any, Any]) -> float:
        """Seconds that the floor of a commit takes; `memory` has one element a page."""
        return seconds(lambda: self._commit(memory, pages))

    def _record(self) -> None:
        with self._env.begin(write=True) as txn:
            txn.put(b"head", os.urandom(16))

    def _commit(self, memory: np.ndarray[Any, Any], pages: np.ndarray[Any, Any]) -> None:
        data = memory[pages]
        self._area = (self._area + 1) % AREAS
        os.pwrite(self._file, memoryview(data.view(np.uint8)), self._area * self._size)
        os.fdatasync(self._file)
        self._record()

    def close(self) -> None:
        self._env.close()
        os.close(self._file)
