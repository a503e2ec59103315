"""Do changes become versions, only changes, all of them, and whole?"""

from __future__ import annotations

import errno

import numpy as np
import pytest

import pagestore
from pagestore import ExistsError, FullError, InvalidError, kernel, workspace

PAGE = 4096


def stored(store: pagestore.Store) -> int:
    """Pages that some version refers to."""
    return store.stats().referred_bytes // store.page_size


# ------------------------------------------------------------------------------ what is stored


def test_arrays_live_on_over_commits(filled):
    ws = filled.begin()
    array = ws["x"]
    for i in range(1, 30):
        array[i % 10 * PAGE] = i
        ws.commit(f"number {i}")
        array[(i * 3) % 10 * PAGE + 7] = i
        assert filled.view("main")["x"][i % 10 * PAGE] == i
    ws.commit()
    assert np.array_equal(filled.view("main")["x"], array)
    assert stored(filled) == 14


def test_no_version_for_no_change(filled):
    ws = filled.begin()
    array = ws["x"]
    first = filled.version("main").id
    assert ws.commit().id == first
    array[:] = 1
    ws.write("y", 5, b"\1\1\1")
    assert ws.commit().id == first
    assert filled.version("main").id == first
    array[0] = 2
    assert ws.commit().id > first


def test_identical_bytes_take_no_slot(filled):
    ws = filled.begin()
    array = ws["x"]
    ws.snapshot("before")
    array[:] = 1
    array[5 * PAGE] = 2
    ws.snapshot("after")
    assert stored(filled) == 15
    after = filled.version("after").id
    assert filled.space()[after].exclusive_bytes in (0, PAGE)
    assert [c.start for c in filled.diff("before", "after")] == [5]


def test_pages_of_zeros_give_their_slots_up(filled):
    ws = filled.begin()
    ws["x"][2 * PAGE : 8 * PAGE] = 0
    ws.write("y", 0, bytes(2 * PAGE))
    ws.commit()
    assert stored(filled) == 6
    ws["x"][:] = 0
    ws["y"][:] = 0
    ws.commit()
    assert stored(filled) == 0
    assert not filled.view("main")["x"].any()


def test_pages_larger_than_the_systems(make_store, tracking, mapping, monkeypatch):
    """One byte makes a quarter of such a page private; no slot that is freed may show."""
    monkeypatch.setattr("pagestore.space.LOOK_LEAST", 8)
    store = make_store(page_size=4 * PAGE, tracking=tracking, mapping=mapping)
    with store.begin() as ws:
        ws.create("x", 20 * 4 * PAGE)[:] = 1
        ws.create("y", 20 * 4 * PAGE)
    ws = store.begin()
    x, y = ws["x"], ws["y"]
    expected = x.copy()
    x[:: 4 * PAGE] = expected[:: 4 * PAGE] = 2
    ws.write("x", 5 * PAGE, b"\3")
    expected[5 * PAGE] = 3
    for value in range(3, 30):
        y[:] = value
        ws.commit()
        assert np.array_equal(x, expected)


def test_a_commit_that_came_to_nothing(make_store, monkeypatch):
    """What it took and gave is not believed, even if a name was made since."""
    monkeypatch.setattr("pagestore.space.LOOK_LEAST", 8)
    monkeypatch.setattr("pagestore.space.GROW_LEAST", 100)
    store = make_store()
    ws = store.begin()
    array = ws.create("x", 30 * PAGE)
    array[:] = 1
    ws.commit()
    array[:] = 2
    with monkeypatch.context() as patch:

        def refuse(*_):
            raise FullError("the disk is full")

        patch.setattr("pagestore.catalog.Catalog._reserve", refuse)
        with pytest.raises(FullError):
            ws.commit()
    store.snapshot("ones")
    for value in range(3, 20):
        ws.commit()
        assert (store.view("ones")["x"] == 1).all()
        array[:] = value


def test_leaving_the_block_commits_or_rolls_back(filled):
    before = filled.version("main").id

    def fail():
        with filled.begin() as ws:
            ws["x"][0] = 9
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert filled.version("main").id == before
    with filled.begin() as ws:
        ws["x"][0] = 9
    assert filled.view("main")["x"][0] == 9


def test_rollback_undoes_everything(filled):
    ws = filled.begin()
    x, y = ws["x"], ws["y"]
    x[:] = 5
    ws.resize("x", 3 * PAGE + 9)
    ws.resize("x", 12 * PAGE)
    ws.delete("y")
    ws.create("y", 7)[:] = 1
    ws.create("z", 7)
    ws.flush()
    ws.rollback()
    assert sorted(ws) == ["x", "y"]
    assert ws["x"].shape == (10 * PAGE,)
    assert (ws["x"] == 1).all()
    assert (x == 1).all()
    assert (ws["y"] == 1).all()
    assert ws["y"].shape == y.shape == (4 * PAGE,)
    assert ws.commit().id == filled.version("main").id


def test_a_snapshot_is_all_or_nothing(filled):
    ws = filled.begin()
    ws["x"][0] = 3
    with pytest.raises(ExistsError):
        ws.snapshot("main")
    assert filled.view("main")["x"][0] == 1
    first = ws.snapshot("s")
    assert ws.snapshot("t").id == first.id, "a name needs no new version"
    with pytest.raises(InvalidError):
        ws.snapshot("")


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("u1", ()), ("f8", (0,)), ("f8", (3, 0, 2)), ("?", (5,)), (">i4", (7, 3)), ("<c16", (2,)),
        ("S5", (4,)), ("<U3", (4,)), (">U2", 3), ("M8[ns]", (9,)), ("m8[D]", (2, 2)), ("V7", (3,)),
        ("f2", (1025,)), ("g", (3,)), ([("a", "u1"), ("b", "<f8", (2,)), ("c", "S3")], (1000,)),
        (np.dtype([("a", "u1"), ("b", "<f8")], align=True), (5,)),
    ],
)  # fmt: skip
def test_every_dtype_comes_back(any_store, dtype, shape):
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.random.default_rng(1).integers(0, 2, size, np.uint8)
    with any_store.begin() as ws:
        array = ws.create("x", shape, dtype)
        assert array.dtype == dtype
        assert array.shape == (shape if isinstance(shape, tuple) else (shape,))
        assert array.tobytes() == bytes(size)
        ws.write("x", 0, raw)
    for view in (any_store.view("main"), any_store.live(), any_store.begin()):
        assert view["x"].dtype == view.regions["x"].dtype == dtype
        assert view["x"].shape == array.shape
        assert view["x"].tobytes() == raw.tobytes()
    for bad in ("O", [("a", "O")], "V0", ("f4", (3,)), "no such", "T"):
        with pytest.raises(InvalidError):
            any_store.begin().create("y", 3, bad)


@pytest.mark.parametrize("data", [b"abc", bytearray(b"abc"), memoryview(b"abc"),
                                  np.frombuffer(b"a-b-c-", "u1")[::2]])  # fmt: skip
def test_everything_with_bytes_can_be_written(store, data):
    with store.begin() as ws:
        ws.create("x", 10)
        ws.write("x", 4, data)
    assert bytes(store.view("main")["x"]) == b"\0\0\0\0abc\0\0\0"
    ws = store.begin()
    for offset, bad in ((8, b"abc"), (-1, b"a"), (0, "abc"), (0, 5)):
        with pytest.raises(InvalidError):
            ws.write("x", offset, bad)


# ------------------------------------------------------------------------------------ resizing


def test_old_arrays_after_a_resize(filled):
    """Where both have a byte they are the same byte; what lies beyond is not stored."""
    ws = filled.begin()
    old = ws["x"]
    new = ws.resize("x", 5 * PAGE + 100)
    old[7] = 7
    new[8] = 8
    old[5 * PAGE + 50 : 9 * PAGE] = 6
    assert new[7:9].tolist() == old[7:9].tolist() == [7, 8]
    ws.commit()
    view = filled.view("main")["x"]
    assert np.array_equal(view, new)
    assert (new[5 * PAGE + 50 :] == 6).all()
    again = ws.resize("x", 12 * PAGE)
    assert not again[5 * PAGE + 100 :].any(), "bytes that come anew are zeros"
    ws.commit()
    assert np.array_equal(filled.view("main")["x"], again)


@pytest.mark.parametrize("size", [0, 1, 100, PAGE, PAGE + 1, 5 * PAGE - 1, 9 * PAGE])
def test_what_was_cut_comes_back_as_zeros(filled, size):
    ws = filled.begin()
    old = ws["x"]
    ws.resize("x", size)
    old[size:] = 9  # into memory that is no region's any more
    new = ws.resize("x", 10 * PAGE)
    assert (new[:size] == 1).all()
    assert not new[size:].any()
    new[9 * PAGE] = 4
    ws.commit()
    assert np.array_equal(filled.view("main")["x"], new)
    ws.resize("x", size)
    ws.commit()
    old[size:] = 9
    ws.commit()
    with filled.begin() as other:
        assert not other.resize("x", 10 * PAGE)[size:].any()


def test_cut_and_written_as_before(filled):
    """The same bytes again, but no longer the base's."""
    ws = filled.begin()
    ws.resize("x", 3 * PAGE)
    ws.resize("x", 10 * PAGE)[7 * PAGE :] = 1
    ws.commit()
    with filled.view("main") as view:
        assert np.array_equal(view["x"], ws["x"])
        assert np.flatnonzero(np.diff(view["x"])).tolist() == [3 * PAGE - 1, 7 * PAGE - 1]


def test_growing_beyond_the_reserved_addresses(make_store, monkeypatch):
    monkeypatch.setattr("pagestore.wiring.RESERVE_LEAST", 16 * PAGE)
    monkeypatch.setattr("pagestore.wiring.RESERVE_FACTOR", 1)
    store = make_store()
    ws = store.begin()
    array = ws.create("x", 10 * PAGE)
    array[:] = 1
    with pytest.raises(InvalidError, match="release"):
        ws.resize("x", 1000 * PAGE)
    assert (array == 1).all()
    array[3] = 5
    del array
    new = ws.resize("x", 1000 * PAGE)
    assert new[:5].tolist() == [1, 1, 1, 5, 1]
    new[999 * PAGE] = 2
    ws.commit()
    assert np.array_equal(store.view("main")["x"], new)


# ------------------------------------------------------------- bytes, without handing arrays out


class Scans:
    """Counts how often the tracker is asked, and asks it."""

    def __init__(self, tracker):
        self.tracker, self.count = tracker, 0

    def __getattr__(self, name):
        return getattr(self.tracker, name)

    def written(self, address, size, **options):
        self.count += 1
        return self.tracker.written(address, size, **options)


def test_a_file_of_bytes_is_never_searched_for_changes(any_store, monkeypatch):
    """`create` of nothing, `truncate`, `write` and `peek` hand out nothing to write to."""
    scans = Scans(any_store._shared.tracker)
    monkeypatch.setattr(any_store._shared, "tracker", scans)
    ws = any_store.begin()
    ws.create("f", 0)
    ws.truncate("f", 3 * PAGE + 5)
    ws.write("f", PAGE - 1, b"ab")
    seen = ws.peek("f")
    assert len(seen) == 3 * PAGE + 5
    ws.write("f", 3 * PAGE + 4, b"z")
    assert bytes(seen[PAGE - 1 : PAGE + 1]) == b"ab"
    assert seen[-1] == ord("z")
    ws.commit()
    ws.truncate("f", PAGE)
    ws.truncate("f", 2 * PAGE)
    ws.commit()
    assert scans.count == 0
    assert ws.read("f", PAGE - 2, 4) == b"\0a\0\0"
    with any_store.view("main") as view:
        assert np.array_equal(view.peek("f"), ws.peek("f"))
    ws["f"][7] = 1  # from now on it is
    ws.commit()
    assert scans.count > 0
    assert any_store.view("main")["f"][7] == 1


def test_what_is_peeked_at_cannot_be_written_to(filled):
    ws, view, live = filled.begin(), filled.view("main"), filled.live()
    for shown in (ws, view, live):
        with pytest.raises(ValueError, match="read-only"):
            shown.peek("x")[0] = 1
        with pytest.raises(pagestore.NotFoundError):
            shown.peek("nothing")


def test_only_plain_bytes_are_truncated(filled):
    ws = filled.begin()
    ws.create("table", (4, 4), "f8")
    for name, size in (("table", 8), ("x", -1), ("x", "3"), ("x", (3, 4)), ("x", 1 << 60)):
        with pytest.raises(InvalidError):
            ws.truncate(name, size)
    with pytest.raises(pagestore.NotFoundError):
        ws.truncate("nothing", 8)


def test_current_until_somebody_commits(filled):
    first, second, live = filled.begin(), filled.begin(), filled.live()
    assert first.current
    assert not first.refresh()
    filled.snapshot("another transaction, the same head")
    assert first.current
    assert not live.refresh()
    second.write("x", 0, b"\7")
    second.commit()
    assert second.current
    assert not first.current
    assert live.refresh()
    assert not live.refresh()
    assert first.refresh()
    assert first.current
    assert first["x"][0] == live["x"][0] == 7
    filled.create_branch("b")
    third = filled.begin("b")
    filled.delete_branch("b")
    with pytest.raises(pagestore.NotFoundError):
        third.current  # noqa: B018


@pytest.mark.parametrize("look", [True, False])
def test_current_after_commits_of_nothing(filled, look):
    """A commit that writes nothing has a transaction's number that the next writer gets."""
    first, second = filled.begin(), filled.begin()
    first.write("x", 0, b"\7")
    first.commit()
    second.refresh()
    second.write("x", 0, b"\7")  # as it is
    second.commit()
    assert not look or second.current  # to look notes what was seen
    first.write("x", 1, b"\7")
    first.commit()
    assert first.current
    assert not second.current
    assert second.refresh()


def test_no_descriptor_is_left_to_look_at_memory_with(filled, monkeypatch):
    def none_left():
        raise OSError(errno.EMFILE, "too many open files")

    ws = filled.begin()
    ws["x"][0] = 7
    monkeypatch.setattr(kernel, "private_bytes", none_left)
    monkeypatch.setattr(workspace, "CHECK_SECONDS", 0.0)
    ws._next_check = 0.0
    ws["x"][1] = 8
    ws.commit()
    assert filled.view("main")["x"][:3].tolist() == [7, 8, 1]
