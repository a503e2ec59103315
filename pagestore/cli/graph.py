"""The versions of a store as a graph in text: a column for each line of work, newest first.

A version has one parent, so lines only part; going back in time they meet. A column that has become
free is taken by the next line that begins.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pagestore
from pagestore.cli.output import for_eyes
from pagestore.cli.screen import Screen

COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")


class Row(NamedTuple):
    """A line of the picture: its columns, and the version that it is about, if any."""

    cells: tuple[str, ...]
    colours: tuple[str, ...]
    version: pagestore.Version | None


class _Columns:
    """Which version each column waits for; None: free."""

    def __init__(self) -> None:
        self.waits: list[int | None] = []
        self._colour: list[str] = []
        self._next = 0

    def place(self, version: int) -> list[int]:
        """The columns that wait for a version; a new one if none does."""
        found = [i for i, wanted in enumerate(self.waits) if wanted == version]
        if found:
            return found
        at = self.waits.index(None) if None in self.waits else len(self.waits)
        self.waits[at : at + 1] = [version]
        self._colour[at : at + 1] = [COLOURS[self._next % len(COLOURS)]]
        self._next += 1
        return [at]

    def row(self, marks: dict[int, str], version: pagestore.Version | None) -> Row:
        cells = [marks.get(i, " " if w is None else "│") for i, w in enumerate(self.waits)]
        return Row(tuple(cells), tuple(self._colour), version)

    def meet(self, places: list[int]) -> Row:
        """Let several columns that wait for the same version become one."""
        first, *others = places
        marks = {first: "├"}
        for i in range(first + 1, others[-1] + 1):
            free = self.waits[i] is None
            marks[i] = "╯" if i == others[-1] else "┴" if i in others else "─" if free else "┼"
        row = self.row(marks, None)
        for i in others:
            self.waits[i] = None
        return row

    def trim(self) -> None:
        while self.waits and self.waits[-1] is None:
            self.waits.pop()
            self._colour.pop()


def rows(versions: Iterable[pagestore.Version]) -> Iterator[Row]:
    """Yield the lines of the picture for versions that come newest first."""
    columns = _Columns()
    for version in versions:
        places = columns.place(version.id)
        if len(places) > 1:
            yield columns.meet(places)
            columns.trim()
        yield columns.row({places[0]: "●"}, version)
        columns.waits[places[0]] = version.parent
        columns.trim()
    if columns.waits:  # parents that are not shown
        yield columns.row({i: "┆" for i, w in enumerate(columns.waits) if w is not None}, None)


def drawn(row: Row) -> Iterator[tuple[str, str]]:
    """Yield the pieces of a line with their styles; a line that goes across joins its columns."""
    crossing = False
    for cell, colour in zip(row.cells, row.colours, strict=False):
        yield cell, colour
        crossing = (crossing or cell == "├") and cell != "╯"
        yield ("─" if crossing else " "), colour


def show_graph(versions: Iterable[pagestore.Version], screen: Screen) -> None:
    """Draw versions, newest first, as a graph with branches and names."""
    shown = list(versions)
    width = max((len(str(version.id)) for version in shown), default=0)
    for row in rows(shown):
        parts: list[str | tuple[str, str]] = list(drawn(row))
        version = row.version
        if version is not None:
            parts += [" ", (f"{version.id:>{width}}", "yellow"), "  ", for_eyes(version.time)]
            if version.names:
                parts += ["  ", (f"({for_eyes(version.names)})", "bold cyan")]
            parts.append(f"  {for_eyes(version.message)}" if version.message else "")
        screen.say(*parts)


def version_object(version: pagestore.Version) -> dict[str, Any]:
    """A version as JSON has it, without its regions."""
    names = ("id", "parent", "time", "message", "names")
    return {"type": "version", **{name: getattr(version, name) for name in names}}
