"""Whether LMDB can follow its own file: every page of its trees looked at, many at a time.

LMDB maps its file and believes it: a page that is not what its place says leads it into memory that
is not the file's, or around in a circle. Owns: reading the file without LMDB, and saying what of it
LMDB could not follow. Does not know what a record means.

- L1  A page is read once, and only after its number was found to be in the file.
- L2  Whatever `lmdb.verify` objects to is objected to (tests compare them), and what it does not
      ask: that a page is of the kind that its depth asks for, that all pages of a long value are
      there, and that trees are of the one kind that pagestore has.

Costs the length of the file, some 2 ms a megabyte; memory for what is read at a time, and a byte
for each page.
"""

from __future__ import annotations

import os
import struct
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from pagestore.format import sorted_unique
from pagestore.structure import (
    BIG,
    BRANCH,
    HEADER,
    KEY_MOST,
    LEAF,
    NO_PAGE,
    Meta,
    Tree,
    little,
    metas,
    newest,
)

AT_ONCE = 1024  # pages
SHORT_MOST = 64 << 20  # bytes that a sound file may be shorter than it says
DEPTH_MOST = 32
MAGIC, DATA_VERSION = 0xBEEFC0DE, 1
META, OVERFLOW = 8, 4  # what a page's header says it is
FREE_FLAGS = 0x77  # none of them is ever set for the tree of free pages

Numbers = np.ndarray[Any, np.dtype[np.int64]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class _Unsound(Exception):
    """LMDB could not follow the file; the text says where."""


def unsound(path: str | os.PathLike[str]) -> str | None:
    """What is wrong with a catalog's pages, the first thing found; None if LMDB can follow them."""
    try:
        with open(path, "rb") as file:
            _Walk(file).all()
    except (_Unsound, ValueError, struct.error) as e:
        return str(e)
    except MemoryError:
        return "it cannot be followed in the memory that there is"
    return None


class _Nodes(NamedTuple):
    """The nodes of some pages, in the order of the tree: positions are of `data`, all bytes."""

    data: Bytes
    page: Numbers  # which of the pages
    number: Numbers  # that page's own number
    at: Numbers  # where the node begins
    end: Numbers  # where its page ends
    key_size: Numbers

    @property
    def key(self) -> Numbers:
        return self.at + 8

    @property
    def value(self) -> Numbers:
        return self.at + 8 + self.key_size

    def field(self, offset: int) -> Numbers:
        return little(self.data, self.at + offset, 2)

    def take(self, index: Any) -> _Nodes:
        return _Nodes(self.data, *(column[index] for column in self[1:]))


class _Walk:
    """One look at one file."""

    def __init__(self, file: BinaryIO) -> None:
        self._fd = file.fileno()
        self._size = os.fstat(self._fd).st_size
        both = metas(file)
        _check_metas(both, self._size)
        self._meta = newest(both)
        self._page = both[0].page_size
        self._end = self._meta.last_page + 1
        self._met = np.zeros(self._end, np.bool_)
        self._met[:2] = True  # the meta pages

    def all(self) -> None:
        """Raise `_Unsound` where LMDB could be led astray."""
        free, main = self._meta.trees
        self._tree("records", main)
        for pages in self._tree("free pages", free):
            self._meet(pages[::-1], "the list of free pages")
        if not self._met.all():
            page = int(np.flatnonzero(~self._met)[0])
            raise _Unsound(f"page {page} is neither in use nor free")

    # --------------------------------------------------------------------------------- trees

    def _tree(self, what: str, tree: Tree) -> list[Numbers]:
        """Look at a tree; the lists of pages in its values, if it is that of free pages."""
        free = self._meta.trees[0]
        counts = (tree.branches, tree.leaves, tree.overflows, tree.entries)
        if tree.root == NO_PAGE:
            if tree.depth or any(counts):
                raise _Unsound(f"the tree of {what} has no root, but {counts} pages and records")
            return []
        if not 1 <= tree.depth <= DEPTH_MOST:
            raise _Unsound(f"the tree of {what} has a depth of {tree.depth}")
        level = np.array([min(tree.root, self._end)])
        branches = 0
        for _ in range(tree.depth - 1):
            branches += len(level)
            parts = self._parts(level, what)
            level = np.concatenate([self._children(part, tree is free) for part in parts])
        found = _Leaves(self, tree is free)
        for part in self._parts(level, what):
            found.look(self._nodes(part, LEAF))
        if counts != (branches, len(level), found.overflows, found.entries):
            raise _Unsound(
                f"the tree of {what} has {branches} branches, {len(level)} leaves, "
                f"{found.overflows} pages of long values and {found.entries} records, but says "
                f"{counts}"
            )
        return found.lists

    def _parts(self, level: Numbers, what: str) -> list[Numbers]:
        self._meet(level, f"the tree of {what}")
        return [level[i : i + AT_ONCE] for i in range(0, len(level), AT_ONCE)]

    def _children(self, pages: Numbers, free: bool) -> Numbers:
        nodes = self._nodes(pages, BRANCH)
        # the first key of a page stands for everything below
        inner = np.flatnonzero(nodes.page[2:] == nodes.page[:-2]) + 1
        low, high = nodes.take(inner), nodes.take(inner + 1)
        if free:
            _rising(nodes.data, low, high)
        else:
            _ascending(nodes.data, low, high)
        return little(nodes.data, nodes.at, 6)

    def _nodes(self, pages: Numbers, kind: int) -> _Nodes:
        """The nodes of some pages, found to lie within them (L1)."""
        data, size = self.read(pages), self._page
        words = data.view("<u2").reshape(-1, size // 2)
        _refuse(data.view("<u8").reshape(-1, size // 8)[:, 0] != pages, pages, "has another number")
        _refuse(words[:, 5] != kind, pages, "is not of the kind that its depth asks for")
        low, high = words[:, 6].astype(np.int64), words[:, 7].astype(np.int64)
        bad = (low <= HEADER) | (low % 2 != 0) | (low > high) | (high > size)
        _refuse(bad, pages, "has a count of records that it cannot hold")
        count = (low - HEADER) // 2
        page = np.repeat(np.arange(len(pages)), count)
        within = np.arange(len(page)) - np.repeat(np.cumsum(count) - count, count)
        offset = words[page, HEADER // 2 + within].astype(np.int64)
        number = pages[page]
        _refuse((offset < high[page]) | (offset + 8 > size), number, "has a record outside of it")
        at, end = page * size + offset, (page + 1) * size
        key_size = little(data, at + 6, 2)
        _refuse(at + 8 + key_size > end, number, "has a key that leads out of it")
        return _Nodes(data, page, number, at, end, key_size)

    # --------------------------------------------------------------------------------- pages

    def _meet(self, pages: Numbers, what: str) -> None:
        """Note pages as met: each must be in the file, and may stand in one place only."""
        outside = (pages < 2) | (pages >= self._end)
        if outside.any():
            raise _Unsound(f"{what} leads to page {pages[outside][0]}, which there is not")
        again = self._met[pages]
        if again.any():
            raise _Unsound(f"page {pages[again][0]} stands in two places")
        if len(sorted_unique(pages)) != len(pages):
            raise _Unsound(f"{what} has a page twice")
        self._met[pages] = True

    def meet_runs(self, first: Numbers, count: Numbers) -> None:
        """Note the pages of long values, which lie side by side, and look at their headers."""
        if (first + count > self._end).any() or int(count.sum()) > self._end:
            raise _Unsound("a long value leads to a page which there is not")
        within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        self._meet(np.repeat(first, count) + within, "a long value")
        for page, pages in zip(first.tolist(), count.tolist(), strict=True):
            if (page + pages) * self._page > self._size:
                raise _Unsound(f"page {page} and those behind it are not in the file")
            number, _, kind, length = struct.unpack("<QHHI", self.pread(page * self._page, HEADER))
            if (number, kind, length) != (page, OVERFLOW, pages):
                raise _Unsound(f"page {page} does not begin a long value of {pages} pages")

    def read(self, pages: Numbers) -> Bytes:
        """Contents of some pages, one behind the other; those that lie together by one call."""
        order = np.argsort(pages, kind="stable")
        ascending, size = pages[order], self._page
        data = np.empty((len(pages), size), np.uint8)
        cuts = np.flatnonzero(np.diff(ascending) != 1) + 1
        for i, j in zip([0, *cuts.tolist()], [*cuts.tolist(), len(pages)], strict=True):
            raw = self.pread(int(ascending[i]) * size, (j - i) * size)
            data[order[i:j]] = np.frombuffer(raw, np.uint8).reshape(-1, size)
        return data.reshape(-1)

    def pread(self, offset: int, count: int) -> bytes:
        raw = os.pread(self._fd, count, offset)
        if len(raw) != count:
            raise _Unsound(f"the file ends within {count} bytes from byte {offset} on")
        return raw

    def long_value(self, first: int, size: int) -> bytes:
        return self.pread(first * self._page + HEADER, size)

    def pages_for(self, size: Numbers) -> Numbers:
        """How many pages a long value of some bytes takes."""
        return (HEADER - 1 + size) // self._page + 1

    @property
    def newest(self) -> int:
        """The transaction that the file ends with."""
        return self._meta.transaction


class _Leaves:
    """What the leaves of one tree come to."""

    def __init__(self, walk: _Walk, free: bool) -> None:
        self._walk = walk
        self._free = free
        self._last: bytes | None = None  # key of the leaf before
        self.entries = self.overflows = 0
        self.lists: list[Numbers] = []

    def look(self, nodes: _Nodes) -> None:
        """Look at the records of leaves that follow the last ones."""
        walk, keys = self._walk, nodes.key_size
        flags, size = nodes.field(4), nodes.field(0) | nodes.field(2) << 16
        _refuse((flags & ~BIG) != 0, nodes.number, "has values of another kind of tree")
        _refuse((keys < 1) | (keys > KEY_MOST), nodes.number, "has a key of a size that none has")
        long = flags == BIG
        ends = nodes.value + np.where(long, 8, size)
        _refuse(ends > nodes.end, nodes.number, "has a value that leads out of it")
        first = little(nodes.data, nodes.value[long], 8)
        count = walk.pages_for(size[long])
        walk.meet_runs(first, count)
        self.entries += len(long)
        self.overflows += int(count.sum())
        if self._free:
            self._note_free(nodes, size, long, first)
        else:
            self._follow(nodes)

    def _follow(self, nodes: _Nodes) -> None:
        """Keys must ascend, from page to page too: LMDB would not find what lies elsewhere."""
        _ascending(nodes.data, nodes.take(slice(None, -1)), nodes.take(slice(1, None)))
        key, size = nodes.key, nodes.key_size
        first, last = (nodes.data[key[i] : key[i] + size[i]].tobytes() for i in (0, -1))
        if self._last is not None and not self._last < first:
            raise _Unsound(f"the first key of page {nodes.number[0]} is not behind those before it")
        self._last = last

    def _note_free(self, nodes: _Nodes, size: Numbers, long: Any, first: Numbers) -> None:
        _refuse(nodes.key_size != 8, nodes.number, "has a key that is no transaction")
        where = iter(first.tolist())
        for i, big in enumerate(long.tolist()):
            start = int(nodes.value[i])
            value = nodes.data[start : start + int(size[i])].tobytes()
            if big:
                value = self._walk.long_value(next(where), int(size[i]))
            self._list(int.from_bytes(nodes.data[nodes.key[i] :][:8].tobytes(), "little"), value)

    def _list(self, transaction: int, value: bytes) -> None:
        """Note the pages that a transaction freed: their count, then they, descending."""
        last = int.from_bytes(self._last, "little") if self._last else 0
        if not last < transaction <= self._walk.newest:
            raise _Unsound(f"pages are listed as freed by transaction {transaction}")
        self._last = transaction.to_bytes(8, "little")
        words = np.frombuffer(value.ljust(8), "<u8", len(value) // 8 or 1)
        pages = np.minimum(words[1:], np.uint64(1 << 62)).astype(np.int64)
        if len(value) != 8 + 8 * int(words[0]) or (pages[1:] >= pages[:-1]).any():
            raise _Unsound(f"the list of pages that transaction {transaction} freed is none")
        self.lists.append(pages)


# ------------------------------------------------------------------------------------- checking


def _check_metas(both: list[Meta], size: int) -> None:
    for number, meta in enumerate(both):
        what = f"meta page {number}"
        if (meta.magic, meta.version, meta.kind & META) != (MAGIC, DATA_VERSION, META):
            raise _Unsound(f"{what} is not one of LMDB 0.9 on this kind of machine")
        if meta.number != number or meta.page_size != both[0].page_size:
            raise _Unsound(f"{what} has another number, or another size of pages")
        if meta.transaction and meta.transaction % 2 != number:
            raise _Unsound(f"{what} has a transaction that the other one would have")
        if meta.trees[1].flags or meta.trees[0].flags & FREE_FLAGS:
            raise _Unsound(f"{what} has flags that pagestore does not give to LMDB")
        if meta.trees[1].pad > meta.page_size - HEADER:
            raise _Unsound(f"{what} has a size of keys that no page holds")
        if meta.last_page < 1 or (meta.last_page + 1) * meta.page_size > size + max(
            size, SHORT_MOST
        ):
            raise _Unsound(f"{what} claims {meta.last_page + 1} pages, the file has {size} bytes")


def _refuse(bad: Any, numbers: Numbers, why: str) -> None:
    if bad.any():
        raise _Unsound(f"page {numbers[bad][0]} {why}")


def _rising(data: Bytes, low: _Nodes, high: _Nodes) -> None:
    """Raise `_Unsound` unless the keys are numbers of transactions, that of `high` the higher."""
    for nodes in (low, high):
        _refuse(nodes.key_size != 8, nodes.number, "has a key that is no transaction")
    falls = little(data, low.key, 8) >= little(data, high.key, 8)
    _refuse(falls, high.number, "has keys that do not ascend")


def _ascending(data: Bytes, low: _Nodes, high: _Nodes) -> None:
    """Raise `_Unsound` unless each key of `low` sorts before that of `high`, byte by byte."""
    left = np.arange(len(low.at))  # those of which all bytes so far are the same
    for at in range(0, KEY_MOST, 8):
        if not len(left):
            return
        a, b = (_big(data, keys.key[left] + at, keys.key_size[left] - at) for keys in (low, high))
        _refuse(a > b, high.number[left], "has keys that do not ascend")
        left = left[a == b]
        shorter = low.key_size[left] < high.key_size[left]
        ended = np.minimum(low.key_size[left], high.key_size[left]) <= at + 8
        _refuse(ended & ~shorter, high.number[left], "has keys that do not ascend")
        left = left[~ended]


def _big(data: Bytes, at: Numbers, left: Numbers) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Eight bytes at some places as one big-endian number; zeros for those behind `left`."""
    value = np.zeros(len(at), np.uint64)
    for i in range(8):
        byte = data[np.minimum(at + i, len(data) - 1)].astype(np.uint64)
        value |= np.where(i < left, byte, np.uint64(0)) << np.uint64(56 - 8 * i)
    return value
