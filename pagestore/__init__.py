"""Durable, branching snapshots of memory."""

from pagestore.compact import Compaction
from pagestore.cowlist import CopyOnWriteList
from pagestore.diff import Change
from pagestore.errors import (
    BrokenError,
    ClosedError,
    ConflictError,
    CorruptionError,
    ExistsError,
    FormatError,
    FullError,
    InvalidError,
    NotFoundError,
    PagestoreError,
    ReadOnlyError,
)
from pagestore.history import Region, Version
from pagestore.lineage import Brought, Step
from pagestore.stats import Stats, VersionStats
from pagestore.store import Store, open
from pagestore.stranger import examine
from pagestore.verify import Finding
from pagestore.view import LiveView, SnapshotView
from pagestore.workspace import Workspace

__all__ = [
    "BrokenError",
    "Brought",
    "Change",
    "ClosedError",
    "Compaction",
    "ConflictError",
    "CopyOnWriteList",
    "CorruptionError",
    "ExistsError",
    "Finding",
    "FormatError",
    "FullError",
    "InvalidError",
    "LiveView",
    "NotFoundError",
    "PagestoreError",
    "ReadOnlyError",
    "Region",
    "SnapshotView",
    "Stats",
    "Step",
    "Store",
    "Version",
    "VersionStats",
    "Workspace",
    "examine",
    "open",
]
__version__ = "0.1.0"
