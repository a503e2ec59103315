"""Who writes which database: bytes of one lock file, that the kernel lets go of with the process.

Owns: the lock file in the store's directory. A byte stands for one database on one branch; names
that fall on the same byte wait for each other without need, and nothing worse.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterable
from pathlib import Path

import xxhash

NAME = "sqlite-locks"


class WriteLocks:
    """The write locks that one connection holds on the databases of a store."""

    def __init__(self, store: Path) -> None:
        # of this open file description, so connections of one process shut each other out too
        self._fd = os.open(store / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._held: set[int] = set()

    def take(self, branch: str, names: Iterable[str]) -> set[int] | None:
        """Hold the locks of some databases; return those that are new, or None if one is taken."""
        new: set[int] = set()
        for byte in {_byte(branch, name) for name in names} - self._held:
            if not self._set(byte, fcntl.F_WRLCK):
                self.release(new)
                return None
            self._held.add(byte)
            new.add(byte)
        return new

    def taken(self, branch: str, name: str) -> bool:
        """Whether anybody, here or elsewhere, holds the lock of a database."""
        new = self.take(branch, [name])
        if new:
            self.release(new)
        return not new

    def release(self, locks: Iterable[int] | None = None) -> None:
        """Let go of some locks, or of all."""
        for byte in list(self._held if locks is None else locks):
            self._set(byte, fcntl.F_UNLCK)
            self._held.discard(byte)

    def _set(self, byte: int, kind: int) -> bool:
        lock = struct.pack("hhqqi0q", kind, os.SEEK_SET, byte, 1, 0)
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, lock)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Let go of everything."""
        os.close(self._fd)


def _byte(branch: str, name: str) -> int:
    return xxhash.xxh3_64_intdigest(f"{branch}\0{name}".encode()) >> 2
