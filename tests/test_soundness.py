"""The catalog's file, looked at without LMDB: what LMDB could not follow is never called sound."""

import os
import random
import struct
import tracemalloc

import lmdb
import pytest

from pagestore import soundness
from pagestore.soundness import unsound
from pagestore.structure import HEADER, metas

verify = pytest.importorskip("lmdb.verify")

SEED = int(os.environ.get("PAGESTORE_SEED", "20261126"))
PAGE = 4096


def written(path, random, transactions=30):
    """A file of LMDB's with records of all sizes, free pages, and keys that begin alike."""
    with lmdb.open(str(path), subdir=False, map_size=1 << 26, sync=False) as env:
        known = []
        for _ in range(transactions):
            with env.begin(write=True) as txn:
                for _ in range(random.randrange(1, 60)):
                    key = random.choice([b"N", b"S" * 9, b"V\0\0"]) + random.randbytes(
                        random.choice([1, 2, 8, 9, 200, 500])
                    )
                    key += bytes(random.choice([0, 0, 1, 8]))
                    size = random.choice([0, 5, 100, 1000, 2100, PAGE - 16, PAGE - 15, 30000])
                    txn.put(key[:511], random.randbytes(size))
                    known.append(key[:511])
                for key in random.sample(known, len(known) // 3):
                    txn.delete(key)
    return path


def objections(path):
    try:
        return list(verify.verify(str(path), subdir=False))
    except (verify.VerifyError, struct.error, IndexError) as e:
        return [str(e)]


@pytest.mark.parametrize("at_once", [1, 3, 1024])
@pytest.mark.parametrize("seed", range(5))
def test_what_lmdb_wrote_is_sound(tmp_path, seed, at_once, monkeypatch):
    monkeypatch.setattr(soundness, "AT_ONCE", at_once)
    path = written(tmp_path / "file", random.Random(seed))
    assert objections(path) == []
    assert unsound(path) is None


@pytest.mark.parametrize("records", [0, 1, 2])
def test_next_to_nothing_is_sound(tmp_path, records):
    with lmdb.open(str(tmp_path / "file"), subdir=False, map_size=1 << 20) as env:
        for i in range(records):
            with env.begin(write=True) as txn:
                txn.put(b"%d" % i, b"value")
    assert unsound(tmp_path / "file") is None


def test_many_lists_of_free_pages_are_sound(tmp_path):
    """Their keys are numbers, least byte first: above 255 they do not ascend byte by byte."""
    path = tmp_path / "file"
    with lmdb.open(str(path), subdir=False, map_size=1 << 26, sync=False) as env:
        with env.begin(write=True) as txn:
            txn.put(b"a", b"0")
        reader = env.begin()  # for it nothing that is freed is used again
        for i in range(700):
            with env.begin(write=True) as txn:
                txn.put(b"a", b"%d" % i)
        reader.abort()
    assert objections(path) == []
    with open(path, "rb") as file:
        assert metas(file)[0].trees[0].depth > 1
    assert unsound(path) is None


def some_change(random, size):
    """Where to change how many bytes: mostly where the structure is."""
    page = random.choice([0, PAGE, *[random.randrange(0, size, PAGE)] * 8])
    where = random.random()
    if where < 0.5:
        at = page + random.randrange(HEADER + (136 if page < 2 * PAGE else 48))
    else:
        at = page + random.randrange(PAGE)
    return at, random.choice([1, 1, 2, 4, 8])


@pytest.mark.parametrize("at_once", [2, 1024])
def test_whatever_lmdb_verify_objects_to_is_objected_to(tmp_path, at_once, monkeypatch):
    monkeypatch.setattr(soundness, "AT_ONCE", at_once)
    chance = random.Random(f"{SEED} {at_once}")
    path = written(tmp_path / "file", chance, 12)
    whole = path.read_bytes()
    found = 0
    for _ in range(1500):
        raw = bytearray(whole)
        kind = chance.random()
        if kind < 0.8:
            for _ in range(chance.choice([1, 1, 2])):
                at, count = some_change(chance, len(raw))
                near = bytes(
                    [chance.choice([0, 1, 255, raw[at], raw[at] ^ 1 << chance.randrange(8)])]
                )
                raw[at : at + count] = chance.choice([near * count, chance.randbytes(count)])
        elif kind < 0.9:  # a page that did not get to the disk, or got to another's place
            a, b = (chance.randrange(2 * PAGE, len(raw), PAGE) for _ in range(2))
            raw[a : a + PAGE] = chance.choice([raw[b : b + PAGE], bytes(PAGE)])
        else:
            del raw[chance.randrange(len(raw)) :]
        path.write_bytes(raw)
        if objections(path):
            found += 1
            assert unsound(path), objections(path)
    assert found > 200


def test_keys_that_do_not_ascend(tmp_path):
    """From one page to the next, too, and where one only is longer."""
    path = tmp_path / "file"
    with (
        lmdb.open(str(path), subdir=False, map_size=1 << 24) as env,
        env.begin(write=True) as txn,
    ):
        for i in range(400):
            txn.put(b"the same beginning of all keys %03d" % i, bytes(50))
    whole = path.read_bytes()
    for old, new in ((b"keys 000", b"keys 001"), (b"keys 057", b"keys 999"), (b"399", b"39\0")):
        assert whole.count(b"all " + old) or whole.count(old)
        path.write_bytes(whole.replace(old, new))
        said = str(unsound(path))
        assert "ascend" in said or "behind those before" in said


class Raw(bytearray):
    """A file's bytes, and where LMDB's trees begin in them."""

    def number(self, layout, at):
        return struct.unpack_from(layout, self, at)[0]

    @property
    def newest(self):
        return max((0, PAGE), key=lambda meta: self.number("<Q", meta + LAST + 8))

    def page(self, tree, *path):
        """Where a page begins: that of a tree's root, or of the children that a path leads to."""
        at = self.number("<Q", self.newest + TREES + tree * 48 + 40) * PAGE
        for child in path:
            low, high = struct.unpack_from("<HH", self, self.node(at, child))
            at = (low | high << 16) * PAGE
        return at

    def node(self, page, i):
        return page + self.number("<H", page + HEADER + 2 * i)

    def nodes(self, page):
        return (self.number("<H", page + 12) - HEADER) // 2

    def set(self, layout, at, value):
        struct.pack_into(layout, self, at, value)


TREES, LAST = 40, 136  # bytes of a meta page


def separators(raw):
    """A branch whose keys do not ascend: its leaves' do."""
    branch = raw.page(1)
    assert raw.nodes(branch) > 3
    at = raw.node(branch, 1) + 8
    raw[at : at + 1] = b"\xff"


def first_key(raw):
    """A leaf that begins before the one on its left ends."""
    at = raw.node(raw.page(1, 1), 0) + 8
    raw[at : at + 2] = b"\0\0"


def free_list(raw):
    """The pages are the right ones, in the wrong order."""
    leaf = raw.page(0)
    for i in range(raw.nodes(leaf)):
        at = raw.node(leaf, i) + 16
        if raw.number("<Q", at) > 1:
            raw[at + 8 : at + 24] = raw[at + 16 : at + 24] + raw[at + 8 : at + 16]
            return
    raise AssertionError("no list of two")


def free_later(raw):
    """Pages that a transaction to come would have freed."""
    leaf = raw.page(0)
    raw.set(
        "<Q", raw.node(leaf, raw.nodes(leaf) - 1) + 8, raw.number("<Q", raw.newest + LAST + 8) + 1
    )


def dirty(raw):
    raw.set("<H", raw.page(1, 0) + 10, 2 | 16)


def too_long(raw):
    """A value that ends one byte behind its page."""
    leaf = raw.page(1, 0)
    last = max(raw.node(leaf, i) for i in range(raw.nodes(leaf)))
    key = raw.number("<H", last + 6)
    raw.set("<H", last, leaf + PAGE - (last + 8 + key) + 1)


def parity(raw):
    meta = raw.newest
    raw.set("<Q", meta + LAST + 8, raw.number("<Q", meta + LAST + 8) + 1)


def twice(raw):
    """Two places of a branch lead to one leaf."""
    branch = raw.page(1)
    first, second = raw.node(branch, 1), raw.node(branch, 2)
    raw[second : second + 6] = raw[first : first + 6]


@pytest.mark.parametrize("at_once", [1, 1024])
@pytest.mark.parametrize(
    "how", [separators, first_key, free_list, free_later, dirty, too_long, parity, twice]
)
def test_what_chance_would_not_find(tmp_path, how, at_once, monkeypatch):
    monkeypatch.setattr(soundness, "AT_ONCE", at_once)
    path = tmp_path / "file"
    with lmdb.open(str(path), subdir=False, map_size=1 << 24) as env:
        for start in range(0, 400, 40):
            with env.begin(write=True) as txn:
                for i in range(start, start + 40):
                    txn.put(b"key %05d" % i, bytes(101))
    raw = Raw(path.read_bytes())
    how(raw)
    path.write_bytes(raw)
    assert objections(path)
    assert unsound(path)


def handmade(tmp_path, leaf, free, pages):
    """A file of a leaf of records (page 2), one of free pages (page 3), and some pages behind."""
    raw = bytearray((1 + len(pages) + 3) * PAGE)
    counts = {}
    for number, nodes in ((2, leaf), (3, free)):
        at, page = PAGE, number * PAGE
        for i, (key, flags, size, value) in enumerate(nodes):
            at -= (8 + len(key) + len(value) + 1) // 2 * 2
            struct.pack_into("<H", raw, page + HEADER + 2 * i, at)
            struct.pack_into("<HHHH", raw, page + at, size & 0xFFFF, size >> 16, flags, len(key))
            raw[page + at + 8 : page + at + 8 + len(key) + len(value)] = key + value
        struct.pack_into("<QHHHH", raw, page, number, 0, 2, HEADER + 2 * len(nodes), at)
        counts[number] = len(nodes)
    for number, (kind, length) in enumerate(pages, 4):
        struct.pack_into("<QHHI", raw, number * PAGE, number, 0, kind, length)
    long = sum(-(-(16 + size) // PAGE) for _, flags, size, _ in leaf if flags)
    for meta in (0, 1):
        struct.pack_into("<QHHI", raw, meta * PAGE, meta, 0, 8, 0)
        struct.pack_into("<II", raw, meta * PAGE + 16, 0xBEEFC0DE, 1)
        at = meta * PAGE + TREES
        struct.pack_into("<IHHQQQQQ", raw, at, PAGE, 8, 1, 0, 1, 0, counts[3], 3)
        struct.pack_into("<IHHQQQQQ", raw, at + 48, 0, 0, 1, 0, 1, long, counts[2], 2)
        struct.pack_into("<QQ", raw, at + 96, 3 + len(pages), 2 + meta)
    path = tmp_path / "file"
    path.write_bytes(raw)
    return path


def number(value):
    return value.to_bytes(8, "little")


ONE = [(b"a", 0, 1, b"x")]
FREED = [(number(1), 0, 16, number(1) + number(4))]


def test_what_is_made_by_hand_is_sound(tmp_path):
    path = handmade(tmp_path, ONE, FREED, [(0, 0)])
    assert not objections(path)
    assert unsound(path) is None


@pytest.mark.parametrize(
    ("leaf", "free", "pages"),
    [
        # a page that two transactions freed
        (ONE, [*FREED, (number(2), 0, 16, number(1) + number(4))], [(0, 0)]),
        # a page that is free and in use
        (ONE, [(number(1), 0, 24, number(2) + number(4) + number(2))], [(0, 0)]),
        # two records whose value is in the same page
        (
            [(b"a", 1, 9, number(4)), (b"b", 1, 9, number(4))],
            [(number(1), 0, 8, number(0))],
            [(4, 1)],
        ),
    ],
)
def test_a_page_in_two_places_though_none_is_lost(tmp_path, leaf, free, pages):
    path = handmade(tmp_path, leaf, free, pages)
    assert objections(path)
    assert "two places" in str(unsound(path)) or "twice" in str(unsound(path))


def test_numbers_that_lead_nowhere_cost_nothing(tmp_path):
    """Two hundred values, each of nearly all pages that the file claims to have."""
    size = 8000 * PAGE
    leaf = [(b"%03d" % i, 1, size, number(4)) for i in range(120)]
    path = handmade(tmp_path, leaf, FREED, [(4, 8001)])
    with path.open("r+b") as file:
        for meta in (0, 1):
            file.seek(meta * PAGE + LAST)
            file.write(number(8100))
    tracemalloc.start()
    try:
        assert unsound(path)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
