"""Each operation of a workload fails in its turn: with an error, short, or with the process.

Afterwards the process has gone on correctly or said `BrokenError`; and the store, opened again, is
what was acknowledged, or one step further.
"""

from __future__ import annotations

import errno
import itertools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import define, field, frozen

from tools.crash import rehearse
from tools.crash.ledger import Known
from tools.crash.rehearse import STORE, Outcome
from tools.crash.shim import Fault, Plan
from tools.crash.stage import Stage, marks_path
from tools.crash.verdict import judge

KILLS = (Plan(Fault.KILL_BEFORE), Plan(Fault.KILL_AFTER))
ERRORS = tuple(
    Plan(fault, forever=forever, error=error)
    for fault, error in (
        (Fault.ERROR, errno.EIO),
        (Fault.ERROR, errno.ENOSPC),
        (Fault.SHORT, 0),
        (Fault.SYNC, errno.EIO),
    )
    for forever in (False, True)
)


@frozen
class Wrong:
    """A point at which something was not as it must be."""

    plan: Plan
    what: str


@define
class Sweep:
    """What came of one fault at every point of a workload.

    Attributes
    ----------
    points : int
        At which the fault was met.
    broken, full, killed : int
        At how many of them the store broke, was full, or its process died.
    """

    points: int = 0
    broken: int = 0
    full: int = 0
    killed: int = 0
    wrong: list[Wrong] = field(factory=list)


def sweep(
    stage: Stage,
    workload: str,
    fault: Plan,
    known: Sequence[Known | None],
    work: Path,
    *,
    first: int = 1,
    stride: int = 1,
) -> Sweep:
    """Let a fault happen at operation `first`, then `stride` further, to the workload's end.

    Parameters
    ----------
    known : sequence of Known or None
        What the store holds after each step of an undisturbed run.
    work : Path
        An empty directory.
    """
    result = Sweep()
    for plan in _plans(fault, first, stride):
        met, wrong = _point(stage, workload, plan, known, work, result)
        if wrong:
            result.wrong.append(Wrong(plan, wrong))
        if not met:
            return result
        result.points += 1
    return result


def _plans(fault: Plan, first: int, stride: int) -> Iterator[Plan]:
    for at in itertools.count(first, stride):
        yield Plan(fault.fault, at, fault.forever, fault.error)


def _point(
    stage: Stage,
    workload: str,
    plan: Plan,
    known: Sequence[Known | None],
    work: Path,
    result: Sweep,
) -> tuple[bool, str | None]:
    """Whether the fault was met, and what was wrong then."""
    top, log = work / "top", work / "log"
    for path in (top, log, marks_path(log)):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    top.mkdir()
    done = stage.run(rehearse.perform, workload, top, log, record=(top, log), plan=plan)
    said = len(marks_path(log).read_bytes().splitlines())
    met = bool(done.signal) or done.counted >= plan.at
    if done.error:
        return met, done.error
    outcome: Outcome = done.result or Outcome()
    result.broken += bool(outcome.broken)
    result.full += outcome.full > 0
    result.killed += bool(done.signal)
    ended = not (outcome.broken or done.signal)
    if ended and said != len(known):
        return met, f"it ended after {said} of {len(known)} steps"
    allowed = list(known[max(0, said - 1) : said + 1])
    ever = {v: c for k in known if k for v, c in k.versions.items()}
    judged = stage.run(judge, top / STORE, allowed, ever, plan.at)
    if judged.signal or judged.error:
        return met, judged.error or f"opening it died of signal {judged.signal}"
    complaint: str | None = judged.result
    return met, complaint
