"""Bad inputs: damage to the files of a store, generated from a seed.

Owns: what is done to the bytes of a file. A store that a program resealed, with checksums made
right, is the business of `reseal`; what comes of it, that of `outcome`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from attrs import field, frozen

from pagestore.directory import ARENA, CATALOG
from pagestore.format import (
    HEAD_OFFSETS,
    SEAL_OFFSET,
    CatalogSeal,
    HeadCopy,
    Superblock,
    VersionId,
)

PAGE = 4096
SECTOR = 512
STRING = 64
NUMBERS = (0, 1, 2, 7, 1 << 31, 1 << 46, 1 << 63, (1 << 64) - 1)
SIZES = (0, 1, 3, 512, 2048, 4095, 8192, 1 << 21, 1 << 22, 1 << 31, (1 << 32) - 1)
Files = Mapping[str, bytes]


@frozen
class Patch:
    """Bytes of a file that are not what they were."""

    file: str
    kind: str
    offset: int
    data: bytes = field(repr=False)

    def __str__(self) -> str:
        page, within = divmod(self.offset, PAGE)
        return f"{self.file}: {self.kind} at byte {self.offset} (page {page}, byte {within})"

    def apply(self, raw: bytearray) -> None:
        raw[self.offset : self.offset + len(self.data)] = self.data

    def write(self, fd: int) -> None:
        os.pwrite(fd, self.data, self.offset)

    def undo(self, fd: int, whole: bytes) -> None:
        os.pwrite(fd, whole[self.offset : self.offset + len(self.data)], self.offset)


@frozen
class Cut:
    """A file that ends too early."""

    file: str
    kind: str
    offset: int

    def __str__(self) -> str:
        return f"{self.file}: {self.kind} to {self.offset} bytes"

    def apply(self, raw: bytearray) -> None:
        del raw[self.offset :]

    def write(self, fd: int) -> None:
        os.ftruncate(fd, self.offset)

    def undo(self, fd: int, whole: bytes) -> None:
        os.pwrite(fd, whole[self.offset :], self.offset)


Damage = Patch | Cut


@frozen
class Life:
    """The files of one store as they were at some moments; the last is how they are."""

    moments: Sequence[Files] = field(repr=False)

    @property
    def now(self) -> Files:
        return self.moments[-1]

    def older(self, file: str) -> list[tuple[int, bytes]]:
        """Offset and bytes of every page that once was other than it is; each state once."""
        now = self.now[file]
        found: dict[tuple[int, bytes], None] = {}
        for moment in self.moments[:-1]:
            raw = moment[file]
            for at in range(0, min(len(raw), len(now)) - PAGE + 1, PAGE):
                page = raw[at : at + PAGE]
                if page != now[at : at + PAGE]:
                    found[at, page] = None
        return list(found)


def flip(whole: bytes, file: str, bit: int, kind: str = "a flipped bit") -> Patch:
    return Patch(file, kind, bit // 8, bytes([whole[bit // 8] ^ 1 << bit % 8]))


# ----------------------------------------------------------------- generators: one input a call


Generator = Callable[[random.Random], Damage]


def bits(life: Life, file: str, start: int, stop: int) -> Generator:
    """Single bits of a part of a file."""
    whole = life.now[file]
    return lambda rng: flip(whole, file, rng.randrange(start * 8, stop * 8))


def sectors(life: Life, file: str, start: int, stop: int) -> Generator:
    """Sectors of zeros."""
    return lambda rng: Patch(
        file, "a zeroed sector", rng.randrange(start, stop, SECTOR), bytes(SECTOR)
    )


def strings(life: Life, file: str, start: int, stop: int) -> Generator:
    """Random strings at random places."""
    return lambda rng: Patch(
        file, "a random string", rng.randrange(start, stop - STRING), rng.randbytes(STRING)
    )


def strangers(life: Life, file: str, start: int, stop: int) -> Generator:
    """Pages with the contents of another page of the file."""
    whole = life.now[file]

    def make(rng: random.Random) -> Damage:
        at = rng.randrange(start, stop, PAGE)
        other = rng.randrange(0, len(whole), PAGE)
        return Patch(
            file, f"page {other // PAGE} instead of its own", at, whole[other : other + PAGE]
        )

    return make


def ancestors(life: Life, file: str) -> list[Patch]:
    """Every page as an older copy of itself."""
    return [Patch(file, "an older copy of itself", at, page) for at, page in life.older(file)]


def _ancestors(life: Life, file: str, start: int, stop: int) -> Generator:
    older = [patch for patch in ancestors(life, file) if start <= patch.offset < stop]
    return lambda rng: rng.choice(older)


def cuts(life: Life, file: str, start: int, stop: int) -> Generator:
    """Truncation: at pages mostly, at any byte sometimes."""

    def make(rng: random.Random) -> Damage:
        size = (
            rng.randrange(start, stop, PAGE) if rng.random() < 0.7 else rng.randrange(start, stop)
        )
        return Cut(file, "cut", size)

    return make


def every_cut(life: Life, file: str) -> Iterator[Cut]:
    """Truncation at every page, and one byte to either side of it."""
    size = len(life.now[file])
    for at in range(0, size, PAGE):
        yield from (Cut(file, "cut", s) for s in (at - 1, at, at + 1) if 0 <= s < size)


def header_fields(life: Life) -> Generator:
    """Single bits of what slot 0 of the arena says: superblock, copies of the head, seal."""
    whole = life.now[ARENA]
    places = [(0, 56), *((at, at + 48) for at in HEAD_OFFSETS), (SEAL_OFFSET, SEAL_OFFSET + 32)]

    def make(rng: random.Random) -> Damage:
        start, stop = rng.choice(places)
        return flip(whole, ARENA, rng.randrange(start * 8, stop * 8), "a flipped bit of the header")

    return make


def hostile_headers(life: Life) -> Generator:
    """Superblock, copies of the head and seal that say something wrong under right checksums."""
    now = Superblock.unpack(life.now[ARENA][:PAGE], ARENA)

    def make(rng: random.Random) -> Damage:
        numbers = [rng.choice(NUMBERS) for _ in range(3)]
        block = now._replace(page_size=rng.choice(SIZES), created=rng.choice((0, -1)))
        head = HeadCopy(VersionId(numbers[0]), numbers[1], numbers[2], rng.randbytes(16))
        seal = CatalogSeal(rng.choice((*NUMBERS, len(life.now[CATALOG]))), rng.randbytes(16))
        offset, raw = rng.choice(
            [(0, block.pack()), (rng.choice(HEAD_OFFSETS), head.pack()), (SEAL_OFFSET, seal.pack())]
        )
        return Patch(ARENA, "a resealed header", offset, raw)

    return make


def tree_fields(life: Life) -> Generator:
    """Single bits of LMDB's own numbers: both meta pages, and the header of each other page."""
    whole = life.now[CATALOG]

    def make(rng: random.Random) -> Damage:
        page = rng.randrange(len(whole) // PAGE)
        size = 152 if page < 2 else 64
        bit = (page * PAGE) * 8 + rng.randrange(size * 8)
        return flip(whole, CATALOG, bit, "a flipped bit of the tree")

    return make


def generators(life: Life) -> dict[str, list[Generator]]:
    """What can be done to a store's files, by the part that it is done to."""
    used = len(life.now[ARENA])
    catalog = len(life.now[CATALOG])
    in_pages = (bits, sectors, strings, strangers, _ancestors)
    return {
        "arena": [make(life, ARENA, PAGE, used) for make in (*in_pages, cuts)],
        "header": [
            header_fields(life),
            hostile_headers(life),
            *(make(life, ARENA, 0, PAGE) for make in in_pages),
            cuts(life, ARENA, 0, 2 * PAGE),
        ],
        "catalog": [
            tree_fields(life),
            *(make(life, CATALOG, 0, catalog) for make in (*in_pages, cuts)),
        ],
    }


def write_files(path: Path, files: Files) -> None:
    """Make the files of a store what they were at a moment, in place."""
    for name, raw in files.items():
        (path / name).write_bytes(raw)
