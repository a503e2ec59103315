"""apsw's own tests, with databases in a store: as with files, but for what is listed here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("apsw")

ROOT = Path(__file__).resolve().parent.parent
EXCEPTIONS = {
    "APSW.testConnectionPragma": "expects the journal mode 'delete'; it is 'memory', always",
    "APSW.testConnectionVfsname": "SQLite asks the file, and only one over another file answers",
    "APSW.testIssue106": "as testIssue98",
    "APSW.testIssue98": "expects that a reader keeps a writer from committing; none does here",
    "APSW.testIssue526": "expects the random number that a journal file begins with",
    "APSW.testVFS": "copies a journal file that lies beside the database; there is none",
    "APSW.testVFSWithWAL": "as testVFS",
    "APSW.testWAL": "a Python VFS has no shared memory, and so no WAL",
}


def outcomes(directory: Path, *tests: str) -> dict[str, str]:
    command = [sys.executable, "-m", "tools.sqlite.suite", "pagestore", str(directory), *tests]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=900,
        check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    found: dict[str, str] = json.loads(run.stdout)
    return found


def judge(found: dict[str, str], listed: dict[str, str], record: pytest.FixtureRequest) -> None:
    failed = {name for name, outcome in found.items() if outcome == "failed"}
    assert failed - listed.keys() == set(), "these pass with files"
    assert listed.keys() & found.keys() - failed == set(), "these pass: take them off the list"
    record("apsw's tests", len(found))  # type: ignore[operator]


@pytest.mark.slow
def test_all_of_apsws_tests(tmp_path, record_property):
    found = outcomes(tmp_path)
    again = [n for n, outcome in found.items() if outcome == "failed" and n not in EXCEPTIONS]
    if again:  # one of them compares the time that two statements take
        found |= outcomes(tmp_path, *again)
    assert len(found) >= 230
    assert found.keys() >= EXCEPTIONS.keys()
    judge(found, EXCEPTIONS, record_property)


def speed(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.sqlite.speed", "--apsw", "--correctness", *options]
    return subprocess.run(
        [*command, "--scale", "1", "--iterations", "2", "--database", str(directory / "db")],
        cwd=directory, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip


def test_apsws_speed_test_returns_the_same_rows(tmp_path):
    """With its test of correctness, and a cache so small that transactions are spilled."""
    run = speed(tmp_path, "--tests", "statements", "--sqlite-cache", "0.1")
    assert run.returncode == 0, run.stderr[-2000:]
    assert "the same 4,047 rows through 3 connections each" in run.stdout
