"""Bytes read and written without memory for their region: the same as with it."""

import numpy as np
import pytest

import pagestore
from pagestore import direct
from pagestore.errors import CorruptionError

PAGE = 4096
PAGES = 40


@pytest.fixture
def filled(any_store, monkeypatch):
    monkeypatch.setattr(direct, "LEAST_CALLS", 64)  # as if it were in many pieces
    store = any_store
    with store.begin() as ws:
        ws.create("x", PAGES * PAGE - 100)[:] = np.arange(PAGES * PAGE - 100) % 251
    store.snapshot("full")
    return store


def unwired(ws, name="x"):
    return ws._drafts[name]._wiring is None


def test_a_branch_is_changed_without_laying_it_out(filled):
    filled.create_branch("b", at="full")
    expected = filled.view("full")["x"].copy()
    with filled.begin("b") as ws:
        for start, count in [(5, 3), (PAGE - 2, 4), (PAGE * 3, PAGE * 2), (len(expected) - 3, 3)]:
            ws.write("x", start, bytes([7]) * count)
            expected[start : start + count] = 7
            around = slice(max(0, start - 9), min(start + 9, len(expected)))
            found = ws.read("x", around.start, around.stop - around.start)
            assert found == expected[around].tobytes()
        ws.commit()
        assert unwired(ws)
        assert ws.read("x", PAGE - 4, 8) == expected[PAGE - 4 : PAGE + 4].tobytes()
        ws.write("x", 6, b"\x08")  # on top of what was committed, not of what was aside
        expected[6] = 8
    assert np.array_equal(filled.view("b")["x"], expected)
    changes = [(c.start, c.stop) for c in filled.diff("full", "b")]
    assert changes == [(0, 2), (3, 5), (PAGES - 1, PAGES)]


def test_an_array_shows_what_was_written_before_it(filled):
    ws = filled.begin()
    ws.write("x", PAGE + 1, b"abc")
    array = ws["x"]
    assert bytes(array[PAGE + 1 : PAGE + 4]) == b"abc"
    array[PAGE + 2] = 0
    assert ws.read("x", PAGE + 1, 3) == b"a\0c"
    ws.commit()
    assert bytes(filled.view("main")["x"][PAGE + 1 : PAGE + 4]) == b"a\0c"


@pytest.mark.parametrize(("writes", "least", "calls"), [(0, 0, 0), (0, 1, 1), (2, 1, 3), (4, 0, 4)])
def test_many_calls_get_memory(filled, monkeypatch, writes, least, calls):
    """How many that are grows with what is to be laid out."""
    with filled.begin() as ws:
        for i in range(writes):
            ws.write("x", (9 + 2 * i) * PAGE, b"piece")
    monkeypatch.setattr(direct, "LEAST_CALLS", least)
    monkeypatch.setattr(direct, "PIECES", 2)
    ws = filled.begin()
    assert ws._drafts["x"]._count(99) // 2 == calls - least
    expected = filled.view("main")["x"].copy()
    for i in range(6):
        ws.write("x", i * PAGE + i, b"zz")
        expected[i * PAGE + i :][:2] = ord("z")
        assert unwired(ws) == (i < calls)
    ws.commit()
    assert np.array_equal(filled.view("main")["x"], expected)


def test_rollback_and_resize_see_what_is_aside(filled):
    ws = filled.begin()
    before = ws.read("x", 0, 2 * PAGE)
    ws.write("x", 10, b"gone")
    ws.rollback()
    assert ws.read("x", 0, 2 * PAGE) == before
    ws.write("x", 10, b"stays")
    ws.write("x", 20 * PAGE, b"cut")
    ws.resize("x", 3 * PAGE)
    ws.commit()
    assert bytes(filled.view("main")["x"][10:15]) == b"stays"
    assert len(filled.view("main")["x"]) == 3 * PAGE


@pytest.mark.parametrize("cut", [False, True])
def test_growing_lays_nothing_out(filled, cut):
    with filled.begin() as ws:
        ws.create("y", 3 * PAGE)[:] = 5
    ws = filled.begin()
    expected = np.full(9 * PAGE, 0, np.uint8)
    expected[: 3 * PAGE] = 5
    if cut:
        ws.truncate("y", PAGE)
        expected[PAGE:] = 0
    ws.write("y", 7, b"aside")
    expected[7:12] = list(b"aside")
    ws.truncate("y", 9 * PAGE)
    assert ws.read("y", 3 * PAGE - 5, PAGE) == expected[3 * PAGE - 5 :][:PAGE].tobytes()
    ws.write("y", 8 * PAGE - 3, b"across")
    expected[8 * PAGE - 3 :][:6] = list(b"across")
    assert unwired(ws, "y")
    ws.commit()
    assert unwired(ws, "y")
    assert np.array_equal(filled.view("main")["y"], expected)
    ws.truncate("y", 20 * PAGE)
    ws.rollback()
    assert ws.regions["y"].nbytes == 9 * PAGE
    ws.truncate("y", 12 * PAGE + 9)
    assert np.array_equal(ws["y"][: 9 * PAGE], expected)
    assert not ws["y"][9 * PAGE :].any()
    ws.commit()
    assert filled.view("main")["y"].shape == (12 * PAGE + 9,)
    assert list(filled.check(data=True)) == []


def test_what_others_committed_is_under_what_is_aside(filled):
    ws = filled.begin()
    ws.write("x", 10, b"mine")
    with filled.begin() as other:
        other.write("x", 5 * PAGE, b"theirs")
    assert ws.refresh()
    assert ws.read("x", 5 * PAGE, 6) == b"theirs"
    assert ws.read("x", 10, 4) == b"mine"
    ws.commit()
    now = filled.view("main")["x"]
    assert bytes(now[10:14]) == b"mine"
    assert bytes(now[5 * PAGE :][:6]) == b"theirs"
    with filled.begin() as other:
        other.write("x", 10, b"over")  # the page that was aside until it was committed
    ws.refresh()
    assert ws.read("x", 10, 4) == b"over"


def test_the_same_page_conflicts(filled):
    ws = filled.begin()
    ws.write("x", 10, b"mine")
    with filled.begin() as other:
        other.write("x", 20, b"theirs")
    with pytest.raises(pagestore.ConflictError):
        ws.commit()
    ws.rollback()
    ws.close()


def test_a_view_is_read_without_laying_it_out(filled):
    with filled.view("full") as view:
        whole = np.arange(PAGES * PAGE - 100) % 251
        assert view.read("x", 3 * PAGE - 1, 2) == bytes(whole[3 * PAGE - 1 :][:2].astype("u1"))
        assert not view._wirings
        view["x"][3 * PAGE] = 99  # scratch
        assert view.read("x", 3 * PAGE, 1) == b"\x63"
    live = filled.live()
    assert live.read("x", 0, 3) == b"\0\x01\x02"
    with filled.begin() as ws:
        ws.write("x", 0, b"new")
    assert live.read("x", 0, 3) == b"\0\x01\x02"
    live.refresh()
    assert live.read("x", 0, 3) == b"new"


def test_nothing_outlives_a_view_that_only_read(filled):
    """No cycle keeps a pin until the garbage collector comes."""
    view = filled.view("full")
    view.read("x", 0, 1)
    filled.delete_snapshot("full")
    with filled.begin() as ws:
        ws.write("x", 0, b"later")
    del view, ws
    with filled.begin() as ws:
        ws.write("x", 0, b"later still")
    assert filled.stats().versions == 1


def test_a_page_of_zeros_takes_no_slot(store):
    with store.begin() as ws:
        ws.create("z", 10 * PAGE)
    with store.begin() as ws:
        assert ws.read("z", 0, 10 * PAGE) == bytes(10 * PAGE)
        ws.write("z", 2 * PAGE, bytes(PAGE))
        ws.write("z", 5, b"\0")
        before = ws.version
        assert ws.commit() == before
    assert store.stats().referred_bytes == 0


def test_a_cut_arena_is_said(filled, monkeypatch):
    view = filled.view("full")
    monkeypatch.setattr(type(view._engine.arena), "slots", property(lambda self: 2))
    with pytest.raises(CorruptionError, match="was cut"):
        view.read("x", 20 * PAGE, 10)
