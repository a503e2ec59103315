"""ArcticDB: one column of numbers, indexed by time; 512 rows are a page, each write a version."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import arcticdb
import numpy as np
import pandas as pd

from tools.bench.peers import PAGE, Key, Lacks, Pages, Peer, Rows, total

WORDS = PAGE // 8  # rows of a page
SEGMENT = 64  # pages
STEP = 16384
MATCHED = arcticdb.version_store.library.MergeStrategy("update", "do_nothing")
SYMBOL = "a"


class ArcticDbFrames(Peer):
    title = "ArcticDB, LMDB"
    settings = (
        "LMDB synced; time-indexed frame of one uint64 column; rows_per_segment=32,768 (256 KiB), "
        "default compression (LZ4); merge_experimental, as update takes one range a version"
    )
    lacks = ("branches", "what changed", "giving space back to the file system")
    packages = ("arcticdb", "pandas")
    imports = "arcticdb"
    start = """
import sys, arcticdb
library = arcticdb.Arctic(f"lmdb://{sys.argv[1]}/db?map_size=64GB")["bench"]
rows = library.read("a", as_of=int(sys.argv[2]), row_range=(0, 1)).data["data"].to_numpy()
print(rows.view("u1")[0])
"""

    def load(self, chunks: Iterable[Rows]) -> Key:
        options = arcticdb.LibraryOptions(rows_per_segment=SEGMENT * WORDS)
        self._connect().create_library("bench", options)
        self.open()
        rows = np.concatenate(list(chunks))
        return str(self._library.write(SYMBOL, _frame(np.arange(self.pages), rows)).version)

    def _connect(self) -> Any:
        return arcticdb.Arctic(f"lmdb://{self.folder}/db?map_size=64GB")

    def open(self, *, readonly: bool = False) -> None:
        self._arctic = self._connect()
        self._library = self._arctic["bench"]
        self._pending: list[tuple[Pages, Rows]] = []

    def change(self, pages: Pages, rows: Rows) -> None:
        self._pending.append((pages, rows))

    def commit(self) -> Key:
        if not self._pending:
            return str(self._library.write_metadata(SYMBOL, {}).version)
        pages, rows = (np.concatenate(parts) for parts in zip(*self._pending, strict=True))
        self._pending.clear()
        found = self._library.merge_experimental(SYMBOL, _frame(pages, rows), MATCHED)
        return str(found.version)

    def reader(self, key: Key) -> Version:
        return Version(self._library, int(key), self.pages)

    def delete_old(self) -> None:
        self._library.prune_previous_versions(SYMBOL)

    def give_back(self) -> None:
        raise Lacks("deletes old versions, but its LMDB file never gets shorter")

    def close(self) -> None:
        del self._library, self._arctic


class Version:
    def __init__(self, library: Any, version: int, pages: int) -> None:
        self._library = library
        self._version = version
        self._pages = pages

    def _ask(self, page: int, count: int = 1) -> Any:
        last = min(page + count, self._pages)
        return arcticdb.ReadRequest(
            SYMBOL, as_of=self._version, row_range=(page * WORDS, last * WORDS)
        )

    def read(self, pages: Pages) -> Rows:
        found = self._library.read_batch([self._ask(page) for page in pages.tolist()])
        words = np.concatenate([item.data["data"].to_numpy() for item in found])
        return words.view(np.uint8).reshape(-1, PAGE)

    def scan(self) -> int:
        found = 0
        for at in range(0, self._pages, STEP):
            (item,) = self._library.read_batch([self._ask(at, STEP)])
            found += total(item.data["data"].to_numpy())
        return found % (1 << 64)

    def close(self) -> None:
        pass


def _frame(pages: Pages, rows: Rows) -> pd.DataFrame:
    """A row's time is its number."""
    numbers = (pages[:, np.newaxis] * WORDS + np.arange(WORDS)).reshape(-1)
    times = pd.DatetimeIndex(numbers.view("datetime64[ns]"))
    return pd.DataFrame({"data": rows.reshape(-1).view(np.uint64)}, index=times, copy=False)


PEER = ArcticDbFrames
