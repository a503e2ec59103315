"""``pagestore compact``: give free space back to the file system."""

from pathlib import Path

import click

from pagestore.cli.arguments import store_argument
from pagestore.cli.output import counted, human_size, result
from pagestore.cli.progress import working
from pagestore.cli.refs import open_store


@click.command()
@store_argument
def compact(store_path: Path) -> None:
    """Give free space back to the file system.

    Moves pages together, so that what is free is in one piece.

    \b
    Example:
      pagestore delete market.ps monday && pagestore compact market.ps

    \b
    In a pipe: pages moved, bytes given back.
    """
    with open_store(store_path, "r+") as store:
        with working("compacting"):
            done = store.compact()
        result(
            (done.moved_pages, done.freed_bytes),
            f"moved {counted(done.moved_pages, 'page')}, gave back {human_size(done.freed_bytes)}",
        )
