"""A file to be stored, read in pieces: plain bytes, or a NumPy file as its array.

Every piece but the last has exactly `PIECE` bytes, so pieces begin where pages begin. An
array always comes in C order. No more than a piece or two is ever in memory.
"""

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from attrs import frozen
from numpy.lib import format as npy_format

from pagestore.cli.failure import Fatal

PIECE = 8 * 1024 * 1024  # a multiple of the largest page


@frozen
class Source:
    """What is to be stored; `shape` is None while nobody knows how long it is."""

    label: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...] | None
    pieces: Iterator[memoryview]

    @property
    def nbytes(self) -> int | None:
        """The number of bytes that `pieces` will yield, if known."""
        if self.shape is None:
            return None
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


@contextmanager
def open_source(name: str, npy: bool | None) -> Iterator[Source]:
    """Open the file `name` (``-``: standard input)."""
    if npy is None:
        npy = name.endswith(".npy")
    with _open(name) as file:
        yield _array(file, name) if npy else _plain(file, name)


@contextmanager
def _open(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
    elif os.path.isdir(name):
        raise Fatal(f"'{name}' is a directory")
    else:
        with open(name, "rb") as file:
            yield file


def _plain(file: BinaryIO, name: str) -> Source:
    u1 = np.dtype("u1")
    size = _size(file)
    if size is None:
        return Source(name, u1, None, _pieces(file))
    return Source(name, u1, (size,), _exactly(_pieces(file), size, name))


def _size(file: BinaryIO) -> int | None:
    """Return how many bytes are left to read, or None if that is not a file on a disk."""
    try:
        status = os.fstat(file.fileno())
        return status.st_size - file.tell() if stat.S_ISREG(status.st_mode) else None
    except OSError:
        return None


def _array(file: BinaryIO, name: str) -> Source:
    try:
        shape, fortran, dtype = _header(file)
    except ValueError as error:
        raise Fatal(f"'{name}' is not a NumPy file that can be stored: {error}") from None
    if dtype.hasobject:
        raise Fatal(f"'{name}' holds Python objects, which have no contents to store")
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if not fortran or len(shape) < 2 or not size:
        return Source(name, dtype, shape, _exactly(_pieces(file), size, name))
    there = _size(file)
    if there is None:
        raise Fatal("an array in Fortran order must come from a file, not from a pipe")
    if there < size:
        raise _cut_short(name)
    array = np.memmap(file, dtype, "r", file.tell(), shape, order="F")
    return Source(name, dtype, shape, _regrouped(_c_order(array)))


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    readers = {
        (1, 0): npy_format.read_array_header_1_0,
        (2, 0): npy_format.read_array_header_2_0,
    }
    version = npy_format.read_magic(file)
    if version not in readers:
        raise ValueError(f"its format is {version[0]}.{version[1]}, known are 1.0 and 2.0")
    return readers[version](file)


def _c_order(array: np.ndarray[Any, Any]) -> Iterator[memoryview]:
    """Yield the contents of `array` in C order, converting at most a piece at a time."""
    if array.nbytes <= PIECE or array.ndim == 0:
        yield _bytes_of(np.ascontiguousarray(array))
        return
    rows = PIECE // (array.nbytes // len(array))
    for row in range(0, len(array), max(1, rows)):
        yield from _c_order(array[row : row + rows] if rows > 1 else array[row])


def _bytes_of(array: np.ndarray[Any, Any]) -> memoryview:
    return array.reshape(-1).view("u1").data


def _regrouped(parts: Iterable[memoryview]) -> Iterator[memoryview]:
    """Yield the same bytes in pieces of exactly `PIECE`, the last one shorter."""
    waiting = bytearray()
    for part in parts:
        waiting += part
        while len(waiting) >= PIECE:
            yield memoryview(bytes(waiting[:PIECE]))
            del waiting[:PIECE]
    if waiting:
        yield memoryview(bytes(waiting))


def _pieces(file: BinaryIO) -> Iterator[memoryview]:
    while piece := file.read(PIECE):  # waits for all of it, of a pipe too
        yield memoryview(piece)


def _exactly(pieces: Iterator[memoryview], size: int, name: str) -> Iterator[memoryview]:
    """Yield the first `size` bytes; less than that is a file cut short."""
    left = size
    for piece in pieces:
        if not left:
            return
        yield piece[:left]
        left -= min(left, len(piece))
    if left:
        raise _cut_short(name)


def _cut_short(name: str) -> Fatal:
    return Fatal(f"'{name}' is cut short: it has less than it said at its start")
