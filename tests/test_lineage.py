"""What versions brought, put together again, is what the store says of each."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

import pagestore
from pagestore import lineage
from tests.conftest import PAGE

PAGES = 40


def random_history(store, seed, versions=25):
    """Branches, names, zeros, contents that come back, regions that grow, go and come again."""
    chance = random.Random(seed)
    with store.begin() as ws:
        ws.create("a", PAGES * PAGE)[:: PAGE // 2] = 1
    branches = ["main"]
    for number in range(versions):
        branch = chance.choice(branches)
        with store.begin(branch) as ws:
            for _ in range(chance.randrange(4)):
                change(ws, chance)
        if chance.random() < 0.8:
            store.snapshot(f"s{number}", at=branch)
        if chance.random() < 0.2:
            branches.append(f"b{number}")
            store.create_branch(branches[-1], at=branch)
    for name in chance.sample(sorted(store.snapshots), len(store.snapshots) // 4):
        store.delete_snapshot(name)
    if seed % 2:
        store.compact()


def change(ws, chance):
    kind = chance.randrange(8)
    if kind == 0 and "b" in ws:
        ws.delete("b")
    elif kind == 1 and "b" not in ws:
        ws.create("b", chance.randrange(3 * PAGE))[:] = chance.randrange(2)
    elif kind == 2:
        ws.resize("a", chance.randrange(PAGES // 2, 2 * PAGES) * PAGE)
    else:
        first = chance.randrange(PAGES // 2)
        # 0: zeros; few values, so that what was comes back
        ws["a"][first * PAGE : (first + chance.randrange(1, 9)) * PAGE] = chance.randrange(3)


def shown(steps):
    """Version id → region name → (number, {page: (slot, checksum)}), from what each brought."""
    found = {0: {}}
    for step in steps:
        version, brought = step.version, step.brought
        parent = found[version.parent or 0]
        parts = {part.region: part for part in brought}
        regions = {}
        for name in version.regions:
            part = parts.get(name)
            number, table = parent.get(name, (None, {}))
            if part:
                table = dict(table) if number == part.number else {}
                columns = (part.page, part.slot, part.before, part.checksum)
                for page, slot, before, checksum in zip(
                    *(c.tolist() for c in columns), strict=True
                ):
                    assert table.get(page, (0, 0))[0] == before
                    assert (slot == 0) == (checksum == 0)
                    table[page] = (slot, checksum)
                number = part.number
            regions[name] = number, {p: at for p, at in table.items() if at[0]}
        found[version.id] = regions
    del found[0]
    return found


@pytest.mark.parametrize("seed", range(8))
def test_what_versions_brought_is_what_they_show(store, seed):
    random_history(store, seed)
    steps = store.lineage()
    found = shown(steps)
    assert [step.version for step in steps] == [store.version(v) for v in found]
    stats = store.stats()
    assert stats.versions == len(steps)
    slots = {
        v: {at[0] for _, table in regions.values() for at in table.values()}
        for v, regions in found.items()
    }
    assert stats.referred_bytes == len(set().union(*slots.values())) * PAGE
    for name, version in {**store.snapshots, **store.branches}.items():
        assert name in version.names
        assert sum(len(table) for _, table in found[version.id].values()) == len(slots[version.id])
    for a, b in itertools.combinations(found, 2):
        assert differing(found[a], found[b]) == said(store.diff(a, b))


def differing(a, b):
    return {
        (name, page)
        for name in a.keys() & b.keys()
        if a[name][0] == b[name][0]
        for page in a[name][1].keys() | b[name][1].keys()
        if a[name][1].get(page, (0, 0))[1] != b[name][1].get(page, (0, 0))[1]
    }


def said(changes):
    return {
        (c.region, page) for c in changes if c.kind == "written" for page in range(c.start, c.stop)
    }


def test_contents_that_come_back_have_their_checksum_again(store):
    for value in (1, 2, 1):
        with store.begin() as ws:
            if "a" not in ws:
                ws.create("a", 2 * PAGE)
            ws["a"][:PAGE] = value
        store.snapshot(f"s{len(store.snapshots)}")
    first, second, third = (step.brought[0] for step in store.lineage() if step.brought)
    assert first.checksum == third.checksum != second.checksum
    assert third.slot != first.slot


def test_one_look_while_another_writes(store):
    with store.begin() as ws:
        ws.create("a", PAGES * PAGE)[:] = 1
        for number in range(20):
            ws["a"][number] = 7
            ws.commit()
            shown(store.lineage())


def test_what_cannot_be_read_is_described_and_the_rest_is_there(make_store, monkeypatch):
    store = make_store(history="all")
    with store.begin() as ws:
        ws.create("a", PAGES * PAGE)[:] = 1
        ws.create("b", PAGE)[:] = 1
    store.snapshot("s")
    with store.begin() as ws:
        ws["a"][0] = 2
        ws["b"][0] = 2
    compared = lineage._compared

    def failing(nodes, old, region, since):
        if region.name == "a" and old is not None:
            raise pagestore.CorruptionError("page-table node 9 is missing from the catalog")
        return compared(nodes, old, region, since)

    monkeypatch.setattr("pagestore.lineage._compared", failing)
    with pytest.raises(pagestore.CorruptionError, match="node 9"):
        store.lineage()
    damaged = []
    steps = store.lineage(damaged=damaged)
    last = steps[-1]
    assert [(part.region, len(part.page)) for part in last.brought] == [("a", 0), ("b", 1)]
    where = f"version {last.version.id}, region 'a'"
    assert damaged == [f"{where}: page-table node 9 is missing from the catalog"]


def test_without_checksums_a_page_is_equal_where_it_is_the_same(store, monkeypatch):
    with store.begin() as ws:
        ws.create("a", 2 * PAGE)[:] = 1

    def failing(*_):
        raise pagestore.CorruptionError("the checksums of slots in use are missing")

    monkeypatch.setattr("pagestore.lineage.read_sums", failing)
    damaged = []
    [part] = store.lineage(damaged=damaged)[-1].brought
    assert part.checksum.tolist() == part.slot.tolist()
    assert np.all(part.checksum != 0)
    assert damaged == ["checksums: the checksums of slots in use are missing"]


def test_a_store_without_regions(store):
    assert [step.brought for step in store.lineage()] == [()]
