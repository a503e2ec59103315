"""The bytes on disk: every identifier, record, key and checksum, written once.

Owns: the layout of the arena's superblock and of every record in the catalog. Knows nothing of
files, transactions or memory. ``docs/format.md`` says the same in words; a test compares them.

Every record in the catalog is *sealed*: eight bytes of XXH3-64 over its key and payload come
first, so a record that was damaged, moved or cut is never believed. Numbers are little-endian in
records and big-endian in keys (so that keys sort).
"""

from __future__ import annotations

import ast
import functools
import itertools
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, NewType, Protocol

import numpy as np
import xxhash

from pagestore.errors import CorruptionError, FormatError, InvalidError

VersionId = NewType("VersionId", int)
Slot = NewType("Slot", int)
RegionId = NewType("RegionId", int)
NodeId = NewType("NodeId", int)

IntArray = np.ndarray[Any, np.dtype[np.int64]]
SumArray = np.ndarray[Any, np.dtype[np.uint64]]
Words = np.ndarray[Any, np.dtype[np.uint64]]

FORMAT_VERSION: Final = 1
MIN_PAGE: Final = 4096
MAX_PAGE: Final = 2 << 20
NO_VERSION: Final = VersionId(0)
ROOT_VERSION: Final = VersionId(1)
ZERO_SLOT: Final = Slot(0)  # the superblock's number: no page can live there, so it says "zeros"
MAX_NAME: Final = 255

# ---------------------------------------------------------------------------------------- keys

# What every commit rewrites sorts together (each catalog page it touches costs it a write):
# the few small records first, and what belongs to a version behind that version's own record.
META: Final = b"A"
BRANCH: Final = b"B"
UNKEPT: Final = b"C"
RESERVED: Final = b"D"
SPACE_LOG: Final = b"E"
FREE: Final = b"F"
SUMS: Final = b"K"
NODE: Final = b"N"
SNAPSHOT: Final = b"S"
VERSION: Final = b"V"
CHILD: Final = b"c"  # behind a version's key: one of its children
VERSION_KEY_SIZE: Final = 9


def number_key(prefix: bytes, number: int, *more: int) -> bytes:
    """Key of a record that is found by one or two numbers; keys sort as the numbers do."""
    key = prefix + number.to_bytes(8, "big")
    return key + b"".join([n.to_bytes(8, "big") for n in more]) if more else key


def number_keys(prefix: bytes, numbers: IntArray) -> list[bytes]:
    """Keys of many records that are found by one number."""
    rows = np.empty((len(numbers), 9), np.uint8)
    rows[:, 0] = prefix[0]
    rows[:, 1:] = numbers.astype(">u8").view(np.uint8).reshape(-1, 8)
    keys: list[bytes] = rows.view("V9").reshape(-1).tolist()
    return keys


def key_number(key: bytes) -> int:
    """The one number of a record's key."""
    if len(key) != 9:
        raise CorruptionError(f"catalog record {describe_key(key)} has a key of the wrong size")
    return int.from_bytes(key[1:], "big")


def key_name(raw: bytes) -> str:
    """The name in a record's key."""
    try:
        return raw.decode()
    except UnicodeDecodeError as e:
        raise CorruptionError(f"the name {raw!r} in the catalog is not UTF-8") from e


def key_numbers(key: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{(len(key) - 1) // 8}Q", key[1 : 1 + (len(key) - 1) // 8 * 8])


def name_key(kind: bytes, name: str) -> bytes:
    return kind + name.encode()


def child_key(parent: VersionId, child: VersionId | None = None) -> bytes:
    """Key that says a version has a child; without `child`, what all of them begin with."""
    key = number_key(VERSION, parent) + CHILD
    return key if child is None else key + child.to_bytes(8, "big")


def named_key(version: VersionId, kind: bytes, name: str = "") -> bytes:
    """Key that says a name stands for a version; without `name`, what all such begin with."""
    return number_key(VERSION, version) + kind + name.encode()


def split_version_key(key: bytes) -> tuple[VersionId, bytes, bytes]:
    """Version, kind (empty: the version itself) and the rest of a key that begins with VERSION."""
    version = VersionId(int.from_bytes(key[1:VERSION_KEY_SIZE], "big"))
    return version, key[VERSION_KEY_SIZE : VERSION_KEY_SIZE + 1], key[VERSION_KEY_SIZE + 1 :]


def check_name(name: object, what: str) -> str:
    """Return `name` if it can name a snapshot, branch or region; `InvalidError` otherwise."""
    if not isinstance(name, str):
        raise InvalidError(f"{what} name must be a string, not {type(name).__name__}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidError(f"{what} name {name!r} is not valid Unicode") from None
    if not name or name != name.strip() or not name.isprintable():
        raise InvalidError(f"{what} name {name!r} is empty, padded or not printable")
    if size > MAX_NAME:
        raise InvalidError(f"{what} name is {size} bytes long; the limit is {MAX_NAME}")
    if "~" in name and what != "region":
        raise InvalidError(f"{what} name {name!r} must not contain '~' (it counts ancestors)")
    return name


def check_message(message: object) -> str:
    """Return `message` if it can go with a version or a name; `InvalidError` otherwise."""
    if not isinstance(message, str):
        raise InvalidError(f"a message is a string, not {type(message).__name__}")
    try:
        message.encode()
    except UnicodeEncodeError:
        raise InvalidError(f"message {message!r} is not valid Unicode") from None
    return message


# -------------------------------------------------------------------------------------- seals


class Records(Protocol):
    """What the layers above the catalog see of one transaction: sealed records by key."""

    def get(self, key: bytes) -> bytes | None: ...
    def view(self, key: bytes) -> memoryview | None: ...
    def get_many(self, keys: Sequence[bytes]) -> list[bytes]: ...
    def put(self, key: bytes, payload: bytes) -> None: ...
    def delete(self, key: bytes) -> bool: ...
    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]: ...


def seal(key: bytes, payload: bytes) -> bytes:
    return xxhash.xxh3_64_digest(key + payload) + payload


def unseal(key: bytes, value: bytes) -> bytes:
    payload = value[8:]
    if xxhash.xxh3_64_digest(key + payload) != value[:8]:
        raise CorruptionError(f"catalog record {describe_key(key)} does not match its checksum")
    return payload


def unseal_view(key: bytes, value: bytes) -> memoryview:
    """As `unseal`, without a copy of what may be large."""
    payload, check = memoryview(value)[8:], xxhash.xxh3_64(key)
    check.update(payload)
    if check.digest() != value[:8]:
        raise CorruptionError(f"catalog record {describe_key(key)} does not match its checksum")
    return payload


def record_sum(value: bytes) -> int:
    """What a sealed record adds to the catalog's sum: its checksum, as a number."""
    return int.from_bytes(value[:8], "little")


def describe_key(key: bytes) -> str:
    """Key in words, for messages."""
    kinds = {
        META: "meta", VERSION: "version", SNAPSHOT: "snapshot", BRANCH: "branch",
        UNKEPT: "unkept version", NODE: "page-table node",
        FREE: "free-space chunk", SPACE_LOG: "free-space log", SUMS: "checksum chunk",
        RESERVED: "reservation",
    }  # fmt: skip
    kind = kinds.get(key[:1], "unknown")
    if key[:1] in (SNAPSHOT, BRANCH):
        return f"{kind} {key[1:].decode(errors='replace')!r}"
    return " ".join([kind, *map(str, key_numbers(key))])


def page_sum(page: bytes | memoryview) -> int:
    """Checksum of one page's contents (XXH3, 64 bits)."""
    return xxhash.xxh3_64_intdigest(page)


def page_sums(buffer: memoryview, page_size: int) -> SumArray:
    """Checksums of the pages that follow each other in `buffer`."""
    digest = xxhash.xxh3_64_intdigest
    cuts = range(0, len(buffer), page_size)
    return np.fromiter((digest(buffer[i : i + page_size]) for i in cuts), np.uint64, len(cuts))


_WORD = (1 << 64) - 1
_ONE, _HALF = np.uint64(1), np.uint64(33)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_MIX_FIRST, _MIX_SECOND = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)


def content_hash(pages: IntArray, sums: SumArray) -> int:
    """Order-free hash of a set of pages: the sum of one mixed term a page, modulo 2**64.

    Being a sum it is updated with what changed alone, and does not depend on where pages are
    stored, so moving them leaves it as it was. The mixer is MurmurHash3's 64-bit finaliser.
    """
    return int(content_terms(pages, sums).sum())


def content_term(page: int, checksum: int) -> int:
    """What one page adds to the content hash: as `content_terms`, faster for a few of them."""
    x = (page * 0x9E3779B97F4A7C15 + 1 ^ checksum) & _WORD
    x = (x ^ x >> 33) * 0xFF51AFD7ED558CCD & _WORD
    x = (x ^ x >> 33) * 0xC4CEB9FE1A85EC53 & _WORD
    return x ^ x >> 33


def content_terms(pages: IntArray, sums: SumArray) -> SumArray:
    """What each page adds to the content hash."""
    x = pages.view(np.uint64) * _SPREAD
    x += _ONE
    x ^= sums
    x ^= x >> _HALF
    x *= _MIX_FIRST
    x ^= x >> _HALF
    x *= _MIX_SECOND
    x ^= x >> _HALF
    return x


# --------------------------------------------------------------------------------- superblock

MAGIC: Final = b"PAGESTO\x01"
_SUPERBLOCK = struct.Struct("<8sII16sq8s")
INITIALISED: Final = b"complete"
HEAD_OFFSETS: Final = (512, 1024)  # two sectors: a torn write spares the other copy
_HEAD = struct.Struct("<QQQ16s")
SUPERBLOCK_SIZE: Final = MIN_PAGE


class Superblock(NamedTuple):
    """Slot 0: what this file is. Written once, when the store is created."""

    page_size: int
    store_id: bytes
    created: int

    def pack(self) -> bytes:
        body = _SUPERBLOCK.pack(
            MAGIC, FORMAT_VERSION, self.page_size, self.store_id, self.created, INITIALISED
        )
        return body + xxhash.xxh3_64_digest(body)

    @classmethod
    def unpack(cls, raw: bytes, where: str) -> Superblock:
        body, size = raw[: _SUPERBLOCK.size], _SUPERBLOCK.size
        if len(raw) < size + 8 or body[:7] != MAGIC[:7]:
            raise FormatError(f"{where} is not the arena of a pagestore")
        magic, version, page_size, store_id, created, mark = _SUPERBLOCK.unpack(body)
        if version > FORMAT_VERSION or magic != MAGIC:
            raise FormatError(
                f"{where} has format {version}; this pagestore reads up to {FORMAT_VERSION}: "
                "upgrade pagestore"
            )
        if xxhash.xxh3_64_digest(body) != raw[size : size + 8] or mark != INITIALISED:
            raise CorruptionError(f"{where}: the superblock does not match its checksum")
        return cls(page_size, store_id, created)


class HeadCopy(NamedTuple):
    """The newest version, written beside the superblock: unmasks a catalog that went back.

    `transaction` is LMDB's number of the last one: names come and go without a new version.
    """

    version: VersionId
    next_version: int
    transaction: int
    root: bytes

    def pack(self) -> bytes:
        body = _HEAD.pack(self.version, self.next_version, self.transaction, self.root)
        return body + xxhash.xxh3_64_digest(body)

    @classmethod
    def unpack(cls, raw: bytes) -> HeadCopy | None:
        """Return the copy, or None where the sector holds none that is whole."""
        body = raw[: _HEAD.size]
        if len(raw) < _HEAD.size + 8 or raw[_HEAD.size : _HEAD.size + 8] != xxhash.xxh3_64_digest(
            body
        ):
            return None
        version, next_version, transaction, root = _HEAD.unpack(body)
        return cls(VersionId(version), next_version, transaction, root)


SEAL_OFFSET: Final = 1536
_SEAL = struct.Struct("<Q16s")


class CatalogSeal(NamedTuple):
    """Size and XXH3-128 of the catalog file as the last process to leave it left it."""

    size: int
    digest: bytes

    def pack(self) -> bytes:
        body = _SEAL.pack(self.size, self.digest)
        return body + xxhash.xxh3_64_digest(body)

    @classmethod
    def unpack(cls, raw: bytes) -> CatalogSeal | None:
        """Return the seal, or None where there is none that is whole."""
        body, check = raw[: _SEAL.size], raw[_SEAL.size : _SEAL.size + 8]
        if len(raw) < _SEAL.size + 8 or check != xxhash.xxh3_64_digest(body):
            return None
        return cls(*_SEAL.unpack(body))


# ------------------------------------------------------------------------------------ records

_META = struct.Struct("<I16sIBQQQQQQQQ")


class Meta(NamedTuple):
    """The one record that every write transaction rewrites: identity and counters."""

    store_id: bytes
    page_size: int
    keep_all: bool
    next_version: int = 1
    next_node: int = 1
    next_region: int = 1
    next_number: int = 1  # space-log records and reservations
    slots: int = 1  # of the arena, the superblock included
    moves: int = 0  # grows when compaction moves pages: cached page-table nodes are stale
    transaction: int = 0  # LMDB's number of the one that wrote this record: of the last one
    records: int = 0  # record_sum of every other record, added up: none of them is an older copy

    def pack(self) -> bytes:
        return _META.pack(
            FORMAT_VERSION, self.store_id, self.page_size, self.keep_all, self.next_version,
            self.next_node, self.next_region, self.next_number, self.slots, self.moves,
            self.transaction, self.records,
        )  # fmt: skip

    @classmethod
    def unpack(cls, raw: bytes) -> Meta:
        if len(raw) < 4:
            raise CorruptionError("catalog record meta is cut short")
        version = struct.unpack_from("<I", raw)[0]
        if version > FORMAT_VERSION:
            raise FormatError(
                f"the catalog has format {version}; this pagestore reads up to {FORMAT_VERSION}: "
                "upgrade pagestore"
            )
        if len(raw) != _META.size:
            raise CorruptionError("catalog record meta has the wrong size")
        values = _META.unpack(raw)[1:]
        return cls(values[0], values[1], bool(values[2]), *values[3:])


class NodeRef(NamedTuple):
    """A page-table node and its birth: the version that wrote it."""

    node: NodeId
    birth: VersionId


class Table(NamedTuple):
    """A page table: the root of a radix tree `height` levels above its leaves."""

    root: NodeRef | None = None
    height: int = 0


_REGION = struct.Struct("<QQQBQQHHB")


class RegionRecord(NamedTuple):
    """A region as one version has it."""

    id: RegionId
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    table: Table = Table()
    pages: int = 0  # that have a slot
    content: int = 0  # content_hash of those pages

    @property
    def nbytes(self) -> int:
        n = self.dtype.itemsize
        for extent in self.shape:
            n *= extent
        return n

    def identity(self) -> bytes:
        """What the version's root hash says of this region: not where its pages are."""
        numbers = (self.id, self.pages, self.content, *self.shape)
        text = f"{self.name}\0{dtype_text(self.dtype)}".encode()
        return struct.pack(f"<{len(numbers) + 1}Q", len(text), *numbers) + text

    def pack(self) -> bytes:
        name, descr = self.name.encode(), dtype_text(self.dtype).encode()
        ref = self.table.root or NodeRef(NodeId(0), NO_VERSION)
        head = _REGION.pack(
            self.id, ref.node, ref.birth, self.table.height, self.pages, self.content,
            len(name), len(descr), len(self.shape),
        )  # fmt: skip
        return head + struct.pack(f"<{len(self.shape)}Q", *self.shape) + name + descr

    @classmethod
    def unpack_from(cls, raw: bytes, at: int) -> tuple[RegionRecord, int]:
        rid, node, birth, height, pages, content, n_name, n_descr, ndim = _REGION.unpack_from(
            raw, at
        )
        at += _REGION.size
        shape = struct.unpack_from(f"<{ndim}Q", raw, at)
        at += 8 * ndim
        name = raw[at : at + n_name].decode()
        at += n_name
        dtype = dtype_from_text(raw[at : at + n_descr].decode())
        root = NodeRef(NodeId(node), VersionId(birth)) if node else None
        record = cls(RegionId(rid), name, dtype, shape, Table(root, height), pages, content)
        return record, at + n_descr


_VERSION = struct.Struct("<QQq?16sII")


class VersionRecord(NamedTuple):
    """One committed state. Only `parent` ever changes: to the nearest ancestor that is kept."""

    id: VersionId
    parent: VersionId
    time: int  # nanoseconds since the epoch, UTC
    keep: bool  # history="all" keeps it until it expires
    message: str
    regions: dict[str, RegionRecord]

    def root(self) -> bytes:
        """Root hash: changes with any page, shape, dtype or name of the version."""
        h = xxhash.xxh3_128(struct.pack("<Qq", self.id, self.time) + self.message.encode())
        for name in sorted(self.regions):
            h.update(self.regions[name].identity())
        return h.digest()

    def pack(self, root: bytes | None = None) -> bytes:
        """The record's bytes; `root` is its root hash, if that is known."""
        message = self.message.encode()
        head = _VERSION.pack(
            self.id, self.parent, self.time, self.keep, root or self.root(), len(message),
            len(self.regions),
        )  # fmt: skip
        return head + message + b"".join(r.pack() for r in self.regions.values())

    @classmethod
    def unpack(cls, raw: bytes) -> VersionRecord:
        try:
            record, root, rest = cls._unpack(raw)
        except (struct.error, UnicodeDecodeError) as e:
            raise CorruptionError(f"a version record is cut, or not what it says: {e}") from e
        if record.root() != root:
            raise CorruptionError(f"version {record.id} does not match its root hash")
        if rest:
            raise CorruptionError(f"the record of version {record.id} has the wrong size")
        return record

    @classmethod
    def _unpack(cls, raw: bytes) -> tuple[VersionRecord, bytes, int]:
        """Return the record, the root hash that it has, and how many bytes are not used once."""
        vid, parent, time, keep, root, n_message, n_regions = _VERSION.unpack_from(raw)
        at = _VERSION.size + n_message
        message = raw[_VERSION.size : at].decode()
        regions = {}
        for _ in range(n_regions):
            region, at = RegionRecord.unpack_from(raw, at)
            regions[region.name] = region
        record = cls(VersionId(vid), VersionId(parent), time, keep, message, regions)
        return record, root, abs(len(raw) - at) + n_regions - len(regions)


_NAME = struct.Struct("<Qq")


class NameRecord(NamedTuple):
    """What a snapshot or branch name stands for."""

    version: VersionId
    time: int
    message: str = ""

    def pack(self) -> bytes:
        return _NAME.pack(self.version, self.time) + self.message.encode()

    @classmethod
    def unpack(cls, raw: bytes) -> NameRecord:
        try:
            version, time = _NAME.unpack_from(raw)
            return cls(VersionId(version), time, raw[_NAME.size :].decode())
        except (struct.error, UnicodeDecodeError) as e:
            raise CorruptionError(f"a name record is cut, or not what it says: {e}") from e


@functools.lru_cache(256)
def dtype_text(dtype: np.dtype[Any]) -> str:
    return repr(np.lib.format.dtype_to_descr(dtype))


@functools.lru_cache(256)
def dtype_from_text(text: str) -> np.dtype[Any]:
    shown = text if len(text) < 100 else f"{text[:100]}..."
    try:
        if not _is_descr(text):
            raise ValueError("it is no literal that a dtype has")
        found = np.lib.format.descr_to_dtype(ast.literal_eval(text))
    except Exception as e:  # what NumPy raises for a text that nobody meant has no end
        raise CorruptionError(f"dtype {shown!r} cannot be read") from e
    if found.hasobject:
        raise CorruptionError(f"dtype {shown!r} would take bytes for Python objects")
    return found


_QUOTED = r"'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\""  # compiled on first use: so few need it
_NESTED_MOST = 64


def _is_descr(text: str) -> bool:
    """Whether a text is strings and numbers in brackets, not too deep.

    Python's own parser can be made to exhaust the stack, and the process with it.
    """
    rest = re.sub(_QUOTED, "", text)
    depth = deepest = 0
    for c in rest:
        depth += (c in "([") - (c in ")]")
        deepest = max(deepest, depth)
    return deepest <= _NESTED_MOST and not rest.strip("0123456789()[], ")


# ------------------------------------------------------------------------------ page-table nodes

LEAF_BITS: Final = 18  # pages under one leaf: 2**18, 1 GiB of 4 KiB pages
FAN_BITS: Final = 6  # children of a branch: 64
LEAF_SPAN: Final = 1 << LEAF_BITS
PACKED_LEAST: Final = 1 << 12  # extents of a run whose columns are decoded one by one
FAN: Final = 1 << FAN_BITS
_LEAF_MASK = np.uint64(LEAF_SPAN - 1)
_SHIFT = np.uint64(LEAF_BITS)
MAX_SLOTS: Final = 1 << (64 - LEAF_BITS)  # what an extent's word leaves for a slot, or a birth
KIND_LEAF: Final = 1
KIND_RUN: Final = 2
KIND_BRANCH: Final = 3
_LEAF = struct.Struct("<BxHI")
RUN_REF = np.dtype([("node", "<u8"), ("birth", "<u8"), ("count", "<u4")])
BRANCH_REF = np.dtype([("node", "<u8"), ("birth", "<u8")])


class Extents:
    """Runs of pages that lie in runs of slots, sorted by page; a run at slot 0 is zeros.

    Four columns of int64: first page, length in pages, first slot, birth.
    """

    __slots__ = ("birth", "length", "page", "slot")

    def __init__(self, page: IntArray, length: IntArray, slot: IntArray, birth: IntArray) -> None:
        self.page = page
        self.length = length
        self.slot = slot
        self.birth = birth

    def __len__(self) -> int:
        return len(self.page)

    def take(self, index: Any) -> Extents:
        return Extents(self.page[index], self.length[index], self.slot[index], self.birth[index])

    @classmethod
    def empty(cls) -> Extents:
        none = np.empty(0, np.int64)
        return cls(none, none, none, none)

    @classmethod
    def join(cls, parts: Iterable[Extents]) -> Extents:
        parts = list(parts)
        if not parts:
            return cls.empty()
        return cls(
            np.concatenate([part.page for part in parts]),
            np.concatenate([part.length for part in parts]),
            np.concatenate([part.slot for part in parts]),
            np.concatenate([part.birth for part in parts]),
        )

    def pack(self) -> bytes:
        """Two 64-bit words an extent: slot and page, birth and length - 1."""
        words = np.empty((len(self), 2), "<i8")  # the bits of 64-bit words without a sign
        words[:, 0] = self.slot << LEAF_BITS | self.page
        words[:, 1] = self.birth << LEAF_BITS | self.length - 1
        return words.tobytes()

    @classmethod
    def unpack(cls, raw: bytes | memoryview) -> Extents:
        words = np.frombuffer(raw, "<u8").reshape(-1, 2).astype(np.uint64, copy=False)
        if len(words) > PACKED_LEAST:
            return _Packed(words)
        return cls(**{name: decode(words) for name, decode in _DECODE.items()})


class _Packed(Extents):
    """Extents as a record has them: a column is decoded when all of it is asked for."""

    __slots__ = ("_words",)

    def __init__(self, words: Words) -> None:
        self._words = words

    def __len__(self) -> int:
        return len(self._words)

    def __getattr__(self, name: str) -> IntArray:  # only for what is not set yet
        if name not in _DECODE:
            raise AttributeError(name)
        column = _DECODE[name](self._words)
        setattr(self, name, column)
        return column

    def take(self, index: Any) -> Extents:
        if isinstance(index, slice) or index.dtype == np.bool_:
            words = self._words[index]
        else:
            words = self._words.take(index, axis=0)  # ten times as fast
        return _Packed(words)


_DECODE: Final[dict[str, Callable[[Words], IntArray]]] = {
    "page": lambda words: (words[:, 0] & _LEAF_MASK).view(np.int64),
    "length": lambda words: (words[:, 1] & _LEAF_MASK).view(np.int64) + 1,
    "slot": lambda words: (words[:, 0] >> _SHIFT).view(np.int64),
    "birth": lambda words: (words[:, 1] >> _SHIFT).view(np.int64),
}


def pack_leaf(inline: Extents, runs: np.ndarray[Any, Any]) -> bytes:
    return _LEAF.pack(KIND_LEAF, len(runs), len(inline)) + runs.tobytes() + inline.pack()


def unpack_leaf(raw: bytes | memoryview) -> tuple[Extents, np.ndarray[Any, Any]]:
    """Newest extents, and the references to older runs, newest first."""
    if len(raw) < _LEAF.size:
        raise CorruptionError("a page-table leaf has the wrong size or kind")
    kind, n_runs, n_inline = _LEAF.unpack_from(raw)
    cut = _LEAF.size + n_runs * RUN_REF.itemsize
    if kind != KIND_LEAF or len(raw) != cut + 16 * n_inline:
        raise CorruptionError("a page-table leaf has the wrong size or kind")
    runs = np.frombuffer(raw, RUN_REF, n_runs, _LEAF.size)
    return Extents.unpack(raw[cut:]), runs


def pack_run(extents: Extents) -> bytes:
    return bytes([KIND_RUN]) + bytes(7) + extents.pack()


def unpack_run(raw: bytes | memoryview) -> Extents:
    if raw[:1] != bytes([KIND_RUN]) or len(raw) % 16 != 8:
        raise CorruptionError("a page-table run has the wrong size or kind")
    return Extents.unpack(raw[8:])


def pack_branch(children: np.ndarray[Any, Any]) -> bytes:
    return bytes([KIND_BRANCH]) + bytes(7) + children.tobytes()


def unpack_branch(raw: bytes | memoryview) -> np.ndarray[Any, Any]:
    if raw[:1] != bytes([KIND_BRANCH]) or len(raw) != 8 + FAN * BRANCH_REF.itemsize:
        raise CorruptionError("a page-table branch has the wrong size or kind")
    return np.frombuffer(raw, BRANCH_REF, FAN, 8)


# ------------------------------------------------------------------------- slots: sums and space

SUMS_CHUNK: Final = 128  # slots whose checksums share a record
FREE_CHUNK: Final = 8192  # slots whose free bits share a record
RUN = np.dtype([("start", "<u8"), ("length", "<u4")])
_RUN, _COUNT = struct.Struct("<QI"), struct.Struct("<I")  # one run; how many follow


def sorted_unique(numbers: IntArray) -> IntArray:
    """Sorted, each once: by sorting, which for these sizes beats NumPy's hashing."""
    numbers = np.sort(numbers)
    new = numbers[1:] != numbers[:-1]
    return numbers if new.all() else numbers[np.concatenate(([True], new))]


def runs_of(slots: IntArray) -> IntArray:
    """Numbers that follow each other by one, in their order, as rows of (start, length)."""
    if not len(slots):
        return np.empty((0, 2), np.int64)
    cuts = (slots[1:] - slots[:-1] != 1).nonzero()[0] + 1
    if not len(cuts):
        return np.array([[slots[0], len(slots)]], np.int64)
    starts = np.concatenate(([0], cuts))
    stops = np.concatenate((cuts, [len(slots)]))
    return np.stack((slots[starts], stops - starts), axis=1)


def pack_runs(*groups: Sequence[Sequence[int]] | np.ndarray[Any, Any]) -> bytes:
    """Groups of (start, length) runs of slots, each behind its count."""
    return b"".join(
        [_COUNT.pack(len(g)) + b"".join(itertools.starmap(_RUN.pack, g)) for g in groups]
    )


def unpack_runs(raw: bytes, groups: int) -> list[np.ndarray[Any, Any]]:
    """The groups of runs in a record, of which there must be so many."""
    found: list[np.ndarray[Any, Any]] = []
    at = 0
    while at < len(raw) and len(found) < groups:
        count = struct.unpack_from("<I", raw.ljust(at + 4, b"\0"), at)[0]
        if len(raw) < at + 4 + count * RUN.itemsize:
            raise CorruptionError("a list of slot runs is cut short")
        found.append(np.frombuffer(raw, RUN, count, at + 4))
        at += 4 + count * RUN.itemsize
    if at != len(raw) or len(found) != groups:
        raise CorruptionError("a list of slot runs has the wrong size")
    return found
