"""A small store with a long life: versions, branches, names that moved, pages used again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

import pagestore
from pagestore.directory import ARENA, CATALOG
from tools.damage.patches import PAGE, Files, Life

WIDE = (1 << 30) + 8 * PAGE  # bytes: more than one leaf of a page table spans
NAMES = 8
TIMES = 9  # LMDB uses a page again after two transactions
NOTE = "a message that fills the catalog's pages, " * 12


def live(path: Path) -> Life:
    """Make the store, with copies of its files taken at every turn of its life."""
    moments: list[Files] = []
    for step in (_begin, _branch, *_rounds(6), _name, *[_rename] * TIMES):
        with pagestore.open(path) as store:
            step(store)
        moments.append({name: (path / name).read_bytes() for name in (ARENA, CATALOG)})
    return Life(moments)


def _begin(store: pagestore.Store) -> None:
    with store.begin() as ws:
        ws.create("a", (2048,), "i8")[:] = np.arange(2048)
        ws.create("fields", 4, np.dtype([("x", "<f8"), ("y", "<i4", (2,))]))["x"] = 1.5
        ws.create("wide", WIDE)[-1] = 9
    store.snapshot("one", message="the first")


def _branch(store: pagestore.Store) -> None:
    store.create_branch("side", at="one")
    with store.begin("side") as ws:
        ws["a"][0] = 99
        ws.delete("fields")
        ws.delete("wide")
        ws.commit("on the side")


def _rounds(count: int) -> list[Callable[[pagestore.Store], None]]:
    """Commits whose snapshots live for one round: pages are freed and used again."""

    def go(store: pagestore.Store, i: int) -> None:
        with store.begin() as ws:
            ws["a"][512 * (i % 4)] = -i
            ws["fields"]["x"] = i
            if i == 2:
                ws["wide"][PAGE] = i
            ws.commit(f"round {i}")
        store.snapshot(f"round {i}", message=NOTE)
        if i:
            store.delete_snapshot(f"round {i - 1}")

    return [lambda store, i=i: go(store, i) for i in range(count)]  # type: ignore[misc]


def _name(store: pagestore.Store) -> None:
    for i in range(NAMES):
        store.snapshot(f"name {i}", at="one" if i % 2 else "main", message=NOTE)


def _rename(store: pagestore.Store) -> None:
    """As many names as before, one of them for another version."""
    at = "one" if store.version("name 3").id == store.version("main").id else "main"
    store.delete_snapshot("name 3")
    store.snapshot("name 3", at=at, message=NOTE)
