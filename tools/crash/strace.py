"""Records a workload with strace, where there is no C compiler to build the shim with.

Gives the operations that the shim gives, in the order in which the calls returned. Where two calls
about one file were under way at once nobody can tell which took effect first: `UnsoundError`.
"""

from __future__ import annotations

import functools
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.crash import disk, rehearse, shim
from tools.crash.record import Op
from tools.crash.rehearse import Outcome, Record
from tools.crash.stage import SECONDS, marks_path
from tools.crash.strace_follow import FOLLOWED, Follower

_ROOT = Path(__file__).parents[2]
# Reads are followed for the position that they leave; their data, most of the output, is not.
_OPTIONS = [
    "-f",
    "-y",
    "-xx",
    "-v",
    "-s",
    "1000000000",
    "-e",
    "signal=none",
    "-e",
    "raw=read,readv",
]


@functools.cache
def missing() -> str | None:
    """Why strace cannot be used here; None if it can."""
    if shutil.which("strace") is None:
        return "there is no strace"
    tried = subprocess.run(
        ["strace", "-f", "-o", os.devnull, "true"], capture_output=True, check=False
    )
    return f"strace may not trace: {tried.stderr.decode()[:200]}" if tried.returncode else None


def record_with_strace(
    perform: Callable[[str, Path, Path], Outcome], workload: str, top: Path, log: Path
) -> Record:
    """Record a workload on the files that are below `top`, as `rehearse.record` does."""
    initial, inodes = disk.load(top), disk.inodes(top)
    ops = trace(perform, workload, top, log, record=(top, log))
    return rehearse.conclude(ops, initial, inodes, top)


def trace(work: Callable[..., Any], *args: Any, record: tuple[Path, Path]) -> list[Op]:
    """What `work(*args)` does, in a process of its own, to the files below the first of `record`.

    The second is a name for files beside it.
    """
    top, log = record
    follower = Follower(top, log, _ROOT)
    output = Path(f"{log}.strace")
    marks_path(log).touch()
    _run(output, pickle.dumps((work, args)))
    with output.open("rb") as lines:
        ops = list(follower.follow(lines))
    output.unlink()
    return ops


def _run(output: Path, job: bytes) -> None:
    traced = ",".join(f"?{name}" for name in FOLLOWED)  # ?: no machine has all of them
    strace = ["strace", *_OPTIONS, "-e", f"trace={traced}", "-o", str(output)]
    done = subprocess.run(
        [*strace, sys.executable, "-m", __name__, job.hex()],
        cwd=_ROOT,
        env={n: v for n, v in os.environ.items() if n != "LD_PRELOAD"} | shim.search_path(),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise AssertionError(done.stderr.decode())


def _main(job: str) -> None:
    signal.alarm(SECONDS)
    work, args = pickle.loads(bytes.fromhex(job))
    work(*args)


if __name__ == "__main__":
    _main(sys.argv[1])
