"""What a program did to some files: one list of operations, in the order they took effect.

Owns the log that `shim.c` writes, and its meaning. Two recorders make the same list: the shim, and
strace where there is no compiler (`strace.py`).
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from attrs import frozen

_HEADER = struct.Struct("<IBBHiQQQQ")
_MAGIC = 0x50414745
LOCK_SUFFIX = "-lock"  # LMDB's table of readers: shared memory, rebuilt by whoever comes first


class Kind(enum.IntEnum):
    """What an operation is; the numbers are those of shim.c."""

    WRITE = 1
    RESIZE = 2
    ALLOCATE = 3  # may lengthen the file
    RESERVE = 4  # changes neither bytes nor length
    PUNCH = 5
    SYNC = 6
    CREATE = 7
    MKDIR = 8
    UNLINK = 9
    RMDIR = 10
    RENAME = 11  # `data` is the new path
    MARK = 12  # said by the workload
    SHARED_MAP = 13
    UNKNOWN = 14


DIRECTORY = {Kind.CREATE, Kind.MKDIR, Kind.UNLINK, Kind.RMDIR, Kind.RENAME}
FILE = {Kind.WRITE, Kind.RESIZE, Kind.ALLOCATE, Kind.PUNCH}


@frozen
class Op:
    """One operation.

    Attributes
    ----------
    kind : Kind
    path : str
        Below the recorded directory, which is "" itself; begins with "/".
    inode : int
    offset, size : int
        Bytes; for RESIZE `size` is the new length.
    dsync : bool
        A write that is durable when it returns.
    error : int
        errno, or 0. `data` is what was written all the same.
    data : bytes
    """

    kind: Kind
    path: str
    inode: int = 0
    offset: int = 0
    size: int = 0
    dsync: bool = False
    error: int = 0
    data: bytes = b""

    @property
    def target(self) -> str:
        """Where a rename leads."""
        return self.data.decode()

    def __str__(self) -> str:
        what = f"{self.kind.name.lower()} {self.path or '/'}"
        if self.kind in FILE:
            what += f" {self.offset}+{len(self.data) or self.size}"
        if self.kind is Kind.RENAME:
            what += f" to {self.target}"
        return what + (" dsync" if self.dsync else "") + (f" error {self.error}" * bool(self.error))


class UnsoundError(Exception):
    """The record does not tell everything that happened: nothing may be concluded from it."""


def read_log(log: Path) -> list[Op]:
    """Operations of a log that `shim.c` wrote."""
    return list(_parse(log.read_bytes())) if log.exists() else []


def _parse(raw: bytes) -> Iterator[Op]:
    at = 0
    while at < len(raw):
        magic, kind, dsync, path_size, error, inode, offset, size, data_size = _HEADER.unpack_from(
            raw, at
        )
        if magic != _MAGIC:
            raise UnsoundError(f"the log is damaged at byte {at}")
        at += _HEADER.size
        path = raw[at : at + path_size].decode()
        at += path_size
        data = raw[at : at + data_size]
        at += data_size
        yield Op(Kind(kind), path, inode, offset, size, bool(dsync), error, data)


def check_sound(ops: Iterable[Op]) -> None:
    """Raise `UnsoundError` where files were changed in a way that no operation tells."""
    for op in ops:
        if op.kind is Kind.UNKNOWN:
            raise UnsoundError(f"{op.path} was changed by a call that is not followed")
        if op.kind is Kind.SHARED_MAP and not op.path.endswith(LOCK_SUFFIX):
            raise UnsoundError(f"{op.path} was mapped shared and writable")
