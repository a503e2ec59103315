"""The targets, in one table, and how a run stands to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import frozen

from tools.bench.results import BACK, LIMIT, OURS, Results

BOTH = "change and commit"
BY_SIZE, BY_VERSIONS = "commit, by size of the region", "commit, after so many versions"
NEW = "the same in a new store, in turns with it"
WAYS = ((OURS, ""), ("pagestore_writes", ", by `ws.write`"))


@frozen
class Verdict:
    """A target; `value` is None where the run did not measure it."""

    work: str
    what: str
    value: float | None
    goal: float
    unit: str = "×"
    at_least: bool = False

    @property
    def ok(self) -> bool | None:
        if self.value is None:
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal


def judge(results: Results) -> list[Verdict]:
    """Every target that is in reach of what was measured."""
    return [verdict for part in PARTS for verdict in part(results)]


def _over(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def _best(r: Results, work: str, case: str, metric: str, what: str, goal: float) -> Verdict:
    value, whose = r.best(work, case, metric)
    return Verdict(work, f"{what} ({whose})", _over(r.median(work, case, metric), value), goal)


def _snapshots(r: Results) -> Iterator[Verdict]:
    for case in r.cases("W1", "commit"):
        goal = 1.3 if case == f"{r.scale['many']:,} pages" else 2.0
        least = r.median("W1", case, "commit", LIMIT)
        for peer, way in WAYS:
            ratio = _over(r.median("W1", case, "commit", peer), least)
            yield Verdict("W1", f"snapshot, {case}{way}: time over the limit's", ratio, goal)
    for case in r.cases("W1", BOTH):
        yield _best(r, "W1", case, BOTH, f"snapshot, {case}: time over the best peer's", 0.1)
    for case in r.cases("W1", "space"):
        yield _best(r, "W1", case, "space", f"snapshot, {case}: space over the best peer's", 0.2)


def _commits(r: Results) -> Iterator[Verdict]:
    for peer, what, goal in (
        ("lmdb_versions", "rate over that of (page, version) rows in LMDB", 1.0),
        ("syncs", "rate over that of two bare syncs", 0.45),
        ("icechunk_zarr", "rate over Icechunk's", 20.0),
    ):
        theirs = r.median("W2", "4 pages", BOTH, peer)
        for ours, way in WAYS:
            ratio = _over(theirs, r.median("W2", "4 pages", BOTH, ours))
            yield Verdict("W2", f"{what}{way}", ratio, goal, at_least=True)


def _opening(r: Results) -> Iterator[Verdict]:
    for case in r.cases("W3", "open"):
        took = r.median("W3", case, "open")
        yield Verdict("W3", f"open: {case}", _over(took, 1e-3), 5.0, "ms")


def _scans(r: Results) -> Iterator[Verdict]:
    for case in r.cases("W4", "first pass"):
        for metric in ("first pass", "later passes"):
            ratio = _over(r.median("W4", case, metric, LIMIT), r.median("W4", case, metric))
            goal = 0.98 if case == "fresh" else 0.9
            what = f"scan, {case}, {metric}: speed over np.memmap's"
            yield Verdict("W4", what, ratio, goal, at_least=True)


def _branches(r: Results) -> Iterator[Verdict]:
    for peer, way in WAYS:
        took = r.median("W5", "", "branch, change, commit", peer)
        yield Verdict("W5", f"branch, change a page, commit{way}", _over(took, 1e-3), 2.0, "ms")


def _diffs(r: Results) -> Iterator[Verdict]:
    cases = r.cases("W6", "diff")
    for case in cases:
        for metric in ("diff, store just opened", "diff"):
            took = r.median("W6", case, metric)
            yield Verdict("W6", f"{metric}: {case}", _over(took, 1e-3), 5.0, "ms")
    if len(cases) > 1:
        small, large, *_ = (r.median("W6", case, "diff") for case in cases)
        yield Verdict("W6", "diff: large region over small", _over(large, small), 1.25)


def _deleting(r: Results) -> Iterator[Verdict]:
    both = "delete and give back"
    cases = r.cases("W7", both)
    for case in cases:
        back = r.median("W7", case, BACK)
        yield Verdict("W7", f"bytes back: {case}", back, 0.99, at_least=True)
        yield _best(r, "W7", case, both, f"delete {case}: time over the best peer's", 0.1)
    few, many = (r.find("W7", case, "delete") for case in cases[:2]) if cases[1:] else (None, None)
    if few and many and few.x and many.x:
        ratio = _over(many.values[0] / many.x, few.values[0] / few.x)
        yield Verdict("W7", "time a version, long history over short", ratio, 1.25)


def _starting(r: Results) -> Iterator[Verdict]:
    what = "start to first byte"
    cases = r.cases("W8", what)
    for peer, way in ((OURS, ""), ("pagestore_writes", ", by `view.read`")) if cases else ():
        ratio = _over(r.median("W8", cases[-1], what, peer), r.median("W8", cases[0], what, peer))
        yield Verdict("W8", f"start: {cases[-1]} over {cases[0]}{way}", ratio, 1.2)
    ratio = _over(
        r.median("W8", "", "import"), r.median("W8", "", "import numpy, in turns with it")
    )
    yield Verdict("W8", "import pagestore over import numpy", ratio, 1.3)


def _readers(r: Results) -> Iterator[Verdict]:
    ratio = _over(
        r.median("W9", "readers and writer", "readers"),
        r.median("W9", "readers, a burning process", "readers"),
    )
    what = "readers beside the writer over readers beside as much other work"
    yield Verdict("W9", what, ratio, 0.95, at_least=True)
    ratio = _over(
        r.median("W9", "readers and writer", "writer"),
        r.median("W9", "writer, readers of a plain file", "writer"),
    )
    what = "writer beside its readers over writer beside np.memmap's"
    yield Verdict("W9", what, ratio, 0.8, at_least=True)


def _growth(r: Results) -> Iterator[Verdict]:
    cases = r.cases("W10", BY_SIZE)
    for count in (4, 100):
        sizes = [case for case in cases if case.endswith(f", {count} pages")]
        for peer, way in WAYS if len(sizes) > 1 else ():
            small, large = (r.median("W10", sizes[i], BY_SIZE, peer) for i in (0, -1))
            what = f"commit in {sizes[-1]} over {sizes[0]}{way}"
            yield Verdict("W10", what, _over(large, small), 1.3)
    for case in r.cases("W10", BY_VERSIONS):
        ratio = _over(r.median("W10", case, BY_VERSIONS), r.median("W10", case, NEW))
        yield Verdict("W10", f"commit after {case}, over the first ones", ratio, 1.2)


PARTS: tuple[Callable[[Results], Iterator[Verdict]], ...] = (
    _snapshots,
    _commits,
    _opening,
    _scans,
    _branches,
    _diffs,
    _deleting,
    _starting,
    _readers,
    _growth,
)
