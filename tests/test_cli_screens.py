"""The commands that look into a store, as a person sees them: screens, maps, graphs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

import pytest

import pagestore
from pagestore.cli import graph
from tests.test_cli import COMMAND, PAGE, environment, objects


def on_a_terminal(width, *args, height=40, **more):
    """Run a command on a terminal of so many columns; return what stands there, and its status."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    env = environment(
        **{"TERM": "xterm-256color", "TZ": "UTC", "PYTHONIOENCODING": "utf-8", **more}
    )
    for name in ("COLUMNS", "LINES"):  # they would count for more than the terminal
        env.pop(name, None)
    child = subprocess.Popen(
        [*COMMAND, *map(str, args)], stdin=theirs, stdout=theirs, stderr=theirs, env=env
    )
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # the other side is closed
        while piece := os.read(ours, 1 << 16):
            said += piece
    os.close(ours)
    status = child.wait()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode()).replace("\r\n", "\n"), status


MASKS = [
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "YYYY-MM-DD hh:mm:ss"), (r"[0-9a-f]{32}", "I" * 32),
    (r"[\d.,]+ [KMGT]iB left", "n left"), (r"[\d.,]+ MiB on disk", "n on disk"),
    (r"^(catalog +)[\d.]+ KiB  [\d.]+ KiB", r"\1n KiB  n KiB"), (r"^/.*/", ""),
]  # fmt: skip


def masked(text):
    for pattern, instead in MASKS:
        text = re.sub(pattern, instead, text, flags=re.M)
    return "\n".join(line.rstrip() for line in text.splitlines())


SCREEN = """\
market.ps
format 1, id IIIIIIIIIIIIIIIIIIIIIIIIIIIIIIII, created YYYY-MM-DD hh:mm:ss
5 versions, 3 snapshots, 3 branches; pages of 4.0 KiB, history "named"

space  n on disk, n left
"""
HEADS = """\
heads
branch   version  region  dtype  shape      stored      zeros  runs  exclusive
main           5  prices  f8     200×512  600.0 KiB  200.0 KiB     6   64.0 KiB
                  notes   u1     90000      4.0 KiB   84.0 KiB     1        0 B
                  trades  V12    1000      12.0 KiB        0 B     1        0 B
"""
GRAPH = """\
newest versions
●  7  YYYY-MM-DD hh:mm:ss  (audit)  audited
│ ●  6  YYYY-MM-DD hh:mm:ss  (what-if)  doubled
● │   5  YYYY-MM-DD hh:mm:ss  (main, thursday)  corrections of thursday
"""


@pytest.mark.parametrize("width", [80, 120])
def test_the_screen_of_a_store(market, width):
    text, status = on_a_terminal(width, "inspect", market)
    assert status == 0
    assert max(map(len, text.splitlines())) <= width
    shown = masked(text)
    assert shown.startswith(SCREEN), shown
    assert "█ referred" in shown
    squeezed = re.sub(r" +", " ", shown)
    assert re.sub(r" +", " ", HEADS) in squeezed, shown
    for name in ("audit", "what-if", "monday", "(main, thursday)"):
        assert name in shown.partition("newest versions")[2]


def test_the_screens_of_the_others(market):
    text, _ = on_a_terminal(80, "inspect", market, "tuesday")
    assert "versions 5, 6 come from it" in text
    assert "no other version's" in text
    text, _ = on_a_terminal(80, "du", market)
    assert "together, of which" in text
    text, _ = on_a_terminal(80, "du", market, "monday", "audit")
    assert "together: 2 versions would go, and 36.0 KiB come free" in text
    text, _ = on_a_terminal(80, "diff", market, "monday", "audit", "--values", "--most", "2")
    assert "[1]  65 → 7" in text
    assert "… 8 more values" in text
    assert "prices[3, 0:512]  page 3" in text
    text, _ = on_a_terminal(80, "inspect", market, "--table", "prices", "--sharing")
    assert "in 6 runs; 50 are zeros" in text
    text, _ = on_a_terminal(80, "inspect", market, "--dump", "prices")
    assert len(text.splitlines()) == 65
    text, _ = on_a_terminal(80, "log", market, "--all")
    assert len(text.splitlines()) >= 5


@pytest.mark.parametrize("width", [40, 80, 120, 200])
@pytest.mark.parametrize("by", ["birth", "sharing", "slot"])
def test_maps(market, by, width):
    text, status = on_a_terminal(width, "inspect", market, "--map", "prices", "--by", by)
    assert status == 0
    lines = text.splitlines()
    picture = [line for line in lines[1:] if re.match(r" *[\d,]+  [█▓▒░·]+$", line)]
    cells = "".join(line.split()[-1] for line in picture)
    assert len(cells) == 200 if width > 30 else True
    assert cells[150:] == "·" * 50
    assert "·" not in cells[:150]
    assert max(map(len, picture)) <= width


def test_a_map_of_a_region_that_is_larger_than_the_screen(tmp_path):
    path = tmp_path / "s.ps"
    with pagestore.open(path) as store, store.begin() as ws:
        ws.create("wide", (1 << 24) * PAGE)
        ws.write("wide", 0, b"1" * PAGE)
        ws.write("wide", (1 << 23) * PAGE, b"2" * PAGE)
    text, _ = on_a_terminal(80, "inspect", path, "--map", "wide")
    picture = [line for line in text.splitlines() if re.match(r" *[\d,]+  [█▓▒░·]+$", line)]
    assert len(picture) <= 16
    assert sum(line.count("░") for line in picture) == 2
    cells = objects("inspect", path, "--map", "wide")
    assert len(cells) <= 1024
    assert sum(cell["stored"] for cell in cells) == 2
    assert cells[-1]["stop"] == 1 << 24
    text, _ = on_a_terminal(80, "inspect", path, "--map", "wide", "--range", "5:5")
    assert "0 of 0 pages stored" in text


def test_a_terminal_without_such_letters(market):
    text, status = on_a_terminal(80, "inspect", market, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert status == 0
    assert text.isascii()
    assert "*  7" in text


# --------------------------------------------------------------------------------- the graph


def version(number, parent):
    when = pagestore.history.utc(0)
    return pagestore.Version(number, parent, when, "", (), {})


def drawn(*pairs):
    rows = graph.rows(version(*pair) for pair in pairs)
    return ["".join(text for text, _ in graph.drawn(row)).rstrip() for row in rows]


def test_graphs():
    assert drawn((3, 2), (2, 1), (1, None)) == ["●", "●", "●"]
    assert drawn((4, 2), (3, 2), (2, 1), (1, None)) == ["●", "│ ●", "├─╯", "●", "●"]
    assert drawn((4, 1), (3, 1), (2, 1), (1, None)) == ["●", "│ ●", "│ │ ●", "├─┴─╯", "●"]
    # a line of its own between two that meet is crossed
    crossing = drawn((6, 2), (5, 1), (4, 2), (2, 1), (1, None))
    assert crossing == ["●", "│ ●", "│ │ ●", "├─┼─╯", "● │", "├─╯", "●"]
    # a free column is used again
    assert drawn((6, 5), (5, None), (4, 3), (3, None)) == ["●", "●", "●", "●"]
    among_others = drawn((9, 1), (8, 5), (7, 2), (5, None), (4, 3), (3, None))
    assert among_others == ["●", "│ ●", "│ │ ●", "│ ● │", "│ ● │", "│ ● │", "┆   ┆"]
    # parents that are not shown
    assert drawn((9, 7), (8, 3)) == ["●", "│ ●", "┆ ┆"]
    assert drawn() == []
