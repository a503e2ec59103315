"""What is measured: one module a work item, each with a `TITLE` and a `run(bench)`."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from tools.bench.stores import Bench

MODULES = {
    "W1": "snapshots",
    "W2": "commits",
    "W3": "opening",
    "W4": "scans",
    "W5": "branches",
    "W6": "diffs",
    "W7": "deleting",
    "W8": "starting",
    "W9": "readers",
    "W10": "growth",
}


def title(work: str) -> str:
    found: str = importlib.import_module(f"{__name__}.{MODULES[work]}").TITLE
    return found


def find(work: str) -> Callable[[Bench], None]:
    """The function that measures a work item."""
    found: Callable[[Bench], None] = importlib.import_module(f"{__name__}.{MODULES[work]}").run
    return found
