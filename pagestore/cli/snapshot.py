"""``pagestore snapshot``: give a version a name that keeps it."""

from pathlib import Path

import click

from pagestore.cli.arguments import at_option, message_option, store_argument
from pagestore.cli.listing import list_names
from pagestore.cli.output import printable, result
from pagestore.cli.refs import look_up, open_store


@click.command()
@store_argument
@click.argument("name", required=False)
@at_option
@message_option
def snapshot(store_path: Path, name: str | None, ref: str, message: str) -> None:
    """Name a version of STORE; without NAME, list the snapshots.

    \b
    Examples:
      pagestore snapshot market.ps friday
      pagestore snapshot market.ps before-the-split --at main~3 -m "last good one"

    \b
    In a pipe: name, version id, time, message.
    """
    if name is None:
        with open_store(store_path, "r") as store:
            list_names(store.snapshots)
        return
    with open_store(store_path, "r+") as store:
        look_up(store, ref, lambda at: store.snapshot(name, at=at, message=message))
        version = store.snapshots[name]  # with the message of the name
        result(
            (name, version.id, version.time, version.message),
            f"snapshot {printable(name)} is version {version.id}",
        )
