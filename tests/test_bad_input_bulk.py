"""Bad inputs by the thousand: what a damaged store says is detected or identical.

Everything follows from a seed, which each test's name shows. ``PAGESTORE_SEED`` sets another.
"""

import itertools
import os
from collections import Counter

import pytest

import pagestore
from pagestore.directory import ARENA, CATALOG
from tests.damage import assert_clean, contents
from tools.damage.patches import ancestors, every_cut, flip
from tools.damage.reseal import KINDS
from tools.damage.victim import Victim, torture, wrong
from tools.scratch import directory_in_memory

SEED = int(os.environ.get("PAGESTORE_SEED", "20240229"))
EQUAL = type("EqualToAll", (), {"__ne__": lambda self, other: other != other})()
seeded = pytest.mark.parametrize("seed", [SEED])


@pytest.fixture(scope="module")
def victim():
    with directory_in_memory() as top:
        yield Victim.make(top / "store")


@pytest.fixture
def attack(victim, record_property):
    """Try some inputs, of which there must be so many; what they came to, by outcome."""

    def tried(inputs, least, seed=None):
        inputs = list(inputs)
        assert len(inputs) >= least
        results = victim.try_all(inputs)
        bad = [f"{inputs[i]}: {said[:300]}" for i, said in wrong(inputs, results)]
        assert not bad, f"{len(bad)} of {len(inputs)} from seed {seed}:\n" + "\n".join(bad[:20])
        record_property("bad inputs", len(inputs))
        return Counter(result.partition(":")[0] for result in results)

    yield tried
    with pagestore.open(victim.path) as store:
        assert contents(store) == victim.expected
        assert_clean(store)


def some(victim, part, seed, count):
    return itertools.islice(victim.inputs(part, seed), count)


@seeded
def test_the_arena(victim, attack, seed):
    found = attack(some(victim, "arena", seed, 400), 400, seed)
    assert found["finding"] > 50


@seeded
def test_the_header_of_the_arena(victim, attack, seed):
    found = attack(some(victim, "header", seed, 300), 300, seed)
    assert found["FormatError"] > 20
    assert found["CorruptionError"] > 20


@seeded
def test_the_catalog(victim, attack, seed):
    found = attack(some(victim, "catalog", seed, 500), 500, seed)
    assert found["CorruptionError"] > 100


def test_every_bit_of_the_superblock(victim, attack):
    whole = victim.life.now[ARENA]
    found = attack([flip(whole, ARENA, bit) for bit in range(56 * 8)], 448)
    assert found["identical"] == 0


@pytest.mark.parametrize(("file", "least"), [(ARENA, 700), (CATALOG, 50)])
def test_every_cut(victim, attack, file, least):
    found = attack(every_cut(victim.life, file), least)
    assert found["identical"] < least // 2, "the last pages may be free ones"


@pytest.mark.parametrize(("file", "least"), [(ARENA, 20), (CATALOG, 100)])
def test_every_older_copy_of_a_page(victim, attack, file, least):
    """A page of the catalog from before is whole and rightly sealed: only the sum tells."""
    older = ancestors(victim.life, file)
    found = attack(older, least)
    assert found["identical"] < len(older), "a page that is free now may be what it was"


@seeded
def test_records_that_a_stranger_resealed(victim, attack, seed):
    records = list(some(victim, "records", seed, 500))
    assert {r.kind for r in records} == set(KINDS)
    found = attack(records, 500, seed)
    assert found["finding"] > 250


@seeded
def test_torture_keeps_what_went_wrong(seed, tmp_path, monkeypatch):
    """A store that reads as other data, and whose check says nothing, is left to be looked at."""
    monkeypatch.setattr("tools.damage.victim.BATCH", 30)
    monkeypatch.setattr("pagestore.verify.page_sums", lambda *_: EQUAL)
    report = torture(seed, count=1, keep=tmp_path / "kept")
    assert report.inputs == 120
    assert report.failures
    assert f"seed {seed}" in report.failures[0]
    kept = sorted((tmp_path / "kept").iterdir())
    assert len(kept) == len(report.failures)
    assert all((path / "store" / ARENA).exists() for path in kept)
    monkeypatch.undo()
    with pagestore.open(kept[0] / "store", "r") as store:
        assert list(store.check(data=True))
