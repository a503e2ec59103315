"""``pagestore du``: what takes the space, and what deleting some snapshots would free."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

import pagestore
from pagestore.cli import as_json as json
from pagestore.cli.arguments import store_argument
from pagestore.cli.as_json import json_option
from pagestore.cli.output import (
    Bytes,
    Cell,
    console,
    human_size,
    is_terminal,
    line,
    printable,
    table,
)
from pagestore.cli.progress import working
from pagestore.cli.refs import look_up, looking_at, open_store
from pagestore.cli.screen import Screen

COLUMNS = {"version": "yellow", "names": "cyan", "referred": "", "exclusive": "", "new": ""}


@click.command()
@store_argument
@click.argument("refs", metavar="REF...", nargs=-1)
@click.option("-n", "--number", type=click.IntRange(0), help="Show no more than this many.")
@click.option(
    "--sort",
    type=click.Choice(["version", "referred", "exclusive", "new"]),
    default="exclusive",
    show_default=True,
    help="What comes first, the largest, when no REF is given.",
)
@json_option
def du(
    store_path: Path, refs: tuple[str, ...], number: int | None, sort: str, as_json: bool
) -> None:
    """Show what takes space in STORE, or what deletions would free.

    "referred" is what a version shows; "exclusive" is what no other version shows too; "new" is
    what the nearest kept version before it has not. A REF that is a name stands for that name
    alone: its version stays if it has another. An id stands for the version with all its names.

    \b
    Examples:
      pagestore du market.ps -n 10
      pagestore du market.ps monday tuesday wednesday

    \b
    In a pipe: version id, names, referred, exclusive and new bytes.
    With REF: REF, version id, bytes freed by it alone, what keeps it;
    last, "total", the number of versions, bytes freed by all together.
    """
    with open_store(store_path, "r") as store:
        if refs:
            _show_freed(store, refs, as_json)
        else:
            _show_all(store, number, sort, as_json)


# ---------------------------------------------------------------------------- all the versions


def _show_all(store: pagestore.Store, number: int | None, sort: str, as_json: bool) -> None:
    with working("counting"):
        space = store.space()
        versions = [version for version in store.versions() if version.id in space]
    key = sort if sort == "version" else f"{sort}_bytes"
    versions.sort(key=lambda version: getattr(space[version.id], key), reverse=True)
    shown = versions[:number]
    if as_json:
        json.write(_object(version, space[version.id]) for version in shown)
        return
    table(COLUMNS, [_row(version, space[version.id]) for version in shown])
    if is_terminal(sys.stdout):
        _sum_up(Screen(console()), space, len(versions) - len(shown))


def _row(version: pagestore.Version, space: pagestore.VersionSpace) -> tuple[Cell, ...]:
    return (
        version.id, version.names, Bytes(space.referred_bytes), Bytes(space.exclusive_bytes),
        Bytes(space.new_bytes),
    )  # fmt: skip


def _object(version: pagestore.Version, space: pagestore.VersionSpace) -> dict[str, Any]:
    return {
        "type": "space",
        "version": version.id,
        "names": version.names,
        "referred_bytes": space.referred_bytes,
        "exclusive_bytes": space.exclusive_bytes,
        "new_bytes": space.new_bytes,
    }


def _sum_up(screen: Screen, space: Mapping[int, pagestore.VersionSpace], more: int) -> None:
    stored = Bytes(sum(one.new_bytes for one in space.values()))
    alone = Bytes(sum(one.exclusive_bytes for one in space.values()))
    if more:
        screen.say((f"… {more:,} more versions", "dim"))
    screen.say(
        (f"{len(space):,} versions, {human_size(stored)} together, of which "
         f"{human_size(stored - alone)} are shared", "dim"), wrap=True,
    )  # fmt: skip


# ------------------------------------------------------------------------- what would be freed


def _show_freed(store: pagestore.Store, refs: tuple[str, ...], as_json: bool) -> None:
    asked = [_by_number(ref, store) for ref in refs]
    rows = list(_each(store, refs, asked))
    total = store.freed_by(*asked)
    if as_json:
        json.write({"type": "freed", **row} for row in rows)
        json.write([{
            "type": "total", "refs": refs, "versions": total.versions,
            "freed_bytes": total.freed_bytes, "staying": total.staying,
        }])  # fmt: skip
        return
    cells: list[tuple[Cell, ...]] = [
        (row["ref"], row["version"], Bytes(row["freed_bytes"]), row["staying"]) for row in rows
    ]
    if not is_terminal(sys.stdout):
        for row in cells:
            line(*row)
        line("total", len(total.versions), Bytes(total.freed_bytes))
        return
    table({"ref": "cyan", "version": "yellow", "frees": "", "stays, because": "dim"}, cells)
    screen = Screen(console())
    number = len(total.versions)
    screen.say()
    screen.say(
        ("together: ", "bold"), f"{number:,} version{'' if number == 1 else 's'} would go, and ",
        (human_size(total.freed_bytes), "bold"), " come free", wrap=True,
    )  # fmt: skip
    for version, reason in total.staying.items():
        screen.say(f"version {version:,} stays: {printable(reason)}", wrap=True)


def _each(
    store: pagestore.Store, refs: tuple[str, ...], asked: list[pagestore.Version | str]
) -> Iterator[dict[str, Any]]:
    for ref, one in zip(refs, asked, strict=True):
        with looking_at(store, ref) as version:
            alone = store.freed_by(one)
        yield {
            "ref": ref,
            "version": version.id,
            "freed_bytes": alone.freed_bytes,
            "staying": next(iter(alone.staying.values()), None),
        }


def _by_number(ref: str, store: pagestore.Store) -> pagestore.Version | str:
    """A name as it is, anything else as the version that it leads to."""
    version = look_up(store, ref, store.version)
    return ref if ref in store.snapshots or ref in store.branches else version
