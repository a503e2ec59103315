"""Injected failures of the disk: the store goes on correctly, or says that it must be reopened.

Whatever fails, reopening shows exactly what was acknowledged, give or take the step in flight.
"""

import errno
import os
import shutil

import lmdb
import numpy as np
import pytest

import pagestore
from pagestore import BrokenError, CorruptionError, FullError
from pagestore.arena import FileIO
from tests.damage import PAGE, assert_clean, contents

PAGES = 40


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

    def pwrite(self, fd, data, offset):
        if self.short is not None:
            if self._due("pwrite"):
                data = data[: int(len(data) * self.short)]
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
        ws.create("b", (PAGES * 10, PAGE))
    ws["b"][:] = np.arange(PAGES * 10)[:, None] % 251
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
    change(3, slice(5, 30)),
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


def go_through(course, tmp_path, **fault):
    """Fail at the first call, the second, ..., until the workload is over before the fault."""
    start, states = course
    outcomes = []
    for n in range(1, 1000):
        path = tmp_path / str(n)
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
def test_io_errors(course, tmp_path, once):
    outcomes = go_through(course, tmp_path, on=WRITES, error=errno.EIO, once=once)
    assert len(outcomes) > 15
    assert outcomes[0] is not None
    assert outcomes[-1] is None


@pytest.mark.parametrize("once", [True, False], ids=["once", "for ever"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
def test_no_space(course, tmp_path, once, error):
    """Nothing is lost: the same step, once there is room, succeeds."""
    on = ("pwrite", "allocate", "punch")
    outcomes = go_through(course, tmp_path, on=on, error=error, once=once)
    assert len(outcomes) > 10
    assert set(outcomes) == {None}


@pytest.mark.parametrize("once", [True, False], ids=["once", "for ever"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_failed_syncs(course, tmp_path, once, error):
    outcomes = go_through(course, tmp_path, on=("fdatasync",), error=error, once=once)
    assert len(outcomes) > 5
    assert None not in outcomes[:-1]


@pytest.mark.parametrize("once", [True, False], ids=["once", "for ever"])
def test_short_writes(course, tmp_path, once):
    """A write that did a part of its work goes on with the rest."""
    outcomes = go_through(course, tmp_path, on=("pwrite",), short=0.7, once=once)
    assert set(outcomes) == {None}


def test_writes_that_make_no_progress(course, tmp_path):
    outcomes = go_through(course, tmp_path, on=("pwrite",), short=0, once=False)
    assert None in outcomes
    assert outcomes[0] is not None


def test_unreadable_pages(course, tmp_path):
    """Reading fails where it is tried, and only there."""
    path = tmp_path / "store"
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
        store._shared.arena.io = FaultyIO(1, on=("pread",), error=errno.EIO)
        view = store.view("main")
        with pytest.raises(CorruptionError, match="reading"):
            view["a"]
        assert (view["a"] == 1).all()


# --------------------------------------------------------------------------------------- LMDB


class FaultyTransaction:
    def __init__(self, txn, error, late):
        self._txn, self._error, self._late = txn, error, late

    def __getattr__(self, name):
        return getattr(self._txn, name)

    def commit(self):
        if self._late:
            self._txn.commit()
        else:
            self._txn.abort()
        raise self._error


class FaultyEnvironment:
    """Its next commit fails: before anything was written, or after all was."""

    def __init__(self, env, error, late):
        self._env, self._error, self._late = env, error, late

    def __getattr__(self, name):
        return getattr(self._env, name)

    def begin(self, *args, write=False, **options):
        txn = self._env.begin(*args, write=write, **options)
        return FaultyTransaction(txn, self._error, self._late) if write else txn


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", [lmdb.DiskError, lmdb.PanicError, lmdb.MapFullError, lmdb.Error])
@pytest.mark.parametrize("at", range(len(STEPS)))
def test_lmdbs_commit_fails(course, tmp_path, at, error, late):
    start, states = course
    path = tmp_path / "store"
    shutil.copytree(start, path)
    with pagestore.open(path) as store:
        ws = store.begin()
        for step in STEPS[:at]:
            step(store, ws)
        catalog = store._shared.catalog
        catalog._env = FaultyEnvironment(catalog._env, error("injected"), late)
        try:
            STEPS[at](store, ws)
        except BrokenError:
            ws["a"][0, 0] ^= 1
            for use in (ws.commit, ws.flush, lambda: store.snapshot("more")):
                with pytest.raises(BrokenError, match="reopen"):
                    use()
        else:
            assert STEPS[at] in (STEPS[10], STEPS[11])
        assert state(store) in states[at : at + 2]
        assert_clean(store)
        ws.close()
    with pagestore.open(path) as store:
        allowed = states[at : at + 2]
        assert state(store) in allowed
        assert_clean(store)
        with store.begin() as ws:
            ws["a"][:, 5] = 1
        assert_clean(store)


@pytest.mark.parametrize("error", [lmdb.MapFullError, lmdb.TxnFullError, lmdb.DiskError])
def test_lmdbs_put_fails(course, tmp_path, error, monkeypatch):
    """Before the commit nothing is unknown: what was done is undone, and can be done again."""
    start, states = course
    path = tmp_path / "store"
    shutil.copytree(start, path)
    with pagestore.open(path) as store, store.begin() as ws:
        from pagestore.catalog import Transaction

        for i in range(4):
            STEPS[i](store, ws)
        put, left = Transaction.put, 3

        def failing(self, key, payload):
            nonlocal left
            left -= 1
            if not left:
                raise error("injected")
            put(self, key, payload)

        monkeypatch.setattr(Transaction, "put", failing)
        ws["a"][:] = 9
        with pytest.raises(FullError if error is not lmdb.DiskError else BrokenError):
            ws.commit()
        assert state(store) == states[4]
        assert_clean(store)
        if error is not lmdb.DiskError:
            ws.commit()
            assert (store.view("main")["a"] == 9).all()
        else:
            with pytest.raises(BrokenError):
                ws.commit()
            ws.close()


def test_a_failure_between_arena_and_catalog(course, tmp_path, monkeypatch):
    """Any exception there leaves the workspace with its changes, and the store as it was."""
    from pagestore import commit

    path = tmp_path / "store"
    shutil.copytree(course[0], path)
    with pagestore.open(path) as store, store.begin() as ws:
        ws["a"][:] = 5
        for name in ("drop_unkept", "check_conflicts", "differing"):
            with monkeypatch.context() as patch:

                def interrupted(*args, **options):
                    raise KeyboardInterrupt

                patch.setattr(commit, name, interrupted)
                try:
                    ws.commit()
                except KeyboardInterrupt:
                    pass
                else:
                    ws["a"][:] += 1
            assert_clean(store)
        ws.commit()
        assert (store.view("main")["a"] == ws["a"]).all()
        assert_clean(store)
