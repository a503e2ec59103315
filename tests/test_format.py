"""The bytes on disk: what they are today, that they come back, and that no others are believed."""

import contextlib
import struct

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

import pagestore
from pagestore import CorruptionError, FormatError, InvalidError, PagestoreError
from pagestore import format as f
from tests.damage import assert_clean

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
IDS = st.integers(1, 2**63 - 1)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
DTYPES = st.sampled_from(
    ["u1", "<i8", ">f8", "c16", "?", "S7", "<U3", "V5", "<M8[ns]", "<m8[s]", "f2"]
).map(np.dtype) | st.just(np.dtype([("a", "i1"), ("b", ">f8", (2, 3)), ("c", "S3")]))

# ------------------------------------------------------------------------------- golden bytes

STORE_ID = bytes(range(16))


def test_the_superblock():
    raw = f.Superblock(16384, STORE_ID, -5).pack()
    assert len(raw) == 56
    assert raw[:8] == b"PAGESTO\x01"
    assert raw[8:12] == (1).to_bytes(4, "little")
    assert raw[12:16] == (16384).to_bytes(4, "little")
    assert raw[16:32] == STORE_ID
    assert raw[32:40] == (-5).to_bytes(8, "little", signed=True)
    assert raw[40:48] == b"complete"
    assert raw[48:] == xxhash.xxh3_64_digest(raw[:48])
    assert f.Superblock.unpack(raw, "here") == f.Superblock(16384, STORE_ID, -5)


def test_the_copy_of_the_head():
    assert f.HEAD_OFFSETS == (512, 1024)
    head = f.HeadCopy(7, 9, 33, STORE_ID)
    raw = head.pack()
    assert raw[:40] == struct.pack("<QQQ", 7, 9, 33) + STORE_ID
    assert raw[40:] == xxhash.xxh3_64_digest(raw[:40])
    assert f.HeadCopy.unpack(raw + bytes(16)) == head


def test_the_meta_record():
    meta = f.Meta(STORE_ID, 4096, True, *range(2, 10))
    raw = meta.pack()
    assert raw == struct.pack("<I", 1) + STORE_ID + struct.pack("<IB8Q", 4096, 1, *range(2, 10))
    assert f.Meta.unpack(raw) == meta


def test_keys():
    assert f.number_key(b"N", 1) == b"N" + bytes(7) + b"\x01"
    assert f.number_key(b"N", 1, 258) == b"N" + bytes(7) + b"\x01" + bytes(6) + b"\x01\x02"
    assert f.name_key(b"S", "é") == b"S\xc3\xa9"
    kinds = [f.META, f.BRANCH, f.UNKEPT, f.RESERVED, f.SPACE_LOG, f.FREE, f.SUMS, f.NODE]
    kinds += [f.SNAPSHOT, f.VERSION, f.CHILD]
    assert b"".join(kinds) == b"ABCDEFKNSVc"


def test_a_sealed_record():
    key, payload = b"Sname", b"payload"
    raw = f.seal(key, payload)
    assert raw == xxhash.xxh3_64_digest(b"Snamepayload") + payload
    assert f.unseal(key, raw) == payload == f.unseal_view(key, raw)


def test_a_version_and_its_region():
    region = f.RegionRecord(3, "prices", np.dtype("<f8"), (2, 5), f.Table(f.NodeRef(8, 4), 1), 6, 7)
    version = f.VersionRecord(5, 4, 99, True, "note", {"prices": region})
    raw = version.pack()
    head = struct.pack("<QQqB", 5, 4, 99, 1) + version.root() + struct.pack("<II", 4, 1) + b"note"
    body = struct.pack("<QQQBQQHHB", 3, 8, 4, 1, 6, 7, 6, 5, 2) + struct.pack("<QQ", 2, 5)
    assert raw == head + body + b"prices" + b"'<f8'"
    assert f.VersionRecord.unpack(raw) == version


def test_page_table_nodes():
    extents = columns([(5, 3, 9, 2)])
    words = struct.pack("<QQ", 9 << 18 | 5, 2 << 18 | 2)
    runs = np.array([(11, 12, 13)], f.RUN_REF)
    assert f.pack_run(extents) == b"\x02" + bytes(7) + words
    assert f.pack_leaf(extents, runs) == (
        struct.pack("<BxHI", 1, 1, 1) + struct.pack("<QQI", 11, 12, 13) + words
    )
    branch = np.zeros(64, f.BRANCH_REF)
    branch[1] = (7, 8)
    assert f.pack_branch(branch) == (
        b"\x03" + bytes(7) + bytes(16) + struct.pack("<QQ", 7, 8) + bytes(62 * 16)
    )


def test_runs_of_slots():
    runs = np.array([(5, 3)], f.RUN)
    assert f.pack_runs(runs, runs[:0]) == struct.pack("<IQI", 1, 5, 3) + struct.pack("<I", 0)


def test_hashes():
    """Stored in every version: they can never change."""
    assert f.page_sum(bytes(4096)) == xxhash.xxh3_64_intdigest(bytes(4096))
    two = np.array([0, 5]), np.array([1, 2**64 - 1], np.uint64)
    parts = [f.content_hash(two[0][i : i + 1], two[1][i : i + 1]) for i in (0, 1)]
    assert parts == [0x0000000000000000, parts[1]]
    assert f.content_hash(*two) == sum(parts) % 2**64
    assert f.content_hash(np.array([3]), np.array([12345], np.uint64)) == mixed(3, 12345)
    version = f.VersionRecord(2, 1, 3, False, "m", {})
    assert version.root() == xxhash.xxh3_128_digest(struct.pack("<Qq", 2, 3) + b"m")


def mixed(page, total):
    """MurmurHash3's finaliser, as its author wrote it."""
    x = total ^ (page * 0x9E3779B97F4A7C15 + 1) % 2**64
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        x = (x ^ x >> 33) * factor % 2**64
    return x ^ x >> 33


def test_a_new_store_on_disk(tmp_path):
    with pagestore.open(tmp_path / "s", page_size=8192) as store:
        assert_clean(store)
    raw = (tmp_path / "s" / "arena").read_bytes()
    block = f.Superblock.unpack(raw, "arena")
    assert (len(raw) % 8192, block.page_size) == (0, 8192)
    assert raw[56:512] == bytes(512 - 56)
    assert (tmp_path / "s" / "pins").read_bytes() == b""
    assert (tmp_path / "s" / "ballast").stat().st_size == 1 << 20


# --------------------------------------------------------------------------------- there and back


def columns(rows):
    table = np.array(rows, np.int64).reshape(-1, 4)
    return f.Extents(*(table[:, i].copy() for i in range(4)))


@st.composite
def extents(draw):
    pages = sorted(draw(st.sets(st.integers(0, f.LEAF_SPAN - 1), max_size=20)))
    rows = []
    for page, end in zip(pages, [*pages, f.LEAF_SPAN][1:], strict=True):
        length = draw(st.integers(1, end - page))
        rows.append((page, length, draw(st.integers(0, 2**40)), draw(st.integers(0, 2**40))))
    return columns(rows)


def rows_of(e):
    return list(
        zip(e.page.tolist(), e.length.tolist(), e.slot.tolist(), e.birth.tolist(), strict=True)
    )


@st.composite
def regions(draw):
    root = draw(st.none() | st.builds(f.NodeRef, IDS, U64))
    return f.RegionRecord(
        draw(U64), draw(NAMES), draw(DTYPES), tuple(draw(st.lists(U64, max_size=64))),
        f.Table(root, draw(st.integers(0, 255))), draw(U64), draw(U64),
    )  # fmt: skip


@st.composite
def versions(draw):
    found = {r.name: r for r in draw(st.lists(regions(), max_size=4))}
    return f.VersionRecord(draw(U64), draw(U64), draw(I64), draw(st.booleans()), draw(TEXTS), found)


@given(versions())
def test_versions_come_back(version):
    raw = version.pack()
    assert f.VersionRecord.unpack(raw) == version
    assert f.VersionRecord.unpack(raw).pack() == raw


@given(versions(), versions())
def test_roots_tell_versions_apart(a, b):
    """What a version shows is in its root; where its pages lie, and its parent, are not."""

    def shown(v):
        return (
            v.id, v.time, v.message,
            {n: (r.id, f.dtype_text(r.dtype), r.shape, r.pages, r.content)
             for n, r in v.regions.items()},
        )  # fmt: skip

    assert (a.root() == b.root()) == (shown(a) == shown(b))


@given(st.builds(f.NameRecord, U64, I64, TEXTS))
def test_names_come_back(record):
    assert f.NameRecord.unpack(record.pack()) == record


@given(
    st.binary(min_size=16, max_size=16), U32, st.booleans(), st.lists(U64, min_size=8, max_size=8)
)
def test_meta_comes_back(store_id, page_size, keep_all, counters):
    meta = f.Meta(store_id, page_size, keep_all, *counters)
    assert f.Meta.unpack(meta.pack()) == meta


@given(U32, st.binary(min_size=16, max_size=16), I64)
def test_superblocks_come_back(page_size, store_id, created):
    block = f.Superblock(page_size, store_id, created)
    assert f.Superblock.unpack(block.pack() + bytes(100), "here") == block


@given(U64, U64, U64, st.binary(min_size=16, max_size=16))
def test_heads_come_back(version, following, transaction, root):
    head = f.HeadCopy(version, following, transaction, root)
    assert f.HeadCopy.unpack(head.pack() + b"x") == head


@given(U64, st.binary(min_size=16, max_size=16))
def test_catalog_seals_come_back(size, digest):
    seal = f.CatalogSeal(size, digest)
    assert f.CatalogSeal.unpack(seal.pack() + b"x") == seal
    assert f.CatalogSeal.unpack(b"x" + seal.pack()) is None


@given(extents(), st.lists(st.tuples(U64, U64, U32), max_size=10))
def test_leaves_come_back(inline, refs):
    runs = np.array(refs, f.RUN_REF)
    found, found_runs = f.unpack_leaf(f.pack_leaf(inline, runs))
    assert rows_of(found) == rows_of(inline)
    assert found_runs.tolist() == runs.tolist()


@given(extents())
def test_runs_come_back(run):
    assert rows_of(f.unpack_run(f.pack_run(run))) == rows_of(run)


@pytest.mark.parametrize("size", [f.PACKED_LEAST, f.PACKED_LEAST + 1])
def test_a_part_of_a_large_run_is_what_all_of_it_has_there(size):
    page = np.arange(size) * 3
    run = f.Extents(page, page % 3 + 1, (1 << 45) + page, page * 7)
    found = f.unpack_run(memoryview(f.pack_run(run)))
    wanted = np.array(rows_of(run))
    for index in (slice(5, 90), np.array([-1, 7, 7, 0]), page % 2 == 0):
        assert np.array_equal(rows_of(found.take(index)), wanted[index])
        assert len(found.take(index)) == len(wanted[index])
    assert rows_of(found) == rows_of(run)
    assert len(found) == size


@given(st.lists(st.tuples(U64, U64), min_size=f.FAN, max_size=f.FAN))
def test_branches_come_back(children):
    branch = np.array(children, f.BRANCH_REF)
    assert f.unpack_branch(f.pack_branch(branch)).tolist() == children


@given(st.lists(st.lists(st.tuples(U64, U32), max_size=5), max_size=4))
def test_lists_of_runs_come_back(groups):
    raw = f.pack_runs(*(np.array(g, f.RUN) for g in groups))
    assert [g.tolist() for g in f.unpack_runs(raw, len(groups))] == groups
    with pytest.raises(CorruptionError):
        f.unpack_runs(raw, len(groups) + 1)


@given(st.sets(st.integers(0, 300)))
def test_runs_of_numbers(numbers):
    runs = f.runs_of(np.array(sorted(numbers), np.int64))
    assert sorted(numbers) == [
        n for start, count in runs.tolist() for n in range(start, start + count)
    ]
    assert (runs[1:, 0] > runs[:-1].sum(axis=1)).all()


@given(DTYPES)
def test_dtypes_come_back(dtype):
    assert f.dtype_from_text(f.dtype_text(dtype)) == dtype


@given(st.sampled_from([f.NODE, f.FREE, f.SUMS]), st.lists(U64, min_size=1, max_size=3))
def test_number_keys_come_back(kind, numbers):
    assert f.key_numbers(f.number_key(kind, *numbers)) == tuple(numbers)


@given(st.lists(U64, min_size=2, max_size=2))
def test_number_keys_sort_as_numbers(numbers):
    keys = [f.number_key(f.NODE, n) for n in numbers]
    assert (keys[0] < keys[1]) == (numbers[0] < numbers[1])


@given(IDS, IDS, NAMES)
def test_keys_behind_a_version_come_back(version, child, name):
    assert f.split_version_key(f.number_key(f.VERSION, version)) == (version, b"", b"")
    key = f.child_key(version, child)
    assert f.split_version_key(key) == (version, f.CHILD, child.to_bytes(8, "big"))
    key = f.named_key(version, f.SNAPSHOT, name)
    assert f.split_version_key(key) == (version, f.SNAPSHOT, name.encode())


# ------------------------------------------------------------------------------- nothing else does


@given(st.binary(min_size=1, max_size=30), st.binary(max_size=100), st.data())
def test_a_changed_record_is_refused(key, payload, data):
    raw = f.seal(key, payload)
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    shorter = raw[: data.draw(st.integers(0, len(raw) - 1))]
    for unseal in (f.unseal, f.unseal_view):
        for wrong in (bytes(changed), shorter, raw + b"\0"):
            with pytest.raises(CorruptionError):
                unseal(key, wrong)


@given(
    st.binary(min_size=1, max_size=30), st.binary(min_size=1, max_size=30), st.binary(max_size=50)
)
def test_a_record_under_another_key_is_refused(key, other, payload):
    if key + payload != other + payload:
        with pytest.raises(CorruptionError):
            f.unseal(other, f.seal(key, payload))


@given(st.binary(min_size=1, max_size=40))
def test_messages_name_any_key(key):
    assert isinstance(f.describe_key(key), str)


@given(st.integers(0, 56 * 8 - 1))
def test_a_changed_superblock_is_refused(bit):
    raw = bytearray(f.Superblock(4096, STORE_ID, 5).pack())
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises((FormatError, CorruptionError), match="here"):
        f.Superblock.unpack(bytes(raw), "here")


@given(st.integers(0, 48 * 8 - 1))
def test_a_changed_head_is_ignored(bit):
    raw = bytearray(f.HeadCopy(1, 2, 3, STORE_ID).pack())
    raw[bit // 8] ^= 1 << bit % 8
    assert f.HeadCopy.unpack(bytes(raw)) is None


@pytest.mark.parametrize("size", range(56))
def test_a_short_superblock_or_head_is_refused(size):
    with pytest.raises(FormatError):
        f.Superblock.unpack(f.Superblock(4096, STORE_ID, 5).pack()[:size], "here")
    assert f.HeadCopy.unpack(f.HeadCopy(1, 2, 3, STORE_ID).pack()[: min(size, 47)]) is None


@given(st.integers(f.FORMAT_VERSION + 1, 2**32 - 1))
def test_newer_formats_are_refused(version):
    """Whatever else they say: what follows the version may be anything."""
    block = bytearray(f.Superblock(4096, STORE_ID, 5).pack())
    block[8:12] = version.to_bytes(4, "little")
    with pytest.raises(FormatError, match="upgrade"):
        f.Superblock.unpack(bytes(block), "here")
    for rest in (b"", b"anything", f.Meta(STORE_ID, 4096, False).pack()[4:]):
        with pytest.raises(FormatError, match="upgrade"):
            f.Meta.unpack(version.to_bytes(4, "little") + rest)


def test_the_next_magic_is_refused():
    raw = f.Superblock(4096, STORE_ID, 5).pack()
    with pytest.raises(FormatError, match="upgrade"):
        f.Superblock.unpack(raw[:7] + b"\x02" + raw[8:], "here")
    with pytest.raises(FormatError, match="not the arena"):
        f.Superblock.unpack(b"SQLite format 3\0" + raw[16:], "here")


@given(versions(), st.data())
def test_a_version_that_does_not_match_its_root(version, data):
    """The seal is the first guard, the root hash the second."""
    raw = bytearray(version.pack())
    at = data.draw(st.integers(25, 40))
    raw[at] ^= 1
    with pytest.raises(PagestoreError):
        f.VersionRecord.unpack(bytes(raw))


@given(st.binary(max_size=200))
def test_nodes_of_the_wrong_kind_or_size(raw):
    for unpack, kind in ((f.unpack_leaf, 1), (f.unpack_run, 2), (f.unpack_branch, 3)):
        if raw[:1] != bytes([kind]):
            with pytest.raises(CorruptionError):
                unpack(raw)
        else:
            with contextlib.suppress(CorruptionError):
                unpack(raw)


@given(st.binary(max_size=200))
def test_lists_of_runs_of_the_wrong_size(raw):
    with contextlib.suppress(CorruptionError):
        assert f.pack_runs(*f.unpack_runs(raw, 2)) == raw


@pytest.mark.parametrize("text", ["", "[", "'nonsense'", "{'a': 1}", "[('a', 'O')]", "open('x')"])
def test_dtypes_that_are_none(text):
    with pytest.raises(CorruptionError):
        f.dtype_from_text(text)


@given(st.text(max_size=20))
def test_names_that_pass_can_be_stored(name):
    try:
        found = f.check_name(name, "snapshot")
    except InvalidError:
        return
    assert found == name
    assert 0 < len(f.named_key(1, f.SNAPSHOT, name)) <= 511  # LMDB's limit for a key
    assert f.name_key(f.SNAPSHOT, name)[1:].decode() == name
