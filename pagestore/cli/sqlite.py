"""``pagestore sqlite``: SQLite databases in a store."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import pagestore
from pagestore.cli.arguments import at_option, store_argument
from pagestore.cli.failure import Fatal
from pagestore.cli.output import Bytes, human_size, printable, result
from pagestore.cli.refs import look_up, open_store, region_of

name_option = click.option(
    "--db", "name", metavar="NAME", default="main.db", show_default=True, help="Which database."
)
branch_option = click.option(
    "--branch", "branch_name", metavar="NAME", default="main", show_default=True,
    help="Which branch.",
)  # fmt: skip
file_argument = click.argument("file", metavar="FILE", type=click.Path(path_type=Path))


@contextlib.contextmanager
def _adapter() -> Iterator[Any]:
    """The adapter, which needs a package of its own; and what its errors mean."""
    try:
        import apsw

        from pagestore import sqlite
    except ImportError as e:
        raise Fatal(f"{e}: pip install 'pagestore[sqlite]'") from e
    try:
        yield sqlite
    except apsw.Error as e:
        raise Fatal(str(e)) from e


@click.group()
def sqlite() -> None:
    """SQLite databases in a store: each transaction is a version.

    \b
    Examples:
      pagestore sqlite import shop.ps shop.db
      pagestore snapshot shop.ps before-migration
      pagestore sqlite branch shop.ps what-if
      pagestore sqlite shell shop.ps --branch what-if
      pagestore sqlite export shop.ps old.db --at before-migration
    """


@sqlite.command(name="import")
@store_argument
@file_argument
@name_option
@branch_option
def import_(store_path: Path, file: Path, name: str, branch_name: str) -> None:
    """Copy the database in FILE into STORE, which is made if need be.

    A database of that name is replaced; of its pages those are stored that differ.
    """
    if not file.is_file():
        raise Fatal(f"there is no file '{printable(str(file))}'")
    with _adapter() as adapter, pagestore.open(store_path) as store:
        version = adapter.import_file(store, file, name, branch_name)
        size = version.regions[name].nbytes
        result(
            (name, version.id, Bytes(size)),
            f"{printable(name)} has {human_size(size)} in version {version.id}",
        )


@sqlite.command()
@store_argument
@file_argument
@name_option
@at_option
def export(store_path: Path, file: Path, name: str, ref: str) -> None:
    """Copy a database of any version of STORE into FILE."""
    with _adapter() as adapter, open_store(store_path, "r") as store:
        version = look_up(store, ref, store.version)
        size = region_of(version, name).nbytes
        adapter.export_file(store, file, name, at=version)
        result(
            (name, version.id, Bytes(size)),
            f"{human_size(size)} of version {version.id} in {printable(str(file))}",
        )


@sqlite.command()
@store_argument
@click.argument("branch_name", metavar="NAME")
@at_option
def branch(store_path: Path, branch_name: str, ref: str) -> None:
    """Start a branch of STORE, and of all databases in it."""
    with open_store(store_path, "r+") as store:
        version = look_up(store, ref, lambda at: store.create_branch(branch_name, at=at))
        databases = tuple(sorted(version.regions))
        result(
            (branch_name, version.id, databases),
            f"branch {printable(branch_name)} starts at version {version.id}",
        )


@sqlite.command()
@store_argument
@click.argument("commands", metavar="[SQL]...", nargs=-1)
@name_option
@branch_option
@click.option("--at", "ref", metavar="REF", help="Show this version, read only.")
def shell(
    store_path: Path, commands: tuple[str, ...], name: str, branch_name: str, ref: str | None
) -> None:
    """Open apsw's shell on a database, or run SQL in it.

    `PRAGMA pagestore_snapshot='NAME'` and its like work in it.
    """
    with _adapter() as adapter, open_store(store_path, "r" if ref else "r+") as store:
        if ref is not None:
            look_up(store, ref, store.version)
        import apsw.shell

        connection = adapter.connect(store, name, branch_name, at=ref)
        terminal: Any = apsw.shell.Shell(stdin=sys.stdin, stdout=sys.stdout, db=connection)
        try:
            for command in commands:
                terminal.process_complete_line(command)
            if not commands:
                terminal.cmdloop()
        finally:
            connection.close()
