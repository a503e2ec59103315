"""Where stores are put that are made to be damaged."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def directory_in_memory() -> Iterator[Path]:
    """A directory where a sync costs nothing, if there is one: for what does not test the disk."""
    shm = "/dev/shm"
    top = tempfile.mkdtemp(prefix="pagestore-", dir=shm if os.access(shm, os.W_OK) else None)
    try:
        yield Path(top)
    finally:
        shutil.rmtree(top, ignore_errors=True)
