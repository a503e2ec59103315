"""``pagestore demo``: the whole job in half a minute, with numbers measured as it goes."""

import shutil
import tempfile
from pathlib import Path

import click
import numpy as np

from pagestore.cli.demo_screen import Screen, stopwatch
from pagestore.cli.demo_story import Story
from pagestore.cli.failure import FOUND, Fatal, Quiet
from pagestore.cli.output import human_size


@click.command()
@click.option(
    "--size",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    metavar="MIB",
    help="The size of the array.",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Where to work, if not in the system's temporary directory.",
)
@click.option("--seed", type=int, help="Make the same data and the same choices again.")
def demo(size: int, directory: Path | None, seed: int | None) -> None:
    """Show what pagestore does, on real data, in half a minute.

    Takes 20 snapshots of a large array, branches from them, kills writers in the middle of a
    commit, starts again in a new process, and compares every version with what it was when it
    was made. Works in a temporary directory and leaves nothing behind. Exits with 1 if a single
    byte is not what it was.
    """
    parent = Path(directory or tempfile.gettempdir())
    _look_for_room(parent, 3 * size * 2**20)
    screen = Screen()
    scratch = tempfile.TemporaryDirectory(prefix="pagestore-demo-", dir=parent)
    with stopwatch() as took, scratch as directory_name:
        screen.say(f"pagestore demo: {size} MiB of prices, in {directory_name}")
        story = Story(Path(directory_name), size, np.random.default_rng(seed), screen)
        story.tell()
    screen.heading("The end")
    screen.verdict(screen.wrong[:], f"{len(story.made)} names, each exact to the byte")
    screen.say(f"took {took():.1f} s; nothing is left in {parent}")
    if screen.wrong:
        raise Quiet(FOUND)


def _look_for_room(parent: Path, needed: int) -> None:
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise Fatal(
            f"the demo needs {human_size(needed)} in '{parent}', {human_size(free)} are free: "
            "try a smaller --size or another --dir"
        )
