"""Plots."""

from __future__ import annotations

from pathlib import Path

from tools.bench.results import Results


def draw(results: Results, out: Path) -> None:
    pass
