"""How everything here is measured: turn by turn, medians, and what the process and disk show.

Owns: timing, rows of the result, the machine's warm-up. Knows nothing of stores.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from attrs import field, frozen

UNITS = {"ms": 1e3, "µs": 1e6, "KiB": 1 / 1024, "MiB": 1 / (1 << 20), "": 1.0}


@frozen
class Row:
    """One line of the result; values in seconds, bytes or plain numbers.

    Attributes
    ----------
    what : str
    value : float
        The median of what was measured.
    limit : float
        What it is compared with: measured in the same run, or given.
    target : float or None
        The greatest good ratio of the two; None: reported, not judged.
    unit : str
    note : str
    spread : tuple of float
        Quartiles of the value, then of the limit, where there are any.
    """

    what: str
    value: float
    limit: float
    target: float | None = 1.0
    unit: str = "ms"
    note: str = ""
    spread: tuple[float, ...] = field(factory=tuple)

    @property
    def ratio(self) -> float:
        return self.value / self.limit if self.limit else float("inf")

    @property
    def ok(self) -> bool | None:
        return None if self.target is None else self.ratio <= self.target


def compare(
    what: str,
    ours: Sequence[float],
    limit: Sequence[float],
    target: float | None,
    *,
    unit: str = "ms",
    note: str = "",
) -> Row:
    """A row from two samples that were taken turn by turn."""
    spread = (*_quartiles(ours), *_quartiles(limit))
    middle = statistics.median
    return Row(what, middle(ours), middle(limit), target, unit, note, spread)


def _quartiles(sample: Sequence[float]) -> tuple[float, float]:
    if len(sample) < 2:
        return sample[0], sample[0]
    low, _, high = statistics.quantiles(sample, n=4)
    return low, high


def seconds(act: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def interleave(
    n: int, *acts: Callable[[], float], least: int = 5, budget: float = 20.0
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


def repeat(
    n: int, act: Callable[[], float], *, least: int = 3, budget: float = 10.0
) -> list[float]:
    """The same for one act."""
    return interleave(n, act, least=least, budget=budget)[0]


# ----------------------------------------------------------------------------- the machine


def warm_up(nbytes: int) -> float:
    """Touch memory and free it: a guest's never-touched memory costs 12 µs a page at first."""

    def touch() -> None:
        with contextlib.closing(mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE)) as memory:
            for at in range(0, nbytes, mmap.PAGESIZE):
                memory[at] = 1

    return seconds(touch)


def file_system(path: Path) -> str:
    """Type of the file system that holds a path."""
    best, found = "", "?"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if path.resolve().is_relative_to(where) and len(where) >= len(best):
            best, found = where, kind
    return found


def allocated(path: Path) -> int:
    """Bytes that a file or a whole directory takes on the disk."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(f.stat().st_blocks * 512 for f in files if f.is_file())


def mappings() -> int:
    """How many kernel mappings this process has."""
    return Path("/proc/self/maps").read_bytes().count(b"\n")


# ------------------------------------------------------------------------------ the result


HEADER = f"{'what':56}{'measured':>14} {'limit':>14} {'ratio':>7}{'target':>8}"


def render(rows: Iterable[Row]) -> Iterator[str]:
    """The result as text, a line at a time."""
    for row in rows:
        value, limit = (_amount(x, row.unit) for x in (row.value, row.limit))
        target = "-" if row.target is None else f"{row.target:.2f}"
        verdict = {None: "", True: "ok", False: "NOT"}[row.ok]
        line = f"{row.what:56}{value:>14} {limit:>14} {row.ratio:7.2f}{target:>8}  {verdict}"
        yield line.rstrip()
        if row.note:
            yield f"    {row.note}"


def _amount(value: float, unit: str) -> str:
    value *= UNITS[unit]
    digits = 0 if not unit or value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f} {unit:3}"


def machine() -> str:
    """What was measured on."""
    system = os.uname()
    return f"{system.sysname} {system.release}, {system.machine}, {os.cpu_count()} processors"
