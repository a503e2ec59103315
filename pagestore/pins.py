"""Pins: which versions some process looks at, as locks that die with the process.

Owns: the lock file. Byte *v* of it stands for version *v*; whoever has memory wired to the
version holds the byte shared, whoever drops the version holds it exclusively until the catalog
has committed. High bytes stand for the reservations of unfinished large transactions.

- P1  Locks belong to one open file description, so the kernel drops them when the process dies.
- P2  Within the process a pin is counted; the last one releases the byte.
- P3  A forked child shares its parent's description: it must never unlock.
- P4  A signal handler may raise after any call. So the lock is taken by nothing but ``with``, and
      what is noted before a call is what undoes it.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import TypeVar

from pagestore import kernel
from pagestore.format import VersionId

WAIT_SECONDS = 0.0005
_RESERVATIONS = 1 << 61
_OPEN = _RESERVATIONS - 1  # held shared by every process that has the store open

T = TypeVar("T")


class Pin:
    """One hold on a version, given up once: when told to, or with the last reference to it."""

    _held = False

    def __init__(self, pins: Pins, version: VersionId) -> None:
        self._pins = pins
        self.version = version

    def release(self) -> None:
        if self._held:
            self._held = False
            self._pins.done.append(self.version)  # no signal can come between the two
            self._pins.settle()

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self.release()


class Reservation(Pin):
    """Slots written before their commit; given up when neither draft nor memory refers to it."""

    @property
    def number(self) -> int:
        return self.version - _RESERVATIONS


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
        self._counts: Counter[VersionId] = Counter()  # a reservation's byte is counted too
        self._exclusive: set[VersionId] = set()
        self.done: deque[VersionId] = deque()
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
        self._closing = True
        self._alone(self._close_if_done)

    @property
    def fd(self) -> int:
        """The open lock file."""
        return self._fd

    @property
    def held(self) -> int:
        """How many pins there are."""
        return self._alone(
            lambda: sum(n for version, n in self._counts.items() if version < _RESERVATIONS)
        )

    def acquire(self, version: VersionId) -> Pin:
        """Pin a version. The caller then checks that it still exists."""
        pin = Pin(self, version)
        # whoever holds it exclusively is about to commit: a short wait, and not in the kernel:
        # with the lock held there, two processes could wait for each other in a circle
        while not self._alone(lambda: self._hold(pin, kernel.lock_shared)):
            time.sleep(WAIT_SECONDS)
        return pin

    def _hold(self, pin: Pin, lock: Callable[[int, int], bool]) -> bool:
        version = pin.version
        if version in self._exclusive:
            return False
        first = not self._counts[version]
        self._counts[version] += 1
        pin._held = True  # from here on its release undoes it
        try:
            locked = not first or lock(self._fd, version)
        except BaseException:
            pin.release()
            raise
        if not locked:
            pin.release()
        return locked

    def _alone(self, act: Callable[[], T]) -> T:
        """Do something under the lock, with all that was released taken in before and after."""
        try:
            with self._lock:
                self._drain()
                return act()
        finally:
            self.settle()

    def settle(self) -> None:
        """Take in what was released; whoever has the lock does so on letting go of it."""
        while self.done and not self._lock.locked():
            with self._lock:
                self._drain()

    def _drain(self) -> None:
        if not self.done:
            return
        if os.getpid() != self._pid or self._fd < 0:
            self.done.clear()
            return
        while self.done:
            version = self.done[0]
            if self._counts[version] == 1 and version not in self._exclusive:
                kernel.unlock(self._fd, version)
            # no call from here on: it is counted once, and taken off the queue
            if self._counts[version] > 1:
                self._counts[version] -= 1
            else:
                del self._counts[version]
            del self.done[0]
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._closing and self._fd >= 0 and not self._counts:
            os.close(self._fd)
            self._fd = -1

    def try_exclusive(self, version: VersionId, mine: int = 0) -> bool:
        """Shut others out of a version that only the caller's `mine` pins hold; never waits."""

        def attempt() -> bool:
            if version in self._exclusive:
                return True
            if self._counts[version] > mine:
                return False
            self._exclusive.add(version)  # first: `end_exclusive` undoes what comes after
            if kernel.lock_exclusive(self._fd, version):
                return True
            self._exclusive.discard(version)
            return False

        return self._alone(attempt)

    def end_exclusive(self) -> None:
        """Let go of every exclusive hold; versions that are still pinned stay so."""

        def end() -> None:
            for version in list(self._exclusive):
                if self._counts[version] > 0:
                    kernel.lock_shared(self._fd, version)
                else:
                    kernel.unlock(self._fd, version)
                self._exclusive.discard(version)

        self._alone(end)

    # -------------------------------------------------------------------------- reservations

    def reserve(self, number: int) -> Reservation | None:
        """Hold a reservation; None if that number is held already, by whom it came to nothing."""
        reservation = Reservation(self, VersionId(_RESERVATIONS + number))

        def attempt() -> bool:
            taken = self._counts[reservation.version] > 0
            return not taken and self._hold(reservation, kernel.lock_exclusive)

        return reservation if self._alone(attempt) else None

    def abandoned(self, number: int) -> bool:
        """Whether the owner of a reservation is dead."""
        offset = VersionId(_RESERVATIONS + number)

        def attempt() -> bool:
            if self._counts[offset]:
                return False
            try:
                return kernel.lock_exclusive(self._fd, offset)
            finally:
                kernel.unlock(self._fd, offset)

        return self._alone(attempt)
