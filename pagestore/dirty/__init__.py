"""Which pages of a private mapping were written: one protocol, one file per kernel mechanism.

Owns the protocol and the choice between mechanisms. Knows nothing of what a page holds or of what
was committed: where a tracker cannot be exact, the caller compares.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final, Protocol

from pagestore import kernel
from pagestore.dirty.compare import CompareTracker
from pagestore.dirty.pagemap import PagemapTracker
from pagestore.dirty.userfault import UserfaultTracker
from pagestore.errors import InvalidError


class Tracker(Protocol):
    """Tells which system pages of the ranges it watches were written.

    No write is ever left out. Addresses and lengths are multiples of the system's page.
    """

    @property
    def name(self) -> str:
        """What `choose` calls it."""

    @property
    def exact(self) -> bool:
        """True: reports the pages written, no others. False: candidates, to be compared.

        May turn from True to False, never back: read it after `written`.
        """

    def watch(self, address: int, nbytes: int) -> None:
        """From now on the range, freshly laid out or remapped, counts as clean."""

    def written(self, address: int, nbytes: int, *, again: bool = False) -> kernel.Ranges:
        """Pages written since `watch` or the last call, relative to address; now clean.

        With `again`, candidates whenever they were written: the last answer was lost, or parts of
        the range may not be watched.
        """

    def pending(self, address: int, nbytes: int) -> int:
        """How many pages `written` would report; changes nothing."""

    def close(self) -> None:
        """Nothing is asked of this tracker any more."""


_BEST_FIRST: Final[dict[str, Callable[[], Tracker]]] = {
    "userfault": UserfaultTracker,
    "pagemap": PagemapTracker,
    "compare": CompareTracker,
}


def choose(name: str = "auto") -> Tracker:
    """A new tracker of the named mechanism, or of the best that works here."""
    missing = kernel.probe().reasons
    if name == "auto":
        for known, make in _BEST_FIRST.items():
            # what worked when it was tried need not be allowed any more (after setuid)
            with contextlib.suppress(OSError):
                if known not in missing:
                    return make()
    if name not in _BEST_FIRST:
        raise InvalidError(f"no tracker {name!r}: choose auto, {', '.join(_BEST_FIRST)}")
    if name in missing:
        raise InvalidError(f"tracker {name!r} does not work here: {missing[name]}")
    try:
        return _BEST_FIRST[name]()
    except OSError as e:
        raise InvalidError(f"tracker {name!r} does not work here: {e}") from e
