"""versioned-hdf5: every version is an HDF5 virtual dataset over chunks that are kept by hash."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from versioned_hdf5 import VersionedHDF5File, delete_versions

from tools.bench.peers import PAGE, Key, Lacks, Pages, Peer, Rows, total

CHUNK = 256  # pages
STEP = 4096


class VersionedHdf5(Peer):
    title = "versioned-hdf5"
    settings = "not synced by HDF5: flush, then fsync by the bench; chunks of 1 MiB, uncompressed"
    lacks = (
        "durable by itself",
        "surviving a crash (no journal: one during a commit can damage the file)",
        "readers beside a writer",
        "what changed by page (by chunk)",
    )
    packages = ("versioned-hdf5", "h5py")
    imports = "h5py, versioned_hdf5"
    start = """
import sys, h5py
from versioned_hdf5 import VersionedHDF5File
with h5py.File(sys.argv[1] + "/file.h5", locking=False) as file:
    print(VersionedHDF5File(file)[sys.argv[2]]["a"][0, 0])
"""

    def load(self, chunks: Iterable[Rows]) -> Key:
        self._file = h5py.File(self._path, "w")
        self._use()
        with self._versions.stage_version("0") as group:
            array = group.create_dataset(
                "a", shape=(self.pages, PAGE), dtype="u1", chunks=(CHUNK, PAGE), data=None
            )
            at = 0
            for rows in chunks:
                array[at : at + len(rows)] = rows
                at += len(rows)
        self._sync()
        return "0"

    @property
    def _path(self) -> str:
        return str(self.folder / "file.h5")

    def open(self, *, readonly: bool = False) -> None:
        try:
            self._file = h5py.File(self._path, "r" if readonly else "r+")
        except BlockingIOError as e:
            raise Lacks("HDF5 locks the file: nobody reads it beside a writer") from e
        self._use()

    def _use(self) -> None:
        self._versions: Any = VersionedHDF5File(self._file)
        self._pending: list[tuple[Pages, Rows]] = []

    def change(self, pages: Pages, rows: Rows) -> None:
        self._pending.append((pages, rows))

    def commit(self) -> Key:
        key = str(1 + max(int(name) for name in self._versions.versions))
        with self._versions.stage_version(key) as group:
            for pages, rows in self._pending:
                group["a"][pages] = rows
        self._pending.clear()
        self._sync()
        return key

    def _sync(self) -> None:
        self._file.flush()
        file = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def reader(self, key: Key) -> Version:
        return Version(self._versions[key]["a"])

    def branch(self, key: Key) -> None:
        self._versions.current_version = key

    def diff(self, old: Key, new: Key) -> Pages:
        """What it names are chunks, with their contents: the pages are compared here."""
        if old == new:
            return np.empty(0, np.int64)
        found = [np.empty(0, np.int64)]
        writable = self._file.mode != "r"
        self.close()
        self.open(readonly=True)  # it compares only in a file that cannot be written
        for where, (before, after) in self._versions.get_diff("a", old, new).items():
            found.append(where.raw[0].start + np.flatnonzero((before != after).any(axis=1)))
        self.close()
        self.open(readonly=not writable)
        return np.unique(np.concatenate(found))

    def delete_old(self) -> None:
        newest = self._versions.current_version
        delete_versions(self._file, [name for name in self._versions.versions if name != newest])
        self._use()
        self._sync()

    def give_back(self) -> None:
        """A copy takes the place of the file, as h5repack would do it."""
        with h5py.File(f"{self._path}.new", "w") as new:
            for name in self._file:
                self._file.copy(name, new)
        self.close()
        Path(f"{self._path}.new").replace(self._path)
        self.open()
        self._sync()

    def close(self) -> None:
        self._versions.close()
        self._file.close()


class Version:
    def __init__(self, array: Any) -> None:
        self._array = array

    def read(self, pages: Pages) -> Rows:
        rows: Rows = self._array[pages]
        return rows

    def scan(self) -> int:
        steps = range(0, self._array.shape[0], STEP)
        return sum(total(self._array[at : at + STEP]) for at in steps) % (1 << 64)

    def close(self) -> None:
        del self._array


PEER = VersionedHdf5
