"""A model of files on a disk: what of them is durable, what is pending, what a crash may leave.

An operation on a file is *pending* until a sync of that file succeeds; an operation on a
directory, until a sync of that directory. A crash keeps any of the pending ones, and of a write any
of its sectors. What was pending when a sync *failed* stays so for ever: the kernel forgets it, and
a later sync says nothing of it.

That is less than most file systems promise (they keep directories in order, and files with them),
so what holds here holds there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import xxhash
from attrs import define, field, frozen

from tools.crash.record import DIRECTORY, FILE, Kind, Op

PAGE = 4096
SECTOR = 512
_ZEROS = bytes(PAGE)


class File:
    """Bytes of one file, of which only the pages that were written are there."""

    __slots__ = ("pages", "size")

    def __init__(self, size: int = 0, pages: dict[int, bytes] | None = None) -> None:
        self.size = size
        self.pages = pages or {}

    def copy(self) -> File:
        return File(self.size, self.pages.copy())

    def write(self, offset: int, data: bytes) -> None:
        self.size = max(self.size, offset + len(data))
        at = 0
        while at < len(data):
            page, within = divmod(offset + at, PAGE)
            part = data[at : at + PAGE - within]
            if len(part) < PAGE:
                old = self.pages.get(page, _ZEROS)
                part = old[:within] + part + old[within + len(part) :]
            self.pages[page] = part
            at += PAGE - within

    def resize(self, size: int) -> None:
        if size < self.size:
            last, within = divmod(size, PAGE)
            self.pages = {p: data for p, data in self.pages.items() if p * PAGE < size}
            if within and last in self.pages:
                self.pages[last] = self.pages[last][:within].ljust(PAGE, b"\0")
        self.size = size

    def punch(self, offset: int, size: int) -> None:
        length = self.size
        self.write(offset, bytes(max(0, min(size, length - offset))))
        self.size = length

    def runs(self) -> Iterable[tuple[int, bytes]]:
        """Offset and bytes of each run of pages."""
        start, parts = 0, list[bytes]()
        for page in sorted(self.pages):
            if parts and page != start + len(parts):
                yield start * PAGE, b"".join(parts)
                parts = []
            start = page if not parts else start
            parts.append(self.pages[page])
        if parts:
            yield start * PAGE, b"".join(parts)

    def store(self, path: Path) -> None:
        with path.open("wb", buffering=0) as file:
            for offset, data in self.runs():
                os.pwrite(file.fileno(), data, offset)
            file.truncate(self.size)

    @classmethod
    def load(cls, path: Path) -> File:
        raw = path.read_bytes()
        file = cls(len(raw))
        for at in range(0, len(raw), PAGE):
            part = raw[at : at + PAGE].ljust(PAGE, b"\0")
            if part != _ZEROS:
                file.pages[at // PAGE] = part
        return file

    def same(self, other: File) -> bool:
        pages = self.pages.keys() | other.pages.keys()
        return self.size == other.size and all(
            self.pages.get(p, _ZEROS) == other.pages.get(p, _ZEROS) for p in pages
        )


Tree = dict[str, File | None]
"""Path below the recorded directory -> file, or None for a directory."""


def load(top: Path) -> Tree:
    """Everything below a directory."""
    tree: Tree = {"": None}
    for path in sorted(top.rglob("*")):
        tree["/" + str(path.relative_to(top))] = None if path.is_dir() else File.load(path)
    return tree


def inodes(top: Path) -> dict[str, int]:
    """Inode number of each file below a directory."""
    files = (path for path in top.rglob("*") if not path.is_dir())
    return {"/" + str(path.relative_to(top)): path.stat().st_ino for path in files}


def store(tree: Tree, top: Path) -> None:
    """Write a tree to an empty directory."""
    for path in sorted(tree):
        where, file = top / path.lstrip("/"), tree[path]
        if file is None:
            where.mkdir(exist_ok=True)
        else:
            file.store(where)


def digest(tree: Tree) -> bytes:
    """Equal for equal trees."""
    h = xxhash.xxh3_128()
    for path in sorted(tree):
        h.update(f"{path}\0".encode())
        file = tree[path]
        if file is not None:
            h.update(f"{file.size}\0".encode())
            for page in sorted(file.pages):
                h.update(page.to_bytes(8, "little"))
                h.update(file.pages[page])
    return h.digest()


@frozen(eq=False)
class Part:
    """How much of a pending operation a crash keeps.

    Attributes
    ----------
    sectors : tuple of int, optional
        Of a write, these alone; all, if None.
    size_only : bool
        The length it gave the file, and not its bytes.
    """

    sectors: tuple[int, ...] | None = None
    size_only: bool = False


WHOLE = Part()
Choice = Mapping[int, Part]
"""Number of a pending operation -> what is kept of it. One that is not there is lost."""


@define(eq=False)
class _Item:
    number: int
    op: Op
    certain: bool = False
    doomed: bool = False  # a sync failed: no later one makes it certain
    place: int = -1  # of a file that it creates


@define(eq=False)
class _Inode:
    base: File
    items: list[_Item] = field(factory=list)

    def fold(self) -> None:
        """Put what is certain into the base, as far as the order allows."""
        n = 0
        while n < len(self.items) and self.items[n].certain:
            _apply(self.base, self.items[n].op, WHOLE)
            n += 1
        del self.items[:n]


class Disk:
    """Follows the operations of a record; tells what a crash after any of them may leave."""

    def __init__(self, initial: Tree, inodes: Mapping[str, int]) -> None:
        self._start = initial
        self._files: list[_Inode] = []
        self._current: dict[int, int] = {}  # inode number -> place in _files: numbers come again
        self._first: dict[str, int] = {}
        self._moves: list[_Item] = []  # operations on directories, in order
        self._number = 0
        for path, file in initial.items():
            if file is not None:
                self._first[path] = self._new(inodes[path], file.copy())

    def _new(self, inode: int, base: File) -> int:
        self._files.append(_Inode(base))
        self._current[inode] = len(self._files) - 1
        return self._current[inode]

    def apply(self, op: Op) -> None:
        self._number += 1
        if op.kind in DIRECTORY and not op.error:
            place = self._new(op.inode, File()) if op.kind is Kind.CREATE else -1
            self._moves.append(_Item(self._number, op, place=place))
        elif op.kind in FILE and (op.data or not op.error):
            file = self._files[self._current[op.inode]]
            file.items.append(_Item(self._number, op, certain=op.dsync and not op.error))
            file.fold()
        elif op.kind is Kind.SYNC:
            self._sync(op)

    def _sync(self, op: Op) -> None:
        file = self._files[self._current[op.inode]] if op.inode in self._current else None
        items = file.items if file else [i for i in self._moves if op.path in _parents(i.op)]
        for item in items:
            if op.error:
                item.doomed = item.doomed or not item.certain
            else:
                item.certain = item.certain or not item.doomed
        if file:
            file.fold()

    def _items(self) -> list[_Item]:
        items = [*self._moves, *(i for file in self._files for i in file.items)]
        return sorted((i for i in items if not i.certain), key=lambda i: i.number)

    @property
    def pending(self) -> dict[int, Op]:
        """What a crash may lose, by number, in order."""
        return {i.number: i.op for i in self._items()}

    def everything(self) -> Tree:
        """The files as if nothing were lost."""
        return self.after_crash(dict.fromkeys(self.pending, WHOLE))

    def after_crash(self, choice: Choice) -> Tree:
        """The files when of what is pending only a choice reached the disk."""
        tree: Tree = {path: None for path, file in self._start.items() if file is None}
        for path, place in self._first.items():
            tree[path] = self._file(place, choice)
        for item in self._moves:
            if item.certain or item.number in choice:
                self._move(tree, item, choice)
        return tree

    def _file(self, place: int, choice: Choice) -> File:
        file = self._files[place].base.copy()
        for item in self._files[place].items:
            if item.certain:
                _apply(file, item.op, WHOLE)
            elif item.number in choice:
                _apply(file, item.op, choice[item.number])
        return file

    def _move(self, tree: Tree, item: _Item, choice: Choice) -> None:
        op = item.op
        if op.kind in (Kind.CREATE, Kind.MKDIR):
            if _parent(op.path) in tree:
                tree[op.path] = None if item.place < 0 else self._file(item.place, choice)
        elif op.kind is Kind.RENAME:
            for path in [p for p in tree if p == op.path or p.startswith(op.path + "/")]:
                tree[op.target + path[len(op.path) :]] = tree.pop(path)
        else:
            tree.pop(op.path, None)


def _parents(op: Op) -> set[str]:
    return {_parent(op.path), _parent(op.target)} if op.kind is Kind.RENAME else {_parent(op.path)}


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _apply(file: File, op: Op, part: Part) -> None:
    if op.kind is Kind.RESIZE:
        file.resize(op.size)
    elif op.kind is Kind.ALLOCATE:
        file.resize(max(file.size, op.offset + op.size))
    elif op.kind is Kind.PUNCH:
        file.punch(op.offset, op.size)
    elif part.size_only:
        file.resize(max(file.size, op.offset + len(op.data)))
    elif part.sectors is None:
        file.write(op.offset, op.data)
    else:
        for sector in part.sectors:
            at = sector * SECTOR
            if at < len(op.data):
                file.write(op.offset + at, op.data[at : at + SECTOR])
