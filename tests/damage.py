"""What the tests that damage a store share: its contents, and processes that may die of it."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import pagestore

PAGE = 4096
PR_SET_DUMPABLE = 4
TIMEOUT = 60


@contextlib.contextmanager
def directory_in_memory():
    """A directory where a sync costs nothing, if there is one: for what does not test the disk."""
    shm = "/dev/shm"
    top = tempfile.mkdtemp(dir=shm if os.access(shm, os.W_OK) else None)
    try:
        yield Path(top)
    finally:
        shutil.rmtree(top)


def contents(store):
    """Everything that a store says about itself, in values that compare."""
    versions = {}
    for ref in (*store.snapshots.values(), *store.branches.values()):
        for version in store.log(ref):
            if version.id not in versions:
                versions[version.id] = (
                    version.parent,
                    version.time,
                    version.message,
                    arrays(store, version),
                )
    names = [
        (kind, name, version.id, version.names)
        for kind, mapping in (("snapshot", store.snapshots), ("branch", store.branches))
        for name, version in mapping.items()
    ]
    return names, versions


def arrays(store, ref):
    """Dtype, shape and bytes of every region of a version."""
    with store.view(ref) as view:
        return {n: (str(a.dtype), a.shape, a.tobytes()) for n, a in view.items()}


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


def survey(count, look, seconds=20):
    """Call `look(i)` for each i below `count` in forked children; its text, or "signal N"."""
    results = []
    while len(results) < count:
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.close(read)
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                faulthandler.disable()  # such a death is an answer
                with os.fdopen(write, "w", buffering=1) as pipe:
                    for i in range(len(results), count):
                        signal.alarm(seconds)
                        pipe.write(look(i).replace("\n", " ") + "\n")
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            results += pipe.read().splitlines()
        status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status):
            results.append(f"signal {os.WTERMSIG(status)}")
    return results


def verdict(path, expected, mode="r"):
    """What opening, reading and checking a damaged store comes to."""
    try:
        with pagestore.open(path, mode) as store:
            found = contents(store)
            findings = list(store.check(data=True))
    except pagestore.PagestoreError as error:
        return f"{type(error).__name__}: {error}"
    except BaseException as error:
        return f"not of the tree: {error!r}"
    if findings:
        return f"finding: {findings[0]}"
    return "identical" if found == expected else f"other contents: {found}"


ACCEPTED = ("identical", "finding: ", "CorruptionError: ", "FormatError: ", "NotFoundError: ")


def assert_noticed(results):
    """Every result is "identical" or says what is wrong."""
    wrong = [(i, r) for i, r in enumerate(results) if not r.startswith(ACCEPTED)]
    assert not wrong, str(wrong)[:2000]
