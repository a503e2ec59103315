"""Who holds locks on a file, as ``/proc`` tells it.

Owns: reading ``/proc/locks`` and the ``lock:`` lines of ``/proc/PID/fdinfo``. A lock of an open
file description belongs to no process, and what a process has open is shown only to those who may
look into it. So a lock may be known and its process not. Does not know what a byte means.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


class Lock(NamedTuple):
    """A lock on some bytes of a file; who may hold it is not always told."""

    first: int
    last: int
    exclusive: bool
    process: int | None


def locks(fd: int, name: str) -> list[Lock]:
    """Return the locks on an open file, on which the caller has one; `name` is its last part.

    A lock that several processes have inherited is listed for each.
    """
    own = list(_lines(PROC / "self/fdinfo" / str(fd)))
    if not own:
        return []
    file = own[0].split()[5]
    known: set[Lock] = set()
    for process in _processes():
        for info in _descriptors(process, name):
            known.update(_parsed(_lines(info), file, process))
    seen = {lock[:3] for lock in known}
    unknown = {lock for lock in _parsed(_all_lines(), file, None) if lock[:3] not in seen}
    return sorted(known | unknown, key=lambda lock: (lock[:3], lock.process or 0))


def _lines(info: Path) -> Iterator[str]:
    """Locks of one file descriptor, as /proc/locks has them."""
    with contextlib.suppress(OSError):
        for line in info.read_text().splitlines():
            if line.startswith("lock:"):
                yield line.removeprefix("lock:").strip()


def _all_lines() -> Iterator[str]:
    with contextlib.suppress(OSError):
        yield from (PROC / "locks").read_text().splitlines()


def _parsed(lines: Iterator[str], file: str, process: int | None) -> Iterator[Lock]:
    for line in lines:
        words = line.split()  # number, class, kind, mode, process, device and inode, first, last
        if len(words) == 8 and words[5] == file:  # one that waits has an arrow more
            last = (1 << 63) - 1 if words[7] == "EOF" else int(words[7])
            yield Lock(int(words[6]), last, words[3] == "WRITE", process)


def _processes() -> Iterator[int]:
    with contextlib.suppress(OSError):
        yield from (int(entry) for entry in os.listdir(PROC) if entry.isdecimal())


def _descriptors(process: int, name: str) -> Iterator[Path]:
    """Descriptors of a process that may be the file: their names end alike."""
    with contextlib.suppress(OSError):  # gone, or not ours to look into
        for fd in os.listdir(PROC / str(process) / "fd"):
            with contextlib.suppress(OSError):
                path = os.readlink(PROC / str(process) / "fd" / fd)
                if path.removesuffix(" (deleted)").endswith(f"/{name}"):
                    yield PROC / str(process) / "fdinfo" / fd


def command(process: int) -> str:
    """Return the command line of a process; empty where it is not told."""
    with contextlib.suppress(OSError):
        raw = (PROC / str(process) / "cmdline").read_bytes()
        return raw.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    return ""


def started(process: int) -> datetime | None:
    """When a process was started; None where that is not told."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        stat = (PROC / str(process) / "stat").read_text()
        ticks = int(stat.rpartition(")")[2].split()[19])  # the name may have spaces and brackets
        for line in (PROC / "stat").read_text().splitlines():
            if line.startswith("btime "):
                boot = datetime.fromtimestamp(int(line.split()[1]), UTC)
                return boot + timedelta(seconds=ticks / os.sysconf("SC_CLK_TCK"))
    return None
