"""What a store says about its versions: what deleting would free, and where pages lie."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

import pagestore
from pagestore import CorruptionError, InvalidError, NotFoundError
from pagestore.format import VERSION, number_key
from tests.conftest import PAGE


@pytest.fixture
def forked(store):
    """Three snapshots in a row, and a branch from the second."""
    with store.begin() as ws:
        pages = ws.create("x", (16, PAGE), "u1")
        for i, name in enumerate(("one", "two", "three")):
            pages[2 * i : 2 * i + 4] = i + 1
            ws.snapshot(name)
        pages[15] = 9
    store.create_branch("side", at="two")
    with store.begin("side") as ws:
        ws["x"][0] = 7
    return store


def test_a_name_stands_for_itself_alone(forked):
    forked.snapshot("again", at="one")
    one = forked.version("one")
    told = forked.freed_by("one")
    assert (told.versions, told.freed_bytes) == ((), 0)
    assert told.staying == {one.id: "named again"}
    assert forked.freed_by("one", "again").freed_bytes == 2 * PAGE
    assert forked.freed_by(one).freed_bytes == forked.freed_by(one.id).freed_bytes == 2 * PAGE


def test_a_fork_point_stays_until_one_child_is_left(forked):
    two = forked.version("two").id
    children = ", ".join(str(v.id) for v in forked.versions() if v.parent == two)
    assert forked.freed_by("two").staying == {two: f"versions {children} come from it"}
    told = forked.freed_by("two", "side")
    assert two in told.versions
    assert told.freed_bytes == 3 * PAGE  # the side's one, and two that "three" replaced


def test_a_set_frees_more_than_its_parts(forked):
    names = ("one", "two", "three", "side")
    parts = sum(forked.freed_by(name).freed_bytes for name in names)
    assert forked.freed_by(*names).freed_bytes > parts
    assert forked.freed_by().freed_bytes == 0


def test_the_mark_of_history_all_counts(make_store):
    store = make_store(history="all")
    with store.begin() as ws:
        ws.create("x", 4 * PAGE)[:] = 1
        first = ws.commit()
        ws["x"][0] = 2
        ws.commit()
    assert store.freed_by(first).freed_bytes == PAGE
    store.snapshot("first", at=first)
    told = store.freed_by("first")
    assert told.staying == {first.id: 'kept by history="all" until it expires'}


def test_refs_that_are_not_there(forked):
    for ref in ("nobody", 99, "one~9", ""):
        with pytest.raises(NotFoundError):
            forked.freed_by("one", ref)
        with pytest.raises(NotFoundError):
            forked.layout(ref)
    with pytest.raises(NotFoundError):
        forked.page_table("one", "no region")


@pytest.mark.parametrize("wrong", [None, 1.5, True, b"one", ["one"], object()])
def test_refs_that_are_none(forked, wrong):
    for ask in (forked.freed_by, forked.layout, lambda ref: forked.page_table(ref, "x")):
        with pytest.raises(InvalidError):
            ask(wrong)
    with pytest.raises(NotFoundError):
        forked.page_table("one", wrong)


@pytest.mark.parametrize("wrong", [1.5, "3", b"", [1]])
def test_numbers_that_are_none(forked, wrong):
    for ask in (
        forked.versions, lambda n: forked.page_table("one", "x", n),
        lambda n: forked.page_table("one", "x", 0, n),
    ):  # fmt: skip
        with pytest.raises(InvalidError):
            ask(wrong)
    with pytest.raises(InvalidError):
        forked.versions(-1)


# -------------------------------------------------------------------------------- page tables


def test_a_range_of_a_table(forked):
    whole = forked.page_table("three", "x")
    for start, stop in [(0, 16), (3, 6), (5, 5), (9, 4), (-4, 2), (7, 99), (20, 30)]:
        part = forked.page_table("three", "x", start, stop)
        inside = (whole.page >= start) & (whole.page < stop)
        for column in ("page", "slot", "birth", "checksum"):
            assert getattr(part, column).tolist() == getattr(whole, column)[inside].tolist()
        assert part.holders is None
    assert forked.page_table("three", "x", 4).start == 4


def test_a_table_says_where_the_bytes_are(forked):
    table = forked.page_table("three", "x")
    arena = (forked.path / "arena").read_bytes()
    with forked.view("three") as view:
        for page, slot in zip(table.page.tolist(), table.slot.tolist(), strict=True):
            assert arena[slot * PAGE : (slot + 1) * PAGE] == view["x"][page].tobytes()


def test_the_ends_of_a_huge_region(store):
    size = (1 << 28) * PAGE
    with store.begin() as ws:
        ws.create("wide", size)
        ws.write("wide", 0, b"first")
        ws.write("wide", size - 5, b"last.")
    last = (1 << 28) - 1
    assert store.page_table("main", "wide").page.tolist() == [0, last]
    assert store.page_table("main", "wide", last - 3).page.tolist() == [last]
    assert store.page_table("main", "wide", 1, last).page.tolist() == []
    assert store.layout()["wide"].zero_pages == last - 1


# ----------------------------------------------------------------------------------- versions


def test_every_version_is_there_with_its_names(forked):
    versions = forked.versions()
    ids = [version.id for version in versions]
    assert ids == sorted(ids)
    assert {v.parent for v in versions} - {None} <= set(ids)
    assert {name: v.id for v in versions for name in v.names} == {
        name: v.id for names in (forked.snapshots, forked.branches) for name, v in names.items()
    }
    for version in versions:
        assert version == forked.version(version.id)
    assert [v.id for v in forked.versions(2)] == ids[-2:]
    assert [v.id for v in forked.versions(99)] == ids
    assert forked.versions(0) == []


def damage_version(store, version):
    """Flip a bit of a version's record under LMDB's feet; sums and seals no longer fit."""
    with store._shared.write() as write:
        key = number_key(VERSION, version)
        value = bytearray(write.records._txn.get(key))
        value[-1] ^= 1
        write.records._txn.put(key, bytes(value))
        write.records.written += 1  # the meta record is written too


def test_a_damaged_version_is_named_and_the_rest_told(tmp_path):
    with pagestore.open(tmp_path / "s.ps") as store:
        for i in range(5):
            with store.begin() as ws:
                ws.create(f"r{i}", PAGE)[:] = i + 1
                ws.snapshot(f"s{i}")
        bad = store.version("s2").id
        damage_version(store, bad)
        for ask in (store.versions, lambda: store.versions(9), store.space):
            with pytest.raises(CorruptionError, match=f"version {bad} "):
                ask()
        for newest in (None, 9):
            damaged = []
            found = store.versions(newest, damaged=damaged)
            assert bad not in [v.id for v in found]
            assert [n for v in found for n in v.names if n != "main"] == ["s0", "s1", "s3", "s4"]
            assert all(f"version {bad} " in what for what in damaged)
            assert damaged


# ---------------------------------------------------------------------------- while others write


def test_numbers_agree_while_another_process_commits(tmp_path):
    path = tmp_path / "s.ps"
    with pagestore.open(path) as store, store.begin() as ws:
        ws.create("x", 64 * PAGE)[:] = 1
    script = """if 1:
        import sys, pagestore
        with pagestore.open(sys.argv[1], "r+") as store, store.begin() as ws:
            for i in range(10**9):
                ws["x"][i % 60 * 4096 : (i % 60 + 3) * 4096] = i % 250 + 2
                ws.snapshot(f"s{i}")
                if i > 9:
                    store.delete_snapshot(f"s{i - 9}")
                print(i, flush=True)
    """
    command = [sys.executable, "-c", script, str(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        end = time.monotonic() + 3
        with pagestore.open(path, "r") as store:
            while time.monotonic() < end:
                space, stats = store.space(), store.stats()
                assert sum(s.new_bytes for s in space.values()) % PAGE == 0
                used = stats.referred_bytes + stats.free_bytes + stats.reserved_bytes + PAGE
                assert used <= stats.arena_bytes
                ids = {version.id: version.parent for version in store.versions()}
                assert set(ids.values()) - {None} <= set(ids)
                table = store.page_table("main", "x", sharing=True)
                assert len(table) == 64
                assert table.holders is not None
                assert min(table.holders.tolist()) >= 1
                assert sum(found.stored_pages for found in store.layout("main").values()) == 64
                told = store.freed_by("main")
                assert told.freed_bytes % PAGE == 0
            assert store._shared.pins.held == 0
            mine = [r.split() for r in store._shared.catalog._env.readers().splitlines()]
            assert {words[-1] for words in mine if words[0] == str(os.getpid())} <= {"-"}
    finally:
        child.kill()
        child.communicate()


def test_nothing_is_pinned_or_written(forked):
    forked.close()
    contents = {f.name: f.read_bytes() for f in forked.path.iterdir() if f.name != "catalog-lock"}
    with pagestore.open(forked.path, "r") as store:
        store.versions(), store.space(), store.stats(), store.layout("two")
        store.page_table("two", "x", sharing=True), store.freed_by("one", "two")
        assert store._shared.pins.held == 0
    after = {f.name: f.read_bytes() for f in forked.path.iterdir() if f.name != "catalog-lock"}
    assert after == contents
