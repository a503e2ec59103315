"""LMDB's file, looked at without LMDB: whether following it stays within it.

Owns: what `lmdb.verify` does not ask. LMDB maps its file and believes it, so a page that is not
what its place says leads it into memory that is not the file's. Does not know what a record means.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from pagestore.later import Later

_lmdb: Any = Later("lmdb.verify")  # which py-lmdb gives no types

HEADER = 16  # bytes of a page's header
SMALLEST, LARGEST = 4096, 32768  # bytes of a page that LMDB makes
SHORT_MOST = 64 << 20  # bytes that a sound file may be shorter than it says
KEY_MOST = 511
BRANCH, LEAF = 1, 2  # what a page's header says it is
BIG = 1  # a node's value has pages of its own
NONE = (1 << 64) - 1
_TREES = 40  # byte of a meta page where the records of both trees begin
_TREE = struct.Struct("<IHHQQQQQ")  # pad, flags, depth, three counts, entries, root
_LAST = struct.Struct("<QQ")  # last page, transaction
FREE_FLAGS = 0x77  # none of them is ever set for the tree of free pages


class _Tree(NamedTuple):
    """What a meta page says of a tree."""

    flags: int
    depth: int
    root: int


class _Meta(NamedTuple):
    page_size: int
    trees: tuple[_Tree, _Tree]  # of free pages, of records
    last_page: int
    transaction: int

    @classmethod
    def unpack(cls, raw: bytes) -> _Meta:
        free, main = (_TREE.unpack_from(raw, _TREES + i * _TREE.size) for i in (0, 1))
        last, transaction = _LAST.unpack_from(raw, _TREES + 2 * _TREE.size)
        trees = (_Tree(free[1], free[2], free[7]), _Tree(main[1], main[2], main[7]))
        return cls(free[0], trees, last, transaction)


def unsound(path: str) -> list[str]:
    """What is wrong with a catalog's pages; nothing if LMDB can follow them.

    Costs a walk of the tree in Python, and memory in proportion to the file.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            metas = _metas(file)
            return (
                list(_claims(metas, size))
                or list(_lmdb.verify(path, subdir=False))
                or list(_misplaced(file, max(metas, key=lambda m: m.transaction), size))
            )
    except (_lmdb.VerifyError, ValueError, struct.error, IndexError) as e:
        return [str(e)]
    except (RecursionError, OverflowError, MemoryError) as e:  # a tree made to be walked for ever
        return [f"it cannot be followed: {type(e).__name__} {e}"]


def used(path: str) -> int:
    """Bytes of a sound file that LMDB counts as its own; behind them is nothing."""
    with open(path, "rb") as file:
        newest = max(_metas(file), key=lambda m: m.transaction)
        return (newest.last_page + 1) * newest.page_size


def _metas(file: BinaryIO) -> list[_Meta]:
    first = _Meta.unpack(_read(file, 0, SMALLEST))
    if first.page_size & (first.page_size - 1) or not SMALLEST <= first.page_size <= LARGEST:
        raise ValueError(f"LMDB makes no pages of {first.page_size} bytes")
    return [first, _Meta.unpack(_read(file, first.page_size, SMALLEST))]


def _claims(metas: list[_Meta], size: int) -> Iterator[str]:
    """Numbers of the meta pages that would cost more than the file is worth, or mislead."""
    for number, meta in enumerate(metas):
        if meta.trees[1].flags or meta.trees[0].flags & FREE_FLAGS:
            yield f"meta page {number} has flags that pagestore does not give to LMDB"
        if (meta.last_page + 1) * meta.page_size > size + max(size, SHORT_MOST):
            yield f"meta page {number} claims {meta.last_page + 1} pages, the file has {size} bytes"


def _misplaced(file: BinaryIO, meta: _Meta, size: int) -> Iterator[str]:
    """Pages and values that are not what LMDB takes them for; of a tree that has been verified."""
    for tree in meta.trees:
        level = [] if tree.root == NONE else [tree.root]
        for left in range(tree.depth, 0, -1):
            below: list[int] = []
            for number in level:
                page = np.frombuffer(_read(file, number * meta.page_size, meta.page_size), "u1")
                if _u16(page, 10) != (BRANCH if left > 1 else LEAF):
                    yield f"page {number} is not of the kind that its depth asks for"
                    return
                nodes = page[HEADER : _u16(page, 12)].view("<u2").astype(np.int64)
                if left > 1:
                    below += _children(page, nodes).tolist()
                elif not _sound_values(page, nodes, meta.page_size, size):
                    yield f"page {number} has keys or values that pagestore does not store"
                    return
            level = below


def _children(page: Any, nodes: Any) -> Any:
    return _u16(page, nodes) | _u16(page, nodes + 2) << 16 | _u16(page, nodes + 4) << 32


def _sound_values(page: Any, nodes: Any, page_size: int, size: int) -> bool:
    """Whether keys have a size, values are plain, and the pages of long ones within the file."""
    flags, keys = _u16(page, nodes + 4), _u16(page, nodes + 6)
    if (flags & ~BIG).any() or (keys < 1).any() or (keys > KEY_MOST).any():
        return False
    long = nodes[flags == BIG]
    length = _u16(page, long) | _u16(page, long + 2) << 16
    at = long + 8 + _u16(page, long + 6)
    for start, count in zip(at.tolist(), length.tolist(), strict=True):
        first = int.from_bytes(page[start : start + 8].tobytes(), "little")
        if first * page_size + HEADER + count > size:
            return False
    return True


def _u16(page: Any, at: Any) -> Any:
    return page[at].astype(np.int64) | page[at + 1].astype(np.int64) << 8


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
        newest = max(_metas(file), key=lambda m: m.transaction)
    except (ValueError, struct.error) as e:
        wrong.append(str(e))
        return SMALLEST, []
    return newest.page_size, [newest.trees[1].root]


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
            if _u16(page, 10) == LEAF:
                yield from _entries(file, page, nodes, page_size)
            else:
                todo += _children(page, nodes).tolist()[::-1]
        except _UNREADABLE as e:
            wrong.append(str(e))


def _swept(file: BinaryIO, page_size: int, met: set[int]) -> Iterator[tuple[bytes, bytes]]:
    """What all pages hold that look like a leaf."""
    for number in range(2, os.fstat(file.fileno()).st_size // page_size):
        with contextlib.suppress(*_UNREADABLE):
            if number not in met:
                page, nodes = _sound_page(file, number, page_size)
                if _u16(page, 10) == LEAF:
                    yield from _entries(file, page, nodes, page_size)


def _sound_page(file: BinaryIO, number: int, page_size: int) -> tuple[Any, Any]:
    """A page that says it is what its place says, and where its nodes are."""
    page = np.frombuffer(_read(file, number * page_size, page_size), "u1")
    lower = int(_u16(page, 12))
    if (
        int.from_bytes(page[:8].tobytes(), "little") != number
        or _u16(page, 10) not in (BRANCH, LEAF)
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
