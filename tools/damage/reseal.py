"""Bad inputs with right checksums: what a stranger may write, record by record.

Owns: changing payloads in a catalog and making seal, sum and transaction number right again, so
that nothing but the meaning of a record is wrong.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import lmdb
import numpy as np
from attrs import field, frozen

from pagestore.directory import ARENA
from pagestore.format import (
    BRANCH,
    BRANCH_REF,
    FAN,
    FREE,
    HEAD_OFFSETS,
    META,
    NODE,
    RESERVED,
    RUN,
    RUN_REF,
    SNAPSHOT,
    SPACE_LOG,
    SUMS,
    UNKEPT,
    VERSION,
    VERSION_KEY_SIZE,
    Extents,
    Meta,
    NodeId,
    NodeRef,
    RegionRecord,
    Table,
    VersionId,
    VersionRecord,
    number_key,
    pack_branch,
    pack_leaf,
    pack_run,
    pack_runs,
    record_sum,
    seal,
    unpack_branch,
    unpack_leaf,
    unseal,
)

Records = Mapping[bytes, bytes]  # key and payload
Changes = dict[bytes, bytes | None]  # None: the record goes

HUGE = (0, 1, 2, 255, 1 << 31, 1 << 32, 1 << 46, 1 << 52, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
COUNTED = ("version", "node", "region", "number")
DTYPES = (
    "'O'", "'|O'", "'<f9'", "5", "None", "[]", "()", "[('a',)]", "'|S0'", "'|V0'", "b'<f8'",
    "[('a','<f8'),('a','<f8')]", "'<M8[99999999999999999999Y]'", "'|S9223372036854775807'",
    "[('a','<f8',(2147483648,2147483648))]", "__import__('os')", "[('', '<f8')]", "'\\x00'",
    "(" * 5000, "-" * 60000 + "1", "[" * 90 + "]" * 90, "'<f8'" + "#" * 100, "9" * 60000,
    "{" + "1:" * 100, "'" + "," * 60000 + "'", "[('a', " * 60 + "'<f8'" + ")]" * 60,
    "1" + "+1j" * 20000,
)  # fmt: skip


@frozen
class Resealed:
    """Records that say something wrong under right checksums."""

    kind: str
    changes: Changes = field(repr=False)

    def __str__(self) -> str:
        return f"catalog: {self.kind} in {', '.join(repr(k) for k in list(self.changes)[:3])}"

    def write(self, catalog: Path) -> None:
        rewrite(catalog, self.changes)


def load(catalog: Path) -> dict[bytes, bytes]:
    """Every record of a catalog, unsealed."""
    with (
        lmdb.open(str(catalog), subdir=False, readonly=True, lock=False) as env,
        env.begin() as txn,
        txn.cursor() as cursor,
    ):
        return {bytes(k): unseal(bytes(k), bytes(v)) for k, v in cursor}


def rewrite(catalog: Path, changes: Changes) -> None:
    """Change records as pagestore would: sealed, and counted in the meta record.

    The arena's copies of the head go: they remember what was committed.
    """
    with (catalog.parent / ARENA).open("r+b") as arena:
        for at in HEAD_OFFSETS:
            arena.seek(at)
            arena.write(bytes(64))
    with (
        lmdb.open(str(catalog), subdir=False, lock=False, sync=False, map_size=1 << 28) as env,
        env.begin(write=True) as txn,
    ):
        for key, payload in changes.items():
            if payload is None:
                txn.delete(key)
            else:
                txn.put(key, seal(key, payload))
        with txn.cursor() as cursor:
            total = sum(record_sum(v) for k, v in cursor if k != META)
        old = txn.get(META)
        size = len(Meta(bytes(16), 0, False).pack())
        if old is not None and len(old) == 8 + size:
            ending = struct.pack("<QQ", txn.id(), total % (1 << 64))
            txn.put(META, seal(META, old[8 : -len(ending)] + ending))


# ------------------------------------------------------------------------- changes of any record


def _any(records: Records, rng: random.Random) -> tuple[bytes, bytes]:
    kind = rng.choice(sorted({key[:1] for key in records}))
    key = rng.choice([k for k in records if k[:1] == kind])
    return key, records[key]


def _random_bytes(records: Records, rng: random.Random) -> Changes:
    key, raw = _any(records, rng)
    return {key: rng.randbytes(len(raw))}


def _random_string(records: Records, rng: random.Random) -> Changes:
    key, raw = _any(records, rng)
    at = rng.randrange(len(raw) + 1)
    return {key: raw[:at] + rng.randbytes(8) + raw[at + 8 :]}


def _huge_number(records: Records, rng: random.Random) -> Changes:
    key, raw = _any(records, rng)
    at = rng.randrange(max(1, len(raw) - 7))
    return {key: raw[:at] + struct.pack("<Q", rng.choice(HUGE)) + raw[at + 8 :]}


def _off_by_one(records: Records, rng: random.Random) -> Changes:
    key, raw = _any(records, rng)
    if not raw:
        return {key: b"\1"}
    at = rng.randrange(len(raw))
    return {key: raw[:at] + bytes([(raw[at] + rng.choice((-1, 1))) % 256]) + raw[at + 1 :]}


def _cut(records: Records, rng: random.Random) -> Changes:
    key, raw = _any(records, rng)
    return {key: raw[: rng.randrange(len(raw) or 1)]}


def _extended(records: Records, rng: random.Random) -> Changes:
    key, raw = _any(records, rng)
    return {key: raw + rng.choice((b"\0", bytes(8), rng.randbytes(16), raw))}


def _gone(records: Records, rng: random.Random) -> Changes:
    return {_any(records, rng)[0]: None}


def _twice(records: Records, rng: random.Random) -> Changes:
    """A record under a key of its own kind that is not its own."""
    key, raw = _any(records, rng)
    return {key[:-1] + bytes([(key[-1] + rng.choice((-1, 1, 7))) % 256]) or b"A": raw}


def _odd_key(records: Records, rng: random.Random) -> Changes:
    kind = rng.choice((b"B", b"C", b"D", b"E", b"F", b"K", b"N", b"S", b"V", b"Z", b"\xff"))
    rest = rng.choice((b"", b"\xff", b"\xff\xfe\xfd", bytes(7), bytes(8), bytes(9), b"\xff" * 8,
                       bytes(8) + b"c", bytes(8) + b"S\xff", b"n" * 300))  # fmt: skip
    return {kind + rest: rng.choice((b"", bytes(16), rng.randbytes(24)))}


# ------------------------------------------------------------------------- versions and regions


def _versions(records: Records) -> list[VersionRecord]:
    return [
        VersionRecord.unpack(raw)
        for key, raw in records.items()
        if key[:1] == VERSION and len(key) == VERSION_KEY_SIZE
    ]


def _with_region(
    records: Records, rng: random.Random, change: Callable[[RegionRecord], RegionRecord]
) -> Changes:
    version = rng.choice([v for v in _versions(records) if v.regions])
    name = rng.choice(sorted(version.regions))
    region = change(version.regions[name])
    made = version._replace(regions=version.regions | {name: region})
    return {number_key(VERSION, version.id): made.pack()}


def _parent(records: Records, rng: random.Random) -> Changes:
    version = rng.choice(_versions(records))
    parent = rng.choice((version.id, version.id + 1, *(v.id for v in _versions(records)), 1 << 46))
    return {number_key(VERSION, version.id): version._replace(parent=VersionId(parent)).pack()}


def _root(records: Records, rng: random.Random) -> Changes:
    """Another node as root, or a height that the tree does not have."""
    nodes = [int.from_bytes(k[1:], "big") for k in records if k[:1] == NODE]
    root = NodeRef(NodeId(rng.choice((*nodes, 1 << 40))), VersionId(rng.choice((0, 1, 5, 1 << 40))))
    height = rng.choice((0, 1, 2, 4, 5, 200, 255))
    return _with_region(records, rng, lambda r: r._replace(table=Table(root, height)))


def _shape(records: Records, rng: random.Random) -> Changes:
    shape = tuple(rng.choice((*HUGE, 3)) for _ in range(rng.choice((0, 1, 2, 3, 65, 255))))
    return _with_region(records, rng, lambda r: r._replace(shape=shape))


def _counts(records: Records, rng: random.Random) -> Changes:
    pages = rng.choice(HUGE)
    return _with_region(records, rng, lambda r: r._replace(pages=pages))


def _dtype(records: Records, rng: random.Random) -> Changes:
    """A dtype whose text is hostile; the root hash cannot be right where it has no meaning."""
    version = rng.choice([v for v in _versions(records) if v.regions])
    raw, text = version.pack(), rng.choice(DTYPES).encode()
    region: RegionRecord = rng.choice(list(version.regions.values()))
    old = region.pack()
    size = struct.unpack_from("<H", old, 43)[0]
    new = old[:43] + struct.pack("<H", len(text)) + old[45 : len(old) - size] + text
    return {number_key(VERSION, version.id): raw.replace(old, new)}


def _name(records: Records, rng: random.Random) -> Changes:
    kind, name = (
        rng.choice((BRANCH, SNAPSHOT)),
        rng.choice((b"\xff\xfe", b"a\0b", b"~1", b" x", b"\n", b"9")),
    )
    payload = struct.pack(
        "<Qq",
        rng.choice((0, 1, 2, 7, 1 << 40, 1 << 63)),
        rng.choice((0, -(1 << 63), (1 << 63) - 1)),
    )
    return {kind + name: payload + rng.choice((b"", b"\xff\xff"))}


# ----------------------------------------------------------------------------------- page tables


def _nodes(records: Records, kind: int) -> list[int]:
    return [
        int.from_bytes(k[1:], "big")
        for k, raw in records.items()
        if k[:1] == NODE and raw[0] == kind
    ]


def _circle(records: Records, rng: random.Random) -> Changes:
    """Branches whose children are themselves, or each other, or all the same."""
    branches, every = _nodes(records, 3), _nodes(records, 1) + _nodes(records, 3)
    changes: Changes = {}
    target = rng.choice((rng.choice(branches), rng.choice(every)))
    for node in branches:
        children = np.zeros(FAN, BRANCH_REF)
        children["node"], children["birth"] = target, rng.choice((1, 5, 1 << 40))
        changes[number_key(NODE, node)] = pack_branch(children)
    if rng.random() < 0.5:
        table = Table(NodeRef(NodeId(branches[0]), VersionId(2)), rng.choice((3, 4)))
        changes |= _with_region(records, rng, lambda r: r._replace(table=table))
    return changes


def _ladder(records: Records, rng: random.Random) -> Changes:
    """Branches that have the next one 64 times: more ways to the leaf than can be gone."""
    leaf, first = rng.choice(_nodes(records, 1)), 1 << 20
    nodes = [first + i for i in range(rng.choice((2, 3, 4)))]
    changes: Changes = {}
    for node, below in zip(nodes, [*nodes[1:], leaf], strict=True):
        children = np.zeros(FAN, BRANCH_REF)
        children["node"], children["birth"] = below, 2
        changes[number_key(NODE, node)] = pack_branch(children)
    table = Table(NodeRef(NodeId(first), VersionId(2)), len(nodes))
    return changes | _with_region(records, rng, lambda r: r._replace(table=table, shape=(1 << 40,)))


def _piles(records: Records, rng: random.Random) -> Changes:
    """Extents as long as a leaf, very often."""
    node, count = rng.choice(_nodes(records, 1)), rng.choice((2, 100, 20000))
    extents = Extents(*(np.full(count, v, np.int64) for v in (0, 1 << 18, 1, 1)))
    return {number_key(NODE, node): pack_leaf(extents, np.zeros(0, RUN_REF))}


def _children(records: Records, rng: random.Random) -> Changes:
    node = rng.choice(_nodes(records, 3))
    children = unpack_branch(records[number_key(NODE, node)]).copy()
    field_ = rng.choice(("node", "birth"))
    children[field_][rng.randrange(FAN)] = rng.choice(HUGE)
    return {number_key(NODE, node): pack_branch(children)}


def _leaf(records: Records, rng: random.Random) -> Changes:
    """Extents that overlap, are not in order, lie outside, or were born in the future."""
    node = rng.choice(_nodes(records, 1))
    old, runs = unpack_leaf(records[number_key(NODE, node)])
    count = rng.choice((1, 3, 20, 2000))
    columns = (
        (0, 1, 2, 5, 100, (1 << 18) - 1),
        (1, 2, 3, 1 << 18),
        (0, 1, 2, 3, 7, 255, 256, 1 << 20, (1 << 46) - 1),
        (0, 1, 2, 9, (1 << 46) - 1),
    )
    extents = Extents(*(np.array(rng.choices(column, k=count), np.int64) for column in columns))
    if rng.random() < 0.3:
        at = rng.randrange(len(old) or 1)
        extents = old
        column = rng.choice((extents.slot, extents.birth, extents.length, extents.page))
        column[at : at + 1] += rng.choice((-1, 1)) if column is not extents.length else 1
        column[:] = np.abs(column)
    return {number_key(NODE, node): pack_leaf(extents, runs)}


def _runs(records: Records, rng: random.Random) -> Changes:
    """References to runs: to the leaf itself, to one run very often, counts that lie."""
    node = rng.choice(_nodes(records, 1))
    inline, _ = unpack_leaf(records[number_key(NODE, node)])
    count = rng.choice((1, 2, 64, 30000))
    refs = np.zeros(count, RUN_REF)
    refs["node"] = rng.choice((node, 1 << 30, rng.choice(_nodes(records, 1))))
    refs["birth"], refs["count"] = rng.choice((0, 1, 1 << 46)), rng.choice((0, 1, 1 << 31))
    changes: Changes = {}
    if rng.random() < 0.7:
        length = rng.choice((1, 1 << 18))
        run = Extents(*(np.full(500, v, np.int64) for v in (0, length, 3, 1)))
        changes[number_key(NODE, 1 << 30)] = pack_run(run)
    return changes | {number_key(NODE, node): pack_leaf(inline, refs)}


# ------------------------------------------------------------------------------- counters, space


def _meta(records: Records, rng: random.Random) -> Changes:
    meta = Meta.unpack(records[META])
    name = rng.choice(
        ("page_size", "next_version", "next_node", "next_region", "next_number", "slots", "moves")
    )
    most = (1 << 32) - 1 if name == "page_size" else (1 << 64) - 1
    value = rng.choice((*HUGE, meta.slots + 1, meta.slots - 1))
    return {META: meta._replace(**{name: min(value, most)}).pack()}  # type: ignore[arg-type]


def _slot_lists(records: Records, rng: random.Random) -> Changes:
    """Runs of slots that are outside, overlap, or are as long as can be, very often."""
    groups = []
    for _ in range(rng.choice((0, 1, 2, 2, 3))):
        runs = np.zeros(rng.choice((1, 2, 5000)), RUN)
        runs["start"] = rng.choice((*HUGE, 3))
        runs["length"] = rng.choice((0, 1, 300, (1 << 32) - 1))
        groups.append(runs)
    kind = rng.choice((SPACE_LOG, RESERVED))
    return {number_key(kind, rng.choice((1, 3, 1 << 40))): pack_runs(*groups)}


def _chunks(records: Records, rng: random.Random) -> Changes:
    kind = rng.choice((FREE, SUMS, UNKEPT))
    chunk = rng.choice((0, 1, 2, 1 << 40, (1 << 64) - 1))
    return {number_key(kind, chunk): rng.choice((b"", bytes(1024), b"\xff" * 1024, bytes(1023)))}


KINDS: dict[str, Callable[[Records, random.Random], Changes]] = {
    "random bytes": _random_bytes, "a random string": _random_string, "a huge number": _huge_number,
    "a number off by one": _off_by_one, "a cut payload": _cut, "an extended payload": _extended,
    "no record": _gone, "a record twice": _twice, "an odd key": _odd_key, "a wrong parent": _parent,
    "a wrong root": _root, "a hostile shape": _shape, "a wrong count": _counts,
    "a hostile dtype": _dtype, "an odd name": _name, "branches in a circle": _circle,
    "a ladder of branches": _ladder, "piles of extents": _piles,
    "a wrong child": _children, "hostile extents": _leaf, "hostile runs": _runs,
    "a wrong counter": _meta, "hostile slot lists": _slot_lists, "a hostile chunk": _chunks,
}  # fmt: skip


def resealed(records: Records, rng: random.Random) -> Resealed:
    """One hostile change, chosen by `rng`."""
    kind = rng.choice(list(KINDS))
    return Resealed(kind, KINDS[kind](records, rng))
