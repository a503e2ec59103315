"""What every system that is measured must do, so that all do the same work; and who there is.

Owns: the protocol, and finding a peer by its name. A peer is one module of this package, named as
the peer is, that binds its class to `PEER`; modules that begin with `_` are no peers. A peer is
imported only when it is asked for, and left out, with the reason, where its package is missing.

What a peer must keep to:

P1 What `load` and `commit` return is durable when they return: it survives a power cut. A peer that
   cannot promise it says so in `lacks`.
P2 Every version that was returned stays readable until `delete_old`, beside newer ones.
P3 Work happens where it is timed: `change` may only take note (the rows stay as they are until the
   commit), and a reader returns the bytes themselves, not something that will look them up.
P4 What it cannot do it refuses with `Lacks`, and it never does less in silence: what it returns is
   compared with what must be there.
P5 Its best documented settings are used, and written down in `settings`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import itertools
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

PAGE = 4096
Rows = np.ndarray[Any, np.dtype[np.uint8]]
"""Pages: one row of 4,096 bytes each."""
Pages = np.ndarray[Any, np.dtype[np.int64]]
"""Page numbers, ascending, none twice."""
Key = str
"""What a version is called; valid in other processes too."""


class Lacks(Exception):
    """The peer does not do this, or not here; the text says why, and is shown in its row."""


class Reader(Protocol):
    """One version, open for reading."""

    def read(self, pages: Pages) -> Rows:
        """The bytes of some pages, in the order asked for."""

    def scan(self) -> int:
        """Read all bytes: the sum of the region's uint64s, modulo 2**64 (`total` does it)."""

    def close(self) -> None: ...


class Peer(ABC):
    """A system that keeps versions of one region of `pages` pages in a folder of its own.

    Attributes
    ----------
    title : str
        How it is called in tables.
    settings : str
        What it was set to, durability first.
    lacks : tuple of str
        What it does not do that others do here.
    packages : tuple of str
        Distributions whose versions are shown.
    start : str
        Source for ``python -c``, which gets the folder and a key as arguments, opens that version
        and prints the value of the region's first byte. Empty: left out.
    imports : str
        The module whose import is timed.
    kind : str
        "versions"; "unversioned" for what keeps none; "limit".
    keeps_old : bool
        Whether an old version can be read; otherwise `reader` opens the newest.
    copies : bool
        Whether a copy of its folder is another store.
    works : tuple of str
        What is measured of it; empty: everything.
    """

    title: ClassVar[str]
    settings: ClassVar[str]
    lacks: ClassVar[tuple[str, ...]] = ()
    packages: ClassVar[tuple[str, ...]] = ()
    start: ClassVar[str] = ""
    imports: ClassVar[str] = ""
    kind: ClassVar[str] = "versions"
    keeps_old: ClassVar[bool] = True
    copies: ClassVar[bool] = True
    works: ClassVar[tuple[str, ...]] = ()

    def __init__(self, folder: Path, pages: int) -> None:
        self.folder = folder
        self.pages = pages

    @classmethod
    def versions(cls) -> str:
        """What exactly was measured."""
        return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in cls.packages)

    @abstractmethod
    def load(self, chunks: Iterable[Rows]) -> Key:
        """Create the store in the folder (which exists, and is empty) and commit a first version.

        The chunks follow each other from page 0 and cover the region. Afterwards it is open.
        """

    @abstractmethod
    def open(self, *, readonly: bool = False) -> None:
        """Open what `load` made, with the newest version as the working state.

        With `readonly`, in a process beside one that commits: only `reader` will be called.
        """

    @abstractmethod
    def change(self, pages: Pages, rows: Rows) -> None:
        """Write whole pages to the working state."""

    @abstractmethod
    def commit(self) -> Key:
        """Make the working state a version, durably. It may equal the version before."""

    @abstractmethod
    def reader(self, key: Key) -> Reader:
        """Open a version for reading, while the working state stays as it is."""

    @abstractmethod
    def close(self) -> None:
        """Close everything; `open` may follow, in this process or another."""

    def branch(self, key: Key) -> None:
        """Start a line of work at an old version: `change` and `commit` now continue it."""
        raise Lacks("no branches")

    def diff(self, old: Key, new: Key) -> Pages:
        """Which pages differ between two versions."""
        raise Lacks("does not say what changed")

    def delete_old(self) -> None:
        """Delete every version but the newest; their space can be used again by the store."""
        raise Lacks("does not delete versions")

    def give_back(self) -> None:  # noqa: B027
        """After `delete_old`: give back to the file system what is free, where that takes more."""

    def prepare(self, count: int) -> None:  # noqa: B027
        """Before commits of so many pages are timed: what a running store has done already."""

    def reserved(self) -> int:
        """Bytes of `used` that are set aside for later and hold nothing yet."""
        return 0

    def used(self) -> int:
        """Bytes that it takes on the disk."""
        return allocated(self.folder)


def total(rows: np.ndarray[Any, Any]) -> int:
    """The sum of the uint64s in some memory, modulo 2**64: what `Reader.scan` must return."""
    return int(rows.reshape(-1).view(np.uint64).sum())


def total_of(values: Iterable[Any]) -> int:
    """The same over pages that come one by one: in batches, since a call of NumPy costs 2 µs."""
    found, rest = 0, iter(values)
    while batch := b"".join(itertools.islice(rest, 1024)):
        found += total(np.frombuffer(batch, np.uint8))
    return found % (1 << 64)


def allocated(path: Path) -> int:
    """Bytes that a file, or a directory's files, take on the disk; two names of one count once."""
    found = {}
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file() and not file.is_symlink():
            status = file.stat()
            found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def names() -> list[str]:
    """Every peer there is, whether or not its package is installed."""
    modules = [module.name for module in pkgutil.iter_modules(__path__)]
    first = ("pagestore", "limit")
    return sorted(
        (name for name in modules if not name.startswith("_")),
        key=lambda name: (not name.startswith(first), not name.startswith("pagestore"), name),
    )


def find(name: str) -> type[Peer]:
    """The class of a peer; `Lacks` where it cannot run here."""
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except ImportError as e:
        raise Lacks(f"not installed: {e}") from e
    peer: type[Peer] = module.PEER
    return peer
