"""Small tables in HTML: how objects of the public face show themselves in a notebook.

Owns escaping. Knows plain values only, and asks nothing of a store.

- N1  Whatever a name or a message holds, it is text: no markup, and nothing that cannot be seen.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice

ROWS = 20  # a table has no more; that there are others is said
_CELL = "text-align: left; padding: 2px 14px 2px 0; vertical-align: top; white-space: pre-wrap"


def table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return the first rows under a caption."""
    waiting = iter(rows)
    shown = "".join(_row("td", cells) for cells in islice(waiting, ROWS))
    more = "" if next(waiting, None) is None else _row("td", ["…"])
    return (
        f'<table style="border-collapse: collapse"><caption style="{_CELL}; font-weight: bold">'
        f"{_text(caption)}</caption><thead>{_row('th', headings)}</thead>"
        f"<tbody>{shown}{more}</tbody></table>"
    )


def line(text: str) -> str:
    """Return a text by itself."""
    return f"<code>{_text(text)}</code>"


def size(nbytes: int) -> str:
    """Return a size with a unit: ``512 B``, ``12.0 KiB``."""
    value = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{nbytes} B" if unit == "B" else f"{value:,.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"


def _row(kind: str, cells: Iterable[object]) -> str:
    inside = "".join(f'<{kind} style="{_CELL}">{_text(cell)}</{kind}>' for cell in cells)
    return f"<tr>{inside}</tr>"


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, tuple):
        value = ", ".join(map(str, value))
    seen = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))
    return html.escape("".join(seen))
