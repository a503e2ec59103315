"""How far a long command is, on standard error and only when that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from pagestore.cli.output import console, is_terminal

_SHORT = 32 * 1024 * 1024  # done before anybody has read the bar


@contextmanager
def bytes_done(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar of bytes; the block calls what it is given with each piece's size."""
    if not is_terminal(sys.stderr) or (total is not None and total < _SHORT):
        yield lambda _: None
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        console=console(sys.stderr),
        transient=True,
    )
    with bar:
        task = bar.add_task(label, total=total)
        yield lambda size: bar.advance(task, size)


@contextmanager
def working(label: str) -> Iterator[None]:
    """Show that something goes on whose length nobody knows."""
    if not is_terminal(sys.stderr):
        yield
        return
    spinner = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console(sys.stderr),
        transient=True,
    )
    with spinner:
        spinner.add_task(label, total=None)
        yield
