"""RocksDB, one checkpoint a version: a directory of hard links to its immutable files."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import rocksdict

from tools.bench.peers import PAGE, Key, Pages, Peer, Rows, total_of

NUMBER = struct.Struct(">I")


class RocksdbCheckpoints(Peer):
    title = "RocksDB checkpoints"
    settings = (
        "a checkpoint flushes and syncs what was written, so the log is not synced too; "
        "no compression, blocks of 16 KiB, cache 512 MiB, memtable 64 MiB, 2 background jobs"
    )
    lacks = ("does not say what changed",)
    packages = ("rocksdict",)
    imports = "rocksdict"
    start = """
import sys, rocksdict
folder = sys.argv[1] + "/" + sys.argv[2]
options = rocksdict.Options(raw_mode=True)
db = rocksdict.Rdict(folder, options, access_type=rocksdict.AccessType.read_only())
print(db[bytes(4)][0])
"""

    def load(self, chunks: Iterable[Rows]) -> Key:
        self._start("db")
        at = 0
        for rows in chunks:
            self._write(range(at, at + len(rows)), rows)
            at += len(rows)
        self._db.flush()
        return self.commit()

    def _start(self, name: str) -> None:
        self._db = rocksdict.Rdict(str(self.folder / name), _options())
        self._checkpoint = rocksdict.Checkpoint(self._db)
        self._count = sum(path.name.startswith("v") for path in self.folder.iterdir())

    def open(self, *, readonly: bool = False) -> None:
        if not readonly:
            self._start("db")

    def change(self, pages: Pages, rows: Rows) -> None:
        self._write(pages.tolist(), rows)

    def _write(self, pages: Iterable[int], rows: Rows) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        for page, row in zip(pages, rows, strict=True):
            batch.put(NUMBER.pack(page), row.tobytes())
        self._db.write(batch)

    def commit(self) -> Key:
        key = f"v{self._count}"
        self._count += 1
        self._checkpoint.create_checkpoint(str(self.folder / key))
        self._sync()
        return key

    def _sync(self) -> None:
        folder = os.open(self.folder, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def reader(self, key: Key) -> Checkpoint:
        return Checkpoint(self.folder / key)

    def branch(self, key: Key) -> None:
        """A copy of the checkpoint's links is a database of its own."""
        count, self._count = self._count, self._count + 1
        self._db.close()
        shutil.copytree(self.folder / key, self.folder / f"b{count}", copy_function=_link)
        self._start(f"b{count}")
        self._count = count + 1

    def delete_old(self) -> None:
        for path in self.folder.iterdir():
            if path.name.startswith("v") and path.name != f"v{self._count - 1}":
                shutil.rmtree(path)
        self._sync()

    def give_back(self) -> None:
        """The newest version keeps files with old pages in them: rewrite, take it anew."""
        self._db.compact_range(None, None)
        shutil.rmtree(self.folder / f"v{self._count - 1}")
        self._count -= 1
        self.commit()

    def close(self) -> None:
        if hasattr(self, "_db"):
            self._db.close()
            del self._db, self._checkpoint


def _link(source: str, target: str) -> str:
    """Immutable files are linked; those that a database appends to are copied."""
    if source.endswith(".sst"):
        os.link(source, target)
        return target
    return str(shutil.copy2(source, target))


def _options() -> rocksdict.Options:
    table = rocksdict.BlockBasedOptions()
    table.set_block_size(16 << 10)
    table.set_block_cache(rocksdict.Cache(512 << 20))
    options = rocksdict.Options(raw_mode=True)
    options.set_block_based_table_factory(table)
    options.set_compression_type(rocksdict.DBCompressionType.none())
    options.set_write_buffer_size(64 << 20)
    options.set_max_background_jobs(2)
    return options


class Checkpoint:
    def __init__(self, path: Path) -> None:
        access = rocksdict.AccessType.read_only()
        self._db = rocksdict.Rdict(str(path), _options(), access_type=access)

    def read(self, pages: Pages) -> Rows:
        found = self._db[[NUMBER.pack(page) for page in pages.tolist()]]
        rows: Rows = np.frombuffer(b"".join(found), np.uint8).reshape(-1, PAGE)
        return rows

    def scan(self) -> int:
        return total_of(self._db.values())

    def close(self) -> None:
        self._db.close()


PEER = RocksdbCheckpoints
