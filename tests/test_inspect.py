"""What a store says about itself: who shares a page, what deleting would free, where pages lie.

Every number is compared with counting: the slots that each version's tables name, read whole.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pagestore
from pagestore import CorruptionError, InvalidError, NotFoundError
from pagestore.format import VERSION, number_key
from tests.conftest import PAGE
from tests.damage import become, directory_in_memory, in_child
from tests.histories import delete_all, live, referred, slots_of, steps
from tests.shrunk import shrunk

# ---------------------------------------------------------------------------- random histories


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("histories")


def history(scratch, steps, *, keep_all=False, page_size=PAGE, views=None):
    number = len(list(scratch.iterdir()))
    options = {"history": "all" if keep_all else "named", "page_size": page_size}
    store = pagestore.open(scratch / f"{number}.ps", "x", **options)
    live(store, steps, views)
    return store


@given(steps, st.booleans(), st.sampled_from((PAGE, 4 * PAGE)))
@settings(max_examples=60)
def test_space_and_sharing_are_those_of_counting(scratch, steps, keep_all, page_size):
    with shrunk(), history(scratch, steps, keep_all=keep_all, page_size=page_size) as store:
        slots = slots_of(store)
        refers = {version: referred(regions) for version, regions in slots.items()}
        holders = Counter(slot for mine in refers.values() for slot in mine)
        parents = {version.id: version.parent for version in store.versions()}
        space = store.space()
        assert list(space) == list(refers) == list(parents)
        for version, mine in refers.items():
            found = space[version]
            before = refers.get(parents[version], set())
            alone = sum(holders[slot] == 1 for slot in mine)
            assert found.version == version
            assert found.referred_bytes == len(mine) * page_size
            assert found.exclusive_bytes == alone * page_size
            assert found.new_bytes == len(mine - before) * page_size
            check_regions(store, version, slots[version], holders)
        stats = store.stats()
        assert stats.referred_bytes == len(holders) * page_size
        assert sum(found.new_bytes for found in space.values()) == stats.referred_bytes


def check_regions(store, version, regions, holders):
    layouts = store.layout(version)
    assert list(layouts) == list(regions)
    for name, slots in regions.items():
        pages = np.flatnonzero(slots)
        table = store.page_table(version, name, sharing=True)
        assert table.page.tolist() == pages.tolist()
        assert table.slot.tolist() == slots[pages].tolist()
        assert table.holders.tolist() == [holders[s] for s in slots[pages].tolist()]
        assert (table.birth <= version).all()
        steps = np.diff(pages), np.diff(slots[pages])
        runs = int(((steps[0] != 1) | (steps[1] != 1)).sum()) + bool(len(pages))
        found = layouts[name]
        assert (found.name, found.pages, found.stored_pages) == (name, len(slots), len(pages))
        assert found.zero_pages == len(slots) - len(pages)
        assert found.runs == table.runs == runs
        assert found.referred_bytes == len(pages) * store.page_size
        alone = int((table.holders == 1).sum())
        assert found.exclusive_bytes == alone * store.page_size


@given(steps, st.booleans(), st.sets(st.integers(0, 40), max_size=6))
@settings(max_examples=60)
def test_what_deleting_would_free_is_what_it_frees(scratch, steps, keep_all, picks):
    with shrunk(), history(scratch, steps, keep_all=keep_all) as store:
        every = [*store.snapshots, *(b for b in store.branches if b != "main")]
        names = sorted({every[i % len(every)] for i in picks}) if every else []
        before = slots_of(store)
        told = store.freed_by(*names)
        assert slots_of(store).keys() == before.keys()
        asked = {store.version(name).id for name in names}
        free = store.stats().free_bytes
        delete_all(store, names)
        after = slots_of(store)
        assert set(told.versions) == before.keys() - after.keys()
        assert told.freed_bytes == store.stats().free_bytes - free
        assert set(told.staying) == asked & after.keys()
        lost = set().union(*map(referred, before.values())) - set().union(
            *map(referred, after.values())
        )
        assert told.freed_bytes == len(lost) * PAGE


@given(steps)
@settings(max_examples=40)
def test_what_only_pins_keep(scratch, steps):
    """Pinned versions are kept, and counted, until they are let go of."""
    views: list[pagestore.SnapshotView] = []
    with shrunk(), history(scratch, steps, views=views) as store:
        refers = {version: referred(regions) for version, regions in slots_of(store).items()}
        holders = Counter(slot for mine in refers.values() for slot in mine)
        for version, found in store.space().items():
            alone = sum(holders[slot] == 1 for slot in refers[version])
            assert found.exclusive_bytes == alone * PAGE
        before = store.stats()
        assert before.referred_bytes == len(holders) * PAGE
        pinned = {view.version.id for view in views}
        assert {pin.version for pin in before.pins} == pinned
        for view in views:
            view.close()
        store.expire(datetime.now(UTC))  # drops what nothing keeps any more
        after = store.stats()
        assert after.pins == ()
        assert before.unkept_bytes == after.free_bytes - before.free_bytes
        assert after.unkept_bytes == 0


# ------------------------------------------------------------------------------ what is freed


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


# -------------------------------------------------------------------------- the store as a whole


def test_the_store_as_a_whole(make_store):
    before = datetime.now(UTC)
    store = make_store(page_size=4 * PAGE, history="all")
    with store.begin() as ws:
        ws.create("x", 40 * PAGE)[:] = 1
        ws.snapshot("one")
    stats = store.stats()
    assert (stats.format, stats.page_size, stats.history) == (1, 4 * PAGE, "all")
    assert (stats.versions, stats.snapshots, stats.branches) == (2, 1, 1)
    assert stats.store_id == store._shared.arena.superblock.store_id.hex()
    assert abs(stats.created - before) < timedelta(minutes=1)
    assert stats.arena_bytes == (store.path / "arena").stat().st_size
    assert stats.catalog_bytes == (store.path / "catalog").stat().st_size
    assert 0 < stats.catalog_used_bytes <= stats.catalog_bytes
    files = sum(file.stat().st_blocks * 512 for file in store.path.iterdir())
    assert stats.disk_bytes == files
    assert stats.disk_free_bytes > 0
    assert (stats.reserved_bytes, stats.unkept_bytes) == (0, 0)


def test_slots_set_aside_are_told(filled):
    ws = filled.begin()
    ws["x"][:] = 5
    ws.flush()
    stats = filled.stats()
    assert stats.reserved_bytes == 10 * PAGE
    assert stats.referred_bytes == 14 * PAGE  # what was committed
    ws.rollback()
    ws.close()


def test_who_pins_what(store):
    with store.begin() as ws:
        ws.create("x", 4 * PAGE)[:] = 1
        ws.snapshot("one")
        ws["x"][0] = 2
        ws.snapshot("two")
    one, two = store.version("one").id, store.version("two").id
    assert store.stats().pins == ()
    script = "import pagestore, sys; s = pagestore.open(sys.argv[1], 'r'); v = s.view('one')\n"
    script += "w = s.live(); print(v['x'][0], w['x'][0], flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(store.path)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "1 2\n"
        pins = store.stats().pins
        assert [(pin.version, pin.process) for pin in pins] == [(one, child.pid), (two, child.pid)]
        assert all(str(store.path) in pin.command for pin in pins)
        age = datetime.now(UTC) - pins[0].process_started
        assert timedelta(seconds=-2) < age < timedelta(minutes=5)
        store.delete_snapshot("one")
        assert store.stats().unkept_bytes == PAGE
        assert store.stats().warnings == ()
    finally:
        child.communicate("")
    assert store.stats().pins == ()


def holder(path):
    """A process that looks at the head, until it is killed."""
    script = "import pagestore, sys, time; s = pagestore.open(sys.argv[1], 'r'); w = s.live()\n"
    script += "w['x']; print('ready', flush=True); time.sleep(600)"
    command = [sys.executable, "-c", script, str(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def test_a_pin_goes_with_its_process(filled):
    child = holder(filled.path)
    assert [pin.process for pin in filled.stats().pins] == [child.pid]
    child.kill()
    child.communicate()
    assert filled.stats().pins == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up privileges")
def test_a_pin_of_somebody_else():
    """The kernel tells everybody that a byte is locked, but not by whom."""
    with directory_in_memory() as top:
        with pagestore.open(top / "s.ps") as store, store.begin() as ws:
            ws.create("x", PAGE)[:] = 1
        top.chmod(0o755)
        for file in (top / "s.ps").iterdir():
            file.chmod(0o666)

        def look():
            become(65534)
            with pagestore.open(top / "s.ps", "r") as store:
                return str([(pin.version, pin.process, pin.command) for pin in store.stats().pins])

        child = holder(top / "s.ps")
        try:
            assert in_child(look) == "[(2, None, '')]"
        finally:
            child.kill()
            child.communicate()


def test_who_drops_a_version_does_not_pin_it(filled):
    pins = filled._shared.pins
    assert pins.try_exclusive(filled.version("main").id)
    assert filled.stats().pins == ()
    pins.end_exclusive()


def test_a_pin_of_this_process(filled):
    with filled.view("main") as view:
        assert view["x"][0] == 1
        [pin] = filled.stats().pins
        assert (pin.version, pin.process) == (view.version.id, os.getpid())


def test_an_old_pin_and_a_full_disk_are_warned_of(filled, monkeypatch):
    filled.snapshot("old")
    with filled.begin() as ws:
        ws["x"][:] = 9
    with filled.view("old"):
        filled.delete_snapshot("old")
        assert filled.stats().warnings == ()
        monkeypatch.setattr("pagestore.stats.OLD_PIN", timedelta(0))
        [warning] = filled.stats().warnings
        assert f"pin of process {os.getpid()} (" in warning
        monkeypatch.setattr("pagestore.stats.LITTLE_LEFT", 1.01)
        assert "file system" in filled.stats().warnings[1]


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


# ------------------------------------------------------------------------------------- its cost


def test_space_is_not_quadratic(make_store):
    """Twice the versions take about twice the time; quadratic would be four times."""
    store = make_store()
    took = []
    with store.begin() as ws:
        ws.create("x", 256 * PAGE)[:] = 1
        for i in range(1200):
            ws["x"][i % 256 * PAGE] = i % 200
            ws.snapshot(f"s{i}")
            if i in (299, 1199):
                store.space()
                start = time.process_time()
                store.space()
                took.append(time.process_time() - start)
    assert took[1] < 9 * took[0], took
