"""How everything here is timed: turn by turn, until there is enough or the time is over.

Owns: timing, the machine and its warm-up. Knows nothing of peers.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SHORT = 1e-3  # seconds: a sync of one page that waits for nothing else


def seconds(act: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def interleave(
    n: int, *acts: Callable[[], float], least: int = 3, budget: float = 20.0
) -> list[list[float]]:
    """Let several acts, each of which says how long it took, take turns (A B, B A, A B, ...).

    Stops after `n` rounds, or once `budget` seconds are over and `least` rounds are done.
    """
    taken: list[list[float]] = [[] for _ in acts]
    end = time.perf_counter() + budget
    for turn in range(n):
        if turn >= least and time.perf_counter() > end:
            break
        order = list(zip(acts, taken, strict=True))
        for act, times in order if turn % 2 == 0 else order[::-1]:
            times.append(act())
    return taken


# ----------------------------------------------------------------------------- the machine


def warm_up(nbytes: int) -> float:
    """Touch memory and free it: a guest's never-touched memory costs 12 µs a page at first."""

    def touch() -> None:
        with contextlib.closing(mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE)) as memory:
            for at in range(0, nbytes, mmap.PAGESIZE):
                memory[at] = 1

    return seconds(touch)


def settle(folder: Path, most: float) -> None:
    """Wait until syncs are short: a disk is busy for a while after a large load."""
    end, short = time.monotonic() + most, 0
    with tempfile.TemporaryFile(dir=folder) as file:
        while short < 20 and time.monotonic() < end:
            file.seek(0)
            file.write(bytes(mmap.PAGESIZE))
            file.flush()
            took = seconds(lambda: os.fdatasync(file.fileno()))
            short = short + 1 if took < SHORT else 0
            time.sleep(0.02)


def machine(folder: Path) -> dict[str, str]:
    """What is measured on."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    system = os.uname()
    return {
        "processors": f"{os.cpu_count()} ({_processor()}, {system.machine})",
        "memory": f"{memory:.0f} GiB",
        "system": f"{system.sysname} {system.release}",
        "file system": _file_system(folder),
        "Python": platform.python_version(),
        "load at the start": f"{os.getloadavg()[0]:.2f}",
        "time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown"


def _file_system(path: Path) -> str:
    best, found = "", "?"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if path.resolve().is_relative_to(where) and len(where) >= len(best):
            best, found = where, kind
    return found


def unmount_below(folder: Path) -> None:
    """Unmount what a peer that was stopped had mounted in its folder."""
    for line in Path("/proc/mounts").read_text().splitlines():
        where = line.split()[1]
        if Path(where).is_relative_to(folder):
            subprocess.run(["umount", "-l", where], check=False)
