"""From a store to what the page shows: plain values, ready to be written as JSON.

Owns the names and meaning of everything in the page's data. Does not know how the page looks.

- C1  Versions are numbered from 0 in the order of their ids; an ancestor has a smaller number.
- C2  Regions are known by their place in one list (`regions`).
- C3  Numbers of pages are exact. Which pages they are is so too while it fits into the budget;
      beyond it, or for regions beyond `CELLS_MOST` pages, cells of 2**shift pages stand for them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pagestore
from pagestore.cli.output import printable
from pagestore.cli.report.regions import Regions
from pagestore.cli.report.returned import origins
from pagestore.cli.report.runs import Ints, cells, encoded, split
from pagestore.cli.report.sizes import Sizes

BUDGET = 3_000_000  # bytes of text for all sets of pages
BYTES_A_RUN = 3  # about what one takes, of two or three bytes in base64
CELLS_MOST = 1 << 22  # of a region: what a browser handles with ease

Json = dict[str, Any]


def collect(store: pagestore.Store, damaged: list[str]) -> Json:
    """Return what the page shows of a store; what cannot be read is described in `damaged`."""
    steps = store.lineage(damaged=damaged)
    index = {step.version.id: i for i, step in enumerate(steps)}
    parents = [index.get(step.version.parent or 0, -1) for step in steps]
    regions = Regions(steps, parents, store.page_size)
    shifts = _shifts(steps, regions)
    branches = _branches(store, damaged)
    return {
        "store": _store(store, index, damaged),
        "regions": [
            {"name": printable(name), "shift": shift}
            for name, shift in zip(regions.names, shifts, strict=True)
        ],
        "versions": _versions(store, steps, parents, regions, branches),
        "brought": list(_brought(steps, regions, shifts)),
        "layout": list(_layout(store, branches, damaged)),
        "damaged": [printable(text) for text in damaged],
    }


def _store(store: pagestore.Store, index: dict[int, int], damaged: list[str]) -> Json:
    facts: Json = {
        "name": printable(os.path.basename(store.path)),
        "path": printable(str(store.path)),
        "pageSize": store.page_size,
        "made": _milliseconds(datetime.now(UTC)),
        "pagestore": pagestore.__version__,
        "warnings": [],
        "pins": [],
    }
    try:
        found = store.stats()
    except pagestore.CorruptionError as error:
        damaged.append(f"space: {error}")
        return facts
    return facts | {
        "id": found.store_id,
        "created": _milliseconds(found.created),
        "history": found.history,
        "arena": found.arena_bytes,
        "referred": found.referred_bytes,
        "free": found.free_bytes,
        "catalog": found.catalog_bytes,
        "warnings": [printable(text) for text in found.warnings],
        "pins": [
            [index[pin.version], pin.process, printable(pin.command)]
            for pin in found.pins
            if pin.version in index
        ],
    }


def _branches(store: pagestore.Store, damaged: list[str]) -> set[str]:
    try:
        return set(store.branches)
    except pagestore.CorruptionError as error:
        damaged.append(f"branches: {error}")
        return set()


def _milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def _versions(
    store: pagestore.Store,
    steps: list[pagestore.Step],
    parents: list[int],
    regions: Regions,
    branches: set[str],
) -> Json:
    versions = [step.version for step in steps]
    sizes = Sizes(steps, parents, regions.of)
    return {
        "id": [v.id for v in versions],
        "parent": parents,
        "time": [_milliseconds(v.time) for v in versions],
        "message": [printable(v.message) for v in versions],
        "snapshots": [[printable(n) for n in v.names if n not in branches] for v in versions],
        "branches": [[printable(n) for n in v.names if n in branches] for v in versions],
        "notes": [_notes(store, v, branches) for v in versions],
        "regions": regions.changes,
        "referred": sizes.referred,
        "exclusive": sizes.exclusive,
        "new": sizes.new,
    }


def _notes(store: pagestore.Store, version: pagestore.Version, branches: set[str]) -> list[str]:
    """What was said when the version was named."""
    notes = []
    for name in version.names:
        if name not in branches:
            with suppress(pagestore.NotFoundError, pagestore.CorruptionError):
                notes.append(store.snapshots[name].message)
    return [printable(note) for note in notes if note and note != version.message]


def _shifts(steps: list[pagestore.Step], regions: Regions) -> list[int]:
    """How large a cell is in each region, as a power of two (C3)."""
    parts: list[list[Ints]] = [[] for _ in regions.names]
    for step in steps:
        for part in step.brought:
            parts[regions.place[part.region, part.number]].append(part.page)
    shifts = [max(0, ((pages - 1) // CELLS_MOST).bit_length()) for pages in regions.longest]
    for place, shift in enumerate(shifts):
        parts[place] = [cells(pages, shift) for pages in parts[place]]
    runs = [sum(len(split(pages)[0]) for pages in of_region) for of_region in parts]
    while sum(runs) * BYTES_A_RUN > BUDGET and max(runs) > 2 * len(steps):
        place = runs.index(max(runs))
        shifts[place] += 1
        parts[place] = [cells(pages, 1) for pages in parts[place]]
        runs[place] = sum(len(split(pages)[0]) for pages in parts[place])
    return shifts


def _brought(
    steps: list[pagestore.Step], regions: Regions, shifts: list[int]
) -> Iterator[list[list[Any]]]:
    """For each version: region, pages that are stored, zeros, and returned ones with their origin.

    Contents that were in the same place before have the number of the version that brought them
    first: so the script can tell that two versions do not differ there.
    """
    origin = origins(steps)
    for i, step in enumerate(steps):
        found = []
        for part in step.brought:
            place = regions.place[part.region, part.number]
            shift = shifts[place]
            stored, first = part.slot != 0, next(origin)
            returned = stored & (first != i)
            found.append(
                [place, encoded(cells(part.page, shift)), "", ""]
                if shift
                else [
                    place,
                    encoded(part.page[stored]),
                    encoded(part.page[~stored]),
                    encoded(part.page[returned], first[returned]),
                ]
            )
        yield found


def _layout(store: pagestore.Store, branches: set[str], damaged: list[str]) -> Iterator[Json]:
    """How the pages of each branch's head lie in the arena."""
    for branch in sorted(branches):
        try:
            regions = store.layout(branch)
        except pagestore.NotFoundError:  # deleted since
            continue
        except pagestore.CorruptionError as error:
            damaged.append(f"branch {branch!r}: {error}")
            continue
        for name, of in sorted(regions.items()):
            yield {
                "branch": printable(branch),
                "region": printable(name),
                "stored": of.stored_pages,
                "runs": of.runs,
            }
