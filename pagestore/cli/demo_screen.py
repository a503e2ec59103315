"""What the demo says, and the clocks and scales it measures with."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field
from rich.table import Table
from rich.text import Text

from pagestore.cli.output import console


@define
class Screen:
    """A story in numbered chapters; it remembers what was wrong."""

    wrong: list[str] = field(factory=list)
    chapters: int = 0

    def heading(self, text: str) -> None:
        """Begin a chapter."""
        self.chapters += 1
        console().print()
        console().print(Text(f"{self.chapters}. {text}", "bold"))

    def say(self, text: str) -> None:
        """Say something."""
        console().print(Text(("   " if self.chapters else "") + text), soft_wrap=True)

    def verdict(self, wrong: list[str], good: str) -> None:
        """Say `good`, or everything that is wrong, and keep it."""
        self.wrong += wrong
        mark, style = ("FAIL", "bold red") if wrong else ("ok", "green")
        text = f" not exact: {'; '.join(wrong)}" if wrong else f" {good}"
        console().print(Text.assemble("   ", (mark, style), text), soft_wrap=True)

    def table(self, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        """Show `rows`, the first column to the left and the others to the right."""
        grid = Table(box=None, header_style="dim", padding=(0, 3, 0, 0), pad_edge=False)
        grid.add_column("")  # the indent of a chapter
        for number, heading in enumerate(columns):
            grid.add_column(heading, justify="right" if number else "left", no_wrap=True)
        for row in rows:
            grid.add_row("", *row)
        console().print(grid)


@contextmanager
def stopwatch() -> Iterator[Callable[[], float]]:
    """Measure the block; what it yields returns the seconds it took."""
    start = time.perf_counter()
    stop = 0.0
    try:
        yield lambda: stop - start
    finally:
        stop = time.perf_counter()


def human_time(seconds: float) -> str:
    """Return ``1.23 s`` or ``4.5 ms``."""
    return f"{seconds:.2f} s" if seconds >= 0.9995 else f"{seconds * 1000:.1f} ms"


def space_of(directory: Path) -> int:
    """Return the bytes that the files in `directory` take on the disk."""
    return sum(file.stat().st_blocks * 512 for file in directory.rglob("*") if file.is_file())


def private_memory() -> int:
    """Return the bytes of memory that this process shares with no file (0 if nobody says)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    sizes = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
    return int(sizes[0]) * 1024 if sizes else 0
