"""The structure of a SQLite file, as far as it says which page belongs to what.

Owns: reading interior pages, cells, overflow chains and the values of a record from the bytes of a
file. Does not know SQL. Only interior pages are read whole: to know a tree's leaves is cheap.

- B1  No number from a page leads outside the file, nor twice to the same page of a tree.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from pagestore import CorruptionError

INDEX_INTERIOR, TABLE_INTERIOR, INDEX_LEAF, TABLE_LEAF = 2, 5, 10, 13
INTERIOR = (INDEX_INTERIOR, TABLE_INTERIOR)
INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}  # bytes, by type
ENCODINGS = {1: "utf-8", 2: "utf-16-le", 3: "utf-16-be"}

Value = int | float | str | bytes | None


class Cell(NamedTuple):
    """A cell that has contents."""

    rowid: int  # 0 in an index
    size: int  # of its contents
    local: memoryview  # what of them is in the cell
    overflow: int  # the first page of the rest, or 0


class Tree(NamedTuple):
    """The pages of one table or index, overflow pages apart."""

    interior: set[int]
    leaves: set[int]


class File:
    """A database file in memory."""

    def __init__(self, raw: memoryview) -> None:
        if len(raw) < 512 or bytes(raw[:15]) != b"SQLite format 3":
            raise CorruptionError("this is no SQLite database")
        self._raw = raw
        self.page_size = int.from_bytes(raw[16:18], "big")
        if self.page_size == 1:
            self.page_size = 65536
        self.usable = self.page_size - raw[20]
        if self.page_size < 512 or self.usable < 480:
            raise CorruptionError("this is no SQLite database: a page has no such size")
        self.pages = len(raw) // self.page_size
        self._encoding = ENCODINGS.get(int.from_bytes(raw[56:60], "big"), "utf-8")

    def page(self, number: int) -> memoryview:
        """The bytes of a page, counted from 1 (B1)."""
        if not 0 < number <= self.pages:
            raise CorruptionError(f"a page of {self.pages} is to have the number {number}")
        return self._raw[(number - 1) * self.page_size : number * self.page_size]

    def tree(self, root: int) -> Tree:
        """Which pages a tree has; every leaf is as deep as the others."""
        tree = Tree(set(), set())
        level = [root]
        while level:
            if self._kind(level[0]) not in INTERIOR:
                tree.leaves.update(level)
                break
            if not tree.interior.isdisjoint(level):
                raise CorruptionError(f"the tree at page {root} comes back to itself")
            tree.interior.update(level)
            level = [child for number in level for child in self._children(number)]
        return tree

    def _kind(self, number: int) -> int:
        return self.page(number)[100 if number == 1 else 0]

    def _pointers(self, number: int) -> tuple[int, ...]:
        page, start = self.page(number), 100 if number == 1 else 0
        head = 12 if page[start] in INTERIOR else 8
        count = int.from_bytes(page[start + 3 : start + 5], "big")
        if start + head + 2 * count > self.usable:
            raise CorruptionError(f"page {number} has too many cells")
        return struct.unpack_from(f">{count}H", page, start + head)

    def _children(self, number: int) -> Iterator[int]:
        page, start = self.page(number), 100 if number == 1 else 0
        try:
            for pointer in self._pointers(number):
                yield struct.unpack_from(">I", page, pointer)[0]
        except struct.error:
            raise CorruptionError(f"page {number} has a cell beyond its end") from None
        yield int.from_bytes(page[start + 8 : start + 12], "big")

    def cells(self, number: int) -> Iterator[Cell]:
        """What is said in the cells of a page that has contents."""
        page, kind = self.page(number), self._kind(number)
        if kind == TABLE_INTERIOR:
            return
        try:
            for pointer in self._pointers(number):
                yield self._cell(page, kind, pointer)
        except (IndexError, struct.error):
            raise CorruptionError(f"page {number} has a cell beyond its end") from None

    def _cell(self, page: memoryview, kind: int, at: int) -> Cell:
        size, at = _varint(page, at + 4 if kind == INDEX_INTERIOR else at)
        rowid = 0
        usable = self.usable
        if kind == TABLE_LEAF:
            rowid, at = _varint(page, at)
            most = usable - 35
        else:
            most = (usable - 12) * 64 // 255 - 23
        if size <= most:
            return Cell(rowid, size, page[at : at + size], 0)
        least = (usable - 12) * 32 // 255 - 23
        local = least + (size - least) % (usable - 4)
        end = at + (local if local <= most else least)
        return Cell(rowid, size, page[at:end], struct.unpack_from(">I", page, end)[0])

    def values(self, cell: Cell, count: int) -> tuple[Value, ...]:
        """The first values of the record that a cell holds."""
        chain = (self.page(number)[4 : self.usable] for number in self.chain(cell.overflow))
        record = memoryview(b"".join((cell.local, *chain))[: max(0, cell.size)])
        try:
            head, at = _varint(record, 0)
            values: list[Value] = []
            end = head
            while len(values) < count:
                if at >= head:
                    raise IndexError
                kind, at = _varint(record, at)
                size = _size(kind)
                if end + size > len(record):
                    raise IndexError
                values.append(self._value(kind, record[end : end + size]))
                end += size
        except (IndexError, UnicodeDecodeError):
            raise CorruptionError(
                "a record ends before its values, or has text that is none"
            ) from None
        return tuple(values)

    def _value(self, kind: int, raw: memoryview) -> Value:
        if kind >= 12:
            return str(raw, self._encoding) if kind % 2 else bytes(raw)
        if kind == 7:
            return float(struct.unpack(">d", raw)[0])
        if kind in (8, 9):
            return kind - 8
        return int.from_bytes(raw, "big", signed=True) if kind else None

    def chain(self, first: int) -> Iterator[int]:
        """The pages of an overflow chain."""
        number, seen = first, set[int]()
        while number:
            if number in seen:
                raise CorruptionError(f"the chain at page {first} comes back to itself")
            seen.add(number)
            yield number
            number = int.from_bytes(self.page(number)[:4], "big")


def _size(kind: int) -> int:
    """How many bytes a value of some type takes."""
    if kind in (10, 11) or kind < 0:
        raise CorruptionError(f"no value has the type {kind}")
    if kind >= 12:
        return (kind - 12) // 2
    return INTEGERS.get(kind, 8 if kind == 7 else 0)


def _varint(page: memoryview, at: int) -> tuple[int, int]:
    """A signed 64-bit number of one to nine bytes, and where it ends."""
    value = 0
    for i in range(8):
        byte = page[at + i]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    value = value << 8 | page[at + 8]
    return value - (1 << 64) if value >> 63 else value, at + 9
