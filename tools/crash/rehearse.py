"""Runs a workload in a recorded process, once and to its end, and checks the record itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, frozen

from pagestore import BrokenError
from tools.crash import disk, workloads
from tools.crash.course import Course
from tools.crash.disk import Tree
from tools.crash.ledger import Known
from tools.crash.record import Kind, Op, UnsoundError, check_sound, read_log
from tools.crash.shim import Plan, Shim
from tools.crash.stage import Done, Stage, marks_path

STORE = "store"


@frozen(eq=False)
class Record:
    """A recorded run: from which files, what was done, what was acknowledged.

    Attributes
    ----------
    known : list of Known or None
        What the store holds after each mark; None: there is no store.
    """

    ops: Sequence[Op]
    initial: Tree
    inodes: Mapping[str, int]
    known: Sequence[Known | None]

    def allowed(self, said: int) -> list[Known | None]:
        """What a store may hold when that many marks were made: that, or one step more."""
        return list(self.known[max(0, said - 1) : said + 1])

    @property
    def ever(self) -> dict[int, str]:
        """Contents of every version that was acknowledged."""
        return {v: c for known in self.known if known for v, c in known.versions.items()}


@define
class Outcome:
    """How far a workload came.

    Attributes
    ----------
    broken : str
        What `BrokenError` said, or "".
    full : int
        How often a step found no room, and was done again.
    """

    broken: str = ""
    full: int = 0


def marker(path: Path) -> Callable[[str], None]:
    """What writes a line into the record."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def mark(text: str) -> None:
        os.write(fd, text.encode() + b"\n")

    return mark


def perform(workload: str, top: Path, log: Path) -> Outcome:
    """Do a workload; in a process of the stage. It may find a full disk, or a broken one."""
    faults = Shim() if "LD_PRELOAD" in os.environ else None

    def make_room() -> None:
        if faults:
            faults.calm()

    if workload not in workloads.AS_SHIPPED:
        workloads.shrink()
    course = Course(top / STORE, marker(marks_path(log)), make_room)
    try:
        workloads.find(workload)(course)
    except BrokenError as error:
        make_room()  # the disk is well again; the store must not believe it
        _stay_broken(course)
        return Outcome(str(error), course.full)
    return Outcome("", course.full)


def _stay_broken(course: Course) -> None:
    """What failed once must go on failing, until the store is opened again.

    Reading goes on, unless it was LMDB's meta page that could not be written: then it says so.
    """
    store: Any = getattr(course, "store", None)
    if store is None or store._closed:
        return
    for change in (store.snapshot, store.create_branch):
        try:
            change("never")
        except BrokenError:
            continue
        raise AssertionError("a broken store took a change")
    with contextlib.suppress(BrokenError), store.view("main") as view:
        for name in view:
            view[name].sum()


def record(
    stage: Stage,
    workload: str,
    top: Path,
    log: Path,
    plan: Plan | None = None,
    *,
    perform: Callable[..., Outcome] = perform,
    before: tuple[str, ...] = (),
) -> tuple[Record, Done]:
    """Record a workload on the files that are below `top`.

    `before` is what `perform` takes before the workload's name.
    """
    initial, inodes = disk.load(top), disk.inodes(top)
    done = stage.run(perform, *before, workload, top, log, record=(top, log), plan=plan)
    if done.error or done.signal:
        raise AssertionError(f"{workload}: {done.error or f'died of signal {done.signal}'}")
    return conclude(read_log(log), initial, inodes, top), done


def conclude(ops: Sequence[Op], initial: Tree, inodes: Mapping[str, int], top: Path) -> Record:
    """A record of what some recorder says was done; raise `UnsoundError` unless that is all."""
    check_sound(ops)
    known = [Known.parse(op.data.decode()) for op in ops if op.kind is Kind.MARK]
    result = Record(ops, initial, inodes, known)
    verify(result, top)
    return result


def verify(record: Record, top: Path) -> None:
    """Raise `UnsoundError` unless doing everything again gives the very files that are there."""
    replayed = disk.Disk(record.initial, record.inodes)
    for op in record.ops:
        replayed.apply(op)
    made, real = replayed.everything(), disk.load(top)
    if made.keys() != real.keys():
        raise UnsoundError(f"the replay has {sorted(made)}, the directory {sorted(real)}")
    for path, file in real.items():
        other = made[path]
        if path.endswith("-lock") or (file is None and other is None):
            continue
        if file is None or other is None or not file.same(other):
            raise UnsoundError(f"the replay of {path} is not what is there")
