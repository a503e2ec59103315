"""Names, ancestors, differences and numbers: what a store says about its versions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pagestore
from pagestore import ExistsError, InvalidError, NotFoundError
from pagestore.pagetable import expand, extents
from tests.shrunk import shrunk

PAGE = 4096


@pytest.fixture
def line(make_store):
    """Five commits on main, each named."""
    store = make_store()
    ws = store.begin()
    array = ws.create("x", 8 * PAGE)
    made = []
    for i in range(5):
        array[i * PAGE :] = i + 1
        made.append(ws.snapshot(f"s{i}", f"message {i}"))
    ws.close()
    return store, made


def test_log_goes_from_the_newest_to_the_oldest(line):
    store, made = line
    assert [v.id for v in store.log()] == [v.id for v in reversed(made)]
    assert [v.message for v in store.log("s2")] == ["message 2", "message 1", "message 0"]
    store.delete_snapshot("s1")
    assert [v.names for v in store.log("s2")] == [("s2",), ("s0",)]


def test_every_way_to_say_a_version(line):
    store, made = line
    third = made[2]
    for ref in (third, third.id, "s2", "s3~1", "s3~", "main~2", "s2~0", str(third.id)):
        assert store.version(ref) == store.version("s2"), ref
        with store.view(ref) as view:
            assert view.version.id == third.id
    for ref in ("s0~1", "main~99", "nothing", 999, "", "~1", -1):
        with pytest.raises(NotFoundError):
            store.version(ref)
    for ref in ("s0~x", "s0~~", None, 1.5, True, b"s0"):
        with pytest.raises(InvalidError):
            store.version(ref)


def test_a_version_says_where_it_comes_from(line):
    store, made = line
    second = store.version("s1")
    assert second.parent == made[0].id
    assert second.names == ("s1",)
    assert second.time.tzinfo is UTC
    assert abs(second.time - datetime.now(UTC)) < timedelta(minutes=5)
    assert second.regions["x"].nbytes == 8 * PAGE
    store.create_branch("b", at="s1")
    store.snapshot("again", at=second, message="named later")
    assert store.version("s1").names == ("again", "b", "s1")
    assert store.snapshots["again"].message == "named later"
    store.delete_snapshot("s0")
    assert store.version("s1").parent is None


def test_names_are_a_mapping(line):
    store, made = line
    assert sorted(store.snapshots) == [f"s{i}" for i in range(5)]
    assert len(store.snapshots) == 5
    assert store.branches["main"].id == made[-1].id
    assert "s0" in store.snapshots
    assert "main" not in store.snapshots
    with pytest.raises(NotFoundError):
        store.snapshots["main"]
    with pytest.raises(ExistsError):
        store.snapshot("main")
    with pytest.raises(ExistsError):
        store.create_branch("s0")
    with pytest.raises(InvalidError):
        store.delete_branch("main")
    for name in ("", " x", "a~b", "x" * 256, "a\nb", 5):
        with pytest.raises(InvalidError):
            store.snapshot(name)


def test_many_names_are_listed_in_pieces(store, monkeypatch):
    monkeypatch.setattr("pagestore.reader.PAGE_OF_NAMES", 3)
    names = sorted(f"n{i}" for i in range(10))
    for name in names:
        store.snapshot(name)
    assert list(store.snapshots) == names


def test_deleting_in_any_order_leaves_the_others(make_store):
    """A tree of snapshots; a fork point stays, unnamed, until one child is left."""
    store = make_store()
    with store.begin() as ws:
        ws.create("x", 4 * PAGE)[:] = 1
        root = ws.snapshot("root")
    for name in ("left", "right"):
        store.create_branch(name, at="root")
        with store.begin(name) as ws:
            ws["x"][:PAGE] = len(name)
    with store.begin() as ws:
        ws["x"][:] = 0
    store.delete_snapshot("root")
    assert store.version(root.id).names == ()
    store.delete_branch("left")
    assert store.version(root.id), "right and main come from it"
    store.delete_branch("right")
    with pytest.raises(NotFoundError):
        store.version(root.id)
    assert store.stats().versions == 1
    assert store.stats().referred_bytes == 0


def test_history_all_keeps_until_expired(make_store):
    store = make_store(history="all")
    ws = store.begin()
    array = ws.create("x", 2 * PAGE)
    made = []
    for i in range(6):
        array[:] = i + 1
        made.append(ws.commit())
    store.snapshot("kept", at=made[1])
    assert [v.id for v in store.log()] == [v.id for v in reversed(made)] + [1]
    assert store.expire(made[3].time) == 3
    assert [v.id for v in store.log()] == [made[i].id for i in (5, 4, 3, 1)]
    assert store.expire(made[3].time) == 0
    with pytest.raises(InvalidError):
        store.expire(datetime(2020, 1, 1))
    assert store.expire(datetime.now(UTC) + timedelta(days=1)) == 2
    assert [v.id for v in store.log()] == [made[5].id, made[1].id]


# ----------------------------------------------------------------------------------- differences


def test_every_kind_of_change(make_store):
    store = make_store()
    ws = store.begin()
    for name in ("same", "written", "resized", "gone", "anew"):
        ws.create(name, 4 * PAGE)[:] = 1
    ws.snapshot("a")
    ws["same"][:] = 1
    ws["written"][PAGE] = 2
    ws["written"][3 * PAGE] = 2
    ws.resize("resized", 2 * PAGE)
    ws.delete("gone")
    ws.delete("anew")
    ws.create("anew", 3 * PAGE)
    ws.create("fresh", 5)
    ws.snapshot("b")
    found = [(c.region, c.kind, c.start, c.stop) for c in store.diff("a", "b")]
    assert found == [
        ("anew", "deleted", 0, 4),
        ("anew", "created", 0, 3),
        ("fresh", "created", 0, 1),
        ("gone", "deleted", 0, 4),
        ("resized", "resized", 0, 0),
        ("resized", "written", 2, 4),
        ("written", "written", 1, 2),
        ("written", "written", 3, 4),
    ]
    assert not list(store.diff("b", "b"))
    change = next(c for c in store.diff("b", "a") if c.region == "written")
    assert (change.byte_start, change.byte_stop) == (PAGE, 2 * PAGE)


def test_what_was_written_back_is_no_difference(store):
    ws = store.begin()
    array = ws.create("x", 4 * PAGE)
    array[:] = 1
    ws.snapshot("a")
    array[PAGE] = 2
    ws.snapshot("b")
    array[PAGE] = 1
    ws.snapshot("c")
    assert [c.start for c in store.diff("a", "b")] == [1]
    assert list(store.diff("a", "c")) == []


# ------------------------------------------------------------------------------------ numbers

steps = st.lists(
    st.tuples(
        st.sampled_from(("write", "write", "write", "branch", "delete", "resize")),
        st.integers(0, 30), st.integers(1, 9), st.booleans(),
    ),
    max_size=14,
)  # fmt: skip


@given(steps)
@settings(max_examples=25)
def test_the_numbers_are_those_of_counting(tmp_path_factory, steps):
    """Against the set of slots that each version's tables name, walked one by one."""
    with shrunk():
        store = pagestore.open(tmp_path_factory.mktemp("stats") / "s.ps", "x")
        ws = {"main": store.begin()}
        ws["main"].create("x", 24 * PAGE)[:] = 1
        ws["main"].commit()
        for i, (what, at, count, named) in enumerate(steps):
            branch = sorted(ws)[at % len(ws)]
            array = ws[branch]["x"]
            if what == "write":
                array[at % 24 * PAGE : (at % 24 + count) * PAGE] = i if at % 5 else 0
            elif what == "resize":
                ws[branch].resize("x", at * PAGE)
            elif what == "branch":
                store.create_branch(f"b{i}", at=branch)
                ws[f"b{i}"] = store.begin(f"b{i}")
            elif store.snapshots:
                store.delete_snapshot(sorted(store.snapshots)[at % len(store.snapshots)])
            (ws[branch].snapshot(f"s{i}") if named else ws[branch].commit())
        for one in ws.values():
            one.close()
        counted(store)
        store.close()


def counted(store: pagestore.Store) -> None:
    refers: dict[int, list[int]] = {}
    with store._shared.read() as (records, nodes):
        for record in records.versions():
            tables = [extents(nodes, r.table) for r in record.regions.values()]
            refers[record.id] = [s for t in tables for s in expand(t)[1].tolist()]
    stats = store.stats()
    everything = set().union(*refers.values())
    size = store.page_size
    assert stats.versions == len(refers)
    assert stats.referred_bytes == len(everything) * size
    assert stats.arena_bytes - stats.free_bytes - size == stats.referred_bytes


def test_what_a_commit_stores_is_what_changed(any_store):
    ws = any_store.begin()
    array = ws.create("x", 1000 * PAGE)
    array[:] = np.arange(1000 * PAGE) % 251
    ws.snapshot("a")
    array[:: 100 * PAGE] += 1
    ws.snapshot("b")
    stats = any_store.stats()
    assert stats.referred_bytes == 1010 * PAGE
    assert any_store.space()[any_store.version("a").id].exclusive_bytes == 10 * PAGE
    any_store.delete_snapshot("a")
    assert any_store.stats().referred_bytes == 1000 * PAGE
