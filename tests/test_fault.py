"""Injected failures of the disk: the store goes on correctly, or says that it must be reopened.

Whatever fails, reopening shows exactly what was acknowledged, give or take the step in flight.
"""

import errno
import math
import os
import resource
import shutil

import numpy as np
import pytest

import pagestore
from pagestore import BrokenError, CorruptionError, FullError
from pagestore.arena import FileIO
from tests.damage import PAGE, assert_clean, contents, directory_in_memory

PAGES = 20


class FaultyIO(FileIO):
    """Fails the n-th of the calls that a fault is about, once or from then on."""

    def __init__(self, at=None, *, on=(), error=None, once=True, short=None):
        self.at, self.on, self.error, self.once, self.short = at, on, error, once, short
        self.calls = 0
        self.syncs_after_failure = None

    def _due(self, call):
        if call not in self.on:
            return False
        self.calls += 1
        due = self.calls == self.at or (self.calls > self.at and not self.once)
        if call == "fdatasync":
            if self.syncs_after_failure is not None:
                self.syncs_after_failure += 1
            elif due:
                self.syncs_after_failure = 0
        return due

    def _fail(self, call):
        if self._due(call):
            raise OSError(self.error, os.strerror(self.error))

    def pread(self, fd, size, offset):
        self._fail("pread")
        return super().pread(fd, size, offset)

    def preadv(self, fd, vector, offset):
        self._fail("preadv")
        return super().preadv(fd, vector, offset)

    def pwrite(self, fd, data, offset):
        if self.short is not None:
            if self._due("pwrite"):
                data = data[: math.ceil(len(data) * self.short)]
                return super().pwrite(fd, data, offset) if len(data) else 0
        else:
            self._fail("pwrite")
        return super().pwrite(fd, data, offset)

    def fdatasync(self, fd):
        self._fail("fdatasync")
        super().fdatasync(fd)

    def allocate(self, fd, offset, size):
        self._fail("allocate")
        super().allocate(fd, offset, size)

    def punch(self, fd, offset, size):
        self._fail("punch")
        super().punch(fd, offset, size)


# ------------------------------------------------------------------------------------ the workload


def change(value, pages):
    def step(store, ws):
        ws["a"][pages, 0] = value
        ws.commit(f"change {value}")

    return step


def create(store, ws):
    if "b" not in ws:
        ws.create("b", (PAGES * 4, PAGE))
    ws["b"][:] = np.arange(PAGES * 4)[:, None] % 251
    ws.commit("create")


def flush(store, ws):
    ws["a"][::3, 1] = 77
    ws.flush()
    ws["a"][1::3, 1] = 78
    ws.flush()
    ws["a"][0, 1] = 79
    ws.commit("flush")


def cut(store, ws):
    ws.resize("b", (PAGES, PAGE))
    ws["b"][0] = 9
    ws.commit("cut")


STEPS = [
    change(1, slice(None)),
    create,
    lambda store, ws: store.snapshot("one"),
    change(2, slice(0, PAGES, 7)),
    flush,
    lambda store, ws: store.create_branch("side", at="one"),
    cut,
    lambda store, ws: store.delete_snapshot("one"),
    lambda store, ws: store.delete_branch("side"),
    change(3, slice(5, 15)),
    lambda store, ws: ws.snapshot("two"),
    lambda store, ws: store.compact(),
    change(4, slice(0, 3)),
]


def state(store):
    """Contents without what depends on the clock."""
    names, versions = contents(store)
    return names, {i: (parent, said, arrays) for i, (parent, _, said, arrays) in versions.items()}


def fresh(path):
    with pagestore.open(path) as store, store.begin() as ws:
        ws.create("a", (PAGES, PAGE))


@pytest.fixture
def memory_path():
    with directory_in_memory() as top:
        yield top


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """An empty store, and its state before the first step and after each."""
    top = tmp_path_factory.mktemp("course")
    fresh(top / "start")
    shutil.copytree(top / "start", top / "run")
    states = []
    with pagestore.open(top / "run") as store:
        states.append(state(store))
        with store.begin() as ws:
            for step in STEPS:
                step(store, ws)
                states.append(state(store))
        assert_clean(store)
    return top / "start", states


def run(path, io, states):
    """Take every step; return at which of them the store broke, or None."""
    with pagestore.open(path) as store:
        ws = store.begin()
        store._shared.arena.io = io
        for i, step in enumerate(STEPS):
            try:
                try:
                    step(store, ws)
                except FullError:
                    assert state(store) == states[i]
                    if not io.once:
                        io.on = ()  # room was made
                    step(store, ws)
            except BrokenError:
                io.on = tuple(c for c in io.on if c == "fdatasync")  # it must not be called
                broken(store, ws, states[i : i + 2])
                ws.close()
                return i
            if io.calls >= io.at:
                assert state(store) == states[i + 1]
        ws.close()
        assert_clean(store)
    return None


def broken(store, ws, allowed):
    """Writing is refused from now on, reading goes on."""
    for use in (
        ws.commit, ws.flush, lambda: store.snapshot("more"), lambda: store.delete_snapshot("two"),
        lambda: store.create_branch("more"),
    ):  # fmt: skip
        ws["a"][0, 0] ^= 1
        with pytest.raises(BrokenError, match="reopen"):
            use()
    assert state(store) in allowed
    assert_clean(store)
    view = store.view("main")
    assert view["a"].shape == (PAGES, PAGE)


def go_through(course, memory_path, **fault):
    """Fail at the first call, the second, ..., until the workload is over before the fault."""
    start, states = course
    outcomes = []
    for n in range(1, 1000):
        path = memory_path / str(n)
        shutil.copytree(start, path)
        io = FaultyIO(n, **fault)
        stopped = run(path, io, states)
        assert io.syncs_after_failure in (None, 0), "a sync was tried again after it had failed"
        with pagestore.open(path) as store:
            found = state(store)
            assert found in (states[-1:] if stopped is None else states[stopped : stopped + 2])
            assert_clean(store)
            with store.begin() as ws:
                ws["a"][:, 5] = n % 256
            assert_clean(store)
        shutil.rmtree(path)
        outcomes.append(stopped)
        if io.calls < n:
            return outcomes
    raise AssertionError("the workload never ran clean")


WRITES = ("pwrite", "allocate", "punch", "fdatasync")


@pytest.mark.parametrize("once", [True, False], ids=["once", "for ever"])
def test_io_errors(course, memory_path, once):
    outcomes = go_through(course, memory_path, on=WRITES, error=errno.EIO, once=once)
    assert len(outcomes) > 15
    assert outcomes[0] is not None
    assert outcomes[-1] is None


@pytest.mark.parametrize(
    ("error", "once"), [(errno.ENOSPC, True), (errno.EDQUOT, False)], ids=["once", "for ever"]
)
def test_no_space(course, memory_path, once, error):
    """Nothing is lost: the same step, once there is room, succeeds."""
    on = ("pwrite", "allocate", "punch")
    outcomes = go_through(course, memory_path, on=on, error=error, once=once)
    assert len(outcomes) > 10
    assert set(outcomes) == {None}


@pytest.mark.parametrize("once", [True, False], ids=["once", "for ever"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_failed_syncs(course, memory_path, once, error):
    outcomes = go_through(course, memory_path, on=("fdatasync",), error=error, once=once)
    assert len(outcomes) > 5
    assert None not in outcomes[:-1]


@pytest.mark.parametrize("once", [True, False], ids=["once", "for ever"])
def test_short_writes(course, memory_path, once):
    """A write that did a part of its work goes on with the rest."""
    outcomes = go_through(course, memory_path, on=("pwrite",), short=0.7, once=once)
    assert set(outcomes) == {None}


def test_writes_that_make_no_progress(course, memory_path):
    outcomes = go_through(course, memory_path, on=("pwrite",), short=0, once=False)
    assert None in outcomes
    assert outcomes[0] is not None


def test_unreadable_pages(course, memory_path):
    """Reading fails where it is tried, and only there."""
    path = memory_path / "store"
    shutil.copytree(course[0], path)
    with pagestore.open(path) as store:
        with store.begin() as ws:
            ws["a"][:] = 1
        store._shared.arena.io = FaultyIO(1, on=("pread",), error=errno.EIO)
        findings = list(store.check(data=True))
        assert len(findings) == 1
        assert "reading" in findings[0].what
        assert_clean(store)
    with pagestore.open(path, mapping="portable") as store:
        store._shared.arena.io = FaultyIO(1, on=("preadv",), error=errno.EIO)
        view = store.view("main")
        with pytest.raises(CorruptionError, match="reading"):
            view["a"]
        assert (view["a"] == 1).all()


class NotedIO(FileIO):
    """Notes what is called."""

    def __init__(self):
        self.calls = []

    def allocate(self, fd, offset, size):
        self.calls.append("allocate")
        super().allocate(fd, offset, size)

    def fdatasync(self, fd):
        self.calls.append("fdatasync")
        super().fdatasync(fd)


def test_the_length_of_the_arena_is_durable_before_a_slot_counts(memory_path):
    """Found by enumerating crashes: a reservation named slots that a crash could cut off."""
    with pagestore.open(memory_path / "store") as store:
        store._shared.arena.io = io = NotedIO()
        ws = store.begin()
        ws.create("a", (PAGES, PAGE))[:] = 1
        ws.flush()
        assert io.calls == ["allocate", "fdatasync"]
        ws.commit()
        assert io.calls == ["allocate", "fdatasync", "fdatasync"]
        ws.close()
        assert_clean(store)


def test_a_superblock_that_was_written_in_part(memory_path, monkeypatch):
    with monkeypatch.context() as patch:
        pwrite = os.pwrite
        patch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[: len(data) // 2], at))
        with pytest.raises(BrokenError):
            pagestore.open(memory_path / "store")
    assert list(memory_path.iterdir()) == []
    with pagestore.open(memory_path / "store") as store:
        assert_clean(store)


def test_a_limit_on_the_size_of_files(memory_path):
    """``ulimit -f`` is no room: nothing is lost, and the commit succeeds once it is lifted."""
    with pagestore.open(memory_path / "store") as store, store.begin() as ws:
        ws.create("a", (600, PAGE))[:] = 1
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
        try:
            with pytest.raises(FullError):
                ws.commit()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        ws.commit()
        assert (store.view("main")["a"] == 1).all()
        assert_clean(store)
