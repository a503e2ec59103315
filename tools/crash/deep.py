"""Crashes after crashes: a state is recovered under the recorder, used, and crashes again.

Also disks that fail before they crash: a sync fails, and what it was to save may be lost.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from attrs import evolve

from tools.crash import disk, rehearse, workloads
from tools.crash.ledger import difference
from tools.crash.record import Kind
from tools.crash.rehearse import Record
from tools.crash.shim import Fault, Plan
from tools.crash.stage import Stage
from tools.crash.states import states


def second_records(
    stage: Stage, record: Record, seed: int, work: Path, stride: int
) -> Iterator[tuple[str, Record]]:
    """Recover every `stride`-th state of a record and commit twice: what is recorded then."""
    found = states(record.ops, record.initial, record.inodes, seed)
    for number, state in enumerate(found):
        if number % stride or None in record.allowed(state.said):
            continue
        top, log = fresh(work / "deep")
        shutil.rmtree(top)
        disk.store(state.tree, top)
        second, _ = rehearse.record(stage, workloads.recovery.__name__, top, log)
        start, wanted = second.known[0], record.allowed(state.said)
        if start is None or all(k and difference(start, k, record.ever) for k in wanted):
            raise AssertionError(f"state {number} was recovered to {start}")
        yield f"{number}: {state.words}", second


def failed_sync_records(
    stage: Stage, workload: str, record: Record, work: Path, stride: int = 1
) -> Iterator[tuple[Plan, Record]]:
    """Run a workload with its n-th sync failing, for every n; `record` is an undisturbed run."""
    for plan in _sync_plans(stride):
        top, log = fresh(work / "deep")
        failed, done = rehearse.record(stage, workload, top, log, plan)
        if done.counted < plan.at:
            return
        # ids count up alike in every run: what would have been next is known from the other
        yield plan, evolve(failed, known=record.known)


def _sync_plans(stride: int) -> Iterator[Plan]:
    at = 1
    while True:
        yield Plan(Fault.SYNC, at, error=5)
        at += stride


def fresh(work: Path) -> tuple[Path, Path]:
    """An empty directory to record in, and where the log may go."""
    shutil.rmtree(work, ignore_errors=True)
    (work / "top").mkdir(parents=True)
    return work / "top", work / "log"


def failing_point(record: Record) -> int:
    """Where the first sync failed."""
    return next(i for i, op in enumerate(record.ops) if op.kind is Kind.SYNC and op.error)
