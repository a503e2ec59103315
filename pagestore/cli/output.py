"""What a command prints: for eyes on a terminal, for programs in a pipe.

A cell keeps its own kind of value until it is printed, so that one table serves both: sizes
are ``12.0 KiB`` to a person and ``12288`` to a program, times are local to a person and UTC
to a program. In a pipe every row is one line, its cells separated by tabs; control characters
in names and messages are escaped in both, so no message can break a line or a terminal.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text


class Bytes(int):
    """A size, printed with a unit for a person."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # ends as in every other command, not with rich's status


Cell = str | int | datetime | tuple[str, ...] | None


def is_terminal(stream: TextIO) -> bool:
    """Say whether a person looks at `stream`; the environment has no say in this."""
    return stream.isatty()


def console(stream: TextIO | None = None) -> Console:
    """Return a console on `stream` that is plain unless that is a terminal."""
    out = stream or sys.stdout
    eyes = is_terminal(out)
    return _Console(
        file=out,
        force_terminal=eyes,
        no_color=None if eyes else True,
        width=None if eyes else 200,
        markup=False,
        highlight=False,
        emoji=False,
    )


def table(columns: Mapping[str, str], rows: Iterable[Sequence[Cell]]) -> None:
    """Print `rows`; `columns` maps each heading to its style."""
    if not is_terminal(sys.stdout):
        for row in rows:
            line(*row)
        return
    grid = Table(box=None, pad_edge=False, header_style="bold")
    cells = list(rows)
    for index, (heading, style) in enumerate(columns.items()):
        number = bool(cells) and isinstance(cells[0][index], int)
        grid.add_column(heading, style=style, justify="right" if number else "left")
    for row in cells:
        grid.add_row(*(Text(for_eyes(cell)) for cell in row))
    console().print(grid)


def result(cells: Sequence[Cell], sentence: str) -> None:
    """Print what a command did: a sentence to a person, its facts to a program."""
    if is_terminal(sys.stdout):
        console().print(Text(sentence))
    else:
        line(*cells)


def line(*cells: Cell) -> None:
    """Print one row for a program."""
    sys.stdout.write("\t".join(map(for_program, cells)) + "\n")


def for_program(cell: Cell) -> str:
    """Return `cell` as it stands in a pipe."""
    if isinstance(cell, datetime):
        return cell.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(cell, tuple):
        return ",".join(map(printable, cell))
    return "" if cell is None else printable(str(int(cell) if isinstance(cell, int) else cell))


def for_eyes(cell: Cell) -> str:
    """Return `cell` as it stands on a terminal."""
    if isinstance(cell, Bytes):
        return human_size(cell)
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, datetime):
        return f"{cell.astimezone():%Y-%m-%d %H:%M:%S}"
    if isinstance(cell, tuple):
        return ", ".join(map(printable, cell))
    return "" if cell is None else printable(cell)


def human_size(size: int) -> str:
    """Return `size` bytes with a unit: ``512 B``, ``12.0 KiB``."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{size} B" if unit == "B" else f"{value:,.1f} {unit}"


def counted(number: int, noun: str) -> str:
    """Return ``1 page`` or ``2 pages``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def printable(text: str) -> str:
    """Return `text` with its control characters escaped, as in a Python string."""
    return "".join(
        character if character.isprintable() else _escaped(character) for character in text
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
