"""Which versions a version is made of, for schemes that store (page, version) rows.

A version is a number that only grows. What it sees are the rows of its *line*: intervals of
versions, newest first. On the main line that is one interval; a branch adds one.
"""

from __future__ import annotations

import json

Line = list[tuple[int, int]]


def child(parent: Line, version: int) -> Line:
    """The line of a version committed on top of another."""
    if not parent:
        return [(version, version)]
    (first, last), *rest = parent
    if version == last + 1:
        return [(first, version), *rest]
    return [(version, version), *parent]


def between(old: Line, new: Line) -> list[int]:
    """Versions that only one of two lines has: what they changed is what may differ."""
    if old[0][0] == new[0][0] and old[1:] == new[1:]:
        low, high = sorted((old[0][1], new[0][1]))
        return list(range(low + 1, high + 1))
    a, b = ({v for first, last in line for v in range(first, last + 1)} for line in (old, new))
    return sorted(a ^ b)


def encode(line: Line) -> bytes:
    return json.dumps(line).encode()


def decode(data: bytes) -> Line:
    return [(first, last) for first, last in json.loads(data)]
