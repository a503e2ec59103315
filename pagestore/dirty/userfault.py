"""Exactly the pages written, from asynchronous write protection (Linux 6.7 and newer).

Owns the one userfaultfd that the trackers of a process share, and which memory is armed whole.
Does not know where pages come from: what is remapped has to be watched again.

A page that was written is a copy, this process's own, that is not armed. Nothing is prepared for
pages that were never touched:

- U1  A scan asks for copies that are not armed, and arms them. It passes over what has no page
      table, but the kernel looks into a record of each page that is mapped.
- U2  Once that takes longer than looking at every entry, the range is armed whole, gaps too. From
      then on every page of it that is not armed was written, and the kernel's fast loop finds them.

Where the kernel refuses (a range that was remapped and not watched again, no memory for page
tables or for the answer, no mapping left), part of an answer may be lost. The tracker then stops
being exact, for good, and reports everything: a write is never left out.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from typing import Final

import numpy as np

from pagestore import kernel
from pagestore.kernel import (
    COPIES,
    COPIES_IN_MEMORY,
    PAGE_SIZE,
    UNARMED,
    WRITTEN,
    WRITTEN_COPIES,
    Found,
    Ranges,
)

# Seconds of processor time: what the fast loop needs for a page, and what any scan may take.
FAST_LOOP: Final = 4e-9
SHORT: Final = 0.3e-3


class UserfaultTracker:
    """Exact, as long as the kernel plays along. In a forked child every call is an OSError."""

    name = "userfault"

    def __init__(self) -> None:
        self._userfault = _shared()
        self._exact = True
        self._armed: dict[int, int] = {}  # ranges that are armed whole: address and end

    @property
    def exact(self) -> bool:
        """Whether the kernel has answered every call so far."""
        return self._exact

    def watch(self, address: int, nbytes: int) -> None:
        """Register the range, parts of which may be registered, and count it as clean."""
        if self._exact:
            try:
                self._userfault.register(address, nbytes)
                self._arm_new(address, address + nbytes)
            except (OSError, MemoryError) as error:
                self._degrade(error)

    def written(self, address: int, nbytes: int, *, again: bool = False) -> Ranges:
        """Pages written since `watch` or the last call; clean from now on."""
        if self._exact:
            try:
                if again:
                    self.watch(address, nbytes)
                    return kernel.pages(self._userfault.scan(address, nbytes, COPIES), address)
                return kernel.pages(self._scan(address, nbytes), address)
            except (OSError, MemoryError) as error:
                self._degrade(error)
        return np.array([[0, nbytes // PAGE_SIZE]], np.int64)

    def pending(self, address: int, nbytes: int) -> int:
        """How many pages `written` would report; changes nothing."""
        if self._exact:
            try:
                query = WRITTEN if self._is_armed(address, nbytes) else WRITTEN_COPIES
                found = self._userfault.scan(address, nbytes, query, arm=False)
                return int((found[:, 1] - found[:, 0]).sum()) // PAGE_SIZE
            except (OSError, MemoryError) as error:
                self._degrade(error)
        return nbytes // PAGE_SIZE

    def close(self) -> None:
        """Nothing to let go of: the descriptor is shared, and unmapping a range unregisters it."""

    def _degrade(self, error: Exception) -> None:
        if self._userfault.forked:
            raise error
        self._exact = False
        warnings.warn(
            f"written pages are no longer tracked, all are compared: {error}",
            RuntimeWarning,
            stacklevel=3,
        )

    def _is_armed(self, address: int, nbytes: int) -> bool:
        stop = self._armed.get(address)
        if stop is not None and address + nbytes <= stop:
            return True
        return any(a <= address and address + nbytes <= b for a, b in list(self._armed.items()))

    def _arm_new(self, start: int, stop: int) -> None:
        """Count a range as clean; within one that is armed whole, arm it whole."""
        if self._is_armed(start, stop - start) or not self._userfault.finds_gaps:
            self._userfault.arm(start, stop - start)
            self._note_armed(start, stop)
            return
        for a, b in list(self._armed.items()):
            if a < stop and start < b:  # of memory that is gone, or is not armed whole any more
                del self._armed[a]
        self._userfault.scan(start, stop - start, WRITTEN_COPIES)

    def _note_armed(self, start: int, stop: int) -> None:
        for a, b in list(self._armed.items()):
            if a <= stop and start <= b:
                del self._armed[a]
                start, stop = min(a, start), max(b, stop)
        self._armed[start] = stop

    def _scan(self, address: int, nbytes: int) -> Found:
        """Find the pages that were written and not reported; each is armed as it is found."""
        if self._is_armed(address, nbytes):
            return self._userfault.scan(address, nbytes, WRITTEN)
        begun = time.thread_time()
        found = self._userfault.scan(address, nbytes, WRITTEN_COPIES)
        took = time.thread_time() - begun
        if took > SHORT + FAST_LOOP * (nbytes // PAGE_SIZE) and self._userfault.finds_gaps:
            found = _union((found, self._arm_whole(address, nbytes)))
        return found

    def _arm_whole(self, address: int, nbytes: int) -> Found:
        """Arm every page, touched or not; return those that were written meanwhile."""
        unarmed = self._userfault.scan(address, nbytes, UNARMED)
        found = [kernel.copies(unarmed)]
        # Without a page table to be armed is not one step with being found, and a huge page is to
        # be armed page by page: a store meanwhile has left a copy.
        for start, stop in kernel.without_table(unarmed, address, nbytes).tolist():
            self._userfault.arm(start, stop - start)
            found.append(self._userfault.scan(start, stop - start, COPIES_IN_MEMORY, arm=False))
        self._note_armed(address, address + nbytes)
        return np.concatenate(found)


def _union(parts: tuple[Found, ...]) -> Found:
    """Ranges that may overlap, as rising, disjoint ones."""
    found = np.concatenate(parts)
    found = found[np.argsort(found[:, 0], kind="stable")]
    stop = np.maximum.accumulate(found[:, 1])
    first = np.flatnonzero(np.concatenate(([True], found[1:, 0] > stop[:-1]))[: len(found)])
    union: Found = found[first]
    union[:, 1] = stop[np.append(first[1:], len(found)) - 1] if len(found) else 0
    return union


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
