"""``pagestore inspect --map``: the pages of a region as a picture, several to a cell if need be.

A cell's colour tells the newest birth among its pages, the fewest versions that share one of them,
or where in the arena the first of them lies; its block tells how many are stored, or by slots in
how many pieces they lie.
"""

import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

import pagestore
from pagestore.cli import as_json
from pagestore.cli.output import console, counted, human_size, is_terminal, line, printable
from pagestore.cli.screen import Screen

ROWS = 16
RAMP = ("dodger_blue2", "dark_cyan", "green4", "dark_goldenrod", "dark_orange3", "red3")
SHARED = (1, 2, 3, 5, 9, 65)  # from how many versions on a colour stands for
FILL = "·░▒▓█"
CELLS = 1024  # for programs


class Cells(NamedTuple):
    """Neighbouring pages that are drawn as one; columns of equal length."""

    start: Any
    stop: Any
    stored: Any
    value: Any
    """What the colour tells; of the pages that are stored."""
    pieces: Any


class Scale(NamedTuple):
    """The colours: which of them a value has, and what each stands for."""

    colour_of: Callable[[Any], Any]
    labels: list[str]


def show_map(
    store: pagestore.Store,
    version: pagestore.Version,
    region: pagestore.Region,
    start: int,
    stop: int | None,
    *,
    by: str,
    as_json: bool,
) -> None:
    """Draw some pages of a region."""
    table = store.page_table(version, region.name, start, stop, sharing=by == "sharing")
    if as_json:
        _write(table, by)
    elif not is_terminal(sys.stdout):
        for row in _rows(_cells(table, by, CELLS)):
            line(*row)
    else:
        _draw(Screen(console()), store, version, table, by)


def _cells(table: pagestore.PageTable, by: str, most: int) -> Cells:
    """Gather pages so that there are at most so many cells; a power of two of them in each."""
    size = 1
    while -(-table.stop // size) - table.start // size > most:
        size *= 2
    first = table.start // size
    edges = np.arange(first, max(first, -(-table.stop // size)) + 1) * size
    start = np.maximum(edges[:-1], table.start)
    stop = np.minimum(edges[1:], table.stop)
    at = np.searchsorted(table.page, start), np.searchsorted(table.page, stop)
    stored = at[1] - at[0]
    value = np.zeros(len(start), np.int64)
    pieces = np.zeros(len(start), np.int64)
    some = stored > 0
    if some.any():
        columns = {"birth": table.birth, "sharing": table.holders, "slot": table.slot}
        fold = np.maximum if by == "birth" else np.minimum
        column: Any = columns[by]
        value[some] = fold.reduceat(column, at[0][some])
        new = np.ones(len(table.page), np.int64)
        new[1:] = (np.diff(table.page) != 1) | (np.diff(table.slot) != 1)
        inner = np.add.reduceat(new, at[0][some]) - new[at[0][some]]
        pieces[some] = 1 + inner
    return Cells(start, stop, stored, value, pieces)


def _rows(cells: Cells) -> Iterator[tuple[int, ...]]:
    yield from zip(*(column.tolist() for column in cells), strict=True)


def _write(table: pagestore.PageTable, by: str) -> None:
    names = ("start", "stop", "stored", "value", "pieces")
    as_json.write(
        {"type": "cell", "by": by, **dict(zip(names, row, strict=True))}
        for row in _rows(_cells(table, by, CELLS))
    )


# ---------------------------------------------------------------------------------- for eyes


def _draw(
    screen: Screen,
    store: pagestore.Store,
    version: pagestore.Version,
    table: pagestore.PageTable,
    by: str,
) -> None:
    label = len(f"{max(table.stop - 1, 0):,}")
    width = 1 << (screen.width - label - 2).bit_length() - 1  # a power of two: round page numbers
    cells = _cells(table, by, width * ROWS)
    scale = _scale(store, cells, by)
    screen.say(
        (printable(table.region), "bold cyan"), f" of version {version.id:,}, by {by}",
        (f"  {len(table):,} of {table.stop - table.start:,} pages stored, in {table.runs:,} runs",
         "dim"),
    )  # fmt: skip
    glyphs, colours = _looks(cells, scale, by)
    for i in range(0, len(cells.start), width):
        parts: list[str | tuple[str, str]] = [(f"{int(cells.start[i]):>{label},}", "dim"), "  "]
        parts += list(zip(glyphs[i : i + width], colours[i : i + width], strict=True))
        screen.say(*parts)
    _explain(screen, cells, scale, by, store.page_size)


def _looks(cells: Cells, scale: Scale, by: str) -> tuple[list[str], list[str]]:
    """Block and colour of each cell."""
    if by == "slot":
        fill = 4 - np.minimum(3, np.log2(np.maximum(cells.pieces, 1)).astype(int))
    else:
        fill = np.ceil(4 * cells.stored / np.maximum(cells.stop - cells.start, 1)).astype(int)
    fill[cells.stored == 0] = 0
    colour = scale.colour_of(cells.value)
    glyphs = [FILL[n] for n in fill.tolist()]
    return glyphs, [RAMP[c] if n else "bright_black" for n, c in zip(fill, colour, strict=True)]


def _scale(store: pagestore.Store, cells: Cells, by: str) -> Scale:
    if by == "sharing":
        labels = [str(a) if b == a + 1 else f"{a}-{b - 1}" for a, b in itertools.pairwise(SHARED)]
        edges = np.array(SHARED)
        colours = len(RAMP) - 1
        # few versions that share a page are what one looks for: the warm end of the ramp
        return Scale(
            lambda v: colours - np.clip(np.searchsorted(edges, v, "right") - 1, 0, colours),
            [*labels, f"{SHARED[-1]} or more"][::-1],
        )
    if by == "slot":
        slots = max(store.stats().arena_bytes // store.page_size, 1)
        labels = [f"{i * 100 // 6}-{(i + 1) * 100 // 6} %" for i in range(6)]
        return Scale(lambda v: np.minimum(v * 6 // slots, 5), labels)
    known = np.unique(cells.value[cells.stored > 0])
    cuts = np.array_split(known, min(len(RAMP), max(len(known), 1)))
    ends = np.array([part[-1] for part in cuts if len(part)])
    labels = [
        f"{part[0]:,}" if len(part) == 1 else f"{part[0]:,}-{part[-1]:,}"
        for part in cuts
        if len(part)
    ]
    shift = len(RAMP) - len(labels)  # the newest is always the same colour
    return Scale(lambda v: np.minimum(np.searchsorted(ends, v) + shift, len(RAMP) - 1), labels)


def _explain(screen: Screen, cells: Cells, scale: Scale, by: str, page_size: int) -> None:
    """The legend."""
    what = {
        "birth": "written by version", "sharing": "versions that share it",
        "slot": "place in the arena",
    }[by]  # fmt: skip
    shift = len(RAMP) - len(scale.labels)
    parts: list[str | tuple[str, str]] = [f"{what}: "]
    parts += [(f" █ {text}", RAMP[i + shift]) for i, text in enumerate(scale.labels)]
    screen.say()
    screen.say(*parts, wrap=True)
    each = int((cells.stop - cells.start).max()) if len(cells.start) else 0
    size = f"a cell is {counted(each, 'page')} ({human_size(each * page_size)})"
    pick = {"birth": "the newest", "sharing": "the least shared", "slot": "the first"}[by]
    full = (
        "█ in one piece, ▓ two, ▒ four, ░ eight or more" if by == "slot" else "█ stored, ░ partly"
    )
    one = f", with the colour of {pick} of them" if each > 1 else ""
    screen.say((f"{size}{one}; {full}, · zeros", "dim"), wrap=True)
