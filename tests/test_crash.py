"""Crashes: every state that one may leave opens, and is what was acknowledged or one step further.

``PAGESTORE_SEED`` chooses the combinations that are tried where there are too many for all.
"""

import os

import pytest

import pagestore
from tools.crash import deep, examine, own, rehearse, shim, workloads
from tools.crash.examine import Share
from tools.crash.stage import stage

SEED = int(os.environ.get("PAGESTORE_SEED", "1"))
# At least as many different states as this: the record is what makes them, and may shrink.
LEAST = {
    "creation": 200, "growth": 500, "steady": 700, "naming": 800, "branches": 700,
    "compaction": 700, "flushing": 600, "two_writers": 700, "reopening": 600, "history": 700,
    "watched": 700, "mixed": 700,
}  # fmt: skip

pytestmark = pytest.mark.skipif(shim.compiler() is None, reason="no C compiler for the recorder")


@pytest.fixture(scope="module")
def server():
    with stage() as server:
        yield server


@pytest.fixture
def work():
    with examine.memory_directory() as top:
        yield top


def recorded(server, work, workload):
    return rehearse.record(server, workload, *deep.fresh(work / "first"))[0]


def look(record, tmp_path, record_property, share=None):
    """Judge the states of a record; a bad one is left in `tmp_path`."""
    report = examine.examine(record, SEED, share)
    record_property("crash states", report.states)
    for failure in report.failures[:3]:
        examine.keep(record, SEED, failure.number, tmp_path / f"state-{failure.number}")
    assert not report.failures, f"seed {SEED}, left in {tmp_path}: {report.failures[:3]}"
    return report.states


def test_a_workload_for_every_number():
    assert set(LEAST) == set(workloads.FROM_NOTHING)


@pytest.mark.parametrize("workload", workloads.FROM_NOTHING)
def test_every_state(server, work, tmp_path, record_property, workload):
    record = recorded(server, work, workload)
    assert look(record, tmp_path, record_property) >= LEAST[workload]


@pytest.mark.parametrize("workload", ["mixed", "flushing", "compaction"])
def test_a_crash_after_a_crash(server, work, tmp_path, record_property, workload):
    """A state is recovered under the recorder, commits twice, and crashes again."""
    record = recorded(server, work, workload)
    seen = 0
    for _, second in deep.second_records(server, record, SEED, work, stride=250):
        seen += look(second, tmp_path, record_property, Share(seen % 6, 6))
    assert seen > 60


@pytest.mark.parametrize("workload", ["mixed"])
def test_a_crash_after_a_failed_sync(server, work, tmp_path, record_property, workload):
    """What was pending then may be lost or not, whatever later syncs say."""
    record = recorded(server, work, workload)
    seen = 0
    for _, failed in deep.failed_sync_records(server, workload, record, work):
        share = Share(every=2, since=deep.failing_point(failed))
        seen += look(failed, tmp_path, record_property, share)
    assert seen > 200


# ------------------------------------------------------------------------- other people's programs


def program(path, acknowledged):
    """Somebody's program: two arrays that must always agree."""
    with pagestore.open(path) as store:
        with store.begin() as ws:
            ws.create("credit", 1000, "i8")[:] = 100
            ws.create("debit", 1000, "i8")[:] = -100
        acknowledged(store)
        for i in range(3):
            with store.begin() as ws:
                ws["credit"][i] += 5
                ws["debit"][i] -= 5
            acknowledged(store)


def careless(path, acknowledged):
    """The same in two commits: a crash between them is a loss."""
    with pagestore.open(path) as store:
        with store.begin() as ws:
            ws.create("credit", 1000, "i8")
            ws.create("debit", 1000, "i8")
        acknowledged(store)
        for name, value in (("credit", 5), ("debit", -5)):
            with store.begin() as ws:
                ws[name][0] += value
            acknowledged(store)


def balanced(store):
    with store.view("main") as view:
        if "credit" in view and int(view["credit"].sum()) != -int(view["debit"].sum()):
            raise ValueError("the books do not balance")


@pytest.mark.parametrize(("work_of", "sound"), [("program", True), ("careless", False)])
def test_a_program_of_ones_own(server, work, record_property, work_of, sound):
    spec = f"tests.test_crash:{work_of}"
    record = own.record(server, spec, *deep.fresh(work / "own"))
    report = examine.examine(record, SEED, Share(every=3), check=balanced)
    record_property("crash states", report.states)
    assert report.states > 80
    assert (not report.failures) == sound
    assert all("balance" in failure.what for failure in report.failures)
