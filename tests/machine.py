"""A state machine that does everything a workspace can do; `test_model` adds the rest."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from attrs import define, field
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import pagestore
from pagestore import ConflictError, NotFoundError
from tests.model import Conflict, Kept, Model, Region, Work
from tests.shrunk import STACKED, TALL, shrunk
from tests.worker import Worker

T = TypeVar("T")
NAMES = ("a", "b", "c")
DTYPES = ("u1", "u1", "i4", ">u2", "S3", "M8[s]", "<U2", [("x", "u1"), ("y", "<f4")], "f8")
MOST_BYTES = 40 << 12
MOST_OPEN = 3
WORDS = ("p", "q", "r", "s", "t", "u")

numbers = st.integers(0, 63)
sizes = st.integers(0, MOST_BYTES)
seeds = st.integers(0, 5)
hows = st.sampled_from(("array", "array", "write", "again", "pages"))
writes = st.tuples(numbers, sizes, st.integers(1, 9000), seeds, hows)


def pick(things: Sequence[T], number: int) -> T:
    return things[number % len(things)]


def flat(array: Any) -> np.ndarray[Any, Any]:
    """An array's bytes: the same memory."""
    found: np.ndarray[Any, Any] = array.reshape(-1).view(np.uint8)
    return found


def pattern(seed: int, size: int) -> np.ndarray[Any, Any]:
    return ((np.arange(size) * (2 * seed + 1) + seed) % 251 + (seed > 0)).astype(np.uint8) * (
        seed > 0
    )


def shape_for(dtype: Any, size: int, number: int) -> tuple[int, ...]:
    items = size // np.dtype(dtype).itemsize
    if number % 8 == 7 and items:
        return ()
    return (items // 2, 2) if number % 3 == 2 else (items,)


@define(eq=False)
class Held:
    """Arrays that must keep showing what they show, and pin a version meanwhile."""

    version: int
    arrays: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]

    def compare(self) -> None:
        for array, expected in self.arrays:
            assert np.array_equal(array, expected)


@define(eq=False)
class Space:
    """A workspace, its model, and arrays that are kept over commits."""

    ws: pagestore.Workspace
    work: Work
    arrays: list[tuple[str, int, np.ndarray[Any, Any]]] = field(factory=list)  # name, uid, bytes

    def compare(self) -> None:
        assert set(self.ws) == set(self.work.regions)
        for name, region in self.work.regions.items():
            mine = self.ws.regions[name]
            assert (mine.dtype, mine.shape) == (region.dtype, region.shape)
        for name, uid, array in self.arrays:
            region = self.work.regions[name]
            assert region.uid == uid
            size = min(region.nbytes, len(array))
            assert np.array_equal(array[:size], region.data[:size]), name


@define(eq=False)
class Live:
    view: pagestore.LiveView
    version: int
    arrays: list[tuple[str, np.ndarray[Any, Any]]] = field(factory=list)


class Machine(RuleBasedStateMachine):
    """Subclasses say how pages are tracked and mapped."""

    tracking = "auto"
    mapping = "auto"

    @initialize(
        tree=st.sampled_from((None, TALL, STACKED)),
        large_pages=st.booleans(),
        keep_all=st.sampled_from((False, False, False, True)),
    )
    def start(self, tree: dict[str, object] | None, large_pages: bool, keep_all: bool) -> None:
        self.stack = contextlib.ExitStack()
        if tree:
            self.stack.enter_context(shrunk(tree))
        self.tree = tree
        self.folder = tempfile.mkdtemp(prefix="pagestore-model-")
        self.options = {"tracking": self.tracking, "mapping": self.mapping}
        self.page_size = 16384 if large_pages else 4096
        self.store = pagestore.open(
            f"{self.folder}/s.ps", "x", page_size=self.page_size,
            history="all" if keep_all else "named", **self.options,
        )  # fmt: skip
        root = self.store.version("main")
        self.model = Model(keep_all, {root.id: Kept(None, {}, root.time, keep_all)})
        self.model.branches["main"] = root.id
        self.newest = root.id
        self.spaces: list[Space] = []
        self.views: list[tuple[pagestore.SnapshotView, Held]] = []
        self.lives: list[Live] = []
        self.held: list[Held] = []
        self.worker: Worker | None = None
        self.worker_view: tuple[int, dict[str, bytes]] | None = None
        self.worker_space: int | None = None
        for name, size in (("a", 21 << 12), ("b", 5000)):
            self.a_space(0).ws.create(name, size)
            self.a_space(0).work.create(name, Region.zeros("u1", (size,)))
        self.edit(0, [(i, i << 13, 9000, i % 5, "array") for i in range(11)], "snapshot")

    def teardown(self) -> None:
        if not hasattr(self, "stack"):
            return
        if self.worker:
            self.worker.kill()
        self.spaces, self.views, self.lives, self.held = [], [], [], []
        self.store.close()
        self.stack.close()
        shutil.rmtree(self.folder)

    # ------------------------------------------------------------------------------- the model

    def pinned(self, leaving: Space | None = None) -> list[int]:
        pins = [s.work.base for s in self.spaces if s is not leaving]
        pins += [held.version for _, held in self.views] + [live.version for live in self.lives]
        pins += [held.version for held in self.held]
        pins += [self.worker_view[0]] if self.worker_view else []
        return pins + ([self.worker_space] if self.worker_space is not None else [])

    def ref(self, number: int, how: int) -> tuple[Any, int]:
        """Some way to say some version."""
        version = pick(sorted(self.model.versions), number)
        names = sorted(self.model.names())
        if how % 4 == 0:
            return version, version
        if how % 4 == 1:
            return self.store.version(version), version
        name = pick(names, number)
        steps = how // 4 % 3
        found = self.model.ancestor(self.model.names()[name], steps)
        if found is None:
            return name, self.model.names()[name]
        return f"{name}~{steps}" if steps else name, found

    def fresh_name(self, number: int) -> str | None:
        free = [w for w in WORDS if w not in self.model.names()]
        return pick(free, number) if free else None

    def hold(self, version: int, arrays: list[tuple[Any, Any]]) -> None:
        if arrays:
            self.held.append(Held(version, arrays))

    def retire(self, space: Space, names: set[str]) -> None:
        """Arrays of regions that go away keep what they show, and the base."""
        gone = [(n, a) for n, _, a in space.arrays if n in names]
        space.arrays = [entry for entry in space.arrays if entry[0] not in names]
        shown = []
        for name, array in gone:
            expected, known = array.copy(), space.work.regions[name].data[: len(array)]
            expected[: len(known)] = known
            shown.append((array, expected))
        self.hold(space.work.base, shown)

    # ------------------------------------------------------------------------------ workspaces

    @precondition(lambda self: len(self.spaces) < MOST_OPEN)
    @rule(number=numbers)
    def begin(self, number: int) -> None:
        branch = pick(sorted(self.model.branches), number)
        ws = self.store.begin(branch)
        work = Work(branch, self.model.branches[branch], self.model.head(branch), self.page_size)
        self.spaces.append(Space(ws, work))

    def a_space(self, which: int) -> Space:
        if not self.spaces:
            self.begin(which)
        return pick(self.spaces, which)

    @rule(which=numbers, number=numbers, size=sizes, keep=st.booleans(), seed=seeds)
    def create(self, which: int, number: int, size: int, keep: bool, seed: int) -> None:
        space = self.a_space(which)
        name, dtype = pick(NAMES, number), pick(DTYPES, number)
        if name in space.work.regions:
            return
        shape = shape_for(dtype, size, number)
        array = space.ws.create(name, shape, dtype)
        space.work.create(name, Region.zeros(dtype, shape))
        assert not flat(array).any()
        if seed:
            flat(array)[:] = pattern(seed, array.nbytes)
            space.work.write(name, 0, pattern(seed, array.nbytes))
        if keep and array.nbytes:
            space.arrays.append((name, space.work.regions[name].uid, flat(array)))

    def some_region(self, which: int, number: int) -> tuple[Space, str] | None:
        space = self.a_space(which)
        names = sorted(n for n, r in space.work.regions.items() if r.nbytes)
        return (space, pick(names, number)) if names else None

    @rule(which=numbers, writes=st.lists(writes, min_size=1, max_size=8))
    def edit_and_commit(self, which: int, writes: list[tuple[int, int, int, int, str]]) -> None:
        self.edit(which, writes, "commit")

    @rule(which=numbers, writes=st.lists(writes, min_size=1, max_size=8),
          then=st.sampled_from(("commit", "snapshot", "nothing", "flush")))  # fmt: skip
    def edit(self, which: int, writes: list[tuple[int, int, int, int, str]], then: str) -> None:
        for number, at, size, seed, how in writes:
            self.write(which, number, at, size, seed, how)
        if then == "flush":
            self.a_space(which).ws.flush()
        elif then != "nothing":
            self.commit(which, 0 if then == "snapshot" else None)

    def write(self, which: int, number: int, at: int, size: int, seed: int, how: str) -> None:
        found = self.some_region(which, number)
        if not found:
            return
        (space, name), page = found, self.page_size
        region = space.work.regions[name]
        at %= region.nbytes
        if how == "pages":  # whole pages, often of zeros
            at, size = at // page * page, (1 + size % 3) * page
        size = min(size, region.nbytes - at)
        data = region.data[at : at + size].copy() if how == "again" else pattern(seed, size)
        if how == "write":
            space.ws.write(name, at, data)
        else:
            flat(space.ws[name])[at : at + size] = data
        space.work.write(name, at, data)

    @precondition(lambda self: any(s.arrays for s in self.spaces))
    @rule(which=numbers, number=numbers, at=sizes, size=st.integers(1, 9000), seed=seeds)
    def write_held(self, which: int, number: int, at: int, size: int, seed: int) -> None:
        """Through an array that was handed out earlier, which may be longer than the region."""
        space = pick([s for s in self.spaces if s.arrays], which)
        name, _, array = pick(space.arrays, number)
        at %= len(array)
        data = pattern(seed, min(size, len(array) - at))
        array[at : at + len(data)] = data
        space.work.write(name, at, data)

    @rule(which=numbers, number=numbers)
    def keep_array(self, which: int, number: int) -> None:
        found = self.some_region(which, number)
        if found and len(found[0].arrays) < 4:
            space, name = found
            array = flat(space.ws[name])
            assert np.array_equal(array, space.work.regions[name].data)
            space.arrays.append((name, space.work.regions[name].uid, array))

    @rule(which=numbers, number=numbers, size=sizes)
    def resize(self, which: int, number: int, size: int) -> None:
        space = self.a_space(which)
        if not space.work.regions:
            return
        name = pick(sorted(space.work.regions), number)
        shape = shape_for(space.work.regions[name].dtype, size, number)
        array = space.ws.resize(name, shape)
        space.work.resize(name, shape)
        assert np.array_equal(flat(array), space.work.regions[name].data)

    @precondition(lambda self: any(s.work.regions for s in self.spaces))
    @rule(which=numbers, number=numbers)
    def delete(self, which: int, number: int) -> None:
        space = pick([s for s in self.spaces if s.work.regions], which)
        name = pick(sorted(space.work.regions), number)
        space.ws.delete(name)
        self.retire(space, {name})
        space.work.delete(name)

    @precondition(lambda self: self.spaces)
    @rule(which=numbers, name=st.none() | numbers)
    def commit(self, which: int, name: int | None) -> None:
        space = pick(self.spaces, which)
        ws, work = space.ws, space.work
        word = None if name is None else self.fresh_name(name)
        real = bool(work.real_changes())
        if work.branch not in self.model.branches:
            if real:
                self.refused(NotFoundError, ws.commit)
            return
        head = self.model.head(work.branch)
        verdict = work.conflict(head)
        try:
            done = ws.snapshot(word, "message") if word else ws.commit("message")
        except ConflictError:
            assert verdict > Conflict.NO
            return
        assert verdict < Conflict.YES
        self.committed(space, done, real)
        if word:
            self.model.snapshots[word] = done.id

    def refused(self, kind: type[Exception], call: Any, *arguments: Any) -> None:
        try:
            call(*arguments)
        except kind:
            return
        raise AssertionError(f"no {kind.__name__}")

    def committed(self, space: Space, done: pagestore.Version, real: bool) -> None:
        """Bring the model to what a commit must have made."""
        work, base = space.work, space.work.base
        head = self.model.branches[work.branch]
        merged = work.merged(self.model.versions[head].regions)
        gone = {n for n, uid, _ in space.arrays if n not in merged or merged[n].uid != uid}
        if done.id > self.newest:
            assert real or work.perhaps_changed(), "a version for no change"
            self.retire(space, gone)
            self.newest = done.id
            self.model.add(work.branch, done.id, merged, done.time)
            # after a rebase the base is looked at until the next commit
            self.model.drop(self.pinned(leaving=space if base == head else None))
            work.start(done.id, self.model.versions[done.id].regions)
            return
        assert done.id in (base, head)
        assert set(merged) == set(self.model.versions[head].regions) or done.id == base
        if real:  # somebody else did the same: only a deletion can be
            assert done.id == head
        if done.id != base:
            self.retire(space, gone)
        if done.id == head or not work.perhaps_changed():
            work.start(done.id, self.model.versions[done.id].regions)

    @precondition(lambda self: self.spaces)
    @rule(which=numbers)
    def refresh(self, which: int) -> None:
        space = pick(self.spaces, which)
        work = space.work
        if work.branch not in self.model.branches:
            self.refused(NotFoundError, space.ws.refresh)
            return
        head = self.model.branches[work.branch]
        regions = self.model.versions[head].regions
        verdict = work.conflict(regions) if head != work.base else Conflict.NO
        try:
            moved = space.ws.refresh()
        except ConflictError:
            assert verdict > Conflict.NO
            return
        assert verdict < Conflict.YES
        assert moved == (head != work.base)
        if moved:
            merged = work.merged(regions)
            gone = {n for n, uid, _ in space.arrays if n not in merged or merged[n].uid != uid}
            self.retire(space, gone)
            work.rebase(head, regions)

    @precondition(lambda self: self.spaces)
    @rule(which=numbers)
    def rollback(self, which: int) -> None:
        space = pick(self.spaces, which)
        space.ws.rollback()
        work = space.work
        self.retire(space, {n for n in work.regions if work.based(n) is None})
        work.start(work.base, self.model.versions[work.base].regions)

    @precondition(lambda self: self.spaces)
    @rule(which=numbers)
    def flush(self, which: int) -> None:
        pick(self.spaces, which).ws.flush()

    @precondition(lambda self: self.spaces)
    @rule(which=numbers)
    def close_space(self, which: int) -> None:
        space = pick(self.spaces, which)
        space.ws.close()
        self.retire(space, {name for name, _, _ in space.arrays})
        self.spaces.remove(space)
