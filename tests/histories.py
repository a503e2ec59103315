"""Random histories for the tests that count: branches, deletions, resizes, moves, regions."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import numpy as np
from hypothesis import strategies as st

import pagestore
from pagestore.pagetable import expand, extents

REGIONS = ("x", "y", "z")

steps = st.lists(
    st.tuples(
        st.sampled_from((
            "write", "write", "write", "zero", "resize", "create", "drop region", "branch",
            "delete", "delete", "delete branch", "compact", "expire", "nothing",
        )),
        st.integers(0, 63), st.integers(1, 12), st.booleans(),
    ),
    max_size=24,
)  # fmt: skip


def live(
    store: pagestore.Store,
    steps: list[tuple[str, int, int, bool]],
    views: list[pagestore.SnapshotView] | None = None,
) -> None:
    """Go through the steps; what a store refuses is left out. Every third one adds to `views`."""
    with store.begin() as ws:
        ws.create("x", 24 * store.page_size)[:] = 1
    for i, (what, at, count, named) in enumerate(steps):
        branch = sorted(store.branches)[at % len(store.branches)]
        _whole(store, what, branch, i, at)
        if branch in store.branches:
            with store.begin(branch) as ws:
                _inside(store, ws, what, i, at, count)
                ws.snapshot(f"s{i}") if named else ws.commit(f"c{i}")
            if views is not None and i % 3 == 0:
                views.append(store.view(branch))


def _inside(store, ws, what, i, at, count):
    size, name = store.page_size, REGIONS[at % 3]
    if what == "create" and name not in ws.regions:
        ws.create(name, (count + 8) * size)[:] = i + 2
    elif name not in ws.regions:
        name = "x"
    if name not in ws.regions:
        return
    pages = ws.regions[name].nbytes // size
    if what in ("write", "zero") and pages:
        first = at % pages * size
        ws[name][first : first + count * size] = i % 250 + 1 if what == "write" else 0
    elif what == "resize":
        ws.resize(name, at * size)
    elif what == "drop region":
        ws.delete(name)


def _whole(store, what, branch, i, at):
    if what == "branch":
        refs = [*store.snapshots, *store.branches]
        store.create_branch(f"b{i}", at=refs[at % len(refs)])
    elif what == "delete" and store.snapshots:
        store.delete_snapshot(sorted(store.snapshots)[at % len(store.snapshots)])
    elif what == "delete branch" and branch != "main":
        store.delete_branch(branch)
    elif what == "compact":
        store.compact()
    elif what == "expire":
        store.expire(datetime.now(UTC))


def slots_of(store: pagestore.Store) -> dict[int, dict[str, np.ndarray]]:
    """Every kept version's regions, with the slot of each page: read whole, without cleverness."""
    with store._shared.read() as (records, nodes):
        return {
            record.id: {
                name: _painted(nodes, region, store.page_size)
                for name, region in record.regions.items()
            }
            for record in records.versions()
        }


def _painted(nodes, region, page_size):
    slots = np.zeros(-(-region.nbytes // page_size), np.int64)
    page, slot, _ = expand(extents(nodes, region.table))
    slots[page] = slot
    return slots


def referred(regions: dict[str, np.ndarray]) -> set[int]:
    """Slots that a version refers to."""
    return {slot for slots in regions.values() for slot in slots.tolist() if slot}


def delete_all(store: pagestore.Store, names: list[str]) -> None:
    """Delete names of either kind, in the order that a user would."""
    for name in names:
        if name in store.branches:
            store.delete_branch(name)
    snapshots = [name for name in names if name in store.snapshots]
    with contextlib.suppress(IndexError):
        store.delete_snapshot(snapshots[0], *snapshots[1:])
