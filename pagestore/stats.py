"""What a store holds, in numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from attr import frozen

from pagestore.engine import Engine
from pagestore.format import BRANCH, RESERVED, SNAPSHOT, VersionRecord, unpack_runs
from pagestore.pagetable import Nodes
from pagestore.reclaim import exclusive_pages
from pagestore.space import load
from pagestore.transaction import Transaction


@frozen
class VersionStats:
    """What one named version holds.

    Attributes
    ----------
    version : int
        Its id.
    referred_bytes : int
        Bytes of the pages that it refers to (zeros take none).
    exclusive_bytes : int
        Bytes of those that no other kept version refers to: what dropping it would free.
    """

    version: int
    referred_bytes: int
    exclusive_bytes: int


@frozen
class Stats:
    """What a store holds; sizes in bytes.

    Attributes
    ----------
    page_size : int
    versions : int
        That are kept, named or not.
    arena_bytes : int
        Length of the arena file.
    referred_bytes : int
        Pages that some kept version refers to.
    free_bytes : int
        Slots to be used again.
    metadata_bytes : int
        Length of the catalog file.
    snapshots, branches : mapping of str to VersionStats
    """

    page_size: int
    versions: int
    arena_bytes: int
    referred_bytes: int
    free_bytes: int
    metadata_bytes: int
    snapshots: Mapping[str, VersionStats]
    branches: Mapping[str, VersionStats]


def stats(engine: Engine) -> Stats:
    """Count; costs what the named versions changed."""
    with engine.read() as (records, nodes):
        free, _, _ = load(records, records.meta.slots)
        reserved = sum(
            int(unpack_runs(raw, 1)[0]["length"].sum()) for _, raw in records.scan(RESERVED)
        )
        slots, free_slots = len(free), int(np.count_nonzero(free))

        def named(kind: bytes) -> dict[str, VersionStats]:
            return {
                name: _one(records, nodes, records.version(record.version), engine.page_size)
                for name, record in records.names(kind)
            }

        return Stats(
            page_size=engine.page_size,
            versions=records.count_versions(),
            arena_bytes=engine.arena.slots * engine.page_size,
            referred_bytes=(slots - 1 - free_slots - reserved) * engine.page_size,
            free_bytes=free_slots * engine.page_size,
            metadata_bytes=engine.catalog.size,
            snapshots=named(SNAPSHOT),
            branches=named(BRANCH),
        )


def _one(
    records: Transaction, nodes: Nodes, version: VersionRecord, page_size: int
) -> VersionStats:
    referred = sum(region.pages for region in version.regions.values())
    return VersionStats(
        version.id,
        referred * page_size,
        exclusive_pages(records, nodes, version) * page_size,
    )
