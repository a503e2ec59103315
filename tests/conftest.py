"""Stores that are checked at the end of every test, and how hard hypothesis tries.

``HYPOTHESIS_PROFILE`` selects: ``default`` (seconds), ``ci`` (the same, always the same examples)
or ``long`` (an hour).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

import pagestore
from pagestore import kernel
from tests.market import make as make_market
from tests.shrunk import shrunk
from tools.crash.stage import Stage, stage

pytest.register_assert_rewrite("tests.browser", "tests.machine", "tests.model")

_COMMON: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "print_blob": True,
    "phases": [p for p in Phase if p is not Phase.explain],  # it traces every line
}
settings.register_profile("default", max_examples=100, stateful_step_count=40, **_COMMON)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.register_profile("long", max_examples=6000, stateful_step_count=60, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how much was tried: crash states, faults, bad inputs, planted bugs."""
    totals: Counter[str] = Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            for what, count in report.user_properties:  # one may come several times in a test
                if isinstance(count, int):
                    totals[what] += count
    if not totals:
        return
    bugs, caught = totals.pop("planted bugs", 0), totals.pop("planted bugs caught", 0)
    terminalreporter.section("tried")
    for what, count in sorted(totals.items()):
        terminalreporter.line(f"{count:,} {what}")
    if bugs:
        terminalreporter.line(f"{caught} of {bugs} planted bugs caught")


PAGE = 4096
MakeStore = Callable[..., pagestore.Store]


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[MakeStore]:
    """Open stores by name; each one that was made is checked when the test is over."""
    opened: list[pagestore.Store] = []

    def make(name: str = "s.ps", **options: Any) -> pagestore.Store:
        store = pagestore.open(tmp_path / name, **options)
        opened.append(store)
        return store

    yield make
    for store in opened:
        tracker = store._shared.tracker
        assert tracker.exact or tracker.name != "userfault", "gave up being exact"
    for path in {store.path for store in opened}:
        with pagestore.open(path) as store:
            assert list(store.check(data=True)) == []
    for store in opened:
        store.close()


@pytest.fixture(scope="session")
def server() -> Iterator[Stage]:
    """A process whose children are recorded, and fail on purpose."""
    with stage() as server:
        yield server


@pytest.fixture
def store(make_store: MakeStore) -> pagestore.Store:
    return make_store()


@pytest.fixture(params=["userfault", "pagemap", "compare"])
def tracking(request: pytest.FixtureRequest) -> str:
    if request.param in kernel.probe().reasons:
        pytest.skip(kernel.probe().reasons[request.param])
    return str(request.param)


@pytest.fixture(params=["auto", "portable"])
def mapping(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def any_store(make_store: MakeStore, tracking: str, mapping: str) -> pagestore.Store:
    """A store under every combination of tracking and mapping."""
    return make_store(tracking=tracking, mapping=mapping)


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of `tests.market`, to be looked at."""
    path = tmp_path_factory.mktemp("market") / "market.ps"
    make_market(path)
    return path


@pytest.fixture
def small() -> Iterator[None]:
    """Small constants: tall trees, merging runs, folding logs, bridges."""
    with shrunk():
        yield


@pytest.fixture
def filled(any_store: pagestore.Store) -> pagestore.Store:
    """`any_store` with 10 pages of ones in "x" and 4 in "y"."""
    with any_store.begin() as ws:
        ws.create("x", 10 * PAGE)[:] = 1
        ws.create("y", 4 * PAGE)[:] = 1
    return any_store
