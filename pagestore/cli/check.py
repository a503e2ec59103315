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
@click.option(
    "--untrusted",
    is_flag=True,
    help="STORE is from a stranger: verify its files before anything maps them; then as --data.",
)
def check(store_path: Path, data: bool, untrusted: bool) -> None:
    """Verify STORE; exit with 1 if something is damaged.

    What --untrusted says is true of the files as they are then. Give it a private copy, which
    nobody else can write to.

    \b
    Examples:
      pagestore check market.ps
      pagestore check market.ps --data || echo "restore it from a copy"
      pagestore check copy.ps --untrusted && pagestore log copy.ps

    \b
    In a pipe: the invariant that does not hold, where, what was found.
    """
    data = data or untrusted
    with working(f"checking {store_path}"):
        found = list(_findings(store_path, data, untrusted))
    for invariant, where, what in found:
        _show(invariant, where, what)
    if found:
        raise Quiet(FOUND)
    if is_terminal(sys.stdout):
        deep = "every page verified" if data else "contents not read (--data does)"
        console().print(f"{printable(str(store_path))}: no damage found, {deep}")


def _findings(store_path: Path, data: bool, untrusted: bool) -> Iterator[Row]:
    try:
        if untrusted:
            pagestore.examine(store_path)
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
