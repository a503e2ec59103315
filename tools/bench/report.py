"""The result as Markdown: where it was measured, the targets, and one table for each metric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tools.bench import targets, work
from tools.bench.peers import find
from tools.bench.results import Results
from tools.bench.stores import Sample

# What is shown as a table; other metrics are in the JSON file, or are said with these.
TABLES = {
    "W1": ("change and commit", "commit", "space", "space, with what is set aside", "not durable"),
    "W2": ("change and commit",),
    "W3": ("open", "read", "open again", "memory"),
    "W4": ("first pass", "later passes"),
    "W5": ("branch, change, commit", "branch"),
    "W6": ("diff, store just opened", "diff"),
    "W7": (
        "delete and give back",
        "delete",
        "bytes back",
        "open afterwards",
        "scan afterwards",
    ),
    "W8": ("start to first byte", "import", "import numpy, in turns with it", "space a version"),
    "W9": ("readers", "writer", "processors that the writer used beside readers"),
    "W10": (targets.BY_SIZE, targets.BY_VERSIONS, targets.NEW, "open, first byte"),
}


def describe(name: str) -> dict[str, str]:
    """What a peer is, for the record."""
    peer = find(name)
    return {
        "title": peer.title,
        "kind": peer.kind,
        "versions": peer.versions(),
        "settings": peer.settings,
        "lacks": "; ".join(peer.lacks),
    }


def markdown(results: Results) -> str:
    """The whole report."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: Results) -> Iterator[str]:
    scale = results.scale
    yield "# Benchmark results"
    yield ""
    yield (
        f"A region of {scale['pages'] >> 8:,} MiB of random data, pages of 4,096 bytes, random "
        "pages, fixed seeds. Figures are medians; all values are in `results.json`. Every read "
        f"was compared with what must be there. {results.seconds / 60:.0f} minutes in all."
    )
    yield ""
    yield from _table(["", ""], [[key, value] for key, value in results.machine.items()])
    yield ""
    yield "## Who was measured"
    yield ""
    peers = [
        [peer["title"], peer["versions"], peer["settings"], peer["lacks"]]
        for peer in results.peers.values()
    ]
    yield from _table(["peer", "version", "settings", "what it does not do"], peers)
    yield ""
    for name, reason in results.left_out.items():
        yield f"- `{name}` was left out: {reason}"
    yield ""
    yield from _targets(results)
    for item in dict.fromkeys(sample.work for sample in results.samples):
        yield from _work(results, item)


def _targets(results: Results) -> Iterator[str]:
    verdicts = targets.judge(results)
    yield "## Targets"
    yield ""
    rows = []
    for v in verdicts:
        sign = "≥" if v.at_least else "≤"
        value = "–" if v.value is None else f"{v.value:.3g} {v.unit}"
        said = {None: "not measured", True: "met", False: "**missed**"}[v.ok]
        rows.append([v.work, v.what, value, f"{sign} {v.goal:g} {v.unit}", said])
    yield from _table(["", "what", "measured", "target", ""], rows)
    yield ""


def _work(results: Results, item: str) -> Iterator[str]:
    yield f"## {item}: {work.title(item)}"
    yield ""
    for metric in TABLES[item]:
        yield from _metric(results, item, metric)
    for title, notes in _notes(results, item).items():
        yield f"- {title}: {'; '.join(notes)}."
    yield ""


def _notes(results: Results, item: str) -> dict[str, list[str]]:
    """What is to be said of each peer, once."""
    found: dict[str, list[str]] = {}
    for sample in results.samples:
        notes = found.setdefault(results.title(sample.peer), [])
        if sample.work == item and sample.note and sample.note not in notes:
            notes.append(sample.note)
    return {title: notes for title, notes in found.items() if notes}


def _metric(results: Results, item: str, metric: str) -> Iterator[str]:
    cases = results.cases(item, metric)
    peers = [*results.peers, *({"syncs": ""} if item == "W2" else {})]
    if item == "W1" and metric.startswith("space"):
        cases.sort(key=lambda case: float(case.split()[0].replace(",", "")))
    rows = []
    for peer in peers:
        found = [results.find(item, case, metric, peer) for case in cases]
        if any(found):
            rows.append([results.title(peer), *(amount(sample) for sample in found)])
    if not rows:
        return
    yield from _table([metric, *(case or "median" for case in cases)], rows)
    yield ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def amount(sample: Sample | None) -> str:
    """A median for people: three digits and a unit."""
    if sample is None or not sample.values:
        return "–"
    value = sorted(sample.values)[len(sample.values) // 2]
    if sample.unit == "s":
        for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
            if value >= size or unit == "µs":
                return f"{_digits(value / size)} {unit}"
    if sample.unit == "B":
        for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)):
            if abs(value) >= 1 << power or unit == "B":
                return f"{_digits(value / (1 << power))} {unit}"
    return f"{_digits(value)} {sample.unit}".rstrip()


def _digits(value: float) -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"
