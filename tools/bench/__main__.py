"""`python -m tools.bench`: measure, print a table; judge only if asked."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from tools.bench import (
    breakdown,
    commits,
    diffs,
    history,
    memory,
    naming,
    scans,
    space,
    startup,
    views,
)
from tools.bench.harness import HEADER, Row, file_system, machine, render, warm_up
from tools.bench.workload import GIB, Bench

QUESTIONS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "naming": naming.run,
    "commits": commits.run,
    "views": views.run,
    "memory": memory.run,
    "scans": scans.run,
    "diffs": diffs.run,
    "space": space.run,
    "history": history.run,
    "startup": startup.run,
}


def main() -> int:
    options = _options()
    Path(options.dir).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="pagestore-bench-", dir=options.dir))
    begun = time.monotonic()
    try:
        _say(f"{machine()}; {file_system(folder)} at {folder}")
        touched = GIB if options.quick else 6 * GIB
        _say(f"touched and freed {touched >> 30} GiB in {warm_up(touched):.1f} s: a guest's fresh")
        _say("memory costs more at its first touch, and would be counted as the store's")
        bench = Bench(folder, options.quick)
        if options.profile:
            Path(options.profile).write_text("\n".join(breakdown.run(bench)) + "\n")
            return 0
        rows = _measure(bench, options.only or list(QUESTIONS))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _say(f"{time.monotonic() - begun:.0f} s in all")
    if options.json:
        text = json.dumps([_plain(row) for row in rows], indent=1)
        Path(options.json).write_text(text + "\n")
    return int(options.strict and any(row.ok is False for row in rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="64 MiB instead of 1 GiB")
    parser.add_argument("--only", action="append", choices=QUESTIONS, help="one question")
    parser.add_argument("--json", metavar="FILE", help="the result with quartiles")
    parser.add_argument("--dir", default=tempfile.gettempdir(), help="where to put the stores")
    parser.add_argument("--strict", action="store_true", help="fail when a target is missed")
    parser.add_argument("--profile", metavar="FILE", help="the steps of each operation instead")
    return parser.parse_args()


def _measure(bench: Bench, names: list[str]) -> list[Row]:
    rows: list[Row] = []
    print(HEADER, "-" * len(HEADER), sep="\n", flush=True)
    for name in names:
        start = time.monotonic()
        for row in QUESTIONS[name](bench):
            rows.append(row)
            print(*render([row]), sep="\n", flush=True)
        _say(f"{name}: {time.monotonic() - start:.0f} s")
    return rows


def _plain(row: Row) -> dict[str, object]:
    return {**attrs.asdict(row), "ratio": row.ratio, "ok": row.ok}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
