"""``pagestore branch``: start a line of work, or list them."""

from pathlib import Path

import click

from pagestore.cli.arguments import at_option, store_argument
from pagestore.cli.listing import list_names
from pagestore.cli.output import printable, result
from pagestore.cli.refs import look_up, open_store


@click.command()
@store_argument
@click.argument("name", required=False)
@at_option
def branch(store_path: Path, name: str | None, ref: str) -> None:
    """Start a branch of STORE; without NAME, list the branches.

    \b
    Examples:
      pagestore branch market.ps what-if --at monday
      pagestore put market.ps prices shocked.npy --branch what-if
      pagestore branch market.ps

    \b
    In a pipe: name, version id, time, message.
    """
    if name is None:
        with open_store(store_path, "r") as store:
            list_names(store.branches)
        return
    with open_store(store_path, "r+") as store:
        version = look_up(store, ref, lambda at: store.create_branch(name, at=at))
        result(
            (name, version.id, version.time, version.message),
            f"branch {printable(name)} starts at version {version.id}",
        )
