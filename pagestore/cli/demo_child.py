"""The other processes of the demo: a writer that will be killed, and a reader that starts anew.

Each says what it does on standard output, one line for each step, flushed at once; that is all
the demo knows of them.
"""

import sys
import time
from contextlib import closing
from itertools import count

import numpy as np

import pagestore
from pagestore.cli.demo_market import correct, digest

BEGIN, ACKNOWLEDGED, HOLDS, DAMAGE = "begin", "acknowledged", "holds", "damage"


def write(path: str, branch: str, cells: int, seed: int) -> None:
    """Commit to `branch` until killed; say before each commit what it will hold."""
    rng = np.random.default_rng(seed)
    with pagestore.open(path, "r+") as store, closing(store.begin(branch)) as workspace:
        prices = workspace["prices"]
        for number in count(1):
            correct(prices, cells, rng)
            _say(BEGIN, number, digest(prices))
            start = time.perf_counter()
            workspace.commit(f"commit {number}")
            _say(ACKNOWLEDGED, number, time.perf_counter() - start)


def read(path: str) -> None:
    """Say what every name holds, then whatever `check` finds."""
    with pagestore.open(path, "r") as store:
        for name in (*store.snapshots, *store.branches):
            with store.view(name) as view:
                _say(HOLDS, name, digest(view["prices"]))
        for finding in store.check(data=True):
            _say(DAMAGE, finding.invariant, finding.where, finding.what)


def _say(*words: object) -> None:
    print(*words, sep="\t", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        read(sys.argv[2])
