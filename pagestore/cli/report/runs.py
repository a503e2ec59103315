"""Sets of pages as text: runs, as numbers of seven bits a byte, in base64.

Owns the one encoding that the page's script reads back (`data.js`). A run is the gap from the end
of the run before it, doubled, plus one if the run has more than one page; such a run's length less
two follows. After that comes a label for every run, where there are labels.

- W1  What is read back is what was encoded; pages are sorted, each once.
- W2  With `shift`, a *cell* of 2**shift pages stands for any of them.
"""

from __future__ import annotations

import binascii
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def split(pages: Ints, labels: Ints | None = None) -> tuple[Ints, Ints]:
    """First page and length of each run of sorted pages (of one label)."""
    broken = np.diff(pages) != 1
    if labels is not None:
        broken |= np.diff(labels) != 0
    first = np.flatnonzero(np.concatenate((np.ones(min(1, len(pages)), np.bool_), broken)))
    return pages[first], np.diff(np.append(first, len(pages)))


def encoded(pages: Ints, labels: Ints | None = None) -> str:
    """Text for some sorted pages, and for each run the label that its pages have."""
    if not len(pages):
        return ""
    start, length = split(pages, labels)
    gap = start - np.concatenate(([0], (start + length)[:-1]))
    long = length > 1
    columns = [gap * 2 + long, np.where(long, length - 2, -1)]
    if labels is not None:
        columns.append(labels[np.searchsorted(pages, start)])
    numbers = np.stack(columns, axis=1).ravel()
    return binascii.b2a_base64(_bytes(numbers[numbers >= 0]), newline=False).decode("ascii")


def _bytes(numbers: Ints) -> bytes:
    """Numbers from 0 on, seven bits a byte, the lowest first; all but the last byte have bit 7."""
    place = np.arange(9)
    groups = numbers[:, None] >> (7 * place)
    used = (groups > 0) | (place == 0)
    more = np.concatenate((groups[:, 1:] > 0, np.zeros((len(groups), 1), np.bool_)), axis=1)
    return bytes(((groups & 127) | (more << 7)).astype(np.uint8)[used])


def decoded(text: str, *, labelled: bool = False) -> tuple[list[int], list[int]]:
    """Pages and labels (none: empty) of a text; what the page's script does."""
    numbers = iter(_numbers(binascii.a2b_base64(text)))
    pages: list[int] = []
    labels: list[int] = []
    end = 0
    for word in numbers:
        start, count = end + (word >> 1), next(numbers) + 2 if word & 1 else 1
        end = start + count
        pages += range(start, end)
        if labelled:
            labels += [next(numbers)] * count
    return pages, labels


def _numbers(raw: bytes) -> list[int]:
    numbers, value, shift = [], 0, 0
    for byte in raw:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            numbers.append(value)
            value = shift = 0
    return numbers


def cells(pages: Ints, shift: int) -> Ints:
    """The cells in which some sorted pages lie (W2)."""
    if not shift or not len(pages):
        return pages
    found = pages >> shift
    new: npt.NDArray[Any] = np.concatenate(([True], found[1:] != found[:-1]))
    some: Ints = found[new]
    return some
