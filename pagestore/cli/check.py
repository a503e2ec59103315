"""``pagestore check``: is everything as it must be?"""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

import pagestore
from pagestore.cli.arguments import store_argument
from pagestore.cli.failure import FOUND, Quiet, said
from pagestore.cli.output import console, is_terminal, line, printable
from pagestore.cli.progress import working
from pagestore.cli.refs import open_store

Row = tuple[str, str, str]


@click.command()
@store_argument
@click.option("--data", is_flag=True, help="Also read every page and verify its checksum.")
def check(store_path: Path, data: bool) -> None:
    """Verify STORE; exit with 1 if something is damaged.

    \b
    Examples:
      pagestore check market.ps
      pagestore check market.ps --data || echo "restore it from a copy"

    \b
    In a pipe: the invariant that does not hold, where, what was found.
    """
    with working(f"checking {store_path}"):
        found = list(_findings(store_path, data))
    for invariant, where, what in found:
        _show(invariant, where, what)
    if found:
        raise Quiet(FOUND)
    if is_terminal(sys.stdout):
        deep = "every page verified" if data else "contents not read (--data does)"
        console().print(f"{printable(str(store_path))}: no damage found, {deep}")


def _findings(store_path: Path, data: bool) -> Iterator[Row]:
    try:
        with open_store(store_path, "r") as store:
            for finding in store.check(data=data):
                yield str(finding.invariant), str(finding.where), str(finding.what)
    except pagestore.CorruptionError as error:  # too damaged even to go on looking
        yield "-", str(store_path), said(error)


def _show(invariant: str, where: str, what: str) -> None:
    if is_terminal(sys.stdout):
        console().print(printable(f"{invariant}  {where}: {what}"), soft_wrap=True)
    else:
        line(invariant, where, what)
