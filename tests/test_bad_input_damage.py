"""Damaged stores: what is read is what was committed, or an error says that it is not."""

import importlib.util
import shutil
import signal
from collections.abc import Callable

import lmdb
import pytest

import pagestore
from pagestore import CorruptionError
from pagestore.directory import ARENA, BALLAST, CATALOG, PINS
from pagestore.format import (
    BRANCH,
    HEAD_OFFSETS,
    META,
    NODE,
    SNAPSHOT,
    SPACE_LOG,
    SUMS,
    VERSION,
    HeadCopy,
    Meta,
    seal,
    unseal,
)
from tests.damage import (
    PAGE,
    assert_clean,
    assert_noticed,
    contents,
    directory_in_memory,
    small_store,
    survey,
    verdict,
)
from tools.damage.reseal import load, rewrite


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    path = tmp_path_factory.mktemp("pristine") / "store"
    return path, small_store(path)


@pytest.fixture
def made(pristine):
    with directory_in_memory() as top:
        shutil.copytree(pristine[0], top / "store")
        yield top / "store", pristine[1]


@pytest.fixture(autouse=True)
def counted(record_property):
    """Say how many inputs a test has tried."""
    tried.clear()
    tried.append(record_property)


tried: list[Callable[[str, int], None]] = []


def survey_file(made, name, changes, mode="r"):
    """The verdict on the store with each of some changed versions of one file."""
    path, expected = made
    whole = (path / name).read_bytes()

    def look(i):
        changed = bytearray(whole)
        changes[i](changed)
        (path / name).write_bytes(changed)
        return verdict(path, expected, mode)

    results = survey(len(changes), look)
    tried[0]("bad inputs", len(results))
    (path / name).write_bytes(whole)
    with pagestore.open(path) as store:
        assert contents(store) == expected
        assert_clean(store)
    return results


def cut(size):
    def change(raw):
        del raw[size:]

    return change


def flip(bit):
    def change(raw):
        raw[bit // 8] ^= 1 << bit % 8

    return change


# ------------------------------------------------------------------------------------------ cuts


@pytest.mark.parametrize("mode", ["r", "a"])
def test_a_cut_arena(made, mode):
    size = (made[0] / ARENA).stat().st_size
    sizes = [0, 1, 63, 64, 100, 2000, *range(PAGE, size + 1, PAGE), size - 1]
    results = survey_file(made, ARENA, [cut(s) for s in sizes], mode)
    assert_noticed(results)
    in_use = [r for s, r in zip(sizes, results, strict=True) if s < 10 * PAGE]
    assert all(r.startswith(("CorruptionError", "FormatError")) for r in in_use)
    assert "cut" in results[6]


@pytest.mark.parametrize("mode", ["r", "a"])
def test_a_cut_catalog(made, mode):
    size = (made[0] / CATALOG).stat().st_size
    sizes = [0, 1, 100, PAGE - 1, *range(PAGE, size, PAGE), size - 1]
    results = survey_file(made, CATALOG, [cut(s) for s in sizes], mode)
    assert_noticed(results)
    half = len(results) // 2  # the last pages may be free ones
    assert "identical" not in results[:half], results


def promised(path):
    with lmdb.open(str(path / CATALOG), subdir=False, readonly=True, map_size=1 << 24) as env:
        return (env.info()["last_pgno"] + 1) * env.stat()["psize"]


@pytest.mark.parametrize("mode", ["r", "a"])
def test_a_sound_catalog_that_is_short(made, mode):
    """LMDB does not write pages that a transaction took and gave back: nothing was cut off."""
    path, before = made
    with (
        lmdb.open(str(path / CATALOG), subdir=False, map_size=1 << 24) as env,
        env.begin(write=True) as txn,
    ):
        txn.put(b"zz", bytes(100_000))
        txn.delete(b"zz")
        assert txn.put(b"zz", b"")
    rewrite(path / CATALOG, {b"zz": None})
    assert (path / CATALOG).stat().st_size < promised(path)
    with pagestore.open(path, mode) as store:
        assert contents(store) == before
        assert_clean(store)
    with pagestore.open(path) as store, store.begin() as ws:
        ws["a"][0] = 77
        assert_clean(store)
    assert (path / CATALOG).stat().st_size >= promised(path)


def test_an_emptied_catalog(made):
    """LMDB takes a file of zeros, or an empty environment, for a new one."""
    path = made[0]
    whole = (path / CATALOG).read_bytes()
    for empty in (b"", bytes(len(whole)), bytes(2 * PAGE)):
        (path / CATALOG).write_bytes(empty)
        for mode in ("r", "a"):
            with pytest.raises(CorruptionError):
                pagestore.open(path, mode)
    (path / CATALOG).unlink()
    with lmdb.open(str(path / CATALOG), subdir=False, map_size=1 << 20) as env:
        env.sync(True)
    for mode in ("r", "a"):
        with pytest.raises(CorruptionError, match="empt"):
            pagestore.open(path, mode)
    (path / CATALOG).write_bytes(whole)
    with pagestore.open(path) as store:
        assert contents(store) == made[1]
        assert_clean(store)


# ---------------------------------------------------------------------------------- missing files


@pytest.mark.parametrize("mode", ["r", "r+", "a"])
@pytest.mark.parametrize("name", [ARENA, CATALOG])
def test_a_missing_file(made, name, mode):
    path, before = made
    (path / name).rename(path / "aside")
    with pytest.raises(CorruptionError, match=f"the {name} is missing"):
        pagestore.open(path, mode)
    assert not (path / name).exists()
    (path / "aside").rename(path / name)
    with pagestore.open(path) as store:
        assert contents(store) == before
        assert_clean(store)


@pytest.mark.parametrize("mode", ["r", "a"])
@pytest.mark.parametrize("name", [PINS, BALLAST, f"{CATALOG}-lock"])
def test_a_missing_file_that_is_made_again(made, name, mode):
    path, before = made
    (path / name).unlink()
    with pagestore.open(path, mode) as store:
        assert contents(store) == before
        assert_clean(store)
    with pagestore.open(path) as store:
        with store.begin() as ws:
            ws["a"][0] = 8
        assert_clean(store)
    assert (path / name).exists()


@pytest.mark.parametrize("name", [ARENA, CATALOG, PINS, BALLAST, f"{CATALOG}-lock"])
def test_a_directory_in_a_files_place(made, name):
    path, before = made
    (path / name).rename(path / "aside")
    (path / name).mkdir()
    for mode in ("r", "a"):
        if name == BALLAST:
            with pagestore.open(path, mode) as store:
                assert contents(store) == before
        else:
            with pytest.raises(pagestore.PagestoreError, match=str(path)):
                pagestore.open(path, mode)
    (path / name).rmdir()
    (path / "aside").rename(path / name)
    with pagestore.open(path) as store:
        assert contents(store) == before
        assert_clean(store)


# ------------------------------------------------------------------------------- the wrong catalog


def test_a_catalog_of_another_store(made, tmp_path):
    path, before = made
    small_store(tmp_path / "other")
    whole = (path / CATALOG).read_bytes()
    shutil.copy(tmp_path / "other" / CATALOG, path / CATALOG)
    for mode in ("r", "a"):
        with pytest.raises(CorruptionError, match="another store"):
            pagestore.open(path, mode)
    (path / CATALOG).write_bytes(whole)
    with pagestore.open(path) as store:
        assert contents(store) == before
        assert_clean(store)


@pytest.mark.parametrize("how", ["commit", "snapshot", "delete", "branch"])
def test_an_older_catalog(made, how):
    """The copy of the head in the arena remembers; names without a new version count too."""
    path, _ = made
    old = (path / CATALOG).read_bytes()
    with pagestore.open(path) as store:
        if how == "commit":
            with store.begin() as ws:
                ws["a"][0] = 1000
        elif how == "snapshot":
            store.snapshot("newest")
        elif how == "delete":
            store.delete_snapshot("one")
        else:
            store.create_branch("newest")
        after = contents(store)
        assert_clean(store)
    new = (path / CATALOG).read_bytes()
    (path / CATALOG).write_bytes(old)
    for mode in ("r", "a"):
        with pytest.raises(CorruptionError, match="back in time"):
            pagestore.open(path, mode)
    (path / CATALOG).write_bytes(new)
    with pagestore.open(path) as store:
        assert contents(store) == after
        assert_clean(store)


@pytest.mark.parametrize("count", [1, 40], ids=["one page", "many pages"])
def test_an_older_page_of_names(tmp_path, count):
    """Snapshots that were named anew: the page from before is whole, and agrees with all others.

    Where there is but one, it is the older state of everything.
    """
    path = tmp_path / "store"
    with pagestore.open(path) as store:
        with store.begin() as ws:
            ws.create("a", PAGE)[:] = 1
        for i in range(count):
            store.snapshot(f"name {i:02}", message="x" * 300)
    before = []
    for i in range(12):  # LMDB uses a page again after two transactions
        with pagestore.open(path) as store:
            store.delete_snapshot(f"name {count // 2:02}")
            store.snapshot(f"name {count // 2:02}", message=str(i) * 300)
            expected = contents(store)
        before.append((path / CATALOG).read_bytes())
    now = before.pop()
    pages = {
        (at, old[at : at + PAGE])
        for old in before
        for at in range(0, len(old), PAGE)
        if old[at : at + PAGE] != now[at : at + PAGE]
    }
    found = []
    for at, page in sorted(pages):
        (path / CATALOG).write_bytes(now[:at] + page + now[at + PAGE :])
        found.append(survey(1, lambda _: verdict(path, expected))[0])
    assert_noticed(found)
    told = "finding: " if count > 1 else "CorruptionError: the catalog's meta record is of"
    assert [f for f in found if f.startswith(told)]
    (path / CATALOG).write_bytes(now)
    with pagestore.open(path) as store:
        assert contents(store) == expected
        assert_clean(store)


def test_another_line_of_work_of_the_same_store(made):
    """A copy that went its own way has as many versions, but not the same ones."""
    path, _ = made
    old = (path / CATALOG).read_bytes(), (path / ARENA).read_bytes()

    def work(value):
        with pagestore.open(path) as store, store.begin() as ws:
            ws["a"][0] = value
        return (path / CATALOG).read_bytes(), (path / ARENA).read_bytes()

    one = work(1000)
    (path / CATALOG).write_bytes(old[0])
    (path / ARENA).write_bytes(old[1])
    work(2000)
    (path / CATALOG).write_bytes(one[0])
    with pytest.raises(CorruptionError, match="not the one that was committed"):
        pagestore.open(path)


def test_one_damaged_copy_of_the_head_leaves_the_other(made):
    path, before = made
    whole = (path / ARENA).read_bytes()
    heads = [HeadCopy.unpack(whole[at : at + 64]) for at in HEAD_OFFSETS]
    assert all(heads)
    for at in HEAD_OFFSETS:
        damaged = bytearray(whole)
        damaged[at + 3] ^= 4
        (path / ARENA).write_bytes(damaged)
        with pagestore.open(path) as store:
            assert contents(store) == before
            assert_clean(store)
    (path / ARENA).write_bytes(whole)


# ------------------------------------------------------------------------------------------ flips


def test_flipped_bits_in_pages(made):
    """One bit in every slot: found by a check of the data where a version refers to it."""
    path = made[0]
    whole = (path / ARENA).read_bytes()
    with pagestore.open(path, "r") as store:
        stats = store.stats()
    slots = range(1, len(whole) // PAGE)
    changes = [flip((slot * PAGE + slot * 97 % PAGE) * 8 + slot % 8) for slot in slots]
    results = survey_file(made, ARENA, changes)
    findings = [r for r in results if r != "identical"]
    assert len(findings) == stats.referred_bytes // PAGE
    for slot, result in zip(slots, results, strict=True):
        assert result == "identical" or f"slot {slot}" in result


def test_flipped_bits_in_the_superblock(made):
    """What is written there is found out; a copy of the head is ignored, there are two."""
    bits = [*range(56 * 8), *(at * 8 + b for at in HEAD_OFFSETS for b in range(0, 48 * 8, 7))]
    results = survey_file(made, ARENA, [flip(b) for b in bits])
    assert_noticed(results)
    superblock = results[: 56 * 8]
    assert all(r.startswith(("CorruptionError", "FormatError")) for r in superblock)
    assert set(results[56 * 8 :]) == {"identical"}


def survey_catalog(made, bits):
    """Flip bits of the catalog. LMDB's own structure has no checksums: a bit there can kill it.

    Where py-lmdb comes with `lmdb.verify`, which reads a file without LMDB, none gets so far.
    """
    results = survey_file(made, CATALOG, [flip(b) for b in bits])
    death = f"signal {signal.SIGBUS:d}"
    assert_noticed([r for r in results if r != death])
    examined = importlib.util.find_spec("lmdb.verify") is not None
    assert results.count(death) <= (0 if examined else len(bits) // 40)
    return results


def test_flipped_bits_in_the_catalog(made):
    """One bit in each 64-byte piece of the file."""
    size = (made[0] / CATALOG).stat().st_size
    results = survey_catalog(made, [at * 8 + at // 64 * 331 % 512 for at in range(0, size, 64)])
    assert sum(r != "identical" for r in results) > len(results) // 20


def test_flipped_bits_in_the_structure_of_the_catalog(made):
    """Bits of LMDB's own numbers: both meta pages, and the header of each other page."""
    size = (made[0] / CATALOG).stat().st_size
    bits = [page * PAGE * 8 + b for page in (0, 1) for b in range(0, 152 * 8, 11)]
    bits += [page * 8 + b for page in range(2 * PAGE, size, PAGE) for b in range(0, 64 * 8, 17)]
    survey_catalog(made, bits)


def test_records_that_were_exchanged(made):
    """A record under another's key is not believed, whole as it is."""
    path = made[0]
    for kind in (VERSION, NODE, SUMS, SNAPSHOT, BRANCH):
        raw = (path / CATALOG).read_bytes()
        with (
            lmdb.open(str(path / CATALOG), subdir=False, map_size=1 << 24) as env,
            env.begin(write=True) as txn,
            txn.cursor() as cursor,
        ):
            rows = []
            if cursor.set_range(kind):
                rows = [(k, v) for k, v in cursor if k[:1] == kind]
            if len(rows) > 1:
                txn.put(rows[0][0], rows[1][1])
        rewrite(path / CATALOG, {})
        result = survey(1, lambda _: verdict(path, made[1]))
        if len(rows) > 1:
            assert result[0].startswith(("CorruptionError", "finding")), (kind, result)
        (path / CATALOG).write_bytes(raw)


def lose_each_record(made, lose):
    """The verdict on the store without each of its records, by key."""
    path = made[0]
    raw = (path / CATALOG).read_bytes()
    keys = list(load(path / CATALOG))

    def look(i):
        (path / CATALOG).write_bytes(raw)
        lose(path / CATALOG, keys[i])
        return verdict(path, made[1])

    return dict(zip(keys, survey(len(keys), look), strict=True))


def test_lost_records(made):
    """Each record that is missing is missed by those that need it."""
    results = lose_each_record(made, lambda catalog, key: rewrite(catalog, {key: None}))
    assert_noticed(results.values())
    # a later record of the free-space log may say all that an earlier one said
    assert {k[:1] for k, r in results.items() if r == "identical"} <= {SPACE_LOG}


def test_records_lost_without_a_trace(made):
    """Where LMDB itself forgot one, the sum of all records tells."""

    def lose(catalog, key):
        with (
            lmdb.open(str(catalog), subdir=False, map_size=1 << 24) as env,
            env.begin(write=True) as txn,
        ):
            txn.delete(key)
            if key != META:
                meta = Meta.unpack(unseal(META, txn.get(META)))
                txn.put(META, seal(META, meta._replace(transaction=txn.id()).pack()))

    results = lose_each_record(made, lose)
    assert_noticed(results.values())
    assert "identical" not in results.values()
