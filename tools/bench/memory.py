"""How much memory does an open view take before anything is read through it?"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.bench.harness import Row
from tools.bench.workload import FIRST, Bench

LIMIT = 10 << 20
CHILD = """
import json, sys
import pagestore

def look():
    lines = (line.split() for line in open("/proc/self/status"))
    return {line[0][:-1]: int(line[1]) * 1024 for line in lines if line[-1] == "kB"}

with pagestore.open(sys.argv[1]) as store:
    store.view("first").close()
    before = look()
    view = store.view(sys.argv[2])
    array = view["a"]
    after = look()
    print(json.dumps({key: after[key] - before[key] for key in ("RssAnon", "VmPTE", "VmRSS")}))
"""


def run(bench: Bench) -> Iterator[Row]:
    size = f"{bench.large >> 20:,} MiB"
    yield from _rows(bench.pristine(bench.large), FIRST, f"an unread view of {size}", 1.0)
    yield from _rows(bench.fragmented(), "s1000", "the same after 1,000 commits", None)


def _rows(path: Path, ref: str, what: str, target: float | None) -> Iterator[Row]:
    command = [sys.executable, "-c", CHILD, str(path), ref]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    private = found["RssAnon"] + found["VmPTE"]
    note = f"RssAnon {found['RssAnon'] >> 10:,} KiB, page tables {found['VmPTE'] >> 10:,} KiB"
    yield Row(f"private memory of {what}", private, LIMIT, target, "MiB", note)
    yield Row(f"resident memory of {what}", found["VmRSS"], LIMIT, target, "MiB")
