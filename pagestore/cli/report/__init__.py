"""``pagestore report``: a store as one HTML page, to be looked at in a browser."""

from pathlib import Path

import click

from pagestore.cli.arguments import store_argument
from pagestore.cli.output import counted, human_size, printable, result
from pagestore.cli.progress import working
from pagestore.cli.refs import open_store
from pagestore.cli.report.facts import collect
from pagestore.cli.report.page import page
from pagestore.cli.target import open_target


@click.command()
@store_argument
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    default="report.html",
    show_default=True,
    help="Where to write it; - for standard output.",
)
def report(store_path: Path, output: str) -> None:
    """Show STORE as a page for a browser.

    One file, which needs nothing else: the graph of versions, which pages each one changed, what
    differs between two of them, and where the space is. STORE is only read; another program may
    write it meanwhile.

    \b
    Examples:
      pagestore report market.ps
      pagestore report market.ps -o market.html

    \b
    In a pipe: the file, versions, bytes; nothing if the file is standard output.
    """
    damaged: list[str] = []
    with open_store(store_path, "r") as store, working("comparing versions"):
        data = collect(store, damaged)
    whole = page(data)
    with open_target(output) as file:
        file.write(whole)
    if output != "-":
        versions = len(data["versions"]["id"])
        facts = f"{counted(versions, 'version')}, {human_size(len(whole))}"
        result((output, versions, len(whole)), f"{printable(output)}: {facts}")
