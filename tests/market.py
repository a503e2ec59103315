"""A store for the tests of commands that look into one."""

from __future__ import annotations

import numpy as np

import pagestore

RECORD = np.dtype([("t", "<i8"), ("price", "<f4")])


def make(path):
    """Three days in a row, a branch from each of two of them, three regions."""
    with pagestore.open(path) as store:
        with store.begin() as ws:
            prices = ws.create("prices", (200, 512), "f8")
            prices[:150] = np.arange(150.0)[:, None]
            ws.create("notes", 90_000)[:3000] = 65
            ws.create("trades", 1000, RECORD)["price"] = 1.5
            ws.snapshot("monday", message="as delivered")
            for day, name in enumerate(("tuesday", "wednesday", "thursday")):
                prices[day * 40 : day * 40 + 8] = -day - 1.0
                ws.snapshot(name, message=f"corrections of {name}")
        store.create_branch("what-if", at="tuesday")
        with store.begin("what-if") as ws:
            ws["prices"][50:60] *= 2
            ws.commit("doubled")
        store.create_branch("audit", at="monday")
        with store.begin("audit") as ws:
            ws["notes"][:10] = 7
            ws["prices"][3, 5:7] = np.nan, 0.0
            ws.commit("audited")
        store.delete_snapshot("wednesday")
        assert list(store.check(data=True)) == []
