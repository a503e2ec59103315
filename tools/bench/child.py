"""`python -m tools.bench.child`: one work item for some peers, in a process of its own."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from tools.bench import work
from tools.bench.stores import SCALES, Bench


def main() -> int:
    item, peers, folder, scale, out = sys.argv[1:]
    with Path(out).open("a") as file:
        bench = Bench(item, peers.split(","), Path(folder), SCALES[scale], file)
        try:
            work.find(item)(bench)
        except Exception as e:
            traceback.print_exc()
            bench.emit(bench.peers[0], "", "failed", note=f"{type(e).__name__}: {e}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
