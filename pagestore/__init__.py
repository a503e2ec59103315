"""Durable, branching snapshots of memory."""

from typing import TYPE_CHECKING, Any

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
from pagestore.later import Later
from pagestore.store import Store, open
from pagestore.view import LiveView, SnapshotView
from pagestore.workspace import Workspace

if TYPE_CHECKING:
    from pagestore.compact import Compaction
    from pagestore.cowlist import CopyOnWriteList
    from pagestore.freed import Freed
    from pagestore.layout import PageTable, RegionLayout
    from pagestore.lineage import Brought, Step
    from pagestore.sharing import VersionSpace
    from pagestore.stats import Pinned, Stats
    from pagestore.stranger import examine
    from pagestore.verify import Finding
    from pagestore.wreck import Remains, remains

# what most programs never use: the modules are imported when it is asked for
_LATER = {
    "Brought": Later("pagestore.lineage"),
    "Compaction": Later("pagestore.compact"),
    "CopyOnWriteList": Later("pagestore.cowlist"),
    "Finding": Later("pagestore.verify"),
    "Freed": Later("pagestore.freed"),
    "PageTable": Later("pagestore.layout"),
    "Pinned": Later("pagestore.stats"),
    "RegionLayout": Later("pagestore.layout"),
    "Remains": Later("pagestore.wreck"),
    "Stats": Later("pagestore.stats"),
    "Step": Later("pagestore.lineage"),
    "VersionSpace": Later("pagestore.sharing"),
    "remains": Later("pagestore.wreck"),
    "examine": Later("pagestore.stranger"),
}

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
    "Freed",
    "FullError",
    "InvalidError",
    "LiveView",
    "NotFoundError",
    "PageTable",
    "PagestoreError",
    "Pinned",
    "ReadOnlyError",
    "Region",
    "RegionLayout",
    "Remains",
    "SnapshotView",
    "Stats",
    "Step",
    "Store",
    "Version",
    "VersionSpace",
    "Workspace",
    "examine",
    "open",
    "remains",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(_LATER[name], name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
