"""Does every kept version hold what was committed, and is kept exactly what must be?

After every step of a random sequence of all operations, every kept version is compared with the
model byte for byte, the set of kept versions with what invariant I4 says, every array that was
handed out with what it must show, and the store is checked down to every page's checksum.
"""

from __future__ import annotations

import gc
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test

import pagestore
from pagestore import ConflictError, FullError, NotFoundError, kernel
from pagestore.catalog import Catalog
from tests.machine import Held, Live, Machine, flat, numbers, pattern, pick, seeds, sizes
from tests.worker import Worker

TRACKINGS = ("userfault", "pagemap", "compare")
MOST_VIEWS = 3


def refuse(*_: object) -> None:
    raise FullError("the disk is full")


class Everything(Machine):
    """Adds names, views, other processes and upkeep to what workspaces do."""

    # ------------------------------------------------------------------------------------ names

    @rule(number=numbers, how=numbers, word=numbers)
    def snapshot(self, number: int, how: int, word: int) -> None:
        name = self.fresh_name(word)
        if name:
            ref, version = self.ref(number, how)
            assert self.store.snapshot(name, at=ref).id == version
            self.model.snapshots[name] = version

    @precondition(lambda self: len(self.model.branches) < 3)
    @rule(number=numbers, how=numbers, word=numbers)
    def create_branch(self, number: int, how: int, word: int) -> None:
        name = self.fresh_name(word)
        if name:
            ref, version = self.ref(number, how)
            assert self.store.create_branch(name, at=ref).id == version
            self.model.branches[name] = version

    @precondition(lambda self: self.model.snapshots)
    @rule(chosen=st.lists(numbers, min_size=1, max_size=4))
    def delete_snapshots(self, chosen: list[int]) -> None:
        names = [pick(sorted(self.model.snapshots), number) for number in chosen]
        self.refused(NotFoundError, self.store.delete_snapshot, *names, "no such name")
        self.store.delete_snapshot(*names)
        for name in set(names):
            del self.model.snapshots[name]
        self.model.drop(self.pinned())

    @precondition(lambda self: len(self.model.branches) > 1)
    @rule(number=numbers)
    def delete_branch(self, number: int) -> None:
        name = pick(sorted(self.model.branches.keys() - {"main"}), number)
        self.store.delete_branch(name)
        del self.model.branches[name]
        self.model.drop(self.pinned())

    @rule(number=numbers, everything=st.booleans())
    def expire(self, number: int, everything: bool) -> None:
        before = self.model.versions[pick(sorted(self.model.versions), number)].time
        if everything:
            before = datetime.now(UTC) + timedelta(seconds=1)
        for kept in self.model.versions.values():
            kept.keep &= kept.time >= before
        count = len(self.model.versions)
        self.model.drop(self.pinned())
        assert self.store.expire(before) == count - len(self.model.versions)

    @rule()
    def compact(self) -> None:
        self.store.compact()

    @precondition(lambda self: any(s.work.real_changes() for s in self.spaces))
    @rule(which=numbers, where=st.sampled_from(("catalog", "arena")))
    def commit_on_a_full_disk(self, which: int, where: str) -> None:
        """Nothing is committed, nothing is lost, and later commits are as sound as ever."""
        space = pick([s for s in self.spaces if s.work.real_changes()], which)
        with pytest.MonkeyPatch.context() as patch:
            if where == "catalog":  # at the very end, when slots were taken and given
                patch.setattr(Catalog, "_reserve", refuse)
            else:
                patch.setattr(self.store._shared.arena.io, "allocate", refuse)
            try:
                done = space.ws.commit()
            except (FullError, ConflictError, NotFoundError):
                return
        self.committed(space, done, real=True)

    # ------------------------------------------------------------------------------------ views

    @precondition(lambda self: len(self.views) < MOST_VIEWS)
    @rule(number=numbers, how=numbers, some=numbers)
    def open_view(self, number: int, how: int, some: int) -> None:
        ref, version = self.ref(number, how)
        view = self.store.view(ref)
        assert view.version.id == version
        regions = self.model.versions[version].regions
        arrays = [
            (flat(view[name]), region.data.copy())
            for i, (name, region) in enumerate(sorted(regions.items()))
            if region.nbytes and some >> i & 1
        ]
        self.views.append((view, Held(version, arrays)))

    @precondition(lambda self: any(held.arrays for _, held in self.views))
    @rule(which=numbers, number=numbers, at=sizes, seed=seeds)
    def scratch(self, which: int, number: int, at: int, seed: int) -> None:
        _, held = pick([v for v in self.views if v[1].arrays], which)
        array, expected = pick(held.arrays, number)
        at %= len(array)
        data = pattern(seed, min(5000, len(array) - at))
        array[at : at + len(data)] = expected[at : at + len(data)] = data

    @precondition(lambda self: self.views)
    @rule(which=numbers, keep=st.booleans())
    def close_view(self, which: int, keep: bool) -> None:
        view, held = self.views.pop(which % len(self.views))
        view.close()
        if keep and held.arrays:
            self.held.append(held)

    @precondition(lambda self: self.held)
    @rule(which=numbers)
    def let_go(self, which: int) -> None:
        self.held.pop(which % len(self.held))

    @precondition(lambda self: len(self.lives) < 2)
    @rule(number=numbers, some=numbers)
    def open_live(self, number: int, some: int) -> None:
        branch = pick(sorted(self.model.branches), number)
        view = self.store.live(branch)
        live = Live(view, self.model.branches[branch])
        for i, (name, region) in enumerate(sorted(self.model.head(branch).items())):
            if region.nbytes and some >> i & 1:
                live.arrays.append((name, flat(view[name])))
                assert not live.arrays[-1][1].flags.writeable
        self.lives.append(live)

    @precondition(lambda self: self.lives)
    @rule(which=numbers)
    def refresh_live(self, which: int) -> None:
        live = pick(self.lives, which)
        if live.view.branch not in self.model.branches:
            self.refused(NotFoundError, live.view.refresh)
            return
        head = self.model.branches[live.view.branch]
        old, new = (self.model.versions[v].regions for v in (live.version, head))
        assert live.view.refresh() == (head != live.version)
        followed = []
        for name, array in live.arrays:
            a, b, size = old[name], new.get(name), self.page_size
            if b is not None and b.uid == a.uid and a.page_count(size) == b.page_count(size):
                followed.append((name, array))
            else:
                self.hold(live.version, [(array, a.data[: len(array)].copy())])
        live.arrays, live.version = followed, head

    @precondition(lambda self: self.lives)
    @rule(which=numbers, keep=st.booleans())
    def close_live(self, which: int, keep: bool) -> None:
        live = self.lives.pop(which % len(self.lives))
        live.view.close()
        if keep:
            self.hold(live.version, [(array, array.copy()) for _, array in live.arrays])

    # ------------------------------------------------------------------------- other processes

    @rule(shared=st.booleans(), keep=st.booleans())
    def reopen(self, shared: bool, keep: bool) -> None:
        """With `shared`, a second handle takes over what the first one opened."""
        old = self.store
        if not shared:
            while self.spaces:
                self.close_space(0)
            while self.views:
                self.close_view(0, keep)
            while self.lives:
                self.close_live(0, keep)
            old.close()
        self.store = pagestore.open(f"{self.folder}/s.ps", "r+", **self.options)
        if shared:
            old.close()

    def call(self, *arguments):
        if self.worker is None:
            self.worker = Worker(f"{self.folder}/s.ps", self.options, self.tree)
        return self.worker(*arguments)

    @rule(number=numbers, how=st.integers(0, 9).filter(lambda n: n % 4 != 1))
    def worker_looks(self, number: int, how: int) -> None:
        ref, version = self.ref(number, how)
        assert self.call("look", ref) == version
        regions = self.model.versions[version].regions
        self.worker_view = version, {n: r.data.tobytes() for n, r in regions.items()}

    @precondition(lambda self: self.worker_view)
    @rule()
    def worker_forgets(self) -> None:
        self.call("forget")
        self.worker_view = None

    @rule(number=numbers, at=sizes, seed=seeds)
    def worker_commits(self, number: int, at: int, seed: int) -> None:
        branch = pick(sorted(self.model.branches), number)
        head = self.model.branches[branch]
        regions = {n: r.copy() for n, r in self.model.head(branch).items()}
        names = sorted(n for n, r in regions.items() if r.nbytes)
        if not names:
            return
        name = pick(names, number)
        at %= regions[name].nbytes
        data = pattern(seed, min(9000, regions[name].nbytes - at))
        regions[name].data[at : at + len(data)] = data
        version, time = self.call("commit", branch, name, at, data.tobytes())
        if regions[name].same(self.model.versions[head].regions[name]):
            assert version == head, "a version for no change"
            return
        assert version > self.newest
        self.newest = version
        self.model.add(branch, version, regions, time)
        self.model.drop(self.pinned())

    @rule()
    def worker_compacts(self) -> None:
        self.call("compact")

    @rule(number=numbers, seed=seeds)
    def worker_flushes(self, number: int, seed: int) -> None:
        branch = pick(sorted(self.model.branches), number)
        names = sorted(n for n, r in self.model.head(branch).items() if r.nbytes)
        if names:
            name = pick(names, number)
            data = pattern(seed, self.model.head(branch)[name].nbytes)
            self.worker_space = self.call("flush", branch, name, data.tobytes())

    @precondition(lambda self: self.worker_space is not None)
    @rule()
    def worker_gives_up(self) -> None:
        self.call("drop")
        self.worker_space = None

    @precondition(lambda self: self.worker_view or self.worker_space is not None)
    @rule()
    def worker_dies(self) -> None:
        assert self.worker is not None
        self.worker.kill()
        self.worker = self.worker_view = self.worker_space = None

    # -------------------------------------------------------------------------------- always so

    @invariant()
    def arrays_show_what_they_must(self) -> None:
        for space in self.spaces:
            space.compare()
        for _, held in self.views:
            held.compare()
        for held in self.held:
            held.compare()
        for live in self.lives:
            regions = self.model.versions[live.version].regions
            for name, array in live.arrays:
                count = -(-len(array) // self.page_size)
                shown = regions[name].pages(self.page_size, count).reshape(-1)
                assert np.array_equal(array, shown[: len(array)])
        if self.worker_view:
            assert self.call("contents") == self.worker_view[1]

    @invariant()
    def versions_are_kept_as_they_were(self) -> None:
        with self.store._shared.read() as (records, _):
            parents = {r.id: r.parent or None for r in records.versions()}
        assert parents == {v: kept.parent for v, kept in self.model.versions.items()}
        assert {n: v.id for n, v in self.store.snapshots.items()} == self.model.snapshots
        assert {n: v.id for n, v in self.store.branches.items()} == self.model.branches
        for version, kept in self.model.versions.items():
            with self.store.view(version) as view:
                assert set(view) == set(kept.regions)
                for name, region in kept.regions.items():
                    there = view.regions[name]
                    assert (there.dtype, there.shape) == (region.dtype, region.shape)
                    assert view.read(name, 0, region.nbytes) == region.data.tobytes(), name

    @invariant()
    def the_store_is_sound(self) -> None:
        assert list(self.store.check(data=True)) == []
        tracker = self.store._shared.tracker
        assert tracker.exact == (self.tracking == "userfault"), "gave up being exact"


@pytest.mark.parametrize("mapping", ["auto", "portable"])
@pytest.mark.parametrize("tracking", TRACKINGS)
def test_everything(tracking: str, mapping: str) -> None:
    if tracking in kernel.probe().reasons:
        pytest.skip(kernel.probe().reasons[tracking])
    machine = type("Everything", (Everything,), {"tracking": tracking, "mapping": mapping})
    profile = settings()
    run_state_machine_as_test(
        machine, settings=settings(profile, max_examples=max(3, profile.max_examples // 5))
    )
    gc.collect()
