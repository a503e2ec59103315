"""``pagestore inspect``: what is in a store, in a version, in a region."""

from pathlib import Path

import click

from pagestore.cli.arguments import store_argument
from pagestore.cli.as_json import json_option
from pagestore.cli.failure import FOUND, Quiet
from pagestore.cli.inspect_map import show_map
from pagestore.cli.inspect_pages import show_contents, show_table
from pagestore.cli.inspect_store import show_store
from pagestore.cli.inspect_version import show_version
from pagestore.cli.refs import looking_at, open_store, region_of

RANGE = "From A to before B; either may be left out."


def parse_range(text: str | None) -> tuple[int, int | None]:
    """Return the two numbers of ``A:B``; ``A`` alone is one page, row or byte."""
    if text is None:
        return 0, None
    first, colon, last = text.partition(":")
    try:
        start = int(first or 0)
        stop = start + 1 if not colon else int(last) if last else None
    except ValueError:
        raise click.BadParameter(f"'{text}' is not A:B", param_hint="--range") from None
    if start < 0 or (stop is not None and stop < start):
        raise click.BadParameter(f"'{text}' is no range", param_hint="--range")
    return start, stop


@click.command()
@store_argument
@click.argument("ref", required=False)
@click.option("--table", metavar="REGION", help="Where the pages of a region lie.")
@click.option("--map", "map_", metavar="REGION", help="The pages of a region as a picture.")
@click.option("--dump", metavar="REGION", help="What a region holds: bytes, or values.")
@click.option("--range", "range_", metavar="A:B", help=f"Of pages; of rows or bytes. {RANGE}")
@click.option(
    "--by",
    type=click.Choice(["birth", "sharing", "slot"]),
    default="birth",
    show_default=True,
    help="What the colours of the map tell.",
)
@click.option("--sharing", is_flag=True, help="In the table, count who shares each page.")
@click.option("-n", "--number", type=click.IntRange(0), default=12, help="Newest versions shown.")
@json_option
def inspect(
    store_path: Path,
    ref: str | None,
    table: str | None,
    map_: str | None,
    dump: str | None,
    range_: str | None,
    by: str,
    sharing: bool,
    number: int,
    as_json: bool,
) -> None:
    """Show what is in STORE, or in its version REF.

    Without REF: identity, space, pins, how the heads of the branches lie, and the newest versions
    as a graph. With REF: its regions, and what deleting it would free. With --table, --map or
    --dump: a region of REF (main, if none is given). Reads only, and holds nothing back. Exits
    with 1 if something is damaged; the rest is shown.

    \b
    Examples:
      pagestore inspect market.ps
      pagestore inspect market.ps monday
      pagestore inspect market.ps monday --map prices --by sharing
      pagestore inspect market.ps monday --table prices --range 0:64
      pagestore inspect market.ps monday --dump prices --range 10:12

    \b
    In a pipe, the first column says what a line is about; see docs/inspect.md.
    """
    if sum(option is not None for option in (table, map_, dump)) > 1:
        raise click.UsageError("--table, --map and --dump exclude each other")
    start, stop = parse_range(range_)
    region = table or map_ or dump
    if region is None:
        if range_ is not None:
            raise click.UsageError("--range goes with --table, --map or --dump")
        if ref is None:
            if not show_store(store_path, number, as_json):
                raise Quiet(FOUND)
            return
    with open_store(store_path, "r") as store, looking_at(store, ref or "main") as version:
        if region is None:
            if not show_version(store, version, as_json):
                raise Quiet(FOUND)
            return
        found = region_of(version, region)
        if table:
            show_table(store, version, found, start, stop, sharing=sharing, as_json=as_json)
        elif map_:
            show_map(store, version, found, start, stop, by=by, as_json=as_json)
        else:
            show_contents(store, version, found, start, stop, as_json=as_json)
