"""Dropping many versions at once: what is freed, what stays, and what it costs."""

import numpy as np
import pytest

import pagestore
from pagestore.errors import InvalidError, NotFoundError
from pagestore.store import EXPIRED_AT_ONCE
from tests.conftest import PAGE, MakeStore

PAGES = 64


@pytest.fixture
def line(make_store: MakeStore) -> pagestore.Store:
    """Ten snapshots in a row, each with pages of its own."""
    store = make_store()
    with store.begin() as ws:
        pages = ws.create("x", (PAGES, PAGE), "u1")
        for i in range(10):
            pages[i : i + 5] = i + 1
            ws.snapshot(f"s{i}")
    return store


def transactions(store: pagestore.Store) -> int:
    with store._shared.read() as (records, _):
        return records.id


def test_many_names_go_in_one_transaction(line):
    before = transactions(line)
    line.delete_snapshot(*(f"s{i}" for i in range(9)))
    assert transactions(line) == before + 1
    assert list(line.snapshots) == ["s9"]
    assert line.stats().referred_bytes == 14 * PAGE
    assert line.version("main").parent is None
    with line.view("s9") as view:
        assert view["x"][:16, 0].tolist() == [*range(1, 10), *[10] * 5, 0, 0]


@pytest.mark.parametrize("wrong", ["no such name", "main", ""])
def test_all_names_or_none(line, wrong):
    before = transactions(line)
    with pytest.raises((NotFoundError, InvalidError)):
        line.delete_snapshot("s1", "s2", wrong, "s3")
    assert len(line.snapshots) == 10
    assert transactions(line) == before


def test_a_name_given_twice_and_by_keyword(line):
    line.delete_snapshot("s1", "s1")
    line.delete_snapshot(name="s2")
    assert len(line.snapshots) == 8


def test_what_is_pinned_parts_the_line(line):
    """Its slots stay, whatever is written next; once it is let go of, they are free."""
    with line.view("s4") as view:
        held = view["x"].copy()
        line.delete_snapshot(*(f"s{i}" for i in range(9)))
        assert line.version("main").parent == view.version.id
        assert view.version.parent is not None
        with line.begin() as ws:
            for i in range(20):
                ws["x"][:] = 100 + i
                ws.commit()
            ws["x"][:] = np.arange(PAGES, dtype="u1")[:, None] + 10
        assert np.array_equal(view["x"], held)
        assert list(line.check(data=True)) == []
        del held
    line.delete_snapshot("s9")
    assert line.stats().versions == 1
    assert line.stats().referred_bytes == PAGES * PAGE


def test_a_fork_goes_with_what_hung_on_it(line):
    """A fork point of which one child is left after the same call is no fork point any more."""
    for name in ("one", "two"):
        line.create_branch(name, at="s3")
        with line.begin(name) as ws:
            ws["x"][40:50] = 7
            ws.snapshot(f"{name} head")
            ws["x"][45:55] = 8
    fork = line.version("s3").id
    line.delete_branch("one")
    line.delete_snapshot("s3", "s2", "one head")
    assert line.version("two~2").id == line.version("s4").parent == fork
    line.delete_branch("two")
    line.delete_snapshot("two head", *(f"s{i}" for i in (0, 1, 4, 5, 6, 7, 8)))
    assert line.stats().versions == 1
    assert line.stats().referred_bytes == 14 * PAGE


def grown(store: pagestore.Store, rng: np.random.Generator) -> list[str]:
    """Grow branches of snapshots, with regions that come, go and change their length.

    Their pages are scattered enough for leaves with several runs (pagetable.INLINE_MAX).
    """
    names = []
    for i in range(60):
        branches = list(store.branches)
        branch = branches[rng.integers(len(branches))]
        with store.begin(branch) as ws:
            what = rng.integers(10)
            region = f"r{rng.integers(3)}"
            if region not in ws:
                ws.create(region, (int(rng.integers(1, 1500)), PAGE), "u1")[:] = i
            elif what == 0:
                ws.delete(region)
            elif what == 1:
                ws.resize(region, (int(rng.integers(0, 1500)), PAGE))
            elif len(ws[region]):
                pages = rng.integers(len(ws[region]), size=rng.integers(1, 500))
                ws[region][pages] = 0 if what == 2 else i
            if rng.random() < 0.7:
                names.append(f"n{i}")
                ws.snapshot(names[-1])
        if names and rng.random() < 0.1 and len(branches) < 4:
            store.create_branch(f"b{i}", at=names[rng.integers(len(names))])
    return names


@pytest.mark.parametrize("seed", range(8))
def test_at_once_is_as_one_by_one(make_store, seed):
    """The same versions stay, with the same parents, and the same number of slots is free."""
    rng = np.random.default_rng(seed)
    stores = [make_store(f"{way}.ps") for way in ("together", "alone")]
    names, _ = [grown(store, np.random.default_rng(seed)) for store in stores]
    gone = [name for name in names if rng.random() < 0.8]
    held = [store.view(gone[0]) for store in stores]
    stores[0].delete_snapshot(*gone)
    for name in rng.permutation(gone).tolist():
        stores[1].delete_snapshot(name)
    left = [
        {v.id: (v.parent, v.names) for name in store.branches for v in store.log(name)}
        for store in stores
    ]
    assert left[0] == left[1]
    one, other = (store.stats() for store in stores)
    assert (one.versions, one.referred_bytes) == (other.versions, other.referred_bytes)
    for view in held:
        view.close()


def test_expiring_goes_in_pieces(make_store):
    store = make_store(history="all")
    count = 2 * EXPIRED_AT_ONCE + 10
    with store.begin() as ws:
        word = ws.create("x", 2 * PAGE)[:1]
        for i in range(count):
            word[0] = i % 250 + 1
            last = ws.commit()
    before = transactions(store)
    assert store.expire(last.time) == count  # the root version too
    assert transactions(store) == before + 3
    assert [v.id for v in store.log()] == [last.id]
