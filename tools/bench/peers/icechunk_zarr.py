"""Icechunk: a transactional store of Zarr arrays; a chunk is a file, a manifest lists chunks."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from datetime import UTC, datetime

import icechunk
import numpy as np
import zarr

from tools.bench.peers import PAGE, Key, Pages, Peer, Rows, total

CHUNK = 16  # pages
STEP = 4096
_libc = ctypes.CDLL(None, use_errno=True)
icechunk.set_logs_filter("error")  # it warns, on standard output, of each local store that it opens


class IcechunkZarr(Peer):
    title = "Icechunk, Zarr"
    settings = (
        "not synced by Icechunk: syncfs by the bench after each commit; chunks of 64 KiB, "
        "uncompressed; a tag where nothing changed"
    )
    lacks = (
        "durable by itself (synced after the commit: a power cut during one can leave a head whose "
        "chunks are missing)",
        "safe concurrent commits on a local file system",
        "what changed by page (by chunk)",
    )
    packages = ("icechunk", "zarr")
    imports = "icechunk, zarr"
    start = """
import sys, icechunk, zarr
icechunk.set_logs_filter("error")
repository = icechunk.Repository.open(icechunk.local_filesystem_storage(sys.argv[1] + "/store"))
store = repository.readonly_session(snapshot_id=sys.argv[2]).store
print(zarr.open_array(store, path="a", mode="r")[0, 0])
"""

    def load(self, chunks: Iterable[Rows]) -> Key:
        self._repository = icechunk.Repository.create(self._storage())
        self._use("main")
        array = zarr.create_array(
            self._session.store,
            name="a",
            shape=(self.pages, PAGE),
            chunks=(CHUNK, PAGE),
            dtype="u1",
            compressors=None,
            filters=None,
        )
        at = 0
        for rows in chunks:
            array[at : at + len(rows)] = rows
            at += len(rows)
        return self.commit()

    def _storage(self) -> icechunk.Storage:
        return icechunk.local_filesystem_storage(str(self.folder / "store"))

    def open(self, *, readonly: bool = False) -> None:
        self._repository = icechunk.Repository.open(self._storage())
        if not readonly:
            self._use("main")

    def _use(self, branch: str) -> None:
        self._session = self._repository.writable_session(branch)
        self._pending: list[tuple[Pages, Rows]] = []

    def change(self, pages: Pages, rows: Rows) -> None:
        self._pending.append((pages, rows))

    def commit(self) -> Key:
        for pages, rows in self._pending:
            zarr.open_array(self._session.store, path="a", mode="r+").oindex[pages] = rows
        branch = str(self._session.branch)
        if self._session.has_uncommitted_changes:
            key = str(self._session.commit("changed"))
        else:  # an empty commit is refused
            key = str(self._session.snapshot_id)
            self._repository.create_tag(f"unchanged{len(self._repository.list_tags())}", key)
        self._sync()
        self._use(branch)
        return key

    def _sync(self) -> None:
        """Sync the file system: which files are new, in which folders, only Icechunk knows."""
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            if _libc.syncfs(folder):
                raise OSError(ctypes.get_errno(), "syncfs")
        finally:
            os.close(folder)

    def reader(self, key: Key) -> Version:
        session = self._repository.readonly_session(snapshot_id=key)
        return Version(zarr.open_array(session.store, path="a", mode="r"))

    def branch(self, key: Key) -> None:
        name = f"branch{len(self._repository.list_branches())}"
        self._repository.create_branch(name, key)
        self._use(name)

    def diff(self, old: Key, new: Key) -> Pages:
        """What it names are chunks: their pages are compared here."""
        if old == new:
            return np.empty(0, np.int64)
        found = self._repository.diff(from_snapshot_id=old, to_snapshot_id=new)
        chunks = np.sort([chunk[0] for chunk in found.updated_chunks.get("/a", [])])
        pages = (chunks[:, np.newaxis] * CHUNK + np.arange(CHUNK)).reshape(-1)
        pages = pages[pages < self.pages]
        before, after = (self.reader(key).read(pages) for key in (old, new))
        different: Pages = pages[(before != after).any(axis=1)]
        return different

    def delete_old(self) -> None:
        now = datetime.now(UTC)
        for tag in self._repository.list_tags():
            self._repository.delete_tag(tag)
        current = self._session.branch
        for name in self._repository.list_branches():
            if name not in ("main", current):
                self._repository.delete_branch(name)
        self._repository.expire_snapshots(now)
        self._repository.garbage_collect(now)
        self._sync()

    def close(self) -> None:
        self._pending = []
        del self._repository


class Version:
    def __init__(self, array: zarr.Array) -> None:
        self._array = array

    def read(self, pages: Pages) -> Rows:
        rows: Rows = self._array.oindex[pages]
        return rows

    def scan(self) -> int:
        steps = range(0, self._array.shape[0], STEP)
        return sum(total(self._array[at : at + STEP]) for at in steps) % (1 << 64)

    def close(self) -> None:
        del self._array


PEER = IcechunkZarr
