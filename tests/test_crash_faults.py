"""Every operation of a workload fails in its turn: the process goes on, or says that it is broken.

By the system calls themselves, so that LMDB's are among them; `test_fault.py` is about the arena's.
"""

import pytest

from tools.crash import deep, faults, rehearse, shim
from tools.crash.shim import Fault
from tools.scratch import directory_in_memory

pytestmark = pytest.mark.skipif(shim.compiler() is None, reason="no C compiler for the recorder")
# Fault -> the least number of points at which it must have been met.
KILLS = dict.fromkeys(faults.KILLS, 151)
# Syncs while a dense catalog is made, as the store is closed. Where one fails nothing is lost, and
# nobody has to know: the old file stays, or who comes next syncs the directory.
OF_A_COPY = 3
ERRORS = dict(zip(faults.ERRORS, (140, 20, 140, 20, 65, 8, 35, 4), strict=True))


@pytest.fixture(scope="module")
def undisturbed(server):
    """What the store holds after each step of a workload."""
    known = {}
    with directory_in_memory() as top:
        for workload in ("mixed", "creation"):
            known[workload] = rehearse.record(server, workload, *deep.fresh(top))[0].known
    return known


@pytest.fixture
def work():
    with directory_in_memory() as top:
        yield top


def sweep(server, undisturbed, work, plan, stride=1):
    met = []
    for workload, known in undisturbed.items():
        found = faults.sweep(server, workload, plan, known, work, stride=stride)
        wrong = [(workload, str(w.plan), w.what[-800:]) for w in found.wrong]
        assert not wrong, wrong[:3]
        met.append(found)
    return met


@pytest.mark.parametrize("plan", KILLS, ids=lambda plan: plan.fault.name.lower())
def test_death_at_every_operation(server, undisturbed, work, record_property, plan):
    found = sweep(server, undisturbed, work, plan)
    points = sum(f.killed for f in found)
    assert points == sum(f.points for f in found)
    record_property("kill points", points)
    assert points >= KILLS[plan]


@pytest.mark.parametrize("plan", ERRORS, ids=str)
def test_an_error_at_every_operation(server, undisturbed, work, record_property, plan):
    found = sweep(server, undisturbed, work, plan, 6 if plan.forever else 1)
    points = sum(f.points for f in found)
    record_property("error points", points)
    assert points >= ERRORS[plan]
    assert sum(f.broken for f in found) > 0
    if plan.fault is Fault.SYNC:
        told = sum(f.broken for f in found)
        assert points - OF_A_COPY <= told <= points, "a sync that failed was passed over"


def test_the_numbers_that_were_promised():
    assert sum(KILLS.values()) >= 300
    assert sum(ERRORS.values()) >= 300
