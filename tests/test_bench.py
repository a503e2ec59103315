"""The benchmark measures what it says: every peer at hand does the whole work, at small size."""

from __future__ import annotations

import json

import pytest

from tools.bench.__main__ import main
from tools.bench.conform import conform
from tools.bench.harness import unmount_below
from tools.bench.peers import Lacks, find, names
from tools.bench.results import OURS, Results
from tools.bench.work import MODULES


@pytest.mark.parametrize("name", names())
def test_peer_keeps_the_protocol(name, tmp_path):
    try:
        peer = find(name)
    except Lacks as e:
        pytest.skip(str(e))
    try:
        conform(peer, tmp_path)
    finally:
        unmount_below(tmp_path)


def test_every_work_item_runs_and_is_verified(tmp_path):
    """No time is judged: only that everything is measured, compared with the model, reported."""
    out = tmp_path / "out"
    done = main(["--scale=smoke", "--peers=", f"--dir={tmp_path}", f"--out={out}"])
    results = Results.of(json.loads((out / "results.json").read_text()))
    assert not [sample for sample in results.samples if sample.metric == "failed"]
    assert done == 0
    measured = {s.work for s in results.samples if s.peer == OURS and s.values}
    assert measured == set(MODULES)
    report = (out / "results.md").read_text()
    assert all(f"## {work}: " in report for work in MODULES)
