"""LMDB's file, read without LMDB: its meta pages, and whatever can still be found in it.

Owns: where things stand in a page. LMDB maps its file and believes it; this reads it, and believes
nothing. Does not know what a record means.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np

HEADER = 16  # bytes of a page's header
SMALLEST, LARGEST = 4096, 32768  # bytes of a page that LMDB makes
KEY_MOST = 511
BRANCH, LEAF = 1, 2  # what a page's header says it is
BIG = 1  # a node's value has pages of its own
NO_PAGE = (1 << 64) - 1
_META = struct.Struct("<Q2xH4xII16x")  # page's number and kind; magic, version
_TREE = struct.Struct("<IHHQQQQQ")
_LAST = struct.Struct("<QQ")  # last page, transaction


class Tree(NamedTuple):
    """What a meta page says of a tree."""

    pad: int  # of the first tree: the size of a page
    flags: int
    depth: int
    branches: int
    leaves: int
    overflows: int  # pages of long values
    entries: int
    root: int


class Meta(NamedTuple):
    """One of the two pages that say where the trees are; the newer one counts."""

    number: int
    kind: int
    magic: int
    version: int
    trees: tuple[Tree, Tree]  # of free pages, of records
    last_page: int
    transaction: int

    @property
    def page_size(self) -> int:
        """Bytes of every page."""
        return self.trees[0].pad

    @classmethod
    def unpack(cls, raw: bytes) -> Meta:
        """Whatever the bytes say, however little sense it makes."""
        at = _META.size
        free, main = (Tree(*_TREE.unpack_from(raw, at + i * _TREE.size)) for i in (0, 1))
        number, kind, magic, version = _META.unpack_from(raw)
        last, transaction = _LAST.unpack_from(raw, at + 2 * _TREE.size)
        return cls(number, kind, magic, version, (free, main), last, transaction)


def metas(file: BinaryIO) -> list[Meta]:
    """Both meta pages, as they are."""
    first = Meta.unpack(_read(file, 0, SMALLEST))
    if first.page_size & (first.page_size - 1) or not SMALLEST <= first.page_size <= LARGEST:
        raise ValueError(f"LMDB makes no pages of {first.page_size} bytes")
    return [first, Meta.unpack(_read(file, first.page_size, SMALLEST))]


def newest(both: list[Meta]) -> Meta:
    """The meta page that counts."""
    return max(both, key=lambda m: m.transaction)


def used(path: str) -> int:
    """Bytes of a sound file that LMDB counts as its own; behind them is nothing."""
    with open(path, "rb") as file:
        meta = newest(metas(file))
        return (meta.last_page + 1) * meta.page_size


def unused(path: str) -> int:
    """Bytes of those that lie in pages without records."""
    with open(path, "rb") as file:
        meta = newest(metas(file))
        tree = meta.trees[1]
        pages = meta.last_page + 1 - len(meta.trees)
        return (pages - tree.branches - tree.leaves - tree.overflows) * meta.page_size


def renumber(path: str, transaction: int) -> None:
    """Give the newest transaction of a sound file another number, of the same parity.

    Parity says in which of its two meta pages LMDB keeps a transaction.
    """
    with open(path, "r+b", buffering=0) as file:
        both = metas(file)
        meta = newest(both)
        place = both.index(meta)
        if not place == meta.transaction % 2 == transaction % 2:
            raise ValueError(f"transaction {transaction} does not belong into meta page {place}")
        at = place * meta.page_size + _META.size + 2 * _TREE.size + 8
        os.pwrite(file.fileno(), transaction.to_bytes(8, "little"), at)


def little(data: Any, at: Any, size: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Little-endian numbers of `size` bytes at some places; too large a one becomes the largest."""
    value = np.zeros(np.shape(at), np.uint64)
    for i in range(size):
        value |= data[at + i].astype(np.uint64) << np.uint64(8 * i)
    numbers: np.ndarray[Any, np.dtype[np.int64]] = np.minimum(value, np.uint64(1 << 62)).astype(
        np.int64
    )
    return numbers


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    raw = file.read(count)
    if len(raw) != count:
        raise ValueError(f"the file ends within {count} bytes from byte {at} on")
    return raw


# ------------------------------------------------------------------------------ what is left

Damaged = Callable[[str], object]
_UNREADABLE = (ValueError, IndexError, OverflowError, OSError, struct.error)


def remnants(path: str, damaged: Damaged) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values of a file that LMDB had better not open, as far as it can be followed.

    `damaged` is told what cannot. Where that is anything, the pages that the tree does not lead to
    are read too, also those that were given up: a key may then come again, or be an old one.
    """
    with open(path, "rb") as file:
        met: set[int] = set()
        wrong: list[str] = []
        page_size, root = _root(file, wrong)
        yield from _followed(file, page_size, root, met, wrong)
        for what in wrong:
            damaged(f"{path}: {what}")
        if wrong:
            damaged(f"{path}: what is shown of it may be of an earlier time")
            yield from _swept(file, page_size, met)


def _root(file: BinaryIO, wrong: list[str]) -> tuple[int, list[int]]:
    """Size of a page, and the root of the newest tree of records."""
    try:
        meta = newest(metas(file))
    except (ValueError, struct.error) as e:
        wrong.append(str(e))
        return SMALLEST, []
    return meta.page_size, [meta.trees[1].root]


def _followed(
    file: BinaryIO, page_size: int, todo: list[int], met: set[int], wrong: list[str]
) -> Iterator[tuple[bytes, bytes]]:
    """What the pages of a tree hold, those that are sound and only once."""
    while todo:
        number = todo.pop()
        try:
            if number in met:
                raise ValueError(f"page {number} stands in two places")
            met.add(number)
            page, nodes = _sound_page(file, number, page_size)
            if little(page, 10, 2) == LEAF:
                yield from _entries(file, page, nodes, page_size)
            else:
                todo += little(page, nodes, 6).tolist()[::-1]
        except _UNREADABLE as e:
            wrong.append(str(e))


def _swept(file: BinaryIO, page_size: int, met: set[int]) -> Iterator[tuple[bytes, bytes]]:
    """What all pages hold that look like a leaf."""
    for number in range(2, os.fstat(file.fileno()).st_size // page_size):
        with contextlib.suppress(*_UNREADABLE):
            if number not in met:
                page, nodes = _sound_page(file, number, page_size)
                if little(page, 10, 2) == LEAF:
                    yield from _entries(file, page, nodes, page_size)


def _sound_page(file: BinaryIO, number: int, page_size: int) -> tuple[Any, Any]:
    """A page that says it is what its place says, and where its nodes are."""
    page = np.frombuffer(_read(file, number * page_size, page_size), "u1")
    lower = int(little(page, 12, 2))
    if (
        int.from_bytes(page[:8].tobytes(), "little") != number
        or little(page, 10, 2) not in (BRANCH, LEAF)
        or not HEADER <= lower <= page_size
        or lower % 2
    ):
        raise ValueError(f"page {number} is damaged")
    nodes = page[HEADER:lower].view("<u2").astype(np.int64)
    if (nodes > page_size - 8).any():
        raise ValueError(f"page {number} is damaged: a node leads out of it")
    return page, nodes


def _entries(
    file: BinaryIO, page: Any, nodes: Any, page_size: int
) -> Iterator[tuple[bytes, bytes]]:
    raw = page.tobytes()
    for at in nodes.tolist():
        low, high, flags, key_size = struct.unpack_from("<HHHH", raw, at)
        size, start = low | high << 16, at + 8 + key_size
        value = raw[start : start + size]
        if flags & BIG:
            first = int.from_bytes(raw[start : start + 8], "little")
            value = _read(file, first * page_size + HEADER, size)
        yield raw[at + 8 : start], value
