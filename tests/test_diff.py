"""What changed between two versions: all of it, nothing else, and at the price of what changed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pagestore
from pagestore.diff import last_common, moved_pages
from pagestore.format import NO_VERSION
from pagestore.pagetable import compare, expand, walk
from tests.conftest import PAGE
from tests.histories import live, slots_of, steps
from tests.shrunk import STACKED, TALL, shrunk


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("diffs")


@pytest.fixture
def compared(monkeypatch):
    """How many extents each comparison of two leaves looked at."""
    cut, found = compare._cut, []

    def counting(cover, shared):
        found.append(sum(map(len, cover)))
        return cut(cover, shared)

    monkeypatch.setattr(compare, "_cut", counting)
    return found


def contents(store, version):
    """Bytes of every region, by name."""
    with store.view(version) as view:
        return {name: view[name].tobytes() for name in view}


def pages_that_differ(a: bytes, b: bytes) -> set[int]:
    size = -(-max(len(a), len(b)) // PAGE) * PAGE
    rows = (np.frombuffer(x.ljust(size, b"\0"), np.uint8).reshape(-1, PAGE) for x in (a, b))
    one, other = rows
    return set(np.flatnonzero((one != other).any(axis=1)).tolist())


@given(steps, st.sampled_from((TALL, STACKED)), st.booleans())
@settings(max_examples=80)
def test_any_two_versions_of_a_random_history(scratch, steps, tree, keep_all):
    """On one line or on two, forwards and backwards, zeros and cuts and merges in between."""
    number = len(list(scratch.iterdir()))
    history = "all" if keep_all else "named"
    with (
        shrunk(tree),
        pagestore.open(scratch / f"{number}.ps", "x", page_size=PAGE, history=history) as store,
    ):
        live(store, steps)
        shown = {version.id: contents(store, version.id) for version in store.versions()}
        for a, b in itertools.permutations(shown, 2):
            said: dict[str, set[int]] = {}
            replaced = set()
            for change in store.diff(a, b):
                said.setdefault(change.region, set()).update(range(change.start, change.stop))
                if change.kind in ("created", "deleted"):
                    replaced.add(change.region)
            for name in shown[a].keys() & shown[b].keys() - replaced:
                differ = pages_that_differ(shown[a][name], shown[b][name])
                assert said.get(name, set()) == differ, (name, a, b)
        slots = slots_of(store)
        with store._shared.read() as (records, nodes):
            for old, new in itertools.permutations(map(records.version, slots), 2):
                for name in old.regions.keys() & new.regions.keys():
                    if old.regions[name].id == new.regions[name].id:
                        common = last_common(records, old, new)
                        since = common if common == old.id else NO_VERSION
                        parts = moved_pages(nodes, old.regions[name], new.regions[name], since)
                        expected = elsewhere(slots[old.id][name], slots[new.id][name])
                        assert moved(parts) == expected, (name, old.id, new.id)
        assert list(store.check(data=True)) == []


def moved(parts):
    """Page, old slot and new slot of everything that lies elsewhere."""
    columns = [(*expand(part.olds())[:2], expand(part.news())[1]) for part in parts]
    return sorted(row for column in columns for row in np.stack(column, 1).tolist())


def elsewhere(old, new):
    size = max(len(old), len(new))
    old, new = (np.append(x, np.zeros(size - len(x), np.int64)) for x in (old, new))
    pages = np.flatnonzero(old != new)
    return np.stack((pages, old[pages], new[pages]), 1).tolist()


def test_who_follows_a_branch_pays_for_what_changed(tmp_path, compared):
    """However much was merged in between: a live view, and a workspace with changes of its own."""
    rng = np.random.default_rng(1)
    with shrunk(STACKED, WORTH_COMPARING=1 << 14), pagestore.open(tmp_path / "s") as store:
        with store.begin() as ws:
            ws.create("x", 64 * PAGE)[:] = 1
        ws = store.begin()
        with store.live("main") as live, store.begin() as other:
            shown = live["x"]
            other["x"][63 * PAGE] = 7
            for i in range(60):
                stays = i % 5 > 0  # of zeros nothing may be left: then all is compared
                ws["x"][i * PAGE : (i + 1) * PAGE] = rng.integers(1, 255, PAGE) * stays
                ws.commit()
                compared.clear()
                assert live.refresh()
                assert other.refresh()
                assert max(compared) == 1 or not stays
                assert (shown == ws["x"]).all()
                assert (other["x"][: 63 * PAGE] == ws["x"][: 63 * PAGE]).all()
            other.rollback()
        ws.close()
        assert list(store.check(data=True)) == []


@pytest.mark.parametrize("branched", [False, True])
def test_it_costs_what_changed_though_all_was_merged_meanwhile(tmp_path, compared, branched):
    """A table that took everything into one run since is not compared, nor painted, as a whole."""
    rng, nodes_of = np.random.default_rng(1), set()
    with shrunk(STACKED, WORTH_COMPARING=1 << 14), pagestore.open(tmp_path / "s") as store:
        with store.begin() as ws:
            ws.create("x", 64 * PAGE)[:] = 1
            for i in range(40):
                ws.write("x", i * PAGE, rng.bytes(PAGE))
                ws.snapshot(f"s{i}")
                with store._shared.read() as (records, nodes):
                    table = records.resolve(f"s{i}").regions["x"].table
                    nodes_of.add(len(list(walk(nodes, table))))
                if branched:
                    with store.begin(f"b{i}", at=f"s{i}") as aside:
                        aside.write("x", 63 * PAGE, b"1")
        assert {2, 3} <= nodes_of  # runs were merged again and again
        compared.clear()
        for i in range(39):
            for a, b in itertools.permutations((f"b{i}" if branched else f"s{i}", f"s{i + 1}")):
                assert [change.start for change in store.diff(a, b)] == [i + 1, 63][: 1 + branched]
        assert max(compared) == 1 + branched
        assert list(store.check(data=True)) == []
