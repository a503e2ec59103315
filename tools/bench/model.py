"""What every version must hold: random pages that can be made again, and who wrote which last.

Owns: the contents of a page, which is a function of its number and of the version that wrote it;
the changes of each version. Knows nothing of peers. Nothing repeats within a store's reach: a page
is a row of a random pool, XORed with a number of its own, so that no peer gains by compressing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tools.bench.peers import PAGE, Key, Pages, Rows, total

WORDS = PAGE // 8
POOL = 4096
CHUNK = 2048
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


class Model:
    """The versions of one region, numbered from 0; `keys` are what a peer calls them."""

    def __init__(self, pages: int, seed: int) -> None:
        self.pages = pages
        self.keys: list[Key] = []
        self._random = np.random.default_rng(seed)
        self._pool = np.random.default_rng(seed + 1).integers(0, 1 << 64, (POOL, WORDS), np.uint64)
        self._writer = np.zeros(pages, np.int64)
        self._changes: list[Pages] = [np.arange(pages)]
        self._totals: list[int] = []

    def chunks(self) -> Iterator[Rows]:
        """The first version, from page 0 on."""
        found = 0
        for at in range(0, self.pages, CHUNK):
            rows = self._contents(np.arange(at, min(at + CHUNK, self.pages)), 0)
            found += total(rows)
            yield rows
        self._totals = [found % (1 << 64)]

    def change(self, count: int) -> tuple[Pages, Rows]:
        """Random pages, and what the next version has there."""
        pages = np.sort(self._random.choice(self.pages, count, replace=False))
        rows = self._contents(pages, len(self._changes))
        old = total(self._contents(pages, self._writer[pages]))
        self._totals.append((self._totals[-1] + total(rows) - old) % (1 << 64))
        self._writer[pages] = len(self._changes)
        self._changes.append(pages)
        return pages, rows

    def some(self, count: int) -> Pages:
        """Random pages to read."""
        return np.sort(self._random.choice(self.pages, min(count, self.pages), replace=False))

    def rewind(self, version: int) -> None:
        """Forget every version after one: a branch continues from there."""
        self._writer = self._writers(version)
        del self._changes[version + 1 :], self._totals[version + 1 :], self.keys[version + 1 :]

    def rows(self, version: int, pages: Pages) -> Rows:
        """What a version must hold."""
        return self._contents(pages, self._writers(version)[pages])

    def total(self, version: int) -> int:
        """What a scan of a version must return."""
        return self._totals[version]

    def changed(self, old: int, new: int) -> Pages:
        """Which pages were written between two versions."""
        return np.unique(np.concatenate(self._changes[old + 1 : new + 1]))

    def _writers(self, version: int) -> Pages:
        if version == len(self._changes) - 1:
            return self._writer
        writer = np.zeros(self.pages, np.int64)
        for i in range(1, version + 1):
            writer[self._changes[i]] = i
        return writer

    def _contents(self, pages: Pages, writer: Pages | int) -> Rows:
        key = (pages * (1 << 32) + writer + 1).astype(np.uint64)
        key = (key ^ (key >> np.uint64(30))) * _M1
        key = (key ^ (key >> np.uint64(27))) * _M2
        rows = self._pool[pages % POOL]
        rows ^= (key ^ (key >> np.uint64(31)))[:, np.newaxis]
        return rows.view(np.uint8)
