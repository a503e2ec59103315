"""Pins: which versions some process looks at, as locks that die with the process.

Owns: the lock file. Byte *v* of it stands for version *v*; whoever has memory wired to the
version holds the byte shared, whoever drops the version holds it exclusively until the catalog
has committed. High bytes stand for the reservations of unfinished large transactions.

- P1  Locks belong to one open file description, so the kernel drops them when the process dies.
- P2  Within the process a pin is counted; the last one releases the byte.
- P3  A forked child shares its parent's description: it must never unlock.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter, deque
from collections.abc import Callable

from pagestore import kernel
from pagestore.format import VersionId

WAIT_SECONDS = 0.0005
_RESERVATIONS = 1 << 61
_OPEN = _RESERVATIONS - 1  # held shared by every process that has the store open


class Pin:
    """One hold on a version, released once; finalizers may release it at any time."""

    __slots__ = ("_pins", "_released", "version")

    def __init__(self, pins: Pins, version: VersionId) -> None:
        self._pins = pins
        self.version = version
        self._released = False

    def release(self) -> None:
        if not self._released:
            self._released = True
            self._pins.release_later(self.version)


class Pins:
    """The pins of this process on one store."""

    def __init__(self, path: str) -> None:
        flags = os.O_RDWR | os.O_CREAT
        try:
            self._fd = os.open(path, flags | os.O_CLOEXEC, 0o666)
        except OSError as e:
            if e.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._pid = os.getpid()
        # a finalizer can run inside any call of its own thread: it only queues (deque is atomic),
        # and finds this lock taken even by its own thread
        self._lock = threading.Lock()
        self._free = threading.Condition(self._lock)
        self._counts: Counter[VersionId] = Counter()
        self._exclusive: set[VersionId] = set()
        self._reservations: set[int] = set()
        self._done: deque[VersionId] = deque()
        self._closing = False

    def enter(self, examine: Callable[[], None]) -> None:
        """Join those who have the store open; who comes first looks at the files before."""
        try:
            alone = kernel.lock_exclusive(self._fd, _OPEN)
        except OSError:  # a lock file that may only be read
            alone = False
        try:
            if alone:
                examine()
        finally:
            kernel.lock_shared(self._fd, _OPEN, wait=True)

    def leave(self, seal: Callable[[], None]) -> None:
        """Be no longer among them; who is the last to go seals the files."""
        try:
            if kernel.lock_exclusive(self._fd, _OPEN):
                seal()
        except OSError:
            pass
        kernel.unlock(self._fd, _OPEN)

    def close(self) -> None:
        """Give up the lock file, once the last array that is wired to a version is gone."""
        with self:
            self._closing = True
            self._close_if_done()

    @property
    def fd(self) -> int:
        """The open lock file."""
        return self._fd

    @property
    def held(self) -> int:
        with self:
            return sum(self._counts.values())

    def acquire(self, version: VersionId) -> Pin:
        """Pin a version. The caller then checks that it still exists."""
        with self:
            # whoever holds it exclusively is about to commit: a short wait, and not in the kernel:
            # with the lock held there, two processes could wait for each other in a circle
            while version in self._exclusive or not (
                self._counts[version] or kernel.lock_shared(self._fd, version)
            ):
                self._free.wait(WAIT_SECONDS)
            self._counts[version] += 1
        return Pin(self, version)

    def release_later(self, version: VersionId) -> None:
        self._done.append(version)
        self._settle()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._drain()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        self._settle()

    def _settle(self) -> None:
        """Take in what was released; whoever has the lock does so on letting go of it."""
        while self._done and self._lock.acquire(blocking=False):
            try:
                self._drain()
            finally:
                self._lock.release()

    def _drain(self) -> None:
        if not self._done:
            return
        if os.getpid() != self._pid or self._fd < 0:
            self._done.clear()
            return
        while self._done:
            version = self._done.popleft()
            if version >= _RESERVATIONS:
                self._reservations.discard(version - _RESERVATIONS)
                kernel.unlock(self._fd, version)
                continue
            self._counts[version] -= 1
            if self._counts[version] <= 0:
                del self._counts[version]
                if version not in self._exclusive:
                    kernel.unlock(self._fd, version)
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._closing and self._fd >= 0 and not self._counts and not self._reservations:
            os.close(self._fd)
            self._fd = -1

    def try_exclusive(self, version: VersionId, mine: int = 0) -> bool:
        """Shut others out of a version that only the caller's `mine` pins hold; never waits."""
        with self:
            if version in self._exclusive:
                return True
            if self._counts[version] > mine:
                return False
            if not self._counts[version]:
                del self._counts[version]
            if not kernel.lock_exclusive(self._fd, version):
                return False
            self._exclusive.add(version)
            return True

    def end_exclusive(self) -> None:
        """Let go of every exclusive hold; versions that are still pinned stay so."""
        with self:
            for version in self._exclusive:
                if self._counts[version] > 0:
                    kernel.lock_shared(self._fd, version)
                else:
                    kernel.unlock(self._fd, version)
            self._exclusive.clear()
            self._free.notify_all()

    # -------------------------------------------------------------------------- reservations

    def reserve(self, number: int) -> None:
        with self:
            kernel.lock_exclusive(self._fd, _RESERVATIONS + number)
            self._reservations.add(number)

    def unreserve_later(self, number: int) -> None:
        """End a reservation; whoever writes next sees it as abandoned."""
        self.release_later(VersionId(_RESERVATIONS + number))

    def abandoned(self, number: int) -> bool:
        """Whether the owner of a reservation is dead."""
        with self:
            if number in self._reservations:
                return False
            offset = _RESERVATIONS + number
            if not kernel.lock_exclusive(self._fd, offset):
                return False
            kernel.unlock(self._fd, offset)
            return True
