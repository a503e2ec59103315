"""Crashes of a SQLite workload: every state opens, is sound to SQLite, and is whole transactions.

``python -m tools.crash program tools.sqlite.ledgers:work --check tools.sqlite.ledgers:check`` tries
all of the states; here it is some.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.crash.recorder import missing

pytest.importorskip("apsw")
pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
SEED = os.environ.get("PAGESTORE_SEED", "1")


def test_states_of_two_databases(tmp_path, record_property):
    command = "-m tools.crash program tools.sqlite.ledgers:work --check tools.sqlite.ledgers:check"
    options = ["--seed", SEED, "--every", "5", "--keep", str(tmp_path / "bad")]
    done = subprocess.run(
        [sys.executable, *command.split(), *options], cwd=Path(__file__).parents[1],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    [states] = re.findall(r"^(\d+) crash states in \d+ s, 0 of them not", done.stdout, re.M)
    record_property("crash states", int(states))
    assert int(states) >= 350
