"""What a store as a whole holds, who looks at it, and what its owner should know."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
from attr import frozen

from pagestore import lockers
from pagestore.bounds import expand_runs
from pagestore.directory import ARENA, BALLAST, CATALOG, PINS
from pagestore.engine import Engine
from pagestore.format import (
    BRANCH,
    FORMAT_VERSION,
    RESERVED,
    SNAPSHOT,
    VersionId,
    unpack_runs,
)
from pagestore.history import utc
from pagestore.reclaim import unkept, would_free
from pagestore.space import load
from pagestore.transaction import Transaction

OLD_PIN = timedelta(days=1)  # for a pin that alone keeps a version
LITTLE_LEFT = 0.05  # of the file system free: a commit may soon find it full


@frozen
class Pinned:
    """A version that some process looks at.

    Attributes
    ----------
    version : int
    process : int or None
        Its id; None where the kernel does not tell. A child that inherited the pin is listed too.
    command : str
        The process's command line; empty where it is not told.
    process_started : datetime or None
        When the process was started, so the pin is not older; aware, UTC.
    """

    version: int
    process: int | None
    command: str
    process_started: datetime | None


@frozen
class Stats:
    """What a store holds as a whole; sizes in bytes.

    Attributes
    ----------
    format : int
        Version of the format on disk.
    store_id : str
        32 hexadecimal digits.
    created : datetime
        Aware, UTC.
    page_size : int
    history : str
        ``"named"`` or ``"all"``.
    versions, snapshots, branches : int
        How many there are; versions that are kept, named or not.
    arena_bytes : int
        Length of the arena file.
    referred_bytes : int
        Pages that some kept version refers to.
    free_bytes : int
        Slots to be used again.
    reserved_bytes : int
        Slots of transactions that were flushed, and are not finished.
    unkept_bytes : int
        Pages of versions that nothing keeps but pins: free once those are gone.
    catalog_bytes, catalog_used_bytes : int
        Length of the catalog file, and what of it holds records.
    disk_bytes : int
        What all files of the store take on the disk.
    disk_free_bytes : int
        What its file system has left for this user.
    pins : tuple of Pinned
        By version.
    warnings : tuple of str
        What the owner of the store should know.
    """

    format: int
    store_id: str
    created: datetime
    page_size: int
    history: str
    versions: int
    snapshots: int
    branches: int
    arena_bytes: int
    referred_bytes: int
    free_bytes: int
    reserved_bytes: int
    unkept_bytes: int
    catalog_bytes: int
    catalog_used_bytes: int
    disk_bytes: int
    disk_free_bytes: int
    pins: tuple[Pinned, ...]
    warnings: tuple[str, ...]


def stats(engine: Engine) -> Stats:
    """Count; costs the slots and the number of versions and names."""
    size = engine.page_size
    block = engine.arena.superblock
    disk = os.statvfs(engine.path)
    disk_free = disk.f_bavail * disk.f_frsize
    with engine.read() as (records, nodes):
        meta = records.meta
        pins = pinned(engine, meta.next_version)
        waiting = unkept(records)
        free, reserved = _free_slots(records)
        return Stats(
            format=FORMAT_VERSION,
            store_id=block.store_id.hex(),
            created=utc(block.created),
            page_size=size,
            history="all" if meta.keep_all else "named",
            versions=records.count_versions(),
            snapshots=records.count(SNAPSHOT),
            branches=records.count(BRANCH),
            arena_bytes=engine.arena.slots * size,
            referred_bytes=(meta.slots - 1 - free - reserved) * size,
            free_bytes=free * size,
            reserved_bytes=reserved * size,
            unkept_bytes=len(would_free(records, nodes, set(waiting))[1]) * size,
            catalog_bytes=engine.catalog.size,
            catalog_used_bytes=engine.catalog.used,
            disk_bytes=_disk_bytes(engine),
            disk_free_bytes=disk_free,
            pins=pins,
            warnings=(
                *_of_pins(pins, waiting),
                *_of_disk(disk_free, disk.f_blocks * disk.f_frsize),
            ),
        )


def _free_slots(records: Transaction) -> tuple[int, int]:
    """How many slots are free, and how many reserved."""
    slots = records.meta.slots
    free, _, _ = load(records, slots)
    held = [expand_runs(unpack_runs(raw, 1)[0], slots) for _, raw in records.scan(RESERVED)]
    return int(np.count_nonzero(free)), sum(map(len, held))


def _disk_bytes(engine: Engine) -> int:
    total = 0
    for name in (ARENA, CATALOG, f"{CATALOG}-lock", PINS, BALLAST):
        with contextlib.suppress(OSError):
            total += os.stat(f"{engine.path}/{name}").st_blocks * 512
    return total


def pinned(engine: Engine, versions: int) -> tuple[Pinned, ...]:
    """Every pin that the kernel tells of, on versions with ids below `versions`."""
    found = {
        (version, lock.process)
        for lock in lockers.locks(engine.pins.fd, PINS)
        if not lock.exclusive
        for version in range(max(lock.first, 1), min(lock.last + 1, versions))
    }
    who = {p: (lockers.command(p), lockers.started(p)) for _, p in found if p is not None}
    ordered = sorted(found, key=lambda pin: (pin[0], pin[1] or 0))
    return tuple(
        Pinned(version, process, *(who[process] if process is not None else ("", None)))
        for version, process in ordered
    )


def _of_pins(pins: tuple[Pinned, ...], waiting: list[VersionId]) -> Iterator[str]:
    """Pins that alone keep a version, of processes that have run for long."""
    now = datetime.now(UTC)
    for pin in pins:
        start = pin.process_started
        if pin.version in waiting and start is not None and now - start > OLD_PIN:
            yield (
                f"version {pin.version} is kept only by a pin of process {pin.process} "
                f"({pin.command[:60]}), which runs since {start:%Y-%m-%d %H:%M} UTC"
            )


def _of_disk(free: int, total: int) -> list[str]:
    if free >= LITTLE_LEFT * total:
        return []
    return [f"the file system has {free / total:.1%} of its space left: {free >> 20} MiB"]
