"""``pagestore stats``: where the space is."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

import pagestore
from pagestore.cli.arguments import store_argument
from pagestore.cli.output import Bytes, Cell, console, is_terminal, line, table
from pagestore.cli.progress import working
from pagestore.cli.refs import open_store


@click.command()
@store_argument
def stats(store_path: Path) -> None:
    """Show how much space STORE uses, and what each name keeps.

    "referred" is what a version shows; "exclusive" is what no other version shows too: what is
    set free when its last name is deleted.

    \b
    In a pipe, first: what, value (page_size, versions, and sizes in bytes).
    Then: snapshot or branch, name, version id, referred bytes, exclusive bytes.
    """
    with open_store(store_path, "r") as store:
        with working("counting"):
            found, space = store.stats(), store.space()
            names = list(_names(store, space))
        if is_terminal(sys.stdout):
            totals = [(_label(str(what)), value) for what, value in _totals(found)]
            table({"store": "", str(store_path): "bold"}, totals)
            console().print()
            columns = {"": "dim", "name": "cyan", "version": "yellow"}
            table(columns | {"referred": "", "exclusive": ""}, names)
            return
        for row in (*_totals(found), *names):
            line(*row)


def _label(what: str) -> str:
    return what.removesuffix("_bytes").replace("_", " ")


def _totals(found: pagestore.Stats) -> Iterator[tuple[Cell, Cell]]:
    yield "page_size", Bytes(found.page_size)
    yield "versions", found.versions
    yield "arena_bytes", Bytes(found.arena_bytes)
    yield "referred_bytes", Bytes(found.referred_bytes)
    yield "free_bytes", Bytes(found.free_bytes)
    yield "catalog_bytes", Bytes(found.catalog_bytes)


def _names(
    store: pagestore.Store, space: Mapping[int, pagestore.VersionSpace]
) -> Iterator[tuple[Cell, ...]]:
    for kind, names in (("snapshot", store.snapshots), ("branch", store.branches)):
        for name, version in sorted(names.items()):
            of = space[version.id]
            yield kind, name, of.version, Bytes(of.referred_bytes), Bytes(of.exclusive_bytes)
