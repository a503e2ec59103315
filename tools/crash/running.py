"""Workloads one after another in a process of their own, while something else is done to them.

Each runs in a directory of its own, which stays until the next one has ended, and has its marks in
a file beside its log. A directory is durable before its marks are there.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import define

from tools.crash import workloads
from tools.crash.ledger import Known
from tools.crash.rehearse import Outcome
from tools.crash.stage import marks_path

Perform = Callable[[str, Path, Path], Outcome]
_PR_SET_PDEATHSIG = 1


@define
class Runs:
    """The workloads that run in another process, one after another; each has its marks."""

    logs: Path
    pid: int
    _newest: int = -1
    _ended: bool = False

    def _log(self, run: int) -> Path:
        return self.logs / str(run)

    def newest(self) -> int:
        """Number of the run that is under way; -1 before the first."""
        while marks_path(self._log(self._newest + 1)).exists():
            self._newest += 1
        return self._newest

    def workload(self, run: int) -> str:
        return self._log(run).read_text()

    def _marks(self, run: int) -> list[bytes]:
        raw = marks_path(self._log(run)).read_bytes()
        return raw.split(b"\n")[:-1]

    def said(self, run: int) -> int:
        return len(self._marks(run)) if run >= 0 else 0

    def known(self, run: int, after: int) -> list[Known | None]:
        """What was said in a run, when more than `after` was, or nothing more will be."""
        while len(self._marks(run)) <= after:
            if self.newest() > run or not self.alive():
                break
            time.sleep(0.001)
        return [Known.parse(mark.decode()) for mark in self._marks(run)]

    def alive(self) -> bool:
        if not self._ended:
            self._ended = os.waitpid(self.pid, os.WNOHANG)[0] != 0
        return not self._ended

    def error(self) -> str:
        path = self.logs / "error"
        return path.read_text() if self._ended and path.exists() else ""

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let them rest for the time of a block: there are seldom processors for two."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if not self._ended:
            os.waitpid(self.pid, 0)


@contextlib.contextmanager
def running(place: Path, work: Path, seed: float, perform: Perform) -> Iterator[Runs]:
    logs = Path(tempfile.mkdtemp(prefix="logs-", dir=work))
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        try:
            os.setpgid(0, 0)  # an interrupt is for the parent alone, which then ends us all
            die_with(parent)
            _run_all(place, logs, random.Random(seed), perform)
        except BaseException:
            (logs / "error").write_text(traceback.format_exc())
        finally:
            os._exit(0)
    with contextlib.suppress(OSError):  # whichever of both comes first
        os.setpgid(pid, pid)
    runs = Runs(logs, pid)
    try:
        yield runs
    finally:
        runs.stop()


def die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _run_all(place: Path, logs: Path, rng: random.Random, perform: Perform) -> None:
    for run in itertools.count():
        workload = rng.choice(workloads.FROM_NOTHING)
        top, log = place / str(run), logs / str(run)
        top.mkdir()
        _sync_directory(place)
        log.write_text(workload)
        marks_path(log).touch()  # from now on it is the newest
        _run_one(perform, workload, top, log)
        shutil.rmtree(place / str(run - 1), ignore_errors=True)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def _run_one(perform: Perform, workload: str, top: Path, log: Path) -> None:
    """Run a workload in a child: it changes the constants of its process."""
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        said = ""
        try:
            die_with(parent)
            said = perform(workload, top, log).broken
        except BaseException:
            said = traceback.format_exc()
        finally:
            if said:
                log.with_name("said").write_text(said)
            os._exit(bool(said))
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        raise AssertionError(f"{workload} died of signal {os.WTERMSIG(status)}")
    if status:
        raise AssertionError(f"{workload}: {log.with_name('said').read_text()}")
