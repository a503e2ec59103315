"""Exactly the pages written, from asynchronous write protection (Linux 6.7 and newer).

Owns the one userfaultfd that the trackers of a process share. Does not know where pages come from:
what is remapped has to be watched again.

Where the kernel refuses (a range that was remapped and not watched again, no memory for page
tables or for the answer, no mapping left), part of an answer may be lost. The tracker then stops
being exact, for good, and reports everything: a write is never left out.
"""

from __future__ import annotations

import os
import threading
import warnings

import numpy as np

from pagestore import kernel


class UserfaultTracker:
    """Exact, as long as the kernel plays along. In a forked child every call is an OSError."""

    name = "userfault"

    def __init__(self) -> None:
        self._userfault = _shared()
        self._exact = True

    @property
    def exact(self) -> bool:
        """Whether the kernel has answered every call so far."""
        return self._exact

    def watch(self, address: int, nbytes: int) -> None:
        """Register the range, parts of which may be registered, and count it as clean."""
        if self._exact:
            try:
                self._userfault.register(address, nbytes)
                self._userfault.arm(address, nbytes)
            except OSError as error:
                self._degrade(error)

    def written(self, address: int, nbytes: int) -> kernel.Ranges:
        """Pages written since `watch` or the last call; clean from now on."""
        if self._exact:
            try:
                return self._userfault.scan(address, nbytes)
            except OSError as error:
                self._degrade(error)
        return np.array([[0, nbytes // kernel.PAGE_SIZE]], np.int64)

    def pending(self, address: int, nbytes: int) -> int:
        """How many pages `written` would report; changes nothing."""
        if self._exact:
            try:
                return self._userfault.count(address, nbytes)
            except OSError as error:
                self._degrade(error)
        return nbytes // kernel.PAGE_SIZE

    def close(self) -> None:
        """Nothing to let go of: the descriptor is shared, and unmapping a range unregisters it."""

    def _degrade(self, error: OSError) -> None:
        if self._userfault.forked:
            raise error
        self._exact = False
        warnings.warn(
            f"written pages are no longer tracked, all are compared: {error}",
            RuntimeWarning,
            stacklevel=3,
        )


_lock = threading.Lock()
_current: kernel.Userfault | None = None


def _shared() -> kernel.Userfault:
    global _current
    with _lock:
        if _current is None:
            _current = kernel.Userfault()
        return _current


def _forget() -> None:
    # A child can use neither what it inherits nor a lock that some thread held at the fork.
    global _current, _lock
    _lock = threading.Lock()
    if _current is not None:
        _current.close()
        _current = None


os.register_at_fork(after_in_child=_forget)
