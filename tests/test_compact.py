"""Compaction: what it moves, where to, and what is given back."""

import numpy as np
import pytest

import pagestore
from pagestore.format import runs_of
from pagestore.pagetable import expand, extents
from tests.shrunk import SMALL, shrunk

PAGE = 4096
PAGES = 2048  # 8 MiB


def slots_of(store, ref="main", name="x"):
    with store._engine.read() as (records, nodes):
        return expand(extents(nodes, records.resolve(ref).regions[name].table))[1]


def change(ws, rng, commits, count=5, name="x"):
    """Commits of random single pages; returns how many pages differ from before."""
    array = ws[name].reshape(-1, PAGE)
    changed = set()
    for _ in range(commits):
        pages = rng.choice(len(array), count, replace=False)
        array[pages] += 1
        changed.update(pages.tolist())
        ws.commit()
    return len(changed)


@pytest.fixture
def store(make_store):
    store = make_store()
    with store.begin() as ws:
        ws.create("x", PAGES * PAGE)[:] = 3
    return store


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def content(store, ref):
    with store.view(ref) as view:
        return view["x"].tobytes()


def test_changed_pages_go_home(store, rng):
    """Where the pages that they replaced have gone: no other page is touched."""
    before = slots_of(store)
    with store.begin() as ws:
        changed = change(ws, rng, 40)
    expected = content(store, "main")
    assert len(runs_of(slots_of(store))) > 200
    assert store.compact().moved_pages == changed
    assert np.array_equal(slots_of(store), before)
    assert content(store, "main") == expected
    assert store.compact().moved_pages == 0


@pytest.mark.parametrize("seed", range(4))
def test_a_region_that_grew_while_it_changed(make_store, seed):
    """As a database with an index does: windows would be at home where others are."""
    store, rng = make_store(), np.random.default_rng(seed)
    with store.begin() as ws:
        ws.create("x", 0)
        for turn in range(1, 21):
            pages = turn * 600
            ws.resize("x", pages * PAGE)
            array = ws["x"].reshape(-1, PAGE)
            array[pages - 600 :] = turn
            array[rng.integers(0, pages, 150)] += 1
            ws.commit()
        expected = ws["x"].tobytes()
    del array  # it pins the version
    assert len(runs_of(slots_of(store))) > 1000
    store.compact()
    assert len(runs_of(slots_of(store))) <= 2 * pages // 512
    assert store.compact().moved_pages <= 512
    assert content(store, "main") == expected


def test_pages_of_older_versions_make_way(store, rng):
    store.snapshot("old")
    before = slots_of(store)
    with store.begin() as ws:
        changed = change(ws, rng, 20)
        ws.snapshot("middle")
        changed += change(ws, rng, 20)
    expected = {ref: content(store, ref) for ref in ("old", "middle", "main")}
    roots = {ref: store.version(ref) for ref in expected}
    assert store.compact().moved_pages <= 3 * changed
    assert np.array_equal(slots_of(store), before)
    assert {ref: content(store, ref) for ref in expected} == expected
    assert {ref: store.version(ref) for ref in expected} == roots
    assert store.compact().moved_pages == 0


@pytest.mark.parametrize("keep", [True, False])
def test_bytes_of_deleted_versions_come_back(store, rng, keep):
    store.snapshot("s0")
    with store.begin() as ws:
        for i in range(1, 5):
            change(ws, rng, 30, 20)
            ws.snapshot(f"s{i}")
    if keep:
        store.compact()
    for name in list(store.snapshots):
        store.delete_snapshot(name)
    store.compact()
    taken = (store.path / "arena").stat().st_blocks * 512
    assert taken <= PAGES * PAGE + (1 << 20)  # a hole of less is not punched
    assert len(runs_of(slots_of(store))) == 1


def test_what_is_open_stays(store, rng):
    store.snapshot("old")
    with store.begin() as ws:
        change(ws, rng, 20)
    before, there = content(store, "old"), slots_of(store, "old")
    with store.view("old") as view:
        array = view["x"]
        store.compact()
        assert np.array_equal(slots_of(store, "old"), there)
        assert array.tobytes() == before
    del array
    store.compact()
    assert content(store, "old") == before
    assert len(runs_of(slots_of(store))) == 1


def test_what_was_flushed_is_nobodys_to_move(store, rng):
    """Homes that a workspace has set aside are not free, and hold no version's page."""
    with store.begin() as ws:
        change(ws, rng, 20)
    other = store.begin()
    other["x"][: PAGE * 100] = 9
    other.flush()
    store.compact()
    assert (other["x"][: PAGE * 100] == 9).all()
    other.commit()
    other.close()
    store.compact()
    assert (np.frombuffer(content(store, "main"), np.uint8)[: PAGE * 100] == 9).all()


@pytest.mark.parametrize("seed", range(6))
def test_any_history_ends(tmp_path, seed):
    """Branches, several regions, holes, deletions: contents stay, and it ends."""
    rng = np.random.default_rng(seed)
    with shrunk(SMALL), pagestore.open(tmp_path / "s") as store:
        with store.begin() as ws:
            for name in "xy":
                ws.create(name, 200 * PAGE)[:: PAGE * int(rng.integers(1, 3))] = 1
            ws.snapshot("first")
        store.create_branch("side", at="first")
        for turn in range(12):
            with store.begin(str(rng.choice(["main", "side"]))) as ws:
                change(ws, rng, 3, int(rng.integers(1, 20)), str(rng.choice(list("xy"))))
                if turn == 6:
                    ws.resize("x", 120 * PAGE)
            if rng.random() < 0.5:
                store.snapshot(f"s{turn}", at=str(rng.choice(["main", "side"])))
            names = list(store.snapshots)
            if names and rng.random() < 0.3:
                store.delete_snapshot(names[int(rng.integers(len(names)))])
            if rng.random() < 0.4:
                refs = [*store.snapshots, "main", "side"]
                before = {ref: content(store, ref) for ref in refs}
                steps: list[tuple[int, int]] = []
                store.compact(lambda *step, steps=steps: steps.append(step))
                assert {ref: content(store, ref) for ref in refs} == before
                assert all(done <= todo for done, todo in steps)
                # at most out of the way, home, and with its window
                assert steps[-1][0] * PAGE <= 3 * store.stats().referred_bytes
                assert list(store.check(data=True)) == []


def test_damage_is_not_moved(tmp_path):
    with pagestore.open(tmp_path / "s") as store:
        with store.begin() as ws:
            ws.create("x", 64 * PAGE)[:] = 1
        with store.begin() as ws:
            ws["x"][5 * PAGE] = 2
        slot = int(slots_of(store)[5])
        with (tmp_path / "s" / "arena").open("r+b") as file:
            file.seek(slot * PAGE)
            file.write(b"damaged")
        with pytest.raises(pagestore.CorruptionError, match=f"slot {slot} "):
            store.compact()
