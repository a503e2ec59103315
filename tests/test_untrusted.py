"""A store from a stranger: looked at before anything of it is mapped."""

import os
import struct
from collections import Counter

import pytest

import pagestore
from pagestore import CorruptionError, FormatError, NotFoundError
from pagestore.catalog import seal_of
from pagestore.directory import ARENA, BALLAST, CATALOG, PINS
from pagestore.format import SEAL_OFFSET
from pagestore.soundness import unsound
from tests.damage import PAGE, assert_clean, contents
from tools.damage.outcome import deadly, verdict
from tools.damage.victim import Victim, wrong
from tools.scratch import directory_in_memory

SEED = int(os.environ.get("PAGESTORE_SEED", "20240229"))
META = 16  # byte of a meta page where its numbers begin
MAIN = META + 24 + 48  # ... where the record of the main tree begins
LAST = META + 24 + 96


@pytest.fixture(scope="module")
def victim():
    with directory_in_memory() as top:
        yield Victim.make(top / "store")


@pytest.fixture
def made(victim):
    yield victim
    victim.mend()
    pagestore.examine(victim.path)
    with pagestore.open(victim.path) as store:
        assert contents(store) == victim.expected
        assert_clean(store)


def examined(victim):
    """What a store comes to that is examined, then opened, read and checked."""
    try:
        pagestore.examine(victim.path)
    except pagestore.PagestoreError as error:
        return f"{type(error).__name__}: {error}"
    except BaseException as error:
        return f"not of the tree: {error!r}"
    return verdict(victim.path, victim.expected)


def sealed(path):
    """Make the seal right: a stranger can."""
    with (path / ARENA).open("r+b") as file:
        file.seek(SEAL_OFFSET)
        file.write(seal_of(path / CATALOG).pack())


# --------------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize("part", ["arena", "header", "catalog", "records"])
def test_damage_is_survived(made, part, record_property):
    stream = made.inputs(part, f"{SEED} untrusted")
    inputs = [next(stream) for _ in range(60)]
    results = made.try_all(inputs, lambda: examined(made))
    assert not wrong(inputs, results), wrong(inputs, results)[:3]
    record_property("bad inputs", len(inputs))


def test_damage_with_a_right_seal_is_survived(made, record_property):
    """Which opening alone does not survive: it believes the seal."""
    stream = (i for i in made.inputs("catalog", f"{SEED} sealed") if "tree" in i.kind)
    inputs = [next(stream) for _ in range(300)]
    arena = made.life.now[ARENA]

    def look(judge):
        sealed(made.path)
        said = judge(made)
        (made.path / ARENA).write_bytes(arena)
        return said

    results = made.try_all(inputs, lambda: look(examined))
    assert not deadly(results), deadly(results)[:3]
    assert Counter(r.partition(":")[0] for r in results)["CorruptionError"] > 50
    trusting = made.try_all(inputs, lambda: look(lambda v: verdict(v.path, v.expected)))
    assert deadly(trusting)
    record_property("bad inputs", len(inputs))


# ------------------------------------------------------------------------------ what files may be


@pytest.fixture
def copy(victim, tmp_path):
    path = tmp_path / "copy"
    path.mkdir()
    for name in (ARENA, CATALOG, PINS, BALLAST, f"{CATALOG}-lock"):
        (path / name).write_bytes((victim.path / name).read_bytes())
    return path


@pytest.mark.parametrize("name", [ARENA, CATALOG, PINS, BALLAST, f"{CATALOG}-lock"])
@pytest.mark.parametrize("how", ["link", "fifo", "directory"])
def test_only_regular_files(copy, name, how):
    (copy / name).rename(copy.parent / "aside")
    if how == "link":
        (copy / name).symlink_to(copy.parent / "aside")
    elif how == "fifo":
        os.mkfifo(copy / name)
    else:
        (copy / name).mkdir()
    with pytest.raises(FormatError, match="regular"):
        pagestore.examine(copy)


@pytest.mark.parametrize("name", [PINS, BALLAST, f"{CATALOG}-lock"])
def test_files_that_need_not_be(copy, name):
    (copy / name).unlink()
    pagestore.examine(copy)
    assert not (copy / name).exists(), "nothing is made"


@pytest.mark.parametrize("name", [ARENA, CATALOG])
def test_files_that_must_be(copy, name):
    (copy / name).unlink()
    with pytest.raises(NotFoundError, match=name):
        pagestore.examine(copy)


def test_only_a_real_directory(copy, tmp_path):
    (tmp_path / "link").symlink_to(copy)
    for path in (tmp_path / "link", copy / ARENA):
        with pytest.raises(FormatError):
            pagestore.examine(path)
    with pytest.raises(NotFoundError):
        pagestore.examine(tmp_path / "nothing")


# --------------------------------------------------------------------------- LMDB's file, hostile


def change(copy, *edits):
    """Change numbers in the catalog: offset, layout, value."""
    raw = bytearray((copy / CATALOG).read_bytes())
    for offset, layout, value in edits:
        struct.pack_into(layout, raw, offset, value)
    (copy / CATALOG).write_bytes(raw)
    sealed(copy)


@pytest.mark.parametrize("flag", [2, 4, 8, 4 | 16, 4 | 16 | 32, 4 | 64])
def test_flags_of_another_kind_of_tree(copy, flag):
    """Keys and values would be taken for numbers, or for many values each."""
    change(copy, *((page * PAGE + MAIN + 4, "<H", flag) for page in (0, 1)))
    with pytest.raises(CorruptionError, match="flags"):
        pagestore.examine(copy)


@pytest.mark.parametrize("pages", [1 << 20, 1 << 40, (1 << 64) - 1])
def test_more_pages_than_the_file_has(copy, pages):
    """To look at what is claimed, or to allocate it, would never end."""
    change(copy, *((page * PAGE + LAST, "<Q", pages) for page in (0, 1)))
    with pytest.raises(CorruptionError, match=r"claims|pages"):
        pagestore.examine(copy)


@pytest.mark.parametrize("size", [0, 1, 256, 2048, 5000, 1 << 16, 1 << 31])
def test_pages_of_a_size_that_lmdb_does_not_make(copy, size):
    change(copy, *((page * PAGE + META + 24, "<I", size) for page in (0, 1)))
    with pytest.raises(CorruptionError, match="pages of"):
        pagestore.examine(copy)


def newest(raw):
    return max((0, 1), key=lambda page: struct.unpack_from("<Q", raw, page * PAGE + LAST + 8)[0])


def main_tree(raw):
    return list(struct.unpack_from("<IHHQQQQQ", raw, newest(raw) * PAGE + MAIN))


def test_a_leaf_at_another_depth(copy):
    """`lmdb.verify` has no objection; LMDB takes a branch there for a leaf."""
    raw = bytearray((copy / CATALOG).read_bytes())
    tree, meta = main_tree(raw), newest(raw) * PAGE
    root = tree[7] * PAGE
    (node,) = struct.unpack_from("<H", raw, root + 16)
    child = struct.unpack_from("<HHH", raw, root + node)
    # a branch of one child takes the place of the first leaf, which hangs under it now
    number = struct.unpack_from("<Q", raw, meta + LAST)[0] + 1
    branch = bytearray(PAGE)
    struct.pack_into("<QHHHH", branch, 0, number, 0, 1, 18, PAGE - 8)
    struct.pack_into("<H", branch, 16, PAGE - 8)
    struct.pack_into("<HHHH", branch, PAGE - 8, *child, 0)
    struct.pack_into("<HHH", raw, root + node, number & 0xFFFF, number >> 16, 0)
    struct.pack_into("<Q", raw, meta + LAST, number)
    tree[2], tree[3] = tree[2] + 1, tree[3] + 1
    struct.pack_into("<IHHQQQQQ", raw, meta + MAIN, *tree)
    raw[number * PAGE : (number + 1) * PAGE] = branch
    (copy / CATALOG).write_bytes(raw)
    sealed(copy)
    with pytest.raises(CorruptionError, match="depth"):
        pagestore.examine(copy)


def test_a_leaf_of_bare_keys(copy):
    """A page of keys without values in a tree of records: LMDB would hand out memory as values."""
    raw = bytearray((copy / CATALOG).read_bytes())
    tree = main_tree(raw)
    root = tree[7] * PAGE
    (node,) = struct.unpack_from("<H", raw, root + 16)
    low, high = struct.unpack_from("<HH", raw, root + node)
    leaf = (low | high << 16) * PAGE
    (lower,) = struct.unpack_from("<H", raw, leaf + 12)
    entries = (lower - 16) // 2
    keys = b"".join(bytes([0, 0, i]) for i in range(entries))
    raw[leaf + 16 : leaf + 16 + len(keys)] = keys
    struct.pack_into("<HH", raw, leaf + 8, 3, 2 | 32)
    (copy / CATALOG).write_bytes(raw)
    sealed(copy)
    with pytest.raises(CorruptionError):
        pagestore.examine(copy)


def test_trees_within_trees_without_end(copy):
    """Each page names the next as a tree of its own: a walk that calls itself would overflow."""
    count = 3000
    raw = bytearray((copy / CATALOG).read_bytes()[: 2 * PAGE])
    for i in range(count):
        page, last = bytearray(PAGE), i == count - 1
        at = PAGE - 8 - 2 - 48
        struct.pack_into("<QHHHH", page, 0, 2 + i, 0, 2, 18, at)
        struct.pack_into("<H", page, 16, at)
        following = (0, 0, 0 if last else 1, 0, 0 if last else 1, 0, 0 if last else 1,
                     (1 << 64) - 1 if last else 3 + i)  # fmt: skip
        struct.pack_into("<HHHH", page, at, 48, 0, 2, 1)
        page[at + 8 : at + 9] = b"A"
        struct.pack_into("<IHHQQQQQ", page, at + 9, *following)
        raw += page
    for meta in (0, 1):
        empty = (PAGE, 8, 0, 0, 0, 0, 0, (1 << 64) - 1)
        struct.pack_into("<IHHQQQQQ", raw, meta * PAGE + META + 24, *empty)
        struct.pack_into("<IHHQQQQQ", raw, meta * PAGE + MAIN, 0, 0, 1, 0, 1, 0, 1, 2)
        struct.pack_into("<Q", raw, meta * PAGE + LAST, 1 + count)
    (copy / CATALOG).write_bytes(raw)
    with pytest.raises(CorruptionError):
        pagestore.examine(copy)


@pytest.mark.parametrize("there", [1, 2])
def test_a_long_value_that_ends_behind_the_file(copy, there):
    """Of its three pages the first is there: `lmdb.verify` looks no further, LMDB's reader does."""
    raw = bytearray((copy / CATALOG).read_bytes()[: 2 * PAGE])
    leaf, long, at, size = bytearray(PAGE), bytearray(PAGE), PAGE - 18, 3 * PAGE - 16
    struct.pack_into("<QHHHH", leaf, 0, 2, 0, 2, 18, at)
    struct.pack_into("<H", leaf, 16, at)
    struct.pack_into("<HHHH", leaf, at, size & 0xFFFF, size >> 16, 1, 1)
    leaf[at + 8 : at + 9] = b"A"
    struct.pack_into("<Q", leaf, at + 9, 3)
    struct.pack_into("<QHHI", long, 0, 3, 0, 4, 3)
    for meta in (0, 1):
        empty = (PAGE, 8, 0, 0, 0, 0, 0, (1 << 64) - 1)
        struct.pack_into("<IHHQQQQQ", raw, meta * PAGE + META + 24, *empty)
        struct.pack_into("<IHHQQQQQ", raw, meta * PAGE + MAIN, 0, 0, 1, 0, 1, 3, 1, 2)
        struct.pack_into("<Q", raw, meta * PAGE + LAST, 5)
    whole = bytes(raw + leaf + long) + bytes(2 * PAGE)
    (copy / CATALOG).write_bytes(whole)
    assert unsound(copy / CATALOG) is None
    (copy / CATALOG).write_bytes(whole[: (3 + there) * PAGE])
    assert unsound(copy / CATALOG)
    sealed(copy)
    with pytest.raises(CorruptionError):
        pagestore.examine(copy)


# ---------------------------------------------------------------------------------- a sound store


def test_a_store_that_is_open(tmp_path):
    """Looking changes nothing and is in nobody's way."""
    with pagestore.open(tmp_path / "s") as store:
        with store.begin() as ws:
            ws.create("a", 5 * PAGE)[:] = 3
        before = contents(store)
        pagestore.examine(tmp_path / "s")
        pagestore.examine(str(tmp_path / "s"))
        assert contents(store) == before
        assert_clean(store)
