"""The arguments and options that several commands have in common."""

from pathlib import Path

import click

store_argument = click.argument("store_path", metavar="STORE", type=click.Path(path_type=Path))
at_option = click.option(
    "--at",
    "ref",
    metavar="REF",
    default="main",
    show_default=True,
    help="Which version: a snapshot, a branch, an id, or one of them with ~N.",
)
message_option = click.option("-m", "--message", default="", help="A note kept with the version.")
form_option = click.option(
    "--npy/--raw",
    "npy",
    default=None,
    help="Take FILE as a NumPy file or as plain bytes; by default its name says (.npy).",
)
