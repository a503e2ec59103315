"""``pagestore log``: the versions that led to one, or all of them as a graph."""

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import click

import pagestore
from pagestore.cli import as_json as json
from pagestore.cli.arguments import store_argument
from pagestore.cli.as_json import json_option
from pagestore.cli.graph import show_graph, version_object
from pagestore.cli.output import console, for_eyes, is_terminal, line
from pagestore.cli.refs import look_up, open_store
from pagestore.cli.screen import Screen


@click.command()
@store_argument
@click.argument("ref", required=False)
@click.option("-n", "--number", type=click.IntRange(0), help="Show no more than this many.")
@click.option("--all", "every", is_flag=True, help="Show every version that is kept, as a graph.")
@json_option
def log(store_path: Path, ref: str | None, number: int | None, every: bool, as_json: bool) -> None:
    """Show the versions that led to REF, newest first.

    REF is main if none is given; versions that were not kept are not shown.

    \b
    Examples:
      pagestore log market.ps
      pagestore log market.ps what-if -n 5
      pagestore log market.ps --all

    \b
    In a pipe: version id, parent id, time, names, message.
    """
    if every and ref is not None:
        raise click.UsageError("--all shows more than what led to a REF")
    with open_store(store_path, "r") as store:
        versions: Iterable[pagestore.Version]
        if every:
            versions = reversed(store.versions(number))
        else:
            versions = islice(look_up(store, ref or "main", lambda at: _log(store, at)), number)
        if as_json:
            json.write(version_object(version) for version in versions)
        elif not is_terminal(sys.stdout):
            for version in versions:
                line(version.id, version.parent, version.time, version.names, version.message)
        elif every:
            show_graph(versions, Screen(console()))
        else:
            _show(versions)


def _log(store: pagestore.Store, ref: str) -> Iterator[pagestore.Version]:
    return store.log(store.version(ref))


def _show(versions: Iterable[pagestore.Version]) -> None:
    screen = Screen(console())
    for version in versions:
        parts: list[str | tuple[str, str]] = [(f"{version.id:>6}", "yellow"), "  "]
        parts.append(for_eyes(version.time))
        if version.names:
            parts.append((f"  ({for_eyes(version.names)})", "bold cyan"))
        screen.say(*parts, f"  {for_eyes(version.message)}", wrap=True)
