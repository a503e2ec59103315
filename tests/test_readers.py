"""Readers hash what they look at without end, while others write, tidy up and die.

No hash ever changes, whatever the writers do: commit, flush, grow, delete, compact (which moves
pages and punches holes), or be killed amid any of it. ``PAGESTORE_SEED`` selects another course.
"""

import contextlib
import os
import random
import time
from typing import Any

import numpy as np
import pytest

import pagestore
from pagestore import ConflictError, CorruptionError, ExistsError, NotFoundError
from pagestore.catalog import LOOKS
from pagestore.format import content_hash, page_sum, page_sums
from pagestore.transaction import Transaction
from tests.damage import PAGE, assert_clean, directory_in_memory
from tests.test_process import Children, until

SECONDS = 7.0
PAGES = 640  # a rewrite of all leaves a hole that is worth punching
HELD = 6
ZERO = page_sum(bytes(PAGE))
SEED = int(os.environ.get("PAGESTORE_SEED", "1"))


@pytest.fixture
def path():
    with directory_in_memory() as top:
        yield top / "store"


@pytest.fixture
def children():
    children = Children()
    yield children
    for pid in list(children.running):
        children.kill(pid)


# ----------------------------------------------------------------------------------------- readers


def sums_of(array):
    """The checksum of every page of an array of whole pages."""
    raw = array.reshape(-1).view("u1")
    return page_sums(raw.data, PAGE) if raw.nbytes else np.empty(0, "u8")


def assert_committed(what, region, sums):
    """The pages are those that the version was committed with, by its content hash."""
    pages = np.flatnonzero(sums != np.uint64(ZERO))
    assert content_hash(pages, sums[pages]) == region.content, f"{what} is not what was committed"


class Held:
    """One version, and what its pages were when it was opened."""

    def __init__(self, view, close):
        record = view._record
        self.arrays = {name: view[name] for name in view}
        self.sums = {name: sums_of(array) for name, array in self.arrays.items()}
        self.what = f"version {record.id}"
        for name, sums in self.sums.items():
            assert_committed(f"{self.what}, region {name!r}", record.regions[name], sums)
        self.view = view
        if close:
            view.close()  # arrays outlive it, and pin

    def look(self):
        for name, array in self.arrays.items():
            changed = np.flatnonzero(sums_of(array) != self.sums[name])
            assert not len(changed), (
                f"{self.what}, region {name!r}: pages {changed[:10].tolist()} changed"
            )


def look_at_live(live):
    live.refresh()
    record = live._record
    for name in live:
        what = f"live view of version {record.id}, region {name!r}"
        assert_committed(what, record.regions[name], sums_of(live[name]))


def read(say, path, seed, mapping):
    rng = random.Random(seed)
    looks, unnamed = 0, 0
    with pagestore.open(path, "r", mapping=mapping) as store:
        held, lives = [], [store.live(branch) for branch in store.branches]
        for _ in until(SECONDS):
            ref = rng.choice([*store.snapshots, *store.branches, *store.branches])
            with contextlib.suppress(NotFoundError):
                held.append(Held(store.view(ref), rng.random() < 0.5))
            if len(held) > HELD:
                held.pop(rng.randrange(HELD))
            for one in held:
                one.look()
            look_at_live(rng.choice(lives))
            looks += len(held)
            unnamed += sum(1 for h in held if not h.view._closed and not h.view.version.names)
    say(b"%d %d" % (looks, unnamed))


# ----------------------------------------------------------------------------------------- writers


def some_pages(rng, count):
    start = rng.randrange(PAGES)
    return slice(start, start + count) if rng.random() < 0.5 else slice(start % 7, PAGES, 7)


def step(store, ws, rng, branch):
    action = rng.random()
    if action < 0.4:
        ws["a"][some_pages(rng, 1 + rng.randrange(50)), rng.randrange(PAGE)] = rng.randrange(256)
        ws.commit()
    elif action < 0.55:
        ws["a"][:] = rng.randrange(256)
        ws["a"][:, :8] = np.arange(PAGES)[:, None] % 256
        if action < 0.5:
            ws.flush()
        ws.commit()
    elif action < 0.65:
        ws.resize("b", (rng.randrange(2 * PAGES), PAGE))
        ws["b"][:, 5] = rng.randrange(256)
        ws.commit()
    elif action < 0.78:
        with contextlib.suppress(ExistsError):
            ws.snapshot(f"{branch} {rng.randrange(30)}")
    elif action < 0.92:
        names = list(store.snapshots)
        if len(names) > 3:
            with contextlib.suppress(NotFoundError):
                store.delete_snapshot(rng.choice(names))
    else:
        store.compact()


def write(say, path, seed, branch):
    rng = random.Random(seed)
    with pagestore.open(path) as store:
        ws = store.begin(branch)
        while True:
            try:
                step(store, ws, rng, branch)
            except ConflictError:
                ws.rollback()
                ws.refresh()
            say(b".")


def start(path):
    with pagestore.open(path) as store:
        with store.begin() as ws:
            ws.create("a", (PAGES, PAGE))[:] = 1
            ws.create("b", (10, PAGE))[:] = 2
        store.snapshot("first")
        store.create_branch("side")


@pytest.mark.slow
def test_no_hash_ever_changes(path, children):
    rng = random.Random(SEED)
    start(path)
    readers = [
        children.start(read, path, rng.random(), mapping)[0]
        for mapping in ("auto", "auto", "portable")
    ]
    writers = {b: children.start(write, path, rng.random(), b)[0] for b in ("main", "side")}
    steps, deaths = 0, 0
    for _ in until(SECONDS - 0.5):
        time.sleep(rng.random() * 0.4)
        branch = rng.choice(list(writers))
        steps += len(children.kill(writers[branch]))
        deaths += 1
        writers[branch] = children.start(write, path, rng.random(), branch)[0]
    for pid in writers.values():
        steps += len(children.kill(pid))
    for pid in readers:
        looks, unnamed = map(int, children.wait(pid).split())
        assert looks > 50
        assert unnamed > 0, "no version was kept by a pin alone"
    assert deaths > 10
    assert steps > 20
    with pagestore.open(path) as store:
        assert_clean(store)
        with store.begin() as ws:
            ws["a"][0, 0] ^= 1
        assert_clean(store)


# ------------------------------------------------------------------------------- pins of the dead


def hold(say, path, ref):
    with pagestore.open(path, "r") as store:
        held = Held(store.view(ref), close=True)
        say(b"x")
        while True:
            held.look()


@pytest.mark.parametrize("by", ["commit", "deletion", "compaction"])
def test_a_killed_readers_pages_come_back(path, children, by):
    """The only pin of a large version, whose name is gone."""
    start(path)
    with pagestore.open(path) as store:
        with store.begin() as ws:
            ws["a"][:] = 7
            large = ws.snapshot("large").id
        store.snapshot("other", at="first")
        with store.begin() as ws:
            ws["a"][:] = 8
        pid, said = children.start(hold, path, "large")
        assert os.read(said, 1) == b"x"
        store.delete_snapshot("large")
        store.compact()
        assert store.version(large).id == large
        before = store.stats()
        os.kill(pid, 0)
        children.kill(pid)
        if by == "commit":
            with store.begin() as ws:
                ws["b"][0, 0] = 9
        elif by == "deletion":
            store.delete_snapshot("other")
        else:
            store.delete_snapshot("other")
            store.compact()
        with pytest.raises(NotFoundError):
            store.version(large)
        assert store.stats().free_bytes >= before.free_bytes + (PAGES - 2) * PAGE
        assert store.stats().referred_bytes <= before.referred_bytes - (PAGES - 2) * PAGE
        assert_clean(store)


def held_up(monkeypatch, times):
    """Let that many transactions have the number of the one before the last."""
    real: Any = Transaction.id
    left = [times]

    def number(self):
        left[0] -= 1
        return real.fget(self) - 2 * (left[0] >= 0)

    monkeypatch.setattr(Transaction, "id", property(number))


def test_a_reader_that_was_held_up_looks_again(make_store, monkeypatch):
    """LMDB takes its number first, then the records: two commits may end in between."""
    store = make_store()
    with store.begin() as ws:
        ws.create("a", 10)
    held_up(monkeypatch, LOOKS - 1)
    assert store.version("main").regions.keys() == {"a"}
    held_up(monkeypatch, LOOKS)
    with pytest.raises(CorruptionError, match="X2"):
        store.version("main")
    monkeypatch.undo()
