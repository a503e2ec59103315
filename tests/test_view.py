"""What a view shows, how it is mapped, and how long its memory and its pin last."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import pagestore
from pagestore import ClosedError, InvalidError, NotFoundError, kernel, wiring

PAGE = 4096


def test_the_example_of_the_design(make_store):
    store = make_store("market.ps")
    with store.begin() as ws:
        prices = ws.create("prices", shape=(1000, 64), dtype="f8")
        prices[:] = 100.0
    store.snapshot("monday")

    ws = store.begin()
    ws["prices"][0] = 101.5
    ws.snapshot("tuesday")
    ws["prices"][1] = 99.0
    ws.commit("a note")
    ws.close()

    with store.view("monday") as then:
        assert then["prices"][0, 0] == 100.0
    live = store.live()
    assert not live.refresh()
    assert live["prices"][:3, 0].tolist() == [101.5, 99.0, 100.0]

    store.create_branch("what-if", at="monday")
    with store.begin("what-if") as ws:
        ws["prices"][:] *= 1.01
    changes = list(store.diff("monday", "what-if"))
    assert {(c.region, c.kind) for c in changes} == {("prices", "written")}
    assert sum(c.stop - c.start for c in changes) == 1000 * 64 * 8 // PAGE
    before = store.stats().free_bytes
    store.delete_snapshot("monday")
    assert store.stats().free_bytes > before or store.stats().versions == 4
    assert store.view("what-if")["prices"][5, 5] == 101.0


# ----------------------------------------------------------------------------------- mappings


def pieces(array) -> list[str]:
    """Permissions of the pieces of the arena that lie under an array."""
    address = array.__array_interface__["data"][0]
    found = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            place, kind, _, _, _, *path = line.split()
            start, stop = place.split("-")
            if int(stop, 16) > address and int(start, 16) < address + array.nbytes:
                found.append(" ".join([kind, *(p.rpartition("/")[2] for p in path)]))
    return found


def test_how_each_view_is_mapped(store):
    with store.begin() as ws:
        ws.create("x", 10 * PAGE)[:] = 7
    assert set(pieces(store.view("main")["x"])) == {"rw-p arena"}
    assert set(pieces(store.live()["x"])) == {"r--s arena"}
    ws = store.begin()
    assert set(pieces(ws["x"])) == {"rw-p arena"}
    assert len(pieces(ws["x"])) == 1, "side by side in the arena, so one piece"


def test_pages_of_zeros_have_no_file_under_them(store):
    with store.begin() as ws:
        ws.create("x", 10 * PAGE)[4 * PAGE] = 1
    view = store.view("main")
    array = view["x"]
    assert pieces(array[: 4 * PAGE]) == ["rw-p"]
    assert pieces(array[4 * PAGE : 5 * PAGE]) == ["rw-p arena"]
    assert array.sum() == 1


@pytest.mark.parametrize("kind", ["view", "live", "begin"])
@pytest.mark.parametrize("limit", [0, 10, 1000])
def test_a_fragmented_version_needs_few_mappings(make_store, mapping, kind, limit, monkeypatch):
    """Every page in another place: what does not fit the budget is copied."""
    for constant, value in (("FEW", 4), ("LONG", 3), ("BRIDGE_GAP", 8)):
        monkeypatch.setattr(wiring, constant, value)
    store = make_store(mapping=mapping)
    expected = np.zeros(400 * PAGE, np.uint8)
    rng = np.random.default_rng(5)
    with store.begin() as ws:
        array = ws.create("x", len(expected))
        for turn in range(12):
            for page in rng.permutation(400)[:60]:
                value = int(rng.integers(0, 3)) * (turn + 1)
                expected[page * PAGE : (page + 1) * PAGE] = value
                array[page * PAGE : (page + 1) * PAGE] = value
            ws.commit()
    monkeypatch.setattr(wiring.BUDGET, "limit", limit)
    monkeypatch.setattr(wiring.BUDGET, "_used", 0)
    view = getattr(store, kind)("main")
    assert np.array_equal(view["x"], expected)
    bound = {0: 5, 10: 20}.get(limit, 400)
    assert len(pieces(view["x"])) <= bound
    if kind == "begin":
        view["x"][::PAGE] += 1
        expected[::PAGE] += 1
        view.commit()
        assert np.array_equal(view["x"], expected)
        assert np.array_equal(store.view("main")["x"], expected)


def test_a_live_view_beyond_the_budget_follows(make_store, monkeypatch):
    store = make_store()
    ws = store.begin()
    array = ws.create("x", 200 * PAGE)
    array[:] = 1
    ws.commit()
    live = store.live()
    shown = live["x"]
    monkeypatch.setattr(wiring.BUDGET, "limit", 0)
    array[:: 2 * PAGE] = 5
    ws.commit()
    assert live.refresh()
    assert np.array_equal(shown, array)


# ------------------------------------------------------------------------------ contents, life


def test_scratch_writes_stay_private(any_store):
    with any_store.begin() as ws:
        ws.create("x", 3 * PAGE)[:] = 1
    one, two = any_store.view("main"), any_store.view("main")
    one["x"][:] = 9
    assert (two["x"] == 1).all()
    assert one["x"][0] == 9, "the second look is the same memory"
    assert (any_store.view("main")["x"] == 1).all()


def test_reading_ranges(any_store):
    with any_store.begin() as ws:
        ws.create("x", 2 * PAGE + 5)[:] = np.arange(2 * PAGE + 5) % 256
    view = any_store.view("main")
    assert view.read("x", PAGE - 1, 3) == bytes([255, 0, 1])
    assert view.read("x", 2 * PAGE + 5, 0) == b""
    for offset, size in ((-1, 1), (0, 2 * PAGE + 6), (2 * PAGE + 6, 0), (0.5, 1)):
        with pytest.raises(InvalidError):
            view.read("x", offset, size)
    with pytest.raises(NotFoundError):
        view.read("y", 0, 0)


def test_a_view_is_a_mapping(store):
    with store.begin() as ws:
        ws.create("b", 1)
        ws.create("a", (2, 3), "i4")
    view = store.view("main")
    assert sorted(view) == ["a", "b"]
    assert len(view) == 2
    assert "a" in view
    assert "c" not in view
    assert view.regions["a"].shape == (2, 3)
    assert view.version.id == store.version("main").id
    with pytest.raises(NotFoundError):
        view["c"]
    view.close()
    for use in (lambda: view["a"], lambda: list(view), lambda: view.read("a", 0, 0)):
        with pytest.raises(ClosedError):
            use()
    view.close()


def test_arrays_outlive_the_view_and_the_store_and_hold_the_version(make_store, mapping):
    """The version stays until the last array is gone; then the next commit frees it."""
    store = make_store(mapping=mapping)
    ws = store.begin()
    array = ws.create("x", 20 * PAGE)
    array[:] = 1
    old = ws.commit()
    view = store.view(old.id)
    kept = view["x"][5:]  # a view of the array counts as well
    view.close()
    for value in range(2, 12):  # enough to use every free slot again
        array[:] = value
        ws.commit()
        assert (kept == 1).all()
    assert store.version(old.id).id == old.id
    del kept, view
    gc.collect()
    assert store.version(old.id).id == old.id, "nothing is dropped by letting go"
    array[:] = 0
    ws.commit()
    with pytest.raises(NotFoundError):
        store.version(old.id)


def test_arrays_outlive_the_store(make_store, tmp_path):
    store = make_store()
    with store.begin() as ws:
        ws.create("x", 20 * PAGE)[:] = 1
    kept = store.view("main")["x"]
    old = store.version("main").id
    store.close()
    again = pagestore.open(tmp_path / "s.ps")
    for value in range(2, 9):
        with again.begin() as ws:
            ws["x"][:] = value
    assert (kept == 1).all()
    assert again.version(old).id == old
    del kept
    with again.begin() as ws:
        ws["x"][:] = 99
    with pytest.raises(NotFoundError):
        again.version(old)
    again.close()


# ------------------------------------------------------------------------------------- live views


def test_a_live_view_moves_only_what_changed(store, monkeypatch):
    ws = store.begin()
    array = ws.create("x", 100 * PAGE)
    ws.create("y", 100 * PAGE)[:] = 3
    array[:] = 1
    ws.commit()
    live = store.live()
    shown, other = live["x"], live["y"]
    mapped: list[int] = []
    map_file = kernel.map_file

    def counting(address, size, *arguments, **options):
        mapped.append(size)
        map_file(address, size, *arguments, **options)

    monkeypatch.setattr(kernel, "map_file", counting)
    array[50 * PAGE] = 2
    ws.commit()
    mapped.clear()
    assert live.refresh()
    assert mapped == [PAGE]
    assert np.array_equal(shown, array)
    assert (other == 3).all()
    assert not live.refresh()


def test_a_live_view_after_resizing_and_deleting(any_store):
    ws = any_store.begin()
    for name in ("grown", "gone", "again", "same"):
        ws.create(name, 2 * PAGE)[:] = 1
    ws.commit()
    live = any_store.live()
    old = {name: live[name] for name in live}
    ws.resize("grown", 5 * PAGE)[:] = 2
    ws.delete("gone")
    ws.delete("again")
    ws.create("again", 2 * PAGE)[:] = 2
    ws["same"][:] = 2
    ws.commit()
    assert live.refresh()
    assert {name: set(array.tolist()) for name, array in old.items()} == {
        "grown": {1}, "gone": {1}, "again": {1}, "same": {2},
    }  # fmt: skip
    assert sorted(live) == ["again", "grown", "same"]
    assert live["grown"].shape == (5 * PAGE,)
    assert (live["again"] == 2).all()
    for value in range(3, 9):
        ws["grown"][:] = ws["same"][:] = value
        ws.commit()
        assert (old["grown"] == 1).all()


def test_live_arrays_cannot_be_written(any_store):
    with any_store.begin() as ws:
        ws.create("x", 10)
    array = any_store.live()["x"]
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True


def test_a_live_view_of_what_is_no_branch(store):
    store.snapshot("s")
    for name in ("s", "nothing"):
        with pytest.raises(NotFoundError):
            store.live(name)
