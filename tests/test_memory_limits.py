"""No memory: the address space of a process has an end, and the kernel refuses mappings.

Whatever cannot be had, the caller gets an error that can be handled, nothing is lost, and the
same step succeeds once there is memory.
"""

import contextlib
import ctypes
import errno
import gc
import json
import resource
import shutil
import traceback
from collections import Counter
from typing import Any

import numpy as np
import pytest

import pagestore
from pagestore import BrokenError, FullError, kernel, wiring
from pagestore.format import BRANCH, SNAPSHOT
from tests.damage import PAGE, assert_clean, directory_in_memory, in_child, python

PAGES = 80
FEW = 32  # extents that are mapped one by one: the region has more
ROWS = (np.arange(PAGES) % 251).astype("u1")
HANDLED = (FullError, BrokenError, MemoryError)
KIB = 1 << 10


# ------------------------------------------------------------------------------------ the workload


class Program:
    """A program that uses one store; every method is a step, and can be taken again."""

    def __init__(self, path, options):
        self.path, self.options = path, options
        self.store: Any = None
        self.ws: Any = None
        self.live: Any = None
        self.then: Any = None

    def open(self):
        self.store = pagestore.open(self.path, **self.options)

    def look(self):
        with self.store.view("old") as view:
            assert (view["a"][:, 0] == ROWS).all()

    def keep_looking(self):
        self.then = self.store.view("old")
        assert self.then["a"][5, 0] == 5

    def follow(self):
        self.live = self.store.live()
        assert self.live["a"].shape == (PAGES, PAGE)

    def begin(self):
        self.ws = self.store.begin()

    def hand_out(self):
        self.ws["a"]

    def change(self):
        self.ws["a"][::3, 1] = 7
        self.ws["a"][PAGES // 2 :, 2] = 8

    def commit(self):
        self.ws.commit("a note")

    def meanwhile(self):
        """Another workspace commits first: the next commit of this one is a rebase."""
        with self.store.begin() as other:
            other["a"][1 : PAGES // 2 : 3, 12] = self.ws.version.id

    def catch_up(self):
        self.ws.refresh()

    def create(self):
        if "b" not in self.ws:
            self.ws.create("b", (PAGES, PAGE))
        self.ws["b"][:] = ROWS[:, None]

    def flush(self):
        self.ws.flush()

    def change_again(self):
        self.ws.write("a", 5, b"written")
        self.ws["b"][::2, 9] = 9

    def snapshot(self):
        self.ws.snapshot("new")

    def name(self):
        self.store.snapshot("named", at="new")

    def branch(self):
        self.store.create_branch("side", at="old")

    def refresh(self):
        self.live.refresh()
        assert self.live["b"][4, 9] == 9

    def grow(self):
        self.ws.resize("b", (2 * PAGES, PAGE))
        self.ws["b"][PAGES:, 3] = 3

    def cut(self):
        self.ws.resize("b", (PAGES // 2, PAGE))

    def regret(self):
        self.ws["a"][:] = 99

    def rollback(self):
        self.ws.rollback()

    def list(self):
        assert [v.message for v in self.store.log()][-1] == ""
        assert len(list(self.store.diff("old", "new"))) > 2
        assert len(self.store.snapshots) > 1

    def delete(self):
        self.store.delete_snapshot("new")

    def count(self):
        assert self.store.stats().versions >= 2

    def compact(self):
        self.store.compact()

    def check(self):
        assert_clean(self.store)

    def look_again(self):
        assert (self.then["a"][:, 0] == ROWS).all()

    def stop(self):
        self.ws.close()
        self.live.close()
        self.then.close()

    def close(self):
        self.store.close()


STEPS = (  # noqa: SIM905
    "open look keep_looking follow begin hand_out change commit create flush change_again commit "
    "snapshot name branch refresh change_again flush cut commit grow flush meanwhile change commit "
    "flush regret flush rollback meanwhile catch_up change_again meanwhile flush catch_up list "
    "delete count check look_again stop compact check begin change_again commit close"
).split()


def state(store):
    """Names and what they stand for, by the hashes that `check` compares with the contents."""
    with store._shared.read() as (records, _):
        return {
            name: records.version(found.version)._replace(time=0).root()
            for kind in (SNAPSHOT, BRANCH)
            for name, found in records.names(kind)
        }


def prepare(path):
    with pagestore.open(path) as store:
        with store.begin() as ws:
            ws.create("a", (PAGES, PAGE))[:] = ROWS[:, None]
        for i in range(0, PAGES, 2):
            with store.begin() as ws:
                ws["a"][i, 3000] = 1
        store.snapshot("old")


@contextlib.contextmanager
def a_course():
    """A store to start from, and its state after each step."""
    with directory_in_memory() as top, pytest.MonkeyPatch.context() as patch:
        patch.setattr(wiring, "FEW", FEW)
        prepare(top / "start")
        shutil.copytree(top / "start", top / "run")
        states = []
        program = Program(top / "run", {})
        for step in STEPS:
            getattr(program, step)()
            if step != "close":
                states.append(state(program.store))
        shutil.rmtree(top / "run")
        yield top, states


@pytest.fixture(scope="module")
def course():
    with a_course() as course:
        yield course


# ------------------------------------------------------------------------------- address space

_libc = ctypes.CDLL(None)
M_MMAP_THRESHOLD = -3


@contextlib.contextmanager
def headroom(nbytes):
    """Let this process have that much more address space than it has now."""
    gc.collect()
    # what was freed must not hide what is needed
    _libc.mallopt(M_MMAP_THRESHOLD, 1 << 14)
    _libc.malloc_trim(0)
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * PAGE
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def take_steps(path, options, states, limited, relieve=lambda: None):
    """Take every step within `limited()`, and what failed once more without.

    Returns the steps that failed and how, and the state that the store must be in.
    """
    program, outcomes = Program(path, options), []
    for i, step in enumerate(STEPS):
        try:
            with limited():
                getattr(program, step)()
            continue
        except HANDLED as error:
            outcomes.append(f"{step}: {type(error).__name__}")
            broken = isinstance(error, BrokenError)
        relieve()
        if program.store is not None and step != "close":
            assert state(program.store) in states[max(i - 1, 0) : i + 1 + broken], step
        if broken:
            program.stop()
            program.close()
            return outcomes, states[i : i + 2]
        getattr(program, step)()
    return outcomes, states[-1:]


def assert_as(path, allowed):
    with pagestore.open(path) as store:
        assert state(store) in allowed
        assert_clean(store)
        with store.begin() as ws:
            ws["a"][0, 0] = 1
        assert_clean(store)


def in_limits(path, options, nbytes, states):
    """What one amount of headroom comes to, as the text that a child says."""

    def work():
        gc.freeze()
        try:
            outcomes, allowed = take_steps(path, options, states, lambda: headroom(nbytes))
            assert_as(path, allowed)
        except BaseException:
            return traceback.format_exc()
        return json.dumps(outcomes)

    return in_child(work)


def amounts():
    """From nothing to more than a store needs, closer together where there is little."""
    yield 0
    nbytes = 32 * KIB
    while True:
        yield nbytes
        nbytes = int(nbytes * 1.15) // PAGE * PAGE


OPTIONS = [{}, {"tracking": "compare"}, {"mapping": "portable"}]


def sweep():
    """Try every amount until four in a row are enough; print what failed, and how often."""
    failures, clean, points = Counter(), 0, 0
    with a_course() as (top, states):
        for nbytes in amounts():
            path = top / "store"
            shutil.copytree(top / "start", path)
            said = in_limits(path, OPTIONS[points % 3], nbytes, states)
            assert said.startswith("["), f"{nbytes} bytes: {said}"
            with pagestore.open(path) as store:
                assert_clean(store)
            shutil.rmtree(path)
            outcomes = json.loads(said)
            failures.update(outcomes)
            points += 1
            clean = 0 if outcomes else clean + 1
            if clean == 4:
                break
    assert points >= 60
    print(json.dumps(failures))


def test_every_limit_on_address_space():
    """Works, or says what a caller can handle; with more memory the same step succeeds."""
    # in a process of its own: what other tests have freed would count as headroom
    done = python("from tests.test_memory_limits import sweep; sweep()")
    assert done.returncode == 0, done.stderr
    failures = json.loads(done.stdout)
    failed = {outcome.split(":")[0] for outcome in failures}
    assert failed >= {"open", "look", "hand_out", "commit", "flush", "compact", "check"}, failures


# --------------------------------------------------------------------------- refused mappings


class Refusals:
    """The kernel refuses the n-th mapping, alone or with every later one."""

    def __init__(self, monkeypatch, n, once):
        self.n, self.once, self.calls, self.relieved = n, once, 0, False
        for name in ("reserve", "map_file", "map_zero"):
            monkeypatch.setattr(kernel, name, self._counted(getattr(kernel, name)))

    def _counted(self, call):
        def counted(*args, **options):
            if not self.relieved:
                self.calls += 1
                if self.calls == self.n or (self.calls > self.n and not self.once):
                    raise OSError(errno.ENOMEM, "mmap: injected")
            return call(*args, **options)

        return counted

    def relieve(self):
        self.relieved = True


@pytest.mark.parametrize(
    ("options", "once"),
    [({}, True), ({"tracking": "compare"}, False), ({"mapping": "portable"}, True)],
)
def test_every_refused_mapping(course, options, once):
    """What a process may not map it copies, or says so; then the same step succeeds."""
    top, states = course
    failures = Counter()
    n, refused = 0, True
    while refused:
        n += 1 + n // 8
        path = top / "store"
        shutil.copytree(top / "start", path)
        with pytest.MonkeyPatch.context() as patch:
            refusals = Refusals(patch, n, once)
            outcomes, allowed = take_steps(
                path, options, states, contextlib.nullcontext, refusals.relieve
            )
        assert_as(path, allowed)
        shutil.rmtree(path)
        failures.update(outcomes)
        refused = refusals.calls >= n
    assert n > 10
    assert failures["look: FullError"] > 0
    assert sum(count for o, count in failures.items() if "FullError" not in o) == 0, failures
