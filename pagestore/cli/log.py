"""``pagestore log``: the versions that led to one."""

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import click
from rich.text import Text

import pagestore
from pagestore.cli.arguments import store_argument
from pagestore.cli.output import console, for_eyes, is_terminal, line
from pagestore.cli.refs import look_up, open_store


@click.command()
@store_argument
@click.argument("ref", default="main")
@click.option("-n", "--number", type=click.IntRange(0), help="Show no more than this many.")
def log(store_path: Path, ref: str, number: int | None) -> None:
    """Show the versions that led to REF, newest first.

    REF is main if none is given; versions that were not kept are not shown.

    \b
    Examples:
      pagestore log market.ps
      pagestore log market.ps what-if -n 5

    \b
    In a pipe: version id, parent id, time, names, message.
    """
    with open_store(store_path, "r") as store:
        look_up(store, ref, store.version)
        versions = islice(store.log(ref), number)
        if is_terminal(sys.stdout):
            _show(versions)
            return
        for version in versions:
            line(version.id, version.parent, version.time, version.names, version.message)


def _show(versions: Iterator[pagestore.Version]) -> None:
    screen = console()
    for version in versions:
        entry = Text.assemble((f"{version.id:>6}", "yellow"), "  ", for_eyes(version.time))
        if version.names:
            entry.append(f"  ({for_eyes(version.names)})", "bold cyan")
        entry.append(f"  {for_eyes(version.message)}")
        screen.print(entry, soft_wrap=True)
