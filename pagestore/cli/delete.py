"""``pagestore delete``: take names away; what no name keeps gives its space back."""

from pathlib import Path

import click

import pagestore
from pagestore.cli.arguments import store_argument
from pagestore.cli.output import printable, result
from pagestore.cli.refs import missing, open_store


@click.command()
@store_argument
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--branch", "kind", flag_value="branch", help="Only if it is a branch.")
@click.option("--snapshot", "kind", flag_value="snapshot", help="Only if it is a snapshot.")
def delete(store_path: Path, names: tuple[str, ...], kind: str | None) -> None:
    """Delete snapshots or branches of STORE.

    All the names are looked up before the first is deleted. The snapshots go together: all, or
    none.

    \b
    Examples:
      pagestore delete market.ps monday tuesday
      pagestore delete market.ps what-if --branch

    \b
    In a pipe: what it was (snapshot or branch), name.
    """
    with open_store(store_path, "r+") as store:
        found = {name: _kind_of(store, name, kind) for name in names}
        branches, snapshots = (
            [name for name in found if found[name] == what] for what in ("branch", "snapshot")
        )
        for name in branches:
            store.delete_branch(name)
            result(("branch", name), f"deleted branch {printable(name)}")
        if snapshots:
            store.delete_snapshot(*snapshots)
        for name in snapshots:
            result(("snapshot", name), f"deleted snapshot {printable(name)}")


def _kind_of(store: pagestore.Store, name: str, wanted: str | None) -> str:
    known = {"snapshot": store.snapshots, "branch": store.branches}
    for kind in [wanted] if wanted else known:
        if name in known[kind]:
            return kind
    candidates = known[wanted] if wanted else [*store.snapshots, *store.branches]
    raise missing(wanted or "snapshot or branch", name, candidates)
