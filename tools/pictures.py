"""Make the pictures of docs/report.md: ``python -m tools.pictures``; needs playwright and Chromium.

The store in them is made up: half a year of a price book, its ledger and its index, on a few
branches, with the clock turned back to when each commit would have been.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from unittest.mock import patch

import numpy as np
from playwright.sync_api import sync_playwright

import pagestore
from pagestore.cli.report.facts import collect
from pagestore.cli.report.page import page
from tools.scratch import directory_in_memory

PICTURES = Path(__file__).parent.parent / "docs" / "img"
PAGE = 4096
HOUR = 3600 * 10**9
START = 1_775_030_400 * 10**9  # 1 April 2026, 8:00 UTC
MESSAGES = ("trades of the day", "corrections", "trades of the day", "rebuild of the index")

STEPS: dict[Literal["light", "dark"], str] = {
    "light": "r.pick(r.find('main')); r.pick(r.find('close-jul-04'), 'b')",
    "dark": "r.pick(r.find('new-pricing'))",
}


class Clock:
    """Tells the time of the story."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


def fill(store: pagestore.Store, clock: Clock) -> None:
    """Half a year of commits."""
    chance = np.random.default_rng(11)
    with store.begin() as ws:
        ws.create("prices", (4800, 512), "f8")[:] = 100
        ws.create("ledger", (1600 * PAGE,), "u1")[: 40 * PAGE] = 1
        ws.create("index", (600, 512), "i8")[:520] = 7
        ws.commit("import of the old books")
    branches = {"main": 40}
    for number in range(150):
        clock.now += int(chance.exponential(28) * HOUR)
        branch = str(chance.choice([*branches, "main", "main"]))
        with store.begin(branch) as ws:
            spread = chance.normal(1200 + 16 * number, 260, chance.integers(20, 90)).astype(int)
            ws["prices"][spread % 4800] += chance.random()
            end = branches[branch]
            ws["ledger"][end * PAGE : (end + 6) * PAGE] = number % 250 + 1
            branches[branch] = min(end + 6, 1590)
            ws["index"][chance.integers(0, 560, 3)] += 1
            if number % 37 == 20:
                first = int(chance.integers(300, 3600))
                ws["prices"][first : first + 420] *= 1.01
            ws.commit(MESSAGES[number % 4])
        if number % 12 == 5:
            month = time.strftime("%b-%d", time.gmtime(clock.now / 10**9)).lower()
            store.snapshot(f"{'close' if branch == 'main' else branch}-{month}", at=branch)
        for at, name in ((35, "what-if"), (70, "audit-2026"), (95, "new-pricing")):
            if number == at:
                store.create_branch(name)
                branches[name] = branches["main"]


@contextmanager
def story() -> Iterator[bytes]:
    """The page of the store."""
    clock = Clock()
    with (
        directory_in_memory() as top,
        patch("time.time_ns", clock),
        pagestore.open(top / "market.ps", history="all") as store,
    ):
        fill(store, clock)
        facts = collect(store, [])
    facts["store"]["path"] = "/srv/data/market.ps"
    facts["store"]["made"] = clock.now // 10**6
    yield page(facts)


def main() -> None:
    with story() as html, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM") or shutil.which("chromium"),
            args=["--no-sandbox"] if os.geteuid() == 0 else [],
        )
        for scheme, steps in STEPS.items():
            shown = browser.new_page(
                viewport={"width": 1280, "height": 1010}, color_scheme=scheme, timezone_id="UTC"
            )
            shown.set_content(html.decode())
            shown.evaluate(f"() => {{ const r = pagestoreReport; {steps}; }}")
            shown.wait_for_timeout(300)
            shown.screenshot(path=PICTURES / f"report-{scheme}.png")
        browser.close()


if __name__ == "__main__":
    main()
