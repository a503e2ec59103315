"""What the tests that damage a store share: its contents, and processes that may die of it."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

import pagestore
from tools.damage.outcome import contents, survey, unnoticed, verdict
from tools.scratch import directory_in_memory

__all__ = [
    "PAGE",
    "TIMEOUT",
    "assert_clean",
    "assert_noticed",
    "become",
    "contents",
    "directory_in_memory",
    "in_child",
    "python",
    "small_store",
    "survey",
    "verdict",
]

PAGE = 4096
PR_SET_DUMPABLE = 4
TIMEOUT = 60


def assert_clean(store):
    findings = list(store.check(data=True))
    assert not findings, findings


def small_store(path, **options):
    """A store with a few versions, names, branches, regions, zeros and a freed slot or two."""
    with pagestore.open(path, **options) as store:
        with store.begin() as ws:
            ws.create("a", (2048,), "i8")[:] = np.arange(2048)
            ws.create("b", (3, 5000))[:] = 7
        store.snapshot("one", message="the first")
        with store.begin() as ws:
            ws["a"][::512] = -1
            ws["b"][1] = 0
        store.snapshot("two")
        store.create_branch("side", at="one")
        with store.begin("side") as ws:
            ws["a"][0] = 99
            ws.delete("b")
            ws.commit("on the side")
        for i in range(3):
            with store.begin() as ws:
                ws["a"][1024] = i
                ws.commit(f"step {i}")
        assert_clean(store)
        return contents(store)


def python(code, *args, timeout=TIMEOUT, **options):
    """Run code in an interpreter of its own; a signal that kills it is a failure."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code, *map(str, args)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **options,
    )
    assert done.returncode >= 0, f"killed by signal {-done.returncode}:\n{done.stderr}"
    return done


def become(uid):
    """Give up every privilege for those of another user."""
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    # a process that was always theirs could look at itself in /proc
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def in_child(work, seconds=20):
    """Run `work` in a forked child that may die; return its text, or "signal N"."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(read)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.alarm(seconds)
            with os.fdopen(write, "w") as pipe:
                pipe.write(work())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    status = os.waitpid(pid, 0)[1]
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else said


def assert_noticed(results):
    """Every result is "identical" or says what is wrong."""
    wrong = unnoticed(results)
    assert not wrong, str(wrong)[:2000]
