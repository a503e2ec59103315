"""``pagestore put``: a file becomes a region; of its next version only what changed is stored."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click
import numpy as np

import pagestore
from pagestore.cli.arguments import form_option, message_option, store_argument
from pagestore.cli.output import Bytes, counted, human_size, printable, result
from pagestore.cli.progress import bytes_done, working
from pagestore.cli.refs import missing
from pagestore.cli.source import PIECE, Source, open_source

HELD = 256 * 1024 * 1024
"""Changes held in memory before they are written, without being committed."""


@click.command()
@store_argument
@click.argument("region")
@click.argument("file")
@click.option("--branch", default="main", show_default=True, help="The branch to commit to.")
@click.option("--snapshot", "name", metavar="NAME", help="Name the new version, so it is kept.")
@message_option
@form_option
def put(
    store_path: Path,
    region: str,
    file: str,
    branch: str,
    name: str | None,
    message: str,
    npy: bool | None,
) -> None:
    """Store FILE as a region of STORE.

    Makes the store if there is none. FILE may be - for standard input. A .npy file becomes an
    array of its dtype and shape, any other file plain bytes. The file is read in pieces, and
    only the pages that differ from the branch's head are stored.

    Without --snapshot the version is kept only until the branch moves on.

    \b
    Examples:
      pagestore put market.ps prices prices.npy --snapshot monday -m "at noon"
      sqlite3 app.db .dump | pagestore put app.ps dump - --snapshot nightly

    \b
    In a pipe: version id, branch, region, pages stored, bytes.
    """
    with open_source(file, npy) as source, pagestore.open(store_path, "a") as store:
        if branch not in store.branches:
            raise missing("branch", branch, store.branches)
        with closing(store.begin(branch)) as workspace:
            pages = _fill(workspace, region, source, store.page_size)
            with working("committing"):
                version = _commit(workspace, name, message or f"put {region}")
            _report(version, branch, name, region, pages, store.page_size)


def _commit(workspace: pagestore.Workspace, name: str | None, message: str) -> pagestore.Version:
    if name is None:
        return workspace.commit(message)
    return workspace.snapshot(name, message)


def _report(
    version: pagestore.Version,
    branch: str,
    name: str | None,
    region: str,
    pages: int,
    page_size: int,
) -> None:
    size = version.regions[region].nbytes
    named = f" {name}" if name else ""
    whole = counted(-(-size // page_size), "page")
    result(
        (version.id, branch, region, pages, Bytes(size)),
        printable(
            f"[{branch} {version.id}]{named}: {region}, {human_size(size)}, "
            f"{pages:,} of {whole} stored"
        ),
    )


def _fill(workspace: pagestore.Workspace, region: str, source: Source, page_size: int) -> int:
    """Make the region equal to `source` and return how many of its pages differed."""
    _fit(workspace, region, source)
    offset = pages = waiting = 0
    with bytes_done(f"putting {printable(source.label)}", source.nbytes) as advance:
        for piece in source.pieces:
            if source.shape is None:
                _make_room(workspace, region, offset + len(piece))
            written = _write(workspace, region, offset, piece, page_size)
            pages, waiting = pages + written, waiting + written
            if waiting * page_size >= HELD:
                workspace.flush()
                waiting = 0
            offset += len(piece)
            advance(len(piece))
    if source.shape is None and workspace.regions[region].nbytes != offset:
        workspace.resize(region, (offset,))
    return pages


def _fit(workspace: pagestore.Workspace, region: str, source: Source) -> None:
    """Give the region the dtype of `source`, and its shape if that is known yet."""
    here = workspace.regions.get(region)
    if here is not None and here.dtype != source.dtype:
        workspace.delete(region)
        here = None
    if here is None:
        workspace.create(region, (0,) if source.shape is None else source.shape, source.dtype)
        return
    shape = (here.nbytes,) if source.shape is None else source.shape
    if here.shape != shape:
        workspace.resize(region, shape)


def _make_room(workspace: pagestore.Workspace, region: str, size: int) -> None:
    """Grow by doubling: of a pipe nobody knows the length."""
    room = workspace.regions[region].nbytes
    if size > room:
        workspace.resize(region, (max(size, 2 * room, PIECE),))


def _write(
    workspace: pagestore.Workspace, region: str, offset: int, piece: memoryview, page_size: int
) -> int:
    """Write the pages of `piece` that differ and return how many there were."""
    there = workspace.read(region, offset, len(piece))
    pages = 0
    for start, stop in _differing(there, piece, page_size):
        workspace.write(region, offset + start, piece[start:stop])
        pages += -(-(stop - start) // page_size)
    return pages


def _differing(old: bytes, new: memoryview, page_size: int) -> Iterator[tuple[int, int]]:
    """Yield the byte ranges of runs of pages in which `old` and `new` differ."""
    unequal = np.frombuffer(old, "u1") != np.frombuffer(new, "u1")
    if not unequal.any():
        return
    starts = np.arange(0, len(new), page_size)
    changed = np.logical_or.reduceat(unequal, starts)
    edges = np.flatnonzero(np.diff(changed, prepend=False, append=False))
    for start, stop in edges.reshape(-1, 2).tolist():
        yield start * page_size, min(stop * page_size, len(new))
