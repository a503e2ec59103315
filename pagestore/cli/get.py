"""``pagestore get``: a region of any version becomes a file."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

import click
import numpy as np

import pagestore
from pagestore.cli.arguments import at_option, form_option, store_argument
from pagestore.cli.output import is_terminal, printable
from pagestore.cli.progress import bytes_done
from pagestore.cli.refs import look_up, open_store, region_of
from pagestore.cli.source import PIECE
from pagestore.cli.target import open_target, write_npy_header


@click.command()
@store_argument
@click.argument("region")
@click.argument("file")
@at_option
@form_option
def get(store_path: Path, region: str, file: str, ref: str, npy: bool | None) -> None:
    """Write a region of STORE to FILE.

    FILE may be - for standard output. A FILE whose name ends in .npy gets the header that
    NumPy expects; any other gets the bytes alone. FILE is replaced only when all is written.

    \b
    Examples:
      pagestore get market.ps prices monday.npy --at monday
      pagestore get app.ps dump - --at nightly~1 | sqlite3 yesterday.db
    """
    with open_store(store_path, "r") as store, look_up(store, ref, store.view) as view:
        meta = region_of(view.version, region)
        with open_target(file) as target:
            if file.endswith(".npy") if npy is None else npy:
                write_npy_header(target, np.dtype(meta.dtype), meta.shape)
            _write(target, view, meta, _progress(file, meta))


def _write(
    target: BinaryIO,
    view: pagestore.SnapshotView,
    meta: pagestore.Region,
    progress: AbstractContextManager[Callable[[int], None]],
) -> None:
    with progress as advance:
        for offset in range(0, meta.nbytes, PIECE):
            size = min(PIECE, meta.nbytes - offset)
            target.write(view.read(meta.name, offset, size))
            advance(size)


def _progress(file: str, region: pagestore.Region) -> AbstractContextManager[Callable[[int], None]]:
    if file == "-" and is_terminal(sys.stdout):
        return nullcontext(lambda _: None)  # a bar would run into what is printed
    return bytes_done(f"getting {printable(region.name)}", region.nbytes)
