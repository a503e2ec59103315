"""Parts of a screen that several commands draw: headings, bars, and letters a terminal may lack."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

_PLAIN = str.maketrans("●│├╯┴┼─┆█▓▒░·×…", "*||/++-:#=+.'x.")


class Screen:
    """A console that also serves terminals without Unicode."""

    def __init__(self, screen: Console) -> None:
        self._console = screen
        self.width = screen.width
        self._unicode = screen.encoding.lower().startswith("utf")

    def say(self, *parts: str | tuple[str, str], wrap: bool = False) -> None:
        """Print a line of parts with styles; cut at the edge unless it may wrap."""
        text = Text.assemble(*parts)
        if not self._unicode:
            text.plain = text.plain.translate(_PLAIN)
        if not wrap:
            text.truncate(self.width, overflow="ellipsis" if self._unicode else "crop")
        self._console.print(text, soft_wrap=True)

    def heading(self, what: str, more: str = "") -> None:
        """Begin a part of the screen."""
        self.say()
        self.say((what, "bold"), (f"  {more}" if more else "", "dim"))

    def bar(self, parts: Sequence[tuple[int, str]], width: int) -> list[tuple[str, str]]:
        """Blocks in proportion to sizes, each in its style; every size but 0 gets one at least."""
        total = sum(size for size, _ in parts) or 1
        cells = [max(round(size / total * width), 1 if size else 0) for size, _ in parts]
        largest = max(range(len(cells)), key=lambda i: cells[i])
        cells[largest] = max(cells[largest] + width - sum(cells), 0)
        return [("█" * n, style) for n, (_, style) in zip(cells, parts, strict=True)]
