"""Puts the states of a record on a disk, one by one, and has each judged in a child.

A child judges one state after another until one kills it; the next child goes on behind that one.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from attrs import define, field, frozen

import pagestore
from tools.crash import disk, workloads
from tools.crash.rehearse import STORE, Record
from tools.crash.states import State, states
from tools.crash.verdict import judge
from tools.scratch import directory_in_memory

SECONDS = 20  # for one state: then it hangs


@frozen
class Failure:
    """A state that is not what it must be.

    Attributes
    ----------
    number : int
        Of the state, in the order of `states`.
    what, words : str
        What is wrong with it, and what it is.
    """

    number: int
    what: str
    words: str


@define
class Report:
    """What came of a number of states."""

    states: int = 0
    failures: list[Failure] = field(factory=list)
    seconds: float = 0.0


@frozen
class Share:
    """Which of the states.

    Attributes
    ----------
    first, every : int
        Every `every`-th one, from the `first` on.
    most : int or None
        No more than that.
    since : int
        None of an earlier point.
    """

    first: int = 0
    every: int = 1
    most: int | None = None
    since: int = 0

    def of(self, record: Record, seed: int) -> Iterator[tuple[int, State]]:
        found = enumerate(states(record.ops, record.initial, record.inodes, seed))
        late = (numbered for numbered in found if numbered[1].point >= self.since)
        return islice(islice(late, self.first, None, self.every), self.most)


Check = Callable[[pagestore.Store], object]


def examine(
    record: Record,
    seed: int,
    share: Share | None = None,
    *,
    stop_at_first: bool = False,
    check: Check | None = None,
) -> Report:
    """Judge the states of a record; `check` is that of the program whose store it is."""
    report, start = Report(), time.monotonic()
    with directory_in_memory() as work:
        job = _Job(record, seed, share or Share(), work, check)
        while _one_child(job, report, stop_at_first):
            pass
    report.seconds = time.monotonic() - start
    return report


@frozen(eq=False)
class _Job:
    record: Record
    seed: int
    share: Share
    work: Path
    check: Check | None


def _one_child(job: _Job, report: Report, stop_at_first: bool) -> bool:
    """Judge from where the report ends; say whether more may follow."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(read)
            with os.fdopen(write, "wb", buffering=0) as say:
                _judge_all(job, report.states, say)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as lines:
        for line in lines:
            number, what, words = line.rstrip("\n").split("\t", 2)
            if what == "begins":
                begun = Failure(int(number), "", words)
                continue
            report.states += 1
            if what:
                report.failures.append(Failure(int(number), what, words))
                if stop_at_first:
                    os.kill(pid, signal.SIGKILL)
                    break
    status = os.waitpid(pid, 0)[1]
    if stop_at_first and report.failures:
        return False
    if os.WIFSIGNALED(status):
        report.states += 1
        what = f"died of signal {os.WTERMSIG(status)}"
        report.failures.append(Failure(begun.number, what, begun.words))
        return not stop_at_first
    return False


def _judge_all(job: _Job, done: int, say: BinaryIO) -> None:
    gc.freeze()
    faulthandler.disable()  # such a death is an answer
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    workloads.shrink()
    ever = job.record.ever
    for number, state in islice(job.share.of(job.record, job.seed), done, None):
        words = state.words.replace("\t", " ").replace("\n", " ")
        say.write(f"{number}\tbegins\t{words}\n".encode())
        signal.alarm(SECONDS)
        top = job.work / "state"
        shutil.rmtree(top, ignore_errors=True)
        disk.store(state.tree, top)
        try:
            allowed = job.record.allowed(state.said)
            what = judge(top / STORE, allowed, ever, number, job.check) or ""
        except BaseException as error:
            what = f"not of the tree: {error!r}"
        what = " ".join(what.split())
        say.write(f"{number}\t{what}\t{words}\n".encode())


def keep(record: Record, seed: int, number: int, target: Path) -> None:
    """Write one state's files to a directory, to be looked at."""
    for n, state in Share().of(record, seed):
        if n == number:
            target.mkdir(parents=True, exist_ok=True)
            disk.store(state.tree, target)
            (target / "what.txt").write_text(f"{state.words}\n{record.allowed(state.said)}\n")
            return
