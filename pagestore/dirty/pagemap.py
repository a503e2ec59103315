"""Every page that copy-on-write has broken, from `/proc/self/pagemap`.

Keeps no state: a page stays broken until it is remapped, so it is reported again and again, and
the caller compares it with what was committed. Does not know when a page was written.
"""

from __future__ import annotations

import numpy as np

from pagestore import kernel


class PagemapTracker:
    """Inexact: takes every broken page for written."""

    name = "pagemap"
    exact = False

    def __init__(self) -> None:
        kernel.pagemap_private(0, 0)  # raises where it may not be read

    def watch(self, address: int, nbytes: int) -> None:
        """Nothing to prepare."""

    def written(self, address: int, nbytes: int, *, again: bool = False) -> kernel.Ranges:
        """Every broken page of the range."""
        private = kernel.pagemap_private(address, nbytes)
        edges = np.flatnonzero(np.diff(private, prepend=False, append=False))
        return edges.astype(np.int64).reshape(-1, 2)

    def pending(self, address: int, nbytes: int) -> int:
        """How many pages of the range are broken."""
        return int(np.count_nonzero(kernel.pagemap_private(address, nbytes)))

    def close(self) -> None:
        """Nothing to let go of."""
