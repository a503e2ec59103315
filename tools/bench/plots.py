"""A few plots for the README and the documents, as PNG and SVG. Needs matplotlib.

Lines are named at their ends and differ in more than colour (Okabe and Ito's palette); times and
sizes lie on logarithmic axes, where equal distances are equal ratios.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator

from tools.bench import targets
from tools.bench.results import LIMIT, OURS, Results

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#8C6D1F", "#555555")
MARKERS = "sD^vPX<>h*p"
OUR_COLOUR, LIMIT_COLOUR, OTHER_COLOUR = "#D55E00", "#000000", "#56B4E9"
STYLE = {
    "figure.facecolor": "white",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.hashsalt": "pagestore",
}
Line = list[tuple[float, float]]


def draw(results: Results, out: Path) -> list[Path]:
    """Write every plot for which there are figures."""
    plots: dict[str, Callable[[Results], Any]] = {
        "snapshot-time": _snapshot_time,
        "snapshot-space": _snapshot_space,
        "commit-rate": _commit_rate,
        "reading": _reading,
        "growth": _growth,
    }
    written = []
    mpl.use("Agg")
    with mpl.rc_context(STYLE):
        for name, plot in plots.items():
            figure = plot(results)
            if figure is None:
                continue
            for kind in ("png", "svg"):
                path = out / f"{name}.{kind}"
                figure.savefig(path, dpi=160, bbox_inches="tight", metadata=_metadata(kind))
                written.append(path)
            plt.close(figure)
    return written


def _metadata(kind: str) -> dict[str, None]:
    return {"Date": None} if kind == "svg" else {}


# ------------------------------------------------------------------------------- the plots


def _snapshot_time(r: Results) -> Any:
    lines = {
        peer: [(max(x, 0.1), y * 1e3) for x, y in _line(r, "W1", targets.BOTH, peer)]
        for peer in r.peers
    }
    if not lines[OURS]:
        return None
    figure, axes = plt.subplots(figsize=(8.5, 5))
    _draw_lines(r, axes, lines)
    axes.set_title(f"Time of a durable snapshot of {_region(r)} (write the pages, commit)")
    axes.set_xlabel("4 KiB pages changed since the last snapshot")
    axes.set_ylabel("milliseconds, median")
    ticks = [x for x, _ in lines[OURS]]
    axes.set_xticks(ticks, ["0" if x < 1 else f"{x:,.0f}" for x in ticks])
    return figure


def _snapshot_space(r: Results) -> Any:
    lines = {
        peer: [(x, y / x / 4096) for x, y in _line(r, "W1", "space", peer) if x and y > 0]
        for peer in r.peers
        if peer == OURS or not peer.startswith("pagestore")
    }
    if not lines[OURS]:
        return None
    figure, axes = plt.subplots(figsize=(8.5, 5))
    ticks = sorted(x for x, _ in lines[OURS])
    lines["the pages alone"] = [(x, 1.0) for x in ticks]
    _draw_lines(r, axes, lines)
    axes.set_title(f"Disk space of one more version of {_region(r)}")
    axes.set_xlabel("4 KiB pages changed in the version")
    axes.set_ylabel("bytes allocated for each byte changed, mean")
    axes.set_xticks(ticks, [f"{x:,.0f}" for x in ticks])
    return figure


def _commit_rate(r: Results) -> Any:
    peers = [*r.peers, "syncs"]
    found = {peer: r.median("W2", "4 pages", targets.BOTH, peer) for peer in peers}
    rates = {peer: 1 / value for peer, value in found.items() if value}
    if OURS not in rates:
        return None
    figure, axes = plt.subplots(figsize=(8.5, 0.32 * len(rates) + 1.2))
    _draw_bars(r, axes, rates, "{:,.0f}")
    axes.set_title(f"Durable commits of 4 random pages of {_region(r)}")
    axes.set_xlabel("commits a second, 1 / median")
    return figure


def _reading(r: Results) -> Any:
    cases = [c for c in r.cases("W3", "open") if c.startswith("100 ") and c.endswith("newest")]
    scans = [c for c in r.cases("W4", "later passes") if "100" in c and "half" in c]
    if not cases or not scans:
        return None
    opened, scanned = {}, {}
    for peer in r.peers:
        parts = [r.median("W3", cases[0], metric, peer) for metric in ("open", "read")]
        if None not in parts:
            opened[peer] = sum(part or 0 for part in parts) * 1e3
        took = r.median("W4", scans[0], "later passes", peer)
        if took:
            scanned[peer] = r.scale["pages"] * 4096 / (1 << 30) / took
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 0.32 * len(opened) + 1.4))
    _draw_bars(r, left, opened, "{:,.3g}", smallest_first=True)
    left.set_title("Open the newest version, read 1,000 random pages")
    left.set_xlabel("milliseconds, median")
    _draw_bars(r, right, scanned, "{:,.3g}")
    right.set_title("Scan a version half way back")
    right.set_xlabel("GiB a second, median")
    history = f"After {r.scale['history']:,} commits of 100 random pages of {_region(r)}"
    figure.suptitle(history, x=0.01, ha="left")
    figure.tight_layout()
    return figure


def _growth(r: Results) -> Any:
    sizes, versions = {}, {}
    for peer in r.peers:
        lines = _line(r, "W10", targets.BY_SIZE, peer, ", 100 pages")
        sizes[peer] = [(x / (1 << 20), y * 1e3) for x, y in lines]
        new = dict(_line(r, "W10", targets.NEW, peer, ", 4 pages"))
        lines = _line(r, "W10", targets.BY_VERSIONS, peer, ", 4 pages")
        versions[peer] = [(1.0, 1.0)] * bool(new) + [(x, y / new[x]) for x, y in lines if x in new]
    if not sizes[OURS] or not versions[OURS]:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(12.5, 5))
    _draw_lines(r, left, sizes)
    left.set_title("Commit of 100 random pages, by size of the region")
    left.set_xlabel("MiB in the region")
    left.set_ylabel("milliseconds, median")
    ticks = [x for x, _ in sizes[OURS]]
    left.set_xticks(ticks, [f"{x:,.0f}" for x in ticks])
    right.set_ylim(0.5, 2.0)  # before names are put where there is room
    _draw_lines(r, right, versions)
    right.set_title(f"Commit of 4 random pages of {r.scale['small'] >> 8} MiB, by versions kept")
    right.set_xlabel("versions in the store")
    right.set_ylabel("time over that of a new store, in turns")
    figure.tight_layout(w_pad=3)
    return figure


# --------------------------------------------------------------------------------- drawing


def _region(r: Results) -> str:
    return f"{r.scale['pages'] >> 8:,} MiB"


def _line(r: Results, work: str, metric: str, peer: str, ending: str = "") -> Line:
    """Points (x, median) of a peer, by x."""
    found = {
        s.x: statistics.median(s.values)
        for s in r.samples
        if (s.work, s.metric, s.peer) == (work, metric, peer)
        and s.x is not None
        and s.values
        and s.case.endswith(ending)
    }
    return sorted(found.items())


def _plain(value: float, _: object) -> str:
    return f"{value:,.10g}"


def _draw_lines(r: Results, axes: Any, lines: Mapping[str, Line]) -> None:
    """Lines on two logarithmic axes, each named at its end."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    others = [p for p in r.peers if not p.startswith("pagestore") and p != LIMIT]
    ends = []
    for peer, line in lines.items():
        if not line:
            continue
        look: dict[str, Any] = {"linewidth": 1.3, "markersize": 5, "zorder": 2}
        if peer.startswith("pagestore"):
            look |= {"color": OUR_COLOUR, "marker": "o", "zorder": 4}
            look |= {"linewidth": 2.6} if peer == OURS else {"linestyle": ":"}
        elif peer == LIMIT or peer not in r.peers:
            look |= {"color": LIMIT_COLOUR, "linestyle": "--", "marker": "", "zorder": 3}
        else:
            i = others.index(peer)
            look |= {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
            look |= {"linestyle": "-" if i < len(COLOURS) else (0, (5, 1.5))}
        xs, ys = zip(*line, strict=True)
        axes.plot(xs, ys, **look)
        ends.append((ys[-1], xs[-1], r.title(peer).replace("`", ""), look["color"]))
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1,) if high / low > 300 else (1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(_plain))
    axes.minorticks_off()
    _name_ends(axes, ends)


def _name_ends(axes: Any, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write names right of the plot, pushed apart where lines end close together."""
    axes.figure.canvas.draw()
    low, high = (math.log(y) for y in axes.get_ylim())
    step = (high - low) * 10.5 / (axes.get_window_extent().height / axes.figure.dpi * 72)
    right = axes.get_xlim()[1]
    names = sorted(ends)
    heights = [math.log(y) for y, *_ in names]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + step)
    ceiling = high
    for i in reversed(range(len(heights))):  # what stands out at the top is pushed down again
        heights[i] = min(heights[i], ceiling)
        ceiling = heights[i] - step
    for at, (y, x, name, colour) in zip(heights, names, strict=True):
        axes.annotate(
            name,
            (x, y),
            (right * 1.12, math.exp(at)),
            color=colour,
            va="center",
            fontsize=9,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "relpos": (0, 0.5),  # to where the name begins, not into it
                "color": colour,
                "linewidth": 0.6,
                "alpha": 0.6,
            },
        )


def _draw_bars(
    r: Results, axes: Any, values: Mapping[str, float], shown: str, *, smallest_first: bool = False
) -> None:
    """Horizontal bars on a logarithmic axis, the best on top, each with its figure."""
    order = sorted(values, key=lambda peer: values[peer], reverse=smallest_first)
    titles = {"syncs": "two bare syncs"}
    names = [titles.get(peer, r.title(peer)).replace("`", "") for peer in order]
    colours = [
        OUR_COLOUR
        if peer.startswith("pagestore")
        else LIMIT_COLOUR
        if peer in (LIMIT, "syncs")
        else OTHER_COLOUR
        for peer in order
    ]
    heights = [values[peer] for peer in order]
    axes.barh(names, heights, color=colours, height=0.62)
    axes.set_xscale("log")
    axes.set_xlim(min(heights) / 2, max(heights) * 2.5)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    axes.minorticks_off()
    for i, height in enumerate(heights):
        axes.text(height * 1.06, i, shown.format(height), va="center", fontsize=9)
