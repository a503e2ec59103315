"""No memory: the address space of a process, or its control group, has an end.

Whatever cannot be had, the caller gets an error that can be handled, nothing is lost, and the
same step succeeds once there is memory.
"""

import contextlib
import ctypes
import errno
import gc
import json
import os
import resource
import shutil
import traceback
from collections import Counter
from typing import Any

import lmdb
import numpy as np
import pytest
from attrs import evolve

import pagestore
from pagestore import (
    BrokenError,
    FullError,
    draft,
    engine,
    kernel,
    wiring,
    workspace,
)
from pagestore.format import BRANCH, SNAPSHOT
from tests.damage import PAGE, assert_clean, directory_in_memory, in_child

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
            name: evolve(records.version(found.version), time=0).root()
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


@pytest.fixture(scope="module")
def course(tmp_path_factory):
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


def test_every_limit_on_address_space(course):
    """Works, or says what a caller can handle; with more memory the same step succeeds."""
    top, states = course
    failures, clean, points = Counter(), 0, 0
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


# ------------------------------------------------------------------ what such a failure left behind


def failing_once(monkeypatch, target, name, error=MemoryError, at=1):
    """Let a function fail at its next call (or a later one), and work from then on."""
    call, calls = getattr(target, name), []

    def failing(*args, **options):
        calls.append(1)
        if len(calls) == at:
            raise error("injected")
        return call(*args, **options)

    monkeypatch.setattr(target, name, failing)


@pytest.fixture
def rows(store):
    with store.begin() as ws:
        ws.create("a", (PAGES, PAGE))[:] = 1
    return store


@pytest.mark.parametrize("deleted", [False, True])
def test_a_live_view_whose_refresh_failed(rows, monkeypatch, deleted):
    """It is where it was, and the next refresh brings all of it to the head."""
    with rows.begin() as ws:
        ws.create("b", (PAGES, PAGE))[:] = 1
    live = rows.live()
    old, arrays = live.version.id, [live["a"], live["b"]]
    with rows.begin() as ws:
        ws["a"][:4:2] = 2
        ws["b"][:4:2] = 2
    with monkeypatch.context() as patch:
        failing_once(patch, kernel, "map_file", OSError, at=3)  # halfway through one of them
        with pytest.raises(FullError):
            live.refresh()
    assert live.version.id == old
    with rows.begin() as ws:
        ws["a"][2] = 3
        ws["b"][2] = 3
        if deleted:
            ws.delete("b")
        head = ws.commit()
    assert live.refresh()
    assert live.version.id == head.id
    assert arrays[0][:4, 0].tolist() == [2, 1, 3, 1]
    assert arrays[1][:4, 0].tolist() == ([1, 1, 1, 1] if deleted else [2, 1, 3, 1])
    assert not live.refresh()


def test_a_workspace_that_could_not_follow_its_commit(rows, monkeypatch):
    """The version is there; what stayed behind says so, and commits nothing."""
    ws = rows.begin()
    array = ws["a"]
    array[:] = 2
    ws.flush()
    failing_once(monkeypatch, draft, "lookup")
    with pytest.raises(BrokenError, match="is committed"):
        ws.snapshot("done")
    assert (rows.view("done")["a"] == 2).all()
    for use in (ws.commit, ws.flush, ws.rollback, ws.refresh, lambda: ws["a"]):
        with pytest.raises(BrokenError, match="begin another"):
            use()
    ws.close()
    rows.delete_snapshot("done")
    with rows.begin() as other:
        other["a"][:] = 3
    assert (array == 2).all()


def test_letting_go_of_memory_never_shows_anything_else(rows, monkeypatch):
    monkeypatch.setattr(workspace.Workspace, "_is_large", lambda self: True)
    ws = rows.begin()
    array = ws["a"]
    array[::2] = 2
    failing_once(monkeypatch, wiring.Wiring, "wire")
    with pytest.raises(BrokenError, match="is committed"):
        ws.commit()
    assert array[:4, 0].tolist() == [2, 1, 2, 1]
    ws.close()


def test_what_was_written_is_known_though_there_was_no_memory_for_it(rows, monkeypatch):
    ws = rows.begin()
    ws["a"][5] = 2
    failing_once(monkeypatch, draft, "_store_pages")
    with pytest.raises(MemoryError):
        ws.commit()
    ws.commit()
    assert (rows.view("main")["a"][5] == 2).all()
    ws.close()


def test_a_scan_whose_answer_found_no_memory(rows, monkeypatch):
    if rows._shared.tracker.name != "userfault":
        pytest.skip("the kernel does not track writes")
    ws = rows.begin()
    ws["a"][5] = 2
    failing_once(monkeypatch, kernel, "_joined")
    ws.commit()
    assert (rows.view("main")["a"][5] == 2).all()
    ws.close()
    rows._shared.tracker._exact = True  # it gave up, as it must


def test_a_rollback_that_failed(rows, monkeypatch):
    ws = rows.begin()
    ws["a"][:5] = 2
    ws.flush()
    ws["a"][9] = 2
    failing_once(monkeypatch, wiring.Wiring, "rewire")
    with pytest.raises(MemoryError):
        ws.rollback()
    ws.rollback()
    assert (ws["a"] == 1).all()
    version = rows.version("main").id
    assert ws.commit().id == version
    ws.close()


def test_growing_that_failed(rows, monkeypatch):
    """What was cut off stays cut off."""
    ws = rows.begin()
    old = ws["a"]
    ws.resize("a", (PAGES // 2, PAGE))
    old[PAGES // 2 :] = 7
    failing_once(monkeypatch, wiring.Wiring, "_map_each", OSError)
    with pytest.raises(FullError):
        ws.resize("a", (PAGES, PAGE))
    assert not ws.resize("a", (PAGES, PAGE))[PAGES // 2 :].any()
    ws.close()


def test_cutting_that_failed(rows, monkeypatch):
    """Nothing is cut, not even the rest of the last page."""
    ws = rows.begin()
    ws["a"][:] = 2
    failing_once(monkeypatch, wiring.Wiring, "_map_each", OSError)
    with pytest.raises(FullError):
        ws.resize("a", (PAGES * PAGE // 2 - 100,))
    assert (ws["a"] == 2).all()
    ws.close()


def test_a_commit_stands_whatever_comes_after_it(rows, monkeypatch):
    ws = rows.begin()
    for target, name in (
        (rows._shared.arena, "write_head"),
        (rows._shared.catalog, "_lengthen"),
        (rows._shared.dense, "repaint"),
    ):
        with monkeypatch.context() as patch:
            failing_once(patch, target, name)
            ws["a"][3] += 1
            version = ws.commit()
        assert rows.version("main").id == version.id
    assert (rows.view("main")["a"][3] == 4).all()
    ws.close()


def test_checksums_that_found_no_room(rows, monkeypatch):
    sums = rows._shared.sums
    slots = np.array([len(sums._sums) + 5000])
    failing_once(monkeypatch, np, "zeros", at=2)
    with pytest.raises(MemoryError):
        sums._make_room(slots)
    sums._make_room(slots)
    assert len(sums._sums) == len(sums._known) > slots[0]


def test_closing_without_memory(tmp_path, monkeypatch):
    """The seal is left out, and every file is closed."""
    before = len(os.listdir("/proc/self/fd"))
    store = pagestore.open(tmp_path / "s")
    with store.begin() as ws:
        ws.create("a", 10)
    failing_once(monkeypatch, engine, "seal_of")
    store.close()
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # what the tracker shares
    with pagestore.open(tmp_path / "s") as store:
        assert_clean(store)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (engine, "_examine_catalog"),
        (engine, "_open_catalog"),
        (engine, "_open_pins"),
        (engine.Engine, "_verify_identity"),
        (engine.Engine, "_restore_ballast"),
    ],
)
def test_opening_without_memory(tmp_path, monkeypatch, owner, name):
    pagestore.open(tmp_path / "s").close()
    before = len(os.listdir("/proc/self/fd"))
    failing_once(monkeypatch, owner, name)
    with pytest.raises(MemoryError):
        pagestore.open(tmp_path / "s")
    assert len(os.listdir("/proc/self/fd")) == before
    with pagestore.open(tmp_path / "s") as store:
        assert_clean(store)


class NoMemory:
    """An LMDB environment that finds none for its next transaction, or for its commit."""

    def __init__(self, env, where):
        self._env, self._where = env, where

    def __getattr__(self, name):
        return getattr(self._env, name)

    def begin(self, *args, **options):
        where, self._where = self._where, None
        if where == "begin":
            raise lmdb.MemoryError("injected")
        txn = self._env.begin(*args, **options)
        return NoMemoryForCommit(txn) if where == "commit" else txn


class NoMemoryForCommit:
    def __init__(self, txn):
        self._txn = txn

    def __getattr__(self, name):
        return getattr(self._txn, name)

    def commit(self):
        raise MemoryError("injected")


def test_lmdb_without_memory(rows):
    ws = rows.begin()
    ws["a"][:] = 2
    catalog = rows._shared.catalog
    env = catalog._env
    for use in (ws.commit, lambda: rows.version("main")):
        catalog._env = NoMemory(env, "begin")
        with pytest.raises(FullError, match="no memory"):
            use()
    ws.commit()
    assert (rows.view("main")["a"] == 2).all()
    ws.close()


def test_a_commit_that_was_not_even_called(rows):
    """The outcome counts as unknown, and LMDB's lock is not held any longer."""
    catalog = rows._shared.catalog
    env = catalog._env
    catalog._env = NoMemory(env, "commit")
    with pytest.raises(BrokenError) as caught:
        rows.snapshot("new")
    env.begin(write=True).abort()  # it would wait for ever
    assert "reopen" in str(caught.value)


def test_a_large_catalog_is_not_taken_for_a_damaged_one(tmp_path):
    with directory_in_memory() as top:
        path = top / "s"
        prepare(path)
        with lmdb.open(str(path / "catalog"), subdir=False, map_size=1 << 30) as env:
            for i in range(30):
                with env.begin(write=True) as txn:
                    txn.put(b"~junk%d" % i, bytes(10 << 20))

        def work():
            with headroom(290 << 20):
                try:
                    pagestore.open(path)
                except pagestore.PagestoreError as error:
                    return type(error).__name__
            return "opened"

        assert in_child(work) == "FullError"
