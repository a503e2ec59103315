"""The harness must bite: bugs that are planted in the store are caught, within so many states."""

import os

import pytest

from tools.crash import planted, shim
from tools.scratch import directory_in_memory

SEED = int(os.environ.get("PAGESTORE_SEED", "1"))


@pytest.mark.skipif(shim.compiler() is None, reason="no C compiler for the recorder")
@pytest.mark.parametrize("bug", planted.BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug(server, record_property, bug):
    record_property("planted bugs", 1)
    with directory_in_memory() as work:
        caught = planted.hunt(server, bug, SEED, work)
    assert caught, f"{bug.name}: not caught within {planted.MOST_STATES} states, seed {SEED}"
    record_property("planted bugs caught", 1)
    print(f"{bug.name}: {caught}")
