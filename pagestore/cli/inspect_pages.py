"""``pagestore inspect --table`` and ``--dump``: where pages lie, and what they hold."""

import itertools
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

import pagestore
from pagestore.cli import as_json as json
from pagestore.cli.output import console, is_terminal, line, printable, table
from pagestore.cli.screen import Screen

LINES = 1000  # of a table on a terminal
BYTES_A_LINE = 16
VALUES_A_LINE = 4
FIRST_LINES = 64  # of contents on a terminal, without an end
PIECE = 1 << 20  # bytes read at once


def show_table(
    store: pagestore.Store,
    version: pagestore.Version,
    region: pagestore.Region,
    start: int,
    stop: int | None,
    *,
    sharing: bool,
    as_json: bool,
) -> None:
    """Show where pages lie: page by page to a program, in runs to a person."""
    found = store.page_table(version, region.name, start, stop, sharing=sharing)
    if as_json:
        json.write(_objects(found))
    elif not is_terminal(sys.stdout):
        for row in _pages(found):
            line(*row)
    else:
        _show_runs(found)


def _pages(found: pagestore.PageTable) -> Iterator[tuple[int | str | None, ...]]:
    columns = [found.page, found.slot, found.birth]
    holders = found.holders.tolist() if found.holders is not None else [None] * len(found)
    rows = zip(*(c.tolist() for c in columns), found.checksum.tolist(), holders, strict=True)
    for page, slot, birth, checksum, held in rows:
        yield page, slot, birth, f"{checksum:016x}", held


def _objects(found: pagestore.PageTable) -> Iterator[dict[str, Any]]:
    names = ("page", "slot", "birth", "checksum", "holders")
    for row in _pages(found):
        yield {"type": "page", **dict(zip(names, row, strict=True))}


def _show_runs(found: pagestore.PageTable) -> None:
    """Pages that follow each other in the arena, of one birth and shared alike, on one line."""
    screen = Screen(console())
    breaks = np.ones(len(found), np.bool_)
    breaks[1:] = (np.diff(found.page) != 1) | (np.diff(found.slot) != 1)
    breaks[1:] |= np.diff(found.birth) != 0
    if found.holders is not None:
        breaks[1:] |= np.diff(found.holders) != 0
    first = np.flatnonzero(breaks)
    last = np.append(first[1:], len(found)) - 1
    columns = {"pages": "", "slots": "", "written by": "yellow"}
    cells = [_span(found.page, first, last), _span(found.slot, first, last),
             found.birth[first].tolist()]  # fmt: skip
    if found.holders is not None:
        columns["shared by"] = ""
        cells.append(found.holders[first].tolist())
    rows = list(zip(*cells, strict=True))
    table(columns, rows[:LINES])
    if len(rows) > LINES:
        screen.say((f"… {len(rows) - LINES:,} more lines: take a --range, or a pipe", "dim"))
    stored, zeros = len(found), found.stop - found.start - len(found)
    screen.say((f"{stored:,} pages stored, in {found.runs:,} runs; {zeros:,} are zeros", "dim"))


def _span(numbers: Any, first: Any, last: Any) -> list[str]:
    pairs = zip(numbers[first].tolist(), numbers[last].tolist(), strict=True)
    return [f"{a:,}" if a == b else f"{a:,}-{b:,}" for a, b in pairs]


# ----------------------------------------------------------------------------------- contents


def show_contents(
    store: pagestore.Store,
    version: pagestore.Version,
    region: pagestore.Region,
    start: int,
    stop: int | None,
    *,
    as_json: bool,
) -> None:
    """Show bytes, or values by their index; on a terminal the first of them if no end is given."""
    length = region.shape[0] if region.shape else 1
    end = length if stop is None else min(length, stop)
    with store.view(version) as view:
        if is_bytes(region):
            pieces = _pieces(view, region.name, start, end)
            lines = _hexdump(pieces, end)
            objects: Iterator[dict[str, Any]] = (
                {"type": "bytes", "offset": at, "hex": piece.hex()} for at, piece in pieces
            )
        else:
            values = _values(view, region, start, end)
            lines = (f"{index_text(i):<14}{''.join(map(_column, v))}" for i, v in values)
            objects = ({"type": "values", "index": i, "values": v} for i, v in values)
        if as_json:
            json.write(objects)
            return
        most = FIRST_LINES if stop is None and is_terminal(sys.stdout) else None
        for text in itertools.islice(lines, most):
            print(text)
        if next(lines, None) is not None:
            console().print(f"… and so on to {length:,}: take a --range", style="dim")


def is_bytes(region: pagestore.Region) -> bool:
    """Whether a region is plain bytes."""
    return region.dtype == np.dtype("u1") and len(region.shape) == 1


def _hexdump(pieces: Iterator[tuple[int, bytes]], end: int) -> Iterator[str]:
    """Lines as hexdump -C has them: those that repeat the last are one star."""
    before, hidden = b"", False
    for at, piece in pieces:
        if piece == before and at + len(piece) < end:
            if not hidden:
                yield "*"
            hidden = True
            continue
        before, hidden = piece, False
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in piece)
        yield f"{at:010x}  {piece[:8].hex(' '):<23}  {piece[8:].hex(' '):<23}  |{text}|"


def _pieces(view: Any, name: str, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The bytes in lines, read in larger pieces."""
    for offset in range(start, end, PIECE):
        raw = view.read(name, offset, min(PIECE, end - offset))
        for at in range(0, len(raw), BYTES_A_LINE):
            yield offset + at, raw[at : at + BYTES_A_LINE]


def _values(
    view: Any, region: pagestore.Region, start: int, end: int
) -> Iterator[tuple[tuple[int, ...], list[Any]]]:
    """A few values at a time in C order, each line with the index of its first; none over a row."""
    size = region.dtype.itemsize
    row = int(np.prod(region.shape[1:], dtype=object)) if region.shape else 1
    across = region.shape[-1] if len(region.shape) > 1 else 0
    at, last = start * row, end * row
    while at < last and size:
        count = min(VALUES_A_LINE, last - at)
        if across:
            count = min(count, across - at % across)
        raw = view.read(region.name, at * size, count * size)
        yield index_of(at, region.shape), list(np.frombuffer(raw, region.dtype, count))
        at += count


def index_of(element: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The index of an element that is counted in C order."""
    return tuple(int(i) for i in np.unravel_index(element, shape)) if shape else ()


def index_text(index: tuple[int, ...]) -> str:
    """An index as Python has it."""
    return f"[{', '.join(map(str, index))}]"


def value_text(value: Any) -> str:
    """A value of an array in few letters."""
    return f"{value:.9g}" if isinstance(value, np.floating) else printable(str(value))


def _column(value: Any) -> str:
    return f" {value_text(value):>15}"
