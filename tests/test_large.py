"""Regions whose page tables have several leaves: does every page come back?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import pagestore
from pagestore.format import LEAF_SPAN

PAGE = 4096
LEAVES = 5


def test_pages_on_both_sides_of_every_leaf(make_store: Callable[..., Any]) -> None:
    """Runs across the borders, in several versions, branched, cut, compacted and dropped."""
    store: pagestore.Store = make_store()
    rng = np.random.default_rng(5)
    borders = np.arange(LEAVES + 1) * LEAF_SPAN
    near = np.unique(np.clip(borders[:, None] + np.arange(-6, 6), 0, LEAVES * LEAF_SPAN - 1))
    expected: dict[str, dict[int, int]] = {}
    now: dict[int, int] = {}
    with store.begin() as ws:
        pages = ws.create("x", (LEAVES * LEAF_SPAN, PAGE), "u1")
        for turn in range(1, 9):
            for page in rng.choice(near, 20).tolist():
                count = int(rng.integers(1, 9))
                for p in range(page, min(page + count, len(pages))):
                    pages[p] = now[p] = turn
            if turn % 3 == 0:
                ws.flush()
            ws.snapshot(f"v{turn}")
            expected[f"v{turn}"] = dict(now)
    for name in ("v2", "v5", "v7"):
        store.delete_snapshot(name)
        del expected[name]
    store.compact()
    for name, wanted in expected.items():
        with store.view(name) as view:
            for page in near.tolist():
                found = np.unique(view["x"][page]).tolist()
                assert found == [wanted.get(page, 0)], (name, page)
    changed = {p for c in store.diff("v1", "v8") for p in range(c.start, c.stop)}
    a, b = expected["v1"], expected["v8"]
    assert changed == {p for p in a.keys() | b.keys() if a.get(p, 0) != b.get(p, 0)}
    store.create_branch("cut", at="v8")
    with store.begin("cut") as ws:
        ws.resize("x", (2 * LEAF_SPAN + 3, PAGE))
    with store.view("cut") as view:
        assert view["x"][2 * LEAF_SPAN + 2, 0] == now.get(2 * LEAF_SPAN + 2, 0)
