"""A catalog without free pages, in the place of one that has many: LMDB's file does not shrink.

Owns: the copy and the exchange. Does not know what stands in a record. Whoever calls is the only
process that has the store open, holds others off, and has closed LMDB.

- N1  The old file stays in its place until the new one is durable: a crash leaves one of them.
- N2  Every record is verified on its way, and so is their sum: damage is not made to look whole.
- N3  Transactions are counted on from the old file's: the head in the arena still tells when a
      catalog went back in time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import lmdb

from pagestore import kernel, structure
from pagestore.errors import CorruptionError
from pagestore.format import META, seal
from pagestore.transaction import Transaction

LEAST_SAVED = 1 << 16  # bytes, and an eighth of the file
_ROOM = 1 << 26  # of the map, beyond the old file's length


def exchange(path: str, copy: str) -> bool:
    """Let a dense copy take the catalog's place, if that saves space; raises without harm.

    Whether it has; then the caller makes that durable before anything is committed to it.
    """
    status = os.lstat(path)
    if status.st_nlink > 1 or os.path.islink(path):
        return False  # it is somebody else's, too
    if structure.unused(path) < max(LEAST_SAVED, structure.used(path) >> 3):
        return False
    _discard(copy)
    try:
        _make(copy, status)
        structure.renumber(copy, _fill(copy, path, status.st_size + _ROOM))
        kernel.sync(copy)
        os.rename(copy, path)
        return True
    except (lmdb.Error, ValueError) as e:  # no room, no memory, or not the file it should be
        raise OSError(str(e)) from e
    finally:
        _discard(copy)


def _discard(copy: str) -> None:
    if os.path.lexists(copy):
        os.unlink(copy)


def _make(path: str, like: os.stat_result) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(fd, like.st_uid, like.st_gid)
        os.fchmod(fd, like.st_mode & 0o7777)
        kernel.overwrite_in_place(fd)
    finally:
        os.close(fd)


def _fill(copy: str, path: str, room: int) -> int:
    """Copy every record; return the number that the copy's transaction is to have."""
    with (
        lmdb.open(path, map_size=room, subdir=False, readonly=True, lock=False) as old,
        lmdb.open(copy, map_size=room, subdir=False, lock=False) as new,
        old.begin() as source,
        new.begin(write=True) as target,
    ):
        records = Transaction(source)
        if records.add_up() != records.meta.records:
            raise CorruptionError(f"{path}: the meta record contradicts the others (X2)")
        number = records.id + 1 | 1  # odd, as the copy's first is
        meta = records.meta._replace(transaction=number).pack()
        with target.cursor() as cursor:
            cursor.putmulti(_rows(source, seal(META, meta)), append=True)
        return number


def _rows(source: Any, meta: bytes) -> Iterator[tuple[bytes, bytes]]:
    for key, value in source.cursor():
        yield key, meta if key == META else value
