"""A process with the shim in it, that forks a child for each job: recorded, and perhaps killed.

Starting Python and importing NumPy takes longer than most jobs; a fork does not.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from attrs import frozen

from tools.crash import shim
from tools.crash.shim import Plan

SECONDS = 120  # a job that takes longer hangs


@frozen
class Done:
    """How a job ended.

    Attributes
    ----------
    signal : int
        That it died of, or 0.
    result : object
        What the function returned.
    error : str
        Traceback of an exception that it raised.
    counted : int
        Operations that the planned fault could have met.
    """

    signal: int
    result: Any
    error: str
    counted: int


def marks_path(log: Path) -> Path:
    """File that is written to say something within the record."""
    return Path(f"{log}.marks")


class Stage:
    """This side: runs functions of importable modules in children of the server."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"from tools.crash.stage import serve; serve({theirs.fileno()})",
            ],
            env=shim.environment(),
            pass_fds=[theirs.fileno()],
            cwd=Path(__file__).parents[2],
        )
        theirs.close()
        self._pipe = Connection(ours.detach())

    def run(
        self,
        work: Callable[..., Any],
        *args: Any,
        record: tuple[Path, Path] | None = None,
        plan: Plan | None = None,
    ) -> Done:
        """Run `work(*args)` in a child.

        Parameters
        ----------
        record : tuple of Path, optional
            What it does below the first goes to the second, a log.
        plan : Plan, optional
            What is to fail of it.
        """
        self._pipe.send((work, args, record, plan or Plan()))
        done: Done = self._pipe.recv()
        return done

    def close(self) -> None:
        self._pipe.close()
        self._process.wait(10)


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """A server for the time of a block."""
    server = Stage()
    try:
        yield server
    finally:
        server.close()


def serve(descriptor: int) -> None:
    """Fork a child for each job that comes; the other end of the pipe says when it is over."""
    pipe, known = Connection(descriptor), shim.Shim()
    _warm_up()
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page that it looks at
    while True:
        try:
            work, args, record, plan = pipe.recv()
        except EOFError:
            return
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(read)
            pipe.close()
            _play(known, write, work, args, record, plan)
        os.close(write)
        with os.fdopen(read, "rb") as said:
            raw = said.read()
        status = os.waitpid(pid, 0)[1]
        died = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        result, error, counted = pickle.loads(raw) if raw else (None, "", 0)
        pipe.send(Done(died, result, error, counted))


def _play(
    known: shim.Shim,
    write: int,
    work: Callable[..., Any],
    args: tuple[Any, ...],
    record: tuple[Path, Path] | None,
    plan: Plan,
) -> None:
    result, error = None, ""
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(SECONDS)
        if record:
            marks_path(record[1]).touch()
            known.start(*record)
            known.plan(plan)
        try:
            result = work(*args)
        except BaseException:
            error = traceback.format_exc()
        counted = known.counted
        known.calm()
        with os.fdopen(write, "wb") as said:
            said.write(pickle.dumps((result, error, counted)))
    finally:
        os._exit(0)


def _warm_up() -> None:
    """Do everything once that is only done once a process."""
    import pagestore

    with tempfile.TemporaryDirectory() as top, pagestore.open(Path(top) / "warm") as store:
        with store.begin() as ws:
            ws.create("a", 5000)[:] = 1
        list(store.check(data=True))
        store.compact()
