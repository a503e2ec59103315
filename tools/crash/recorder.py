"""Whatever can record here: the shim, or strace where there is no C compiler to build it with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from tools.crash import rehearse, shim, strace
from tools.crash.rehearse import Outcome, Record
from tools.crash.stage import stage

Perform = Callable[[str, Path, Path], Outcome]
Recorder = Callable[[Perform, str, Path, Path], Record]


def missing() -> str | None:
    """Why nothing can be recorded here; None if something can."""
    return None if shim.compiler() else strace.missing()


@contextlib.contextmanager
def recorder() -> Iterator[Recorder]:
    """What records ``perform(workload, top, log)``."""
    if shim.compiler() is None:
        yield strace.record_with_strace
        return
    with stage() as server:

        def record(perform: Perform, workload: str, top: Path, log: Path) -> Record:
            return rehearse.record(server, workload, top, log, perform=perform)[0]

        yield record
