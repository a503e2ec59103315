"""The group of all commands, and running it as a program."""

import difflib
import sys

import click

import pagestore
from pagestore.cli.branch import branch
from pagestore.cli.check import check
from pagestore.cli.compact import compact
from pagestore.cli.delete import delete
from pagestore.cli.demo import demo
from pagestore.cli.diff import diff
from pagestore.cli.du import du
from pagestore.cli.failure import end, tidy_when_terminated, translated
from pagestore.cli.get import get
from pagestore.cli.inspect import inspect
from pagestore.cli.log import log
from pagestore.cli.put import put
from pagestore.cli.report import report
from pagestore.cli.snapshot import snapshot
from pagestore.cli.sqlite import sqlite


class _Group(click.Group):
    """A group whose commands end as `failure` says, listed in the order one meets them."""

    def invoke(self, ctx: click.Context) -> object:
        with translated():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            close = difflib.get_close_matches(args[0], self.commands, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else "; see 'pagestore --help'"
            raise click.UsageError(f"'{args[0]}' is not a pagestore command{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(pagestore.__version__, prog_name="pagestore", message="%(prog)s %(version)s")
def group() -> None:
    """Durable, branching snapshots of memory.

    A STORE is a directory. It holds regions (arrays, or plain bytes) and keeps every version
    of them that has a name: a snapshot, or the head of a branch. A version costs only the
    pages that changed.

    \b
    Examples:
      pagestore put market.ps prices prices.npy --snapshot monday
      pagestore put market.ps prices prices.npy --snapshot tuesday
      pagestore log market.ps
      pagestore diff market.ps monday tuesday --stat
      pagestore branch market.ps what-if --at monday
      pagestore get market.ps prices monday.npy --at monday
      pagestore demo

    A REF is the name of a snapshot or branch, the id of a version, or NAME~2 for the second
    version kept before NAME. In a pipe, tables come as tab-separated lines without a heading.
    """


for _command in (
    put,
    get,
    snapshot,
    branch,
    log,
    diff,
    inspect,
    du,
    delete,
    check,
    compact,
    report,
    sqlite,
    demo,
):
    group.add_command(_command)


def run() -> int:
    """Run the group as the program ``pagestore`` and return the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name may have letters the terminal lacks
            stream.reconfigure(errors="backslashreplace")
    tidy_when_terminated()
    try:
        group.main(prog_name="pagestore")
    except SystemExit as stop:
        return end(stop.code if isinstance(stop.code, int) else 0)
