"""Who shares a page, and what deleting would free, over random histories.

Every number is compared with counting: the slots that each version's tables name, read whole.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pagestore
from tests.conftest import PAGE
from tests.histories import delete_all, live, referred, slots_of, steps
from tests.shrunk import shrunk


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
