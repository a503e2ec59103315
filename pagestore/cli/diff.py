"""``pagestore diff``: which pages and values differ between two versions."""

import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.text import Text

import pagestore
from pagestore.cli import as_json as json
from pagestore.cli.arguments import store_argument
from pagestore.cli.as_json import json_option
from pagestore.cli.failure import FOUND, Quiet
from pagestore.cli.inspect_pages import index_text, is_bytes, value_text
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
from pagestore.cli.values import Differing, differing, elements, index_range

_STYLES = {"created": "green", "deleted": "red", "resized": "cyan", "written": "yellow"}
VALUES = 20

Compare = Callable[[pagestore.Change], Iterator[Differing]]


@click.command()
@store_argument
@click.argument("a")
@click.argument("b")
@click.option("--stat", is_flag=True, help="One line a region: how much changed in all.")
@click.option("--values", is_flag=True, help="Also the old and new values that differ.")
@click.option(
    "--most", type=click.IntRange(0), default=VALUES, show_default=True,
    help="Values shown of each range of pages.",
)  # fmt: skip
@click.option("--exit-code", is_flag=True, help="Exit with 1 if the versions differ.")
@json_option
def diff(
    store_path: Path,
    a: str,
    b: str,
    stat: bool,
    values: bool,
    most: int,
    exit_code: bool,
    as_json: bool,
) -> None:
    """Show which pages differ between two versions.

    Lists the ranges of pages that are not the same in A and B, and for arrays which elements they
    are; with --values, those of them that differ.

    \b
    Examples:
      pagestore diff market.ps monday tuesday
      pagestore diff market.ps monday tuesday --values --most 5
      pagestore diff market.ps main~1 main --stat

    \b
    In a pipe: region, kind, first page, page after the last, the same in bytes,
    the same in elements in C order. With --values, after each: "value", index,
    old, new. With --stat: region, kinds, pages, bytes.
    """
    if stat and (values or as_json):
        raise click.UsageError("--stat goes with neither --values nor --json")
    with (
        open_store(store_path, "r") as store,
        look_up(store, a, store.view) as old,
        look_up(store, b, store.view) as new,
    ):
        changes = store.diff(old.version, new.version)
        if stat:
            differ = _summarise(changes)
        else:
            compare = functools.partial(differing, old, new) if values else None
            differ = _Changes(old.version, new.version, compare, most).show(changes, as_json)
    if differ and exit_code:
        raise Quiet(FOUND)


class _Changes:
    """How changes are shown."""

    def __init__(
        self,
        old: pagestore.Version,
        new: pagestore.Version,
        compare: Compare | None,
        most: int,
    ) -> None:
        self._old = old
        self._new = new
        self._compare = compare
        self._most = most

    def show(self, changes: Iterator[pagestore.Change], as_json: bool) -> bool:
        """Show each as it is found; say whether there was any."""
        one = self._object if as_json else self._lines if is_terminal(sys.stdout) else self._rows
        differ = False
        for change in changes:
            differ = True
            one(change)
        return differ

    def _region(self, change: pagestore.Change) -> pagestore.Region:
        """The region as the newer version that has it."""
        here = self._old if change.kind == "deleted" else self._new
        return here.regions[change.region]

    def _values(self, change: pagestore.Change) -> tuple[list[Differing], int]:
        """The first values that differ, and how many more do."""
        if self._compare is None or change.kind != "written":
            return [], 0
        found = self._compare(change)
        first = list(itertools.islice(found, self._most))
        return first, sum(1 for _ in found)

    def _object(self, change: pagestore.Change) -> None:
        first, stop = elements(change, self._region(change))
        row: dict[str, Any] = {
            "type": "change", "region": change.region, "kind": change.kind,
            "start": change.start, "stop": change.stop,
            "byte_start": change.byte_start, "byte_stop": change.byte_stop,
            "element_start": first, "element_stop": stop,
        }  # fmt: skip
        if self._compare is not None:
            values, more = self._values(change)
            row["values"] = [{"index": v.index, "old": v.old, "new": v.new} for v in values]
            row["more_values"] = more
        json.write([row])

    def _rows(self, change: pagestore.Change) -> None:
        pages, size = (change.start, change.stop), (change.byte_start, change.byte_stop)
        line(
            change.region, change.kind, *pages, *size, *elements(change, self._region(change))
        )  # fmt: skip
        for value in self._values(change)[0]:
            line(
                "value", index_text(value.index), value_text(value.old), value_text(value.new)
            )  # fmt: skip

    def _lines(self, change: pagestore.Change) -> None:
        entry = Text.assemble((f"{change.kind:<8}", _STYLES.get(change.kind, "")))
        entry.append(f"  {printable(change.region)}")
        region = self._region(change)
        if change.stop > change.start:
            size = human_size(change.byte_stop - change.byte_start)
            entry.append(f"{'' if is_bytes(region) else _elements(change, region)}", "cyan")
            entry.append(f"  {_pages(change)}  ")
            entry.append(f"{size} at byte {change.byte_start:,}", "dim")
        screen = console()
        screen.print(entry, soft_wrap=True)
        values, more = self._values(change)
        for value in values:
            screen.print(_value(value), soft_wrap=True)
        if more:
            screen.print(Text(f"{'':<10}… {more:,} more values", "dim"))


def _value(value: Differing) -> Text:
    old, new = value_text(value.old), value_text(value.new)
    return Text.assemble(
        f"{'':<10}{index_text(value.index)}  ", (old, "red"), " → ", (new, "green")
    )


def _elements(change: pagestore.Change, region: pagestore.Region) -> str:
    return index_range(*elements(change, region), region.shape)


def _pages(change: pagestore.Change) -> str:
    last = change.stop - 1
    if change.start == last:
        return f"page {last:,}"
    return f"pages {change.start:,}-{last:,}"


def _summarise(changes: Iterable[pagestore.Change]) -> bool:
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
