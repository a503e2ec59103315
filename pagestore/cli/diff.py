"""``pagestore diff``: which pages differ between two versions."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click
from rich.text import Text

import pagestore
from pagestore.cli.arguments import store_argument
from pagestore.cli.failure import FOUND, Quiet
from pagestore.cli.output import (
    Bytes,
    console,
    human_size,
    is_terminal,
    line,
    printable,
    table,
)
from pagestore.cli.refs import look_up, open_store

_STYLES = {"created": "green", "deleted": "red", "resized": "cyan", "written": "yellow"}


@click.command()
@store_argument
@click.argument("a")
@click.argument("b")
@click.option("--stat", is_flag=True, help="One line a region: how much changed in all.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if the versions differ.")
def diff(store_path: Path, a: str, b: str, stat: bool, exit_code: bool) -> None:
    """Show which pages differ between two versions.

    Lists the ranges of pages that are not the same in A and B.

    \b
    Examples:
      pagestore diff market.ps monday tuesday
      pagestore diff market.ps main~1 main --stat

    \b
    In a pipe: region, kind, first page, page after the last, the same in bytes.
    With --stat: region, kinds, pages, bytes.
    """
    with open_store(store_path, "r") as store:
        for ref in (a, b):
            look_up(store, ref, store.version)
        changes = store.diff(a, b)
        differ = _summarise(changes) if stat else _list(changes)
    if differ and exit_code:
        raise Quiet(FOUND)


def _list(changes: Iterator[pagestore.Change]) -> bool:
    show = _show if is_terminal(sys.stdout) else _print
    differ = False
    for change in changes:
        differ = True
        show(change)
    return differ


def _print(change: pagestore.Change) -> None:
    pages = (change.start, change.stop)
    line(change.region, change.kind, *pages, change.byte_start, change.byte_stop)


def _show(change: pagestore.Change) -> None:
    entry = Text.assemble((f"{change.kind:<8}", _STYLES.get(change.kind, "")))
    entry.append(f"  {printable(change.region)}")
    if change.stop > change.start:
        size = human_size(change.byte_stop - change.byte_start)
        entry.append(f"  {_pages(change)}  ")
        entry.append(f"{size} at byte {change.byte_start:,}", "dim")
    console().print(entry, soft_wrap=True)


def _pages(change: pagestore.Change) -> str:
    last = change.stop - 1
    if change.start == last:
        return f"page {last:,}"
    return f"pages {change.start:,}-{last:,}"


def _summarise(changes: Iterator[pagestore.Change]) -> bool:
    kinds: dict[str, set[str]] = {}
    pages: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for change in changes:
        kinds.setdefault(change.region, set()).add(change.kind)
        pages[change.region] = pages.get(change.region, 0) + change.stop - change.start
        sizes[change.region] = sizes.get(change.region, 0) + change.byte_stop - change.byte_start
    table(
        {"region": "cyan", "changes": "", "pages": "yellow", "bytes": ""},
        (
            (region, tuple(sorted(kinds[region])), pages[region], Bytes(sizes[region]))
            for region in sorted(kinds)
        ),
    )
    return bool(kinds)
