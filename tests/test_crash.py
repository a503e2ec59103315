"""Crashes: every state that one may leave opens, and is what was acknowledged or one step further.

``PAGESTORE_SEED`` chooses the combinations that are tried where there are too many for all.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tools.crash import deep, examine, rehearse, shim, workloads
from tools.crash.examine import Share
from tools.crash.recorder import missing, recorder
from tools.scratch import directory_in_memory

SEED = int(os.environ.get("PAGESTORE_SEED", "1"))
# At least as many different states as this: the record is what makes them, and may shrink.
LEAST = {
    "creation": 280, "growth": 820, "steady": 1110, "naming": 1000, "branches": 1000,
    "compaction": 1100, "flushing": 830, "two_writers": 1080, "reopening": 870, "history": 570,
    "watched": 580, "mixed": 560,
}  # fmt: skip
HALF = ("history", "watched", "mixed")  # much in them is in others too: every second state

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
needs_compiler = pytest.mark.skipif(shim.compiler() is None, reason="strace makes nothing fail")


@pytest.fixture
def work():
    with directory_in_memory() as top:
        yield top


@pytest.fixture(scope="module")
def record_of():
    with recorder() as record_of:
        yield record_of


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


def test_the_numbers_that_were_promised():
    assert set(LEAST) == set(workloads.FROM_NOTHING)
    assert sum(LEAST.values()) + 3 * 80 + 260 > 10_000  # with what crashes again


@pytest.mark.parametrize("workload", workloads.FROM_NOTHING)
def test_every_state(record_of, work, tmp_path, record_property, workload):
    record = record_of(rehearse.perform, workload, *deep.fresh(work / "first"))
    share = Share(SEED % 2, 2) if workload in HALF else Share()
    assert look(record, tmp_path, record_property, share) >= LEAST[workload]


@needs_compiler
@pytest.mark.parametrize("workload", ["mixed", "flushing", "compaction"])
def test_a_crash_after_a_crash(server, work, tmp_path, record_property, workload):
    """A state is recovered under the recorder, commits twice, and crashes again."""
    record = recorded(server, work, workload)
    seen = 0
    for _, second in deep.second_records(server, record, SEED, work, stride=170):
        seen += look(second, tmp_path, record_property, Share(seen % 5, 5))
    assert seen >= 80


@needs_compiler
@pytest.mark.parametrize("workload", ["mixed"])
def test_a_crash_after_a_failed_sync(server, work, tmp_path, record_property, workload):
    """What was pending then may be lost or not, whatever later syncs say."""
    record = recorded(server, work, workload)
    seen = 0
    for _, failed in deep.failed_sync_records(server, workload, record, work):
        share = Share(every=2, since=deep.failing_point(failed))
        seen += look(failed, tmp_path, record_property, share)
    assert seen >= 260


# ------------------------------------------------------------------------- other people's programs

RELIABILITY = Path(__file__).parents[1] / "docs" / "reliability.md"


def crash_command(directory, work="books:work"):
    """Run the line that the document shows, on the program that it shows."""
    text = RELIABILITY.read_text()
    [program] = re.findall(r"```python\n# books.py\n(.*?)```", text, re.S)
    [line] = re.findall(r"```sh\n(python -m tools.crash program .*?)\n```", text)
    (directory / "books.py").write_text(program)
    two_commits = '            with store.begin() as ws:\n                ws["debit"]'
    careless = program.replace('                ws["debit"]', two_commits)
    (directory / "careless.py").write_text(careless)
    words = shlex.split(f"{line} --keep {directory / 'bad'} --every 4")
    return subprocess.run(
        [sys.executable, *(w.replace("books:work", work) for w in words[1:])],
        cwd=directory, env=os.environ | {"PYTHONPATH": str(RELIABILITY.parents[1])},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_program_of_ones_own(tmp_path):
    done = crash_command(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ crash states in \d+ s, 0 of them not", done.stdout, re.M)


def test_a_careless_program(tmp_path):
    done = crash_command(tmp_path, "careless:work")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the program's check says" in done.stdout
    assert list((tmp_path / "bad").glob("state-*/store/arena"))
