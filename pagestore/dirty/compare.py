"""Every page, always: for systems that tell nothing about pages.

Knows nothing; the caller compares everything with what was committed.
"""

from __future__ import annotations

import numpy as np

from pagestore import kernel


class CompareTracker:
    """Inexact: takes every page for written."""

    name = "compare"
    exact = False

    def watch(self, address: int, nbytes: int) -> None:
        """Nothing to prepare."""

    def written(self, address: int, nbytes: int, *, again: bool = False) -> kernel.Ranges:
        """All of the range."""
        pages = self.pending(address, nbytes)
        return np.array([[0, pages]] if pages else [], np.int64).reshape(-1, 2)

    def pending(self, address: int, nbytes: int) -> int:
        """All of the range."""
        return nbytes // kernel.PAGE_SIZE

    def close(self) -> None:
        """Nothing to let go of."""
