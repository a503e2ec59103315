"""Wrong paths, arguments and moments of use: each says what is wrong and changes nothing."""

import os
import shutil
import struct
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

import pagestore
from pagestore import (
    ClosedError,
    CorruptionError,
    ExistsError,
    FormatError,
    FullError,
    InvalidError,
    NotFoundError,
    PagestoreError,
    ReadOnlyError,
)
from pagestore.format import FORMAT_VERSION, MAX_NAME, META, Meta
from tests.damage import (
    assert_clean,
    become,
    contents,
    directory_in_memory,
    in_child,
    python,
    small_store,
)
from tools.damage.reseal import load, rewrite

NOBODY = 65534


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    path = tmp_path_factory.mktemp("pristine") / "store"
    return path, small_store(path)


@pytest.fixture
def made(pristine):
    """Path and contents of a store that must be as it was when the test is over."""
    with directory_in_memory() as top:
        path, before = top / "store", pristine[1]
        shutil.copytree(pristine[0], path)
        yield path, before
        with pagestore.open(path, "r+") as store:
            assert contents(store) == before
            assert_clean(store)


@pytest.fixture
def opened(made):
    with pagestore.open(made[0]) as store:
        yield store


# ---------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_nothing_there(tmp_path, mode):
    with pytest.raises(NotFoundError, match="no store at"):
        pagestore.open(tmp_path / "none", mode)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["a", "x"])
def test_nowhere_to_create(tmp_path, mode):
    with pytest.raises(NotFoundError, match="no directory"):
        pagestore.open(tmp_path / "no" / "where", mode)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["r", "r+", "a", "x"])
def test_a_file_in_its_place(tmp_path, mode):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(ExistsError if mode == "x" else FormatError, match="file"):
        pagestore.open(path, mode)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", ["r", "r+", "x"])
def test_an_empty_directory_is_no_store(tmp_path, mode):
    path = tmp_path / "empty"
    path.mkdir()
    with pytest.raises(ExistsError if mode == "x" else FormatError):
        pagestore.open(path, mode)
    assert list(path.iterdir()) == []


def test_an_empty_directory_becomes_a_store(tmp_path):
    with pagestore.open(tmp_path / "there") as store:
        assert_clean(store)
    (tmp_path / "empty").mkdir()
    with pagestore.open(tmp_path / "empty") as store:
        assert_clean(store)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "there"]


@pytest.mark.parametrize("mode", ["r", "r+", "a", "x"])
def test_a_directory_of_other_things(tmp_path, mode):
    path = tmp_path / "photos"
    path.mkdir()
    (path / "cat.jpg").write_text("meow")
    with pytest.raises(ExistsError if mode == "x" else FormatError, match="photos"):
        pagestore.open(path, mode)
    assert [p.name for p in path.iterdir()] == ["cat.jpg"]
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]


def test_a_file_that_is_called_arena(tmp_path):
    path = tmp_path / "theatre"
    path.mkdir()
    for text in (b"", b"x", b"sand" * 4096):
        (path / "arena").write_bytes(text)
        with pytest.raises(FormatError, match="arena"):
            pagestore.open(path)
    assert [p.name for p in path.iterdir()] == ["arena"]


def test_links(made, tmp_path):
    path, before = made
    (tmp_path / "link").symlink_to(path)
    with pagestore.open(path) as one, pagestore.open(tmp_path / "link") as two:
        assert one._shared is two._shared
        assert contents(two) == before
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    for mode in ("r", "r+", "a", "x"):
        with pytest.raises(PagestoreError, match="dangling"):
            pagestore.open(tmp_path / "dangling", mode)


@pytest.mark.parametrize("path", [None, 3, object(), b"bytes", "nul\0byte", ["list"]])
@pytest.mark.parametrize("mode", ["r", "a"])
def test_what_is_no_path(path, mode):
    with pytest.raises(InvalidError):
        pagestore.open(path, mode)


@pytest.mark.parametrize("mode", ["r", "a"])
def test_a_name_too_long_for_the_file_system(tmp_path, mode):
    with pytest.raises(PagestoreError):
        pagestore.open(tmp_path / ("x" * 300), mode)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "w"},
        {"mode": ""},
        {"mode": None},
        {"mode": ["r"]},
        {"page_size": 0},
        {"page_size": 1000},
        {"page_size": 2048},
        {"page_size": 4 << 20},
        {"page_size": -4096},
        {"page_size": 4096.0},
        {"page_size": None},
        {"history": "some"},
        {"history": None},
        {"tracking": "magic"},
        {"tracking": None},
        {"mapping": "gps"},
        {"flush_share": 0},
        {"flush_share": 1.5},
        {"flush_share": float("nan")},
        {"flush_share": "half"},
    ],
    ids=str,
)
def test_options(tmp_path, options):
    with pytest.raises(InvalidError):
        pagestore.open(tmp_path / "store", **options)
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------- formats


def test_a_newer_superblock(made):
    arena = made[0] / "arena"
    raw = arena.read_bytes()
    newer = bytearray(raw)
    struct.pack_into("<I", newer, 8, FORMAT_VERSION + 1)
    newer[56:64] = xxhash.xxh3_64_digest(bytes(newer[:56]))
    arena.write_bytes(newer)
    for mode in ("r", "r+", "a"):
        with pytest.raises(FormatError, match="upgrade pagestore"):
            pagestore.open(made[0], mode)
    arena.write_bytes(raw)


def rewrite_meta(path, change):
    old = load(path / "catalog")[META]
    rewrite(path / "catalog", {META: change(old)})
    return old


def test_a_newer_catalog(made):
    path = made[0]
    old = rewrite_meta(path, lambda raw: struct.pack("<I", FORMAT_VERSION + 1) + raw[4:] + b"more")
    for mode in ("r", "r+", "a"):
        with pytest.raises(FormatError, match="upgrade pagestore"):
            pagestore.open(path, mode)
    rewrite_meta(path, lambda _: old)


@pytest.mark.parametrize("cut", [0, 3, 4, 20])
def test_a_meta_record_of_the_wrong_size(made, cut):
    path = made[0]
    old = rewrite_meta(path, lambda raw: raw[:cut])
    with pytest.raises(CorruptionError):
        pagestore.open(path)
    rewrite_meta(path, lambda _: old)


def test_a_catalog_of_another_page_size(made):
    path = made[0]

    def change(raw):
        meta = Meta.unpack(raw)
        return Meta(meta.store_id, 8192, meta.keep_all).pack()

    old = rewrite_meta(path, change)
    with pytest.raises(CorruptionError, match="another store"):
        pagestore.open(path)
    rewrite_meta(path, lambda _: old)


# ----------------------------------------------------------------------------------- permissions


def look_as_nobody(path, mode):
    """What an unprivileged process makes of a store."""
    become(NOBODY)
    try:
        with pagestore.open(path, mode) as store:
            found = repr(contents(store)) + "".join(map(str, store.check(data=True)))
            try:
                store.snapshot("no")
            except ReadOnlyError:
                return found
            return "a snapshot was made"
    except PagestoreError as error:
        return f"{type(error).__name__} {error}"
    except BaseException as error:
        return f"not of the tree: {error!r}"


@pytest.fixture
def public():
    """A store that an unprivileged process can reach, and a function that looks at it so."""
    if os.getuid():
        pytest.skip("only root can become somebody else")
    top = Path(tempfile.mkdtemp())
    top.chmod(0o755)
    before = small_store(top / "store")
    yield (
        top / "store",
        before,
        lambda mode, at="store": in_child(lambda: look_as_nobody(top / at, mode)),
    )
    with pagestore.open(top / "store") as store:
        assert contents(store) == before
        assert_clean(store)
    shutil.rmtree(top)


@pytest.mark.parametrize("mode", ["a", "r+"])
@pytest.mark.parametrize("lock", [0o644, 0o666])
def test_no_permission_to_write(public, mode, lock):
    path, _, look = public
    (path / "catalog-lock").chmod(lock)
    assert look(mode).startswith("ReadOnlyError")


def test_no_permission_to_write_but_to_read(public):
    path, before, look = public
    (path / "catalog-lock").chmod(0o666)
    assert look("r") == repr(before)


@pytest.mark.parametrize(
    ("name", "mode"), [("catalog-lock", 0o644), ("catalog-lock", 0o600), ("pins", 0o600)]
)
def test_a_reader_is_told_which_file_it_cannot_use(public, name, mode):
    path, _, look = public
    (path / "catalog-lock").chmod(0o666)
    (path / name).chmod(mode)
    said = look("r")
    assert said.startswith("ReadOnlyError")
    assert name in said


@pytest.mark.parametrize("name", ["arena", "catalog", ""])
@pytest.mark.parametrize("mode", ["r", "a"])
def test_no_permission_to_read(public, name, mode):
    path, _, look = public
    (path / "catalog-lock").chmod(0o666)
    (path / name).chmod(0o600)
    said = look(mode)
    assert said.startswith("ReadOnlyError")
    assert str(path) in said
    (path / name).chmod(0o755)


def test_no_permission_to_create(public):
    path, _, look = public
    assert look("a", "new").startswith("ReadOnlyError")
    assert [p.name for p in path.parent.iterdir()] == ["store"]


# ----------------------------------------------------------------------------------------- refs

MISSING = [
    "", "none", "one~1000", "one~" + "9" * 30, "one~" + "9" * 5000, "~", "~1", "9" * 19, "9" * 5000,
    0, -1, 99, 1 << 63, 1 << 64, -(1 << 70), "-1", "1.0", " one", "one ", "ONE", "\0", "\ud800",
    "x" * 255, "x" * 512, "x" * 100_000, "é" * 300,
]  # fmt: skip
WRONG = [None, 1.0, True, b"one", object(), ("one",), "one~x", "one~-1", "one~1~2", "one~²"]


@pytest.mark.parametrize("ref", MISSING, ids=lambda r: repr(r)[:20])
def test_refs_of_nothing(opened, ref):
    for use in (
        opened.view,
        opened.version,
        lambda r: list(opened.log(r)),
        lambda r: list(opened.diff(r, "one")),
        lambda r: list(opened.diff("one", r)),
        lambda r: opened.snapshot("new", at=r),
        lambda r: opened.create_branch("new", at=r),
    ):
        with pytest.raises(NotFoundError):
            use(ref)


@pytest.mark.parametrize("ref", WRONG, ids=lambda r: repr(r)[:20])
def test_refs_that_are_none(opened, ref):
    for use in (
        opened.view,
        opened.version,
        lambda r: list(opened.log(r)),
        lambda r: list(opened.diff(r, "one")),
        lambda r: opened.snapshot("new", at=r),
        lambda r: opened.create_branch("new", at=r),
    ):
        with pytest.raises(InvalidError):
            use(ref)


@pytest.mark.parametrize("name", ["none", "", "one", "x" * 600, "\ud800", "main~1"])
def test_branches_that_are_not(opened, name):
    for use in (opened.begin, opened.live):
        with pytest.raises(NotFoundError):
            use(name)
    with pytest.raises((NotFoundError, InvalidError)):
        opened.delete_branch(name)


@pytest.mark.parametrize("name", [None, 3, b"main", True, ["main"]])
def test_branch_names_that_are_none(opened, name):
    for use in (opened.begin, opened.live, opened.delete_branch, opened.delete_snapshot):
        with pytest.raises(InvalidError):
            use(name)


@pytest.mark.parametrize(
    "name", ["none", "", None, 3, b"one", "x" * 600, "\ud800", ["one"], "one~0"]
)
def test_mappings_of_names(opened, name):
    for names in (opened.snapshots, opened.branches):
        assert name not in names
        assert names.get(name) is None
        with pytest.raises(NotFoundError):
            names[name]


def test_deleting_what_must_stay(opened):
    with pytest.raises(InvalidError, match="main"):
        opened.delete_branch("main")
    for name in ("side", "none", "one~1", "", "x" * 600):
        with pytest.raises((NotFoundError, InvalidError)):
            opened.delete_snapshot(name)
    with pytest.raises(NotFoundError):
        opened.delete_branch("one")


@pytest.mark.parametrize("before", [None, 3, "yesterday", datetime(2020, 1, 1)])
def test_expire_takes_an_aware_time(opened, before):
    with pytest.raises(InvalidError):
        opened.expire(before)
    assert opened.expire(datetime(1, 1, 1, tzinfo=UTC)) == 0
    assert opened.expire(datetime(9999, 12, 31, tzinfo=UTC)) == 0


# ---------------------------------------------------------------------------------------- names

BAD_NAMES = [
    "", " ", " x", "x ", "\n", "a\nb", "a\0b", "\x7f", "\u200b", "\ud800", "x" * (MAX_NAME + 1),
    "é" * 128, None, 3, b"x", ["x"], True,
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda n: repr(n)[:20])
def test_bad_names(opened, name):
    with pytest.raises(InvalidError):
        opened.snapshot(name)
    with pytest.raises(InvalidError):
        opened.create_branch(name)
    with opened.begin() as ws:
        with pytest.raises(InvalidError):
            ws.create(name, 3)
        with pytest.raises(InvalidError):
            ws.snapshot(name)


def test_a_tilde_counts_ancestors(opened):
    for use in (opened.snapshot, opened.create_branch, opened.begin().snapshot):
        with pytest.raises(InvalidError, match="~"):
            use("a~b")


@pytest.mark.parametrize("name", ["one", "two", "side", "main"])
def test_names_that_are_taken(opened, name):
    with opened.begin() as ws:
        for use in (opened.snapshot, opened.create_branch, ws.snapshot):
            with pytest.raises(ExistsError, match=name):
                use(name)


def test_the_longest_names_work(tmp_path):
    with pagestore.open(tmp_path / "s") as store:
        for name in ("n" * MAX_NAME, "é" * (MAX_NAME // 2), "😀" * (MAX_NAME // 4)):
            with store.begin() as ws:
                ws.create(name, 5)[:] = 1
            store.snapshot(name)
            store.create_branch(name[:-1], at=name)
            assert store.view(name)[name].sum() == 5
            assert store.view(f"{name}~0").version == store.version(name)
        assert len(store.snapshots) == 3
        assert_clean(store)


@pytest.mark.parametrize("message", [None, 3, b"x", "\ud800"])
def test_messages(opened, message):
    with opened.begin() as ws:
        old = int(ws["a"][5])
        ws["a"][5] = -5
        for use in (
            lambda: ws.commit(message),
            lambda: ws.snapshot("new", message),
            lambda: opened.snapshot("new", message=message),
        ):
            with pytest.raises(InvalidError):
                use()
        assert ws["a"][5] == -5
        ws.rollback()
        assert ws["a"][5] == old
    assert "new" not in opened.snapshots


# ------------------------------------------------------------------------------ dtypes and shapes


def dtypes():
    yield "nonsense"
    yield object
    yield "O"
    yield np.dtype([("a", "i4"), ("b", "O")])
    yield "V0"
    yield "S0"
    yield "U"
    yield np.dtype([])
    yield np.dtype({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [4, 0]})
    yield np.dtype({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [0, 2]})
    yield np.dtype([(f"field{i}", "i4") for i in range(5000)])
    yield 3
    yield ("i4", -1)
    if hasattr(np.dtypes, "StringDType"):
        yield np.dtypes.StringDType()


@pytest.mark.parametrize("dtype", list(dtypes()), ids=lambda d: str(d)[:40])
def test_bad_dtypes(opened, dtype):
    with opened.begin() as ws:
        with pytest.raises(InvalidError):
            ws.create("new", 3, dtype)
        assert "new" not in ws


@pytest.mark.parametrize(
    "dtype",
    ["i1", ">f8", "c16", "?", "M8[ns]", "m8[s]", "S7", "U3", "V5", "f2", "g",
     np.dtype([("a", "i1"), ("b", "f8")], align=True), np.dtype([("p", "f4", (2, 3)), ("q", "S3")]),
     np.dtype((np.int32, (2, 3)))],
    ids=str,
)  # fmt: skip
def test_unusual_dtypes_come_back_or_are_refused_at_once(tmp_path, dtype):
    with pagestore.open(tmp_path / "s") as store:
        with store.begin() as ws:
            try:
                array = ws.create("x", (5,), dtype)
            except InvalidError:
                assert len(ws) == 0
                return
            raw = array.tobytes()
            expected = (array.dtype, array.shape)
            array.view("u1")[...] = 1
            raw = array.tobytes()
        found = store.view("main")["x"]
        assert (found.dtype, found.shape, found.tobytes()) == (*expected, raw)
        assert_clean(store)


SHAPES = [
    -1, (3, -1), 1.5, "3", None, (2, None), (2, (3, 4)), [1.0], (1,) * 65, 1 << 63, (1 << 63,),
    (1 << 52) + 1, (1 << 40, 1 << 40), (1 << 62, 0, 1 << 62), (1 << 62, 8, 0), np.array([2, 3]),
    {}, (1 << 100,),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: repr(s)[:20])
def test_bad_shapes(opened, shape):
    with opened.begin() as ws:
        before = ws["b"].tobytes()
        with pytest.raises((InvalidError, FullError)):
            ws.create("new", shape, "i8")
        with pytest.raises((InvalidError, FullError)):
            ws.resize("b", shape)
        assert sorted(ws) == ["a", "b"]
        assert (ws["b"].shape, ws["b"].tobytes()) == ((3, 5000), before)


def test_more_than_there_are_addresses(opened):
    with opened.begin() as ws:
        with pytest.raises((InvalidError, FullError)):
            ws.create("new", 1 << 51)
        with pytest.raises((InvalidError, FullError)):
            ws.resize("a", 1 << 48)
        assert sorted(ws) == ["a", "b"]


def test_empty_shapes(tmp_path):
    with pagestore.open(tmp_path / "s") as store:
        with store.begin() as ws:
            for i, shape in enumerate([(), 0, (0,), (3, 0), (0, 1 << 40), []]):
                ws.create(f"r{i}", shape, "i4")
            ws["r0"][...] = 7
        view = store.view("main")
        shapes = [view[f"r{i}"].shape for i in range(6)]
        assert shapes == [(), (0,), (0,), (3, 0), (0, 1 << 40), ()]
        assert view["r0"] == 7
        assert_clean(store)


@pytest.mark.parametrize("name", ["none", "", None, 3, ("a",), ["a"], b"a", "\ud800"])
def test_regions_that_are_not(opened, name):
    ws, view, live = opened.begin(), opened.view("one"), opened.live()
    for use in (
        ws.__getitem__,
        view.__getitem__,
        live.__getitem__,
        ws.delete,
        lambda n: ws.resize(n, 3),
        lambda n: ws.write(n, 0, b"x"),
        lambda n: view.read(n, 0, 1),
    ):
        with pytest.raises(NotFoundError):
            use(name)
    assert ws.get(name) is None if isinstance(name, str) else True


@pytest.mark.parametrize(
    ("offset", "size"),
    [(-1, 1), (0, -1), (0, 1 << 70), (1 << 70, 1), (16384, 1), (16383, 2), (1.0, 1), (0, 1.0),
     (None, 1), ("0", 1), (0, None)],
)  # fmt: skip
def test_ranges(opened, offset, size):
    ws = opened.begin()
    for view in (ws, opened.view("main"), opened.live()):
        with pytest.raises(InvalidError):
            view.read("a", offset, size)
    if isinstance(size, int) and 0 <= size < 9:
        with pytest.raises(InvalidError):
            ws.write("a", offset, b"x" * size)
    ws.close()


@pytest.mark.parametrize("data", [None, 3, "text", [1, 2], object(), np.array([None]), {1}])
def test_data_without_bytes(opened, data):
    with opened.begin() as ws, pytest.raises(InvalidError):
        ws.write("a", 0, data)


# --------------------------------------------------------------------------------- live and closed


def test_a_live_view_cannot_be_written(opened):
    array = opened.live()["a"]
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        array[:] += 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.setflags(write=True)
    for inner in (array.view("u1"), array[1:], array.reshape(2, -1)):
        with pytest.raises(ValueError, match="WRITEABLE"):
            inner.flags.writeable = True
    base = array
    while isinstance(base, np.ndarray):
        assert not base.flags.writeable
        base = base.base
    with pytest.raises((TypeError, AttributeError)):
        opened.live()["a"] = 3


def test_the_store_after_close(made):
    store = pagestore.open(made[0])
    names = store.snapshots
    version = store.version("one")
    store.close()
    store.close()
    now = datetime.now(UTC)
    for use in (
        store.begin, store.live, lambda: store.view("one"), lambda: store.snapshot("x"),
        lambda: store.create_branch("x"), lambda: store.delete_snapshot("one"),
        lambda: store.delete_branch("side"), lambda: store.expire(now),
        lambda: list(store.diff("one", "two")), lambda: list(store.log()),
        lambda: store.version("one"), lambda: list(store.check()), store.compact, store.stats,
        store.versions, store.space, store.layout, lambda: store.freed_by("one"),
        lambda: store.page_table("one", "a"),
        lambda: list(names), lambda: names["one"], lambda: len(names), lambda: "one" in names,
        lambda: list(store.snapshots), lambda: store.branches["main"],
    ):  # fmt: skip
        with pytest.raises(ClosedError):
            use()
    assert "closed" in repr(store)
    assert (store.path, store.page_size) == (made[0], 4096)
    assert version.names == ("one",)
    with pytest.raises(ClosedError), store:
        store.begin()


def view_uses(view):
    yield from (
        lambda: view["a"], lambda: list(view), lambda: len(view), lambda: "a" in view,
        lambda: dict(view.items()), lambda: view.regions, lambda: view.version,
        lambda: view.read("a", 0, 1), lambda: view.get("a"),
    )  # fmt: skip
    if hasattr(view, "refresh"):
        yield view.refresh
    if hasattr(view, "commit"):
        yield from (
            view.commit, view.rollback, view.flush, lambda: view.create("x", 3),
            lambda: view.delete("a"), lambda: view.resize("a", 3), lambda: view.write("a", 0, b"x"),
            lambda: view.snapshot("x"),
        )  # fmt: skip


@pytest.mark.parametrize("kind", ["view", "live", "begin"])
@pytest.mark.parametrize("what", ["view", "store"])
def test_a_view_after_close(made, kind, what):
    store = pagestore.open(made[0])
    view = store.view("one") if kind == "view" else getattr(store, kind)()
    array = view["a"]
    expected = array.copy()
    (view if what == "view" else store).close()
    for use in view_uses(view):
        with pytest.raises(ClosedError):
            use()
    assert (array == expected).all()
    assert repr(view)
    view.close()
    view.close()
    assert (array == expected).all()
    store.close()
    assert (array == expected).all()


def test_a_workspace_block_that_closed_itself(opened):
    with opened.begin() as ws:
        ws["a"][0] = 12345
        ws.close()
    with opened.begin() as ws:
        ws["a"][0] = 12345
        ws.rollback()


def test_arrays_outlive_everything(made):
    path = made[0]
    with pagestore.open(path) as store:
        array = store.view("one")["a"]
        live = store.live()["a"]
        mine = store.begin()["a"]
    copies = [x.copy() for x in (array, live, mine)]
    with pagestore.open(path) as other:
        for x, copy in zip((array, live, mine), copies, strict=True):
            assert (x == copy).all()
        del x
        mine[0] = array[0] = 8
        assert_clean(other)


# ------------------------------------------------------------------------- several handles, modes


def test_two_opens_share_one_engine(made):
    path = made[0]
    one, two = pagestore.open(path), pagestore.open(path, tracking="compare")
    assert one._shared is two._shared
    view = two.view("one")
    one.close()
    with pytest.raises(ClosedError):
        one.begin()
    assert view["a"][5] == 5
    assert contents(two) == made[1]
    two.close()
    with pytest.raises(ClosedError):
        view["b"]
    three = pagestore.open(path)
    assert three._shared is not one._shared
    three.close()


@pytest.mark.parametrize("first", ["r", "a"])
def test_reading_and_writing_together(made, first):
    path, before = made
    modes = ["r", "a"] if first == "r" else ["a", "r"]
    with pagestore.open(path, modes[0]) as x, pagestore.open(path, modes[1]) as y:
        reader, writer = (x, y) if first == "r" else (y, x)
        now = datetime.now(UTC)
        for use in (
            reader.begin, lambda: reader.snapshot("x"), lambda: reader.create_branch("x"),
            lambda: reader.delete_snapshot("one"), lambda: reader.delete_branch("side"),
            lambda: reader.expire(now), reader.compact,
        ):  # fmt: skip
            with pytest.raises(ReadOnlyError):
                use()
        assert contents(reader) == contents(writer) == before
        writer.snapshot("new")
        assert "new" in reader.snapshots
        writer.delete_snapshot("new")
        assert_clean(reader)


# ------------------------------------------------------------------------------------------- fork


def test_a_forked_child_may_only_read_what_it_has(made):
    store = pagestore.open(made[0])
    view, live, ws = store.view("one"), store.live(), store.begin()
    held = [view["a"], live["a"], ws["a"]]
    sums = [int(x.sum()) for x in held]
    names = store.snapshots

    def child():
        said = []
        uses: list[Any] = [store.begin, store.live, lambda: store.view("one"),
                lambda: store.snapshot("x"), lambda: store.version("one"),
                lambda: list(names), lambda: list(store.check()), store.stats,
                store.versions, store.space, store.layout, lambda: store.freed_by("one"),
                lambda: store.delete_snapshot("one")]  # fmt: skip
        for v in (view, live, ws):
            uses += view_uses(v)
        for i, use in enumerate(uses):
            try:
                use()
                said.append(f"use {i} was allowed")
            except ClosedError as e:
                if "fork" not in str(e):
                    said.append(str(e))
            except BaseException as e:
                said.append(f"use {i}: {e!r}")
        if [int(x.sum()) for x in held] != sums:
            said.append("what was inherited changed")
        held[0][0] = 3
        for opened in (view, live, ws, store):
            opened.close()
        held.clear()
        with pagestore.open(made[0]) as mine:
            if mine.view("one")["a"][5] != 5:
                said.append("a store of its own does not work")
        return "; ".join(said) or "fine"

    assert in_child(child) == "fine"
    assert [int(x.sum()) for x in held] == sums
    ws.close()
    store.close()


def test_pins_survive_a_childs_exit(tmp_path):
    with pagestore.open(tmp_path / "s") as store:
        with store.begin() as ws:
            ws.create("x", 50 * 4096)[:] = 1
        view = store.view("main")
        old = view["x"]

        def child():
            nonlocal view, old
            view.close()
            del view, old
            return "gone"

        assert in_child(child) == "gone"
        writer = f"""
import pagestore
with pagestore.open({str(tmp_path / "s")!r}) as store:
    for i in range(5):
        with store.begin() as ws:
            ws["x"][:] = i + 2
    assert list(store.check(data=True)) == []
"""
        done = python(writer)
        assert not done.returncode, done.stderr
        assert (old == 1).all()
        assert store.view("main")["x"][0] == 6
        view.close()
        del view, old
        assert_clean(store)


def test_a_fork_amid_a_commit(tmp_path):
    """The child inherits a held lock; it must raise, not wait for a thread that it has not."""
    with pagestore.open(tmp_path / "s") as store:
        ws = store.begin()
        ws.create("x", 10)
        inside, go_on = threading.Event(), threading.Event()

        def hold():
            with ws._lock, store._shared.lock:
                inside.set()
                go_on.wait(20)

        thread = threading.Thread(target=hold)
        thread.start()
        inside.wait()

        def child():
            for use in (ws.commit, lambda: ws["x"], ws.rollback, lambda: store.snapshot("x")):
                try:
                    use()
                    return "allowed"
                except ClosedError:
                    pass
            ws.close()
            store.close()
            return "fine"

        try:
            assert in_child(child, 10) == "fine"
        finally:
            go_on.set()
            thread.join()
        ws.commit()
        assert_clean(store)
