"""Records of a stranger: right checksums, wrong contents. Each ends in an error of the tree, soon.

The stores are made as pagestore makes them, then one record is rewritten, sealed and counted.
"""

import shutil
import struct

import numpy as np
import pytest

import pagestore
from pagestore import CorruptionError, FullError, PagestoreError, space
from pagestore.directory import ARENA, CATALOG
from pagestore.format import (
    BRANCH_REF,
    FAN,
    META,
    NODE,
    RESERVED,
    RUN,
    RUN_REF,
    SNAPSHOT,
    SPACE_LOG,
    VERSION,
    Extents,
    Meta,
    NodeRef,
    Superblock,
    Table,
    VersionRecord,
    child_key,
    dtype_from_text,
    number_key,
    pack_branch,
    pack_leaf,
    pack_run,
    pack_runs,
    unpack_leaf,
)
from tests.damage import (
    PAGE,
    assert_clean,
    contents,
    directory_in_memory,
    in_child,
)
from tools.damage.reseal import load, rewrite

SECONDS = 10
REFUSED = ("CorruptionError: ", "fine: ['", 'fine: ["')  # an error, or findings


@pytest.fixture(scope="module")
def pristine():
    with directory_in_memory() as top:
        with pagestore.open(top / "pristine") as store:
            with store.begin() as ws:
                ws.create("a", 8 * PAGE)[:] = 1
            store.snapshot("one")
            with store.begin() as ws:
                ws["a"][0] = 2
            assert_clean(store)
        yield top / "pristine"


@pytest.fixture
def path(pristine):
    shutil.copytree(pristine, pristine.parent / "store")
    yield pristine.parent / "store"
    shutil.rmtree(pristine.parent / "store")


def versions(path):
    records = load(path / CATALOG)
    return [VersionRecord.unpack(r) for k, r in records.items() if k[:1] == VERSION and len(k) == 9]


def newest(path, **changes):
    """Write the newest version anew, with changes to its region."""
    version = versions(path)[-1]
    region = version.regions["a"]._replace(**changes)
    made = version._replace(regions={"a": region})
    rewrite(path / CATALOG, {number_key(VERSION, version.id): made.pack()})


def outcome(use):
    """What a use comes to, in a process with a limit of time; its error must be of the tree."""

    def work():
        try:
            return f"fine: {use()}"
        except PagestoreError as error:
            return f"{type(error).__name__}: {error}"
        except BaseException as error:
            return f"not of the tree: {error!r}"

    return in_child(work, SECONDS)


def read(path):
    with pagestore.open(path, "r") as store:
        return len(contents(store))


def check(path):
    with pagestore.open(path, "r") as store:
        return [f.what for f in store.check(data=True)]


def assert_refused(path, *words):
    """Reading and checking both say that it is damaged."""
    for use in (read, check):
        said = outcome(lambda use=use: use(path))
        assert said.startswith(REFUSED), (use.__name__, said)
        assert not words or any(word in said for word in words), said


# ------------------------------------------------------------------------------------- versions


@pytest.mark.parametrize("more", [0, 1, 100])
def test_a_version_whose_parent_is_not_older(path, more):
    """`log` and ``main~1000000`` would go round for ever."""
    version = versions(path)[-1]
    made = version._replace(parent=version.id + more)
    key = number_key(VERSION, version.id)
    rewrite(path / CATALOG, {key: made.pack(), child_key(made.parent, version.id): b""})
    assert_refused(path, "not older")
    with pagestore.open(path, "r") as store, pytest.raises(CorruptionError, match="not older"):
        store.version("main~99999999999999999999")


@pytest.mark.parametrize("size", [0, 1, 48, 49, 60, -1])
def test_a_version_record_of_the_wrong_size(path, size):
    version = versions(path)[-1]
    raw = version.pack()
    raw = raw + b"\0" if size < 0 else raw[:size]
    rewrite(path / CATALOG, {number_key(VERSION, version.id): raw})
    assert_refused(path)


def test_a_region_twice_in_a_version(path):
    version = versions(path)[-1]
    raw = bytearray(version.pack())
    struct.pack_into("<I", raw, 45, 2)
    raw += version.regions["a"].pack()
    rewrite(path / CATALOG, {number_key(VERSION, version.id): bytes(raw)})
    assert_refused(path, "wrong size")


@pytest.mark.parametrize(
    "shape", [(1 << 63,), (1 << 64 - 1,), (1 << 40, 1 << 40), (0, 1 << 62, 8), (1,) * 65]
)
def test_a_shape_that_no_array_has(path, shape):
    newest(path, shape=shape)
    assert_refused(path, "array cannot have")


TEXTS = {
    "deep brackets": "(" * 5000, "deep signs": "-" * 60000 + "1", "long sum": "1" + "+1j" * 20000,
    "a call": "__import__('os')", "digits": "9" * 60000, "a set": "{1}", "objects": "'O'",
    "no field": "[()]", "a number": "5", "units": "'<M8[99999999999999999999Y]'",
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_the_text_of_a_dtype(text):
    """Python's own parser can be driven out of its stack."""
    said = outcome(lambda: dtype_from_text(text))
    assert said.startswith("CorruptionError: "), said[:200]
    assert len(said) < 300


# ---------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("payload", [b"", bytes(15), bytes(16) + b"\xff"])
def test_a_name_record_that_is_none(path, payload):
    rewrite(path / CATALOG, {SNAPSHOT + b"one": payload})
    assert_refused(path)


def test_a_name_that_is_not_utf8(path):
    rewrite(path / CATALOG, {SNAPSHOT + b"\xff\xfe": struct.pack("<Qq", 2, 0)})
    assert_refused(path, "UTF-8")


# ---------------------------------------------------------------------------------- page tables


@pytest.mark.parametrize("height", [3, 4])
def test_a_table_whose_branches_are_one(path, height):
    """Each level has 64 ways to the next: 2**24 leaves in five records."""
    nodes = range(100, 100 + height)
    changes = {}
    leaf = versions(path)[-1].regions["a"].table.root.node
    for node in nodes:
        children = np.zeros(FAN, BRANCH_REF)
        children["node"], children["birth"] = (node + 1 if node + 1 in nodes else leaf), 3
        changes[number_key(NODE, node)] = pack_branch(children)
    rewrite(path / CATALOG, changes)
    newest(path, table=Table(NodeRef(100, 3), height), shape=(1 << 40,))
    assert_refused(path, "two places")


@pytest.mark.parametrize("height", [1, 4, 5, 255])
def test_a_branch_that_is_its_own_child(path, height):
    children = np.zeros(FAN, BRANCH_REF)
    children[0] = (100, 3)
    rewrite(path / CATALOG, {number_key(NODE, 100): pack_branch(children)})
    newest(path, table=Table(NodeRef(100, 3), height))
    assert_refused(path)


def test_a_run_that_is_in_a_leaf_very_often(path):
    column = (np.arange(2000), np.ones(2000, np.int64), np.arange(2000), np.ones(2000, np.int64))
    refs = np.zeros(60000, RUN_REF)
    refs["node"], refs["count"] = 100, 2000
    table = versions(path)[-1].regions["a"].table
    rewrite(
        path / CATALOG,
        {
            number_key(NODE, 100): pack_run(Extents(*column)),
            number_key(NODE, table.root.node): pack_leaf(Extents.empty(), refs),
        },
    )
    assert_refused(path, "twice")


def test_extents_that_overlap(path):
    """Each as long as a leaf, some thousand times: they must not be laid out one by one."""
    table = versions(path)[-1].regions["a"].table
    column = (np.full(5000, v, np.int64) for v in (0, 1 << 18, 1, 3))
    rewrite(
        path / CATALOG,
        {number_key(NODE, table.root.node): pack_leaf(Extents(*column), np.zeros(0, RUN_REF))},
    )
    assert_refused(path, "T2")


def test_a_table_that_very_many_versions_have(path):
    """Following it for each of them would cost more than the store has."""
    version = versions(path)[-1]
    pages = np.arange(0, 60000, 2)
    one = np.ones(len(pages), np.int64)
    leaf = pack_leaf(Extents(pages, one, one, one), np.zeros(0, RUN_REF))
    changes = {number_key(NODE, version.regions["a"].table.root.node): leaf}
    for i in range(1000, 6000):
        changes[number_key(VERSION, i)] = version._replace(id=i, parent=0, keep=True).pack()
    changes[META] = Meta.unpack(load(path / CATALOG)[META])._replace(next_version=9000).pack()
    rewrite(path / CATALOG, changes)
    assert "another table's too" in outcome(lambda: check(path))


@pytest.mark.parametrize("birth", [1, 99])
def test_a_node_born_at_another_time(path, birth):
    """Dropping a version frees by births: a wrong one frees too much, or nothing."""
    table = versions(path)[-1].regions["a"].table
    raw = load(path / CATALOG)[number_key(NODE, table.root.node)]
    inline, _ = unpack_leaf(raw)
    refs = np.array([(100, birth, len(inline))], RUN_REF)
    rewrite(
        path / CATALOG,
        {
            number_key(NODE, 100): pack_run(inline),
            number_key(NODE, table.root.node): pack_leaf(Extents.empty(), refs),
        },
    )
    assert "did not write it" in outcome(lambda: check(path))


# ---------------------------------------------------------------------------------------- slots


def one_run(start, length, times=1):
    runs = np.zeros(times, RUN)
    runs["start"], runs["length"] = start, length
    return runs


HOSTILE = {
    "outside": one_run(1 << 40, 1), "negative": one_run(1 << 63, 1),
    "last number": one_run((1 << 64) - 1, 1), "long": one_run(1, (1 << 32) - 1),
    "very often": one_run(1, 200, 100_000), "from the last on": one_run(255, 9),
}  # fmt: skip


@pytest.mark.parametrize("kind", [SPACE_LOG, RESERVED])
@pytest.mark.parametrize("runs", HOSTILE.values(), ids=HOSTILE)
def test_a_list_of_slots_that_leads_astray(path, kind, runs):
    groups = (runs,) if kind == RESERVED else (runs, one_run(1, 0))
    rewrite(path / CATALOG, {number_key(kind, 1000): pack_runs(*groups)})
    said = outcome(lambda: check(path))
    assert said.startswith(REFUSED), said


@pytest.mark.parametrize("kind", [SPACE_LOG, RESERVED])
@pytest.mark.parametrize("groups", [0, 3])
def test_lists_of_slots_too_few_or_too_many(path, kind, groups):
    rewrite(path / CATALOG, {number_key(kind, 1000): pack_runs(*[one_run(1, 1)] * groups)})
    said = outcome(lambda: check(path))
    assert "wrong size" in said


@pytest.mark.parametrize("key", [b"C", b"D\0", b"E12345678x", b"F", b"N", b"N1234567"])
def test_a_key_of_the_wrong_size(path, key):
    rewrite(path / CATALOG, {key: b""})
    said = outcome(lambda: check(path))
    assert said.startswith(REFUSED), said


def test_a_log_of_very_many_records(path):
    """Each says that all slots are free: read one by one they cost far more than they weigh."""
    record = pack_runs(one_run(1, 200), one_run(1, 200))
    rewrite(path / CATALOG, {number_key(SPACE_LOG, i): record for i in range(5000)})
    assert "log" in outcome(lambda: check(path))


# ------------------------------------------------------------------------------------- counters


@pytest.mark.parametrize("slots", [0, (1 << 46) + 1, (1 << 64) - 1])
def test_slots_that_an_arena_cannot_have(path, slots):
    raw = load(path / CATALOG)[META]
    rewrite(path / CATALOG, {META: Meta.unpack(raw)._replace(slots=slots).pack()})
    for use in (read, check):
        said = outcome(lambda use=use: use(path))
        assert said.startswith("CorruptionError: "), said


def test_an_arena_that_is_longer_than_memory_can_tell(path):
    """A sparse file has any length: to note something for each slot would be fatal."""
    slots = 1 << 31
    with (path / ARENA).open("r+b") as file:
        file.truncate(slots * PAGE)
    raw = load(path / CATALOG)[META]
    rewrite(path / CATALOG, {META: Meta.unpack(raw)._replace(slots=slots).pack()})
    with pagestore.open(path, "r") as store, pytest.raises(FullError, match="memory"):
        list(store.check())


@pytest.mark.parametrize("page_size", [0, 3, 512, 4097, 1 << 22, 1 << 31])
def test_a_page_size_that_no_store_has(path, page_size):
    raw = (path / ARENA).read_bytes()
    block = Superblock.unpack(raw, "arena")._replace(page_size=page_size).pack()
    (path / ARENA).write_bytes(block + raw[len(block) :])
    assert_refused(path, "pages cannot have")


# --------------------------------------------------------------------------------- many findings


def test_damage_in_very_many_pieces_is_told_in_time(tmp_path, monkeypatch):
    """The free slots are read anew once, not for each piece."""
    loads = []

    def load_slots(*args):
        loads.append(args)
        return space.load(*args)

    monkeypatch.setattr("pagestore.verify.load", load_slots)
    with pagestore.open(tmp_path / "s") as store:
        with store.begin() as ws:
            ws.create("a", 400 * PAGE)[::PAGE] = 1
        with store.begin() as ws:
            ws["a"][: 400 * PAGE : 2 * PAGE] = 2
        with (tmp_path / "s" / ARENA).open("r+b") as file:
            for slot in range(1, 800):
                file.seek(slot * PAGE + 100)
                file.write(b"damage")
        assert len(list(store.check(data=True))) == 400
    assert len(loads) <= 3
