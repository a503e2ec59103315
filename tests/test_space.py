"""Is a slot ever handed out that something refers to, or lost? Against a set of numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagestore import space as space_module
from pagestore.errors import CorruptionError, FullError
from pagestore.format import FREE, SPACE_LOG, runs_of
from pagestore.space import Space
from tests.shrunk import shrunk


class Records(dict):
    """Committed records; a transaction works on a copy."""

    def put(self, key: bytes, payload: bytes) -> None:
        self[key] = payload

    def delete(self, key: bytes) -> bool:
        return self.pop(key, None) is not None

    def scan(self, prefix: bytes):
        return [(k, v) for k, v in sorted(self.items()) if k.startswith(prefix)]


class Disk:
    """What every process shares: the records, the number of the last transaction, the slots."""

    def __init__(self, most: int = 1 << 20) -> None:
        self.records = Records()
        self.transaction = 0
        self.slots = 1
        self.numbers = 0
        self.used: set[int] = set()
        self.most = most

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def grow(self, slots: int, fill: bool = False) -> None:
        if slots > self.most:
            raise FullError("the disk is full")

    def run(self, space: Space, take: list[int], give: list[int], *, end: str = "commit") -> None:
        """One transaction: take and give in turn, then commit or abort."""
        records = Records(self.records)
        space.begin(records, self.transaction + 1, self.slots)
        given: set[int] = set()
        taken: set[int] = set()
        for i in range(max(len(take), len(give))):
            if i < len(give):
                slots = sorted(self.used - given)[:: max(1, give[i])][: give[i]]
                space.give(np.array(slots, np.int64))
                given |= set(slots)
            if i < len(take):
                try:
                    found = space.take(take[i], self.grow).tolist()
                except FullError:
                    end = "abort"
                    break
                assert len(set(found)) == len(found) == take[i]
                assert 0 not in found, "the superblock"
                assert not set(found) & self.used, "in use, or freed by this very transaction (S2)"
                assert not set(found) & taken
                taken |= set(found)
        if end == "abort":
            space.aborted()
            return
        space.save(records, self.number)
        assert space.free == space.slots - 1 - len(self.used - given) - len(taken)
        if records != self.records or space.slots != self.slots:
            self.records, self.transaction, self.slots = records, self.transaction + 1, space.slots
            space.committed(self.transaction)
        self.used = (self.used - given) | taken

    def check(self) -> None:
        free, _, _ = space_module.load(self.records, self.slots)
        assert set(np.flatnonzero(free).tolist()) == set(range(1, self.slots)) - self.used


@pytest.fixture(autouse=True, params=[True, False], ids=["small", "usual"])
def _constants(request):
    if not request.param:
        yield
        return
    with shrunk():
        yield


amounts = st.lists(st.integers(1, 40), max_size=4)
transactions = st.lists(
    st.tuples(st.integers(0, 1), amounts, amounts, st.sampled_from(("commit",) * 4 + ("abort",))),
    max_size=25,
)


@given(transactions)
def test_two_processes_never_take_what_is_in_use(steps):
    disk, processes = Disk(), (Space(), Space())
    for which, take, give, end in steps:
        disk.run(processes[which], take, give, end=end)
        disk.check()


@given(transactions)
@settings(max_examples=40)
def test_a_fresh_process_reads_the_same(steps):
    disk, space = Disk(), Space()
    for _, take, give, end in steps:
        disk.run(space, take, give, end=end)
        fresh = Space()
        fresh.begin(disk.records, disk.transaction + 1, disk.slots)
        assert fresh.free == disk.slots - 1 - len(disk.used)


@given(transactions, st.integers(20, 200))
@settings(max_examples=40)
def test_a_full_disk_is_used_to_the_last_slot(steps, most):
    """Whoever asks for as many slots as are free gets them, or nobody could."""
    disk, space = Disk(most), Space()
    for _, take, give, end in steps:
        disk.run(space, take, give, end=end)
        disk.check()
    left = disk.most - 1 - len(disk.used)
    if left:
        disk.run(Space(), [left], [])
        assert len(disk.used) == disk.most - 1
    before = set(disk.used)
    disk.run(Space(), [1], [])
    assert disk.used == before, "there was nothing left to take"


def test_the_log_is_folded_and_stays_short():
    disk, space = Disk(), Space()
    for i in range(3 * space_module.LOG_RECORDS):
        disk.run(space, [3], [2] if i else [])
        logged = [k for k in disk.records if k[:1] == SPACE_LOG]
        assert len(logged) <= space_module.LOG_RECORDS
    disk.check()
    assert [k for k in disk.records if k[:1] == FREE]


def test_a_transaction_that_does_nothing_writes_nothing():
    disk, space = Disk(), Space()
    disk.run(space, [5], [])
    before = dict(disk.records)
    disk.run(space, [], [])
    assert disk.records == before


def test_what_is_freed_twice_is_reported():
    disk, space = Disk(), Space()
    disk.run(space, [5], [])
    space.begin(disk.records, disk.transaction + 1, disk.slots)
    slot = np.array([min(disk.used)])
    space.give(slot)
    for bad in (slot, np.array([0]), np.array([disk.slots])):
        with pytest.raises(CorruptionError):
            space.give(bad)


def test_records_that_name_slots_outside_are_reported():
    disk, space = Disk(), Space()
    disk.run(space, [5], [])
    with pytest.raises(CorruptionError):
        space_module.load(disk.records, min(disk.used))


def test_one_commit_is_one_run():
    """Free slots that lie scattered are not used while most of the arena is in use."""
    disk, space = Disk(), Space()
    disk.run(space, [4000], [])
    disk.run(space, [], [7])
    found: list[int] = []
    records = Records(disk.records)
    space.begin(records, disk.transaction + 1, disk.slots)
    found += space.take(100, disk.grow).tolist()
    assert len(runs_of(np.array(found))) == 1
