"""Does the page table say what a dictionary says, however it is stacked, merged and shared?"""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagestore import pagetable
from pagestore.format import NODE, Extents, Table, VersionId, key_numbers, number_key
from pagestore.pagetable import NodeCache, Nodes, painted
from tests.shrunk import STACKED, TALL, USUAL, shrunk

PAGES = 48
Pages = dict[int, tuple[int, int]]  # page -> slot, birth; a page that is not there is zeros


class Records:
    """Just enough of a transaction: node records in a dictionary."""

    def __init__(self) -> None:
        self.there: dict[bytes, bytes] = {}
        self.count = 0

    def get(self, key: bytes) -> bytes | None:
        return self.there.get(key)

    def view(self, key: bytes) -> memoryview | None:
        raw = self.get(key)
        return None if raw is None else memoryview(raw)

    def put(self, key: bytes, payload: bytes) -> None:
        assert key not in self.there, "nodes are immutable (T1)"
        self.there[key] = payload

    def new_id(self) -> int:
        self.count += 1
        return self.count

    def nodes(self) -> set[int]:
        return {key_numbers(key)[0] for key in self.there}


class Tables:
    """A line of versions, each with its table and the same as a dictionary."""

    def __init__(self) -> None:
        self.records = Records()
        self.version = 0
        self.slot = 1
        self.history: list[tuple[Table, Pages]] = [(Table(), {})]

    def look(self) -> Nodes:
        """A fresh look, as another transaction has it: nothing is decoded yet."""
        return Nodes(self.records, NodeCache(), 0, self.records.new_id)  # type: ignore[arg-type]

    def change(self, start: int, length: int, step: int, zero: bool, at: int = -1) -> None:
        """Write every `step`-th page of a range, in the next version."""
        table, pages = self.history[at]
        self.version += 1
        numbers = np.arange(start, min(PAGES, start + length * step), step)
        slots = np.zeros(len(numbers), np.int64)
        if not zero:
            slots = np.arange(self.slot, self.slot + len(numbers))
            self.slot += len(numbers) + 1
        new = pagetable.singles(numbers, slots, self.version)
        table = pagetable.update(self.look(), table, new, VersionId(self.version))
        pages = dict(pages)
        for page, slot in zip(numbers.tolist(), slots.tolist(), strict=True):
            pages.pop(page, None)
            if slot:
                pages[page] = (slot, self.version)
        self.history.append((table, pages))

    def cut(self, count: int, at: int = -1) -> None:
        table, pages = self.history[at]
        self.version += 1
        table = pagetable.truncate(self.look(), table, count, VersionId(self.version))
        self.history.append((table, {p: s for p, s in pages.items() if p < count}))


def as_dict(extents: Extents) -> Pages:
    page, slot, birth = pagetable.expand(extents)
    assert len(np.unique(page)) == len(page), "extents are disjoint (T2)"
    return {
        p: (s, b) for p, s, b in zip(page.tolist(), slot.tolist(), birth.tolist(), strict=True) if s
    }


changes = st.one_of(
    st.tuples(
        st.just("change"), st.integers(0, PAGES - 1), st.integers(1, 20), st.integers(1, 4),
        st.sampled_from((False, False, False, True)),
    ),
    st.tuples(st.just("cut"), st.integers(0, PAGES)),
)  # fmt: skip
lines = st.lists(changes, min_size=1, max_size=14)


def made(steps: list[tuple], at: int | None = None, tables: Tables | None = None) -> Tables:
    tables = tables or Tables()
    for i, (what, *arguments) in enumerate(steps):
        getattr(tables, what)(*arguments, at=-1 if at is None or i else at)
    return tables


@pytest.fixture(autouse=True, params=[TALL, STACKED, None], ids=["tall", "stacked", "usual"])
def _constants(request):
    with shrunk(request.param, DENSE=12) if request.param else contextlib.nullcontext():
        yield


@given(lines)
def test_lookup_and_extents_say_what_was_written(steps):
    tables = made(steps)
    for table, pages in tables.history:
        assert as_dict(pagetable.extents(tables.look(), table)) == pages
        wanted = np.arange(0, PAGES + 30, 1 + len(pages) % 3)
        slot, birth = pagetable.lookup(tables.look(), table, wanted)
        for page, s, b in zip(wanted.tolist(), slot.tolist(), birth.tolist(), strict=True):
            assert s == pages.get(page, (0, 0))[0]
            assert not s or b == pages[page][1]


@given(lines)
def test_extents_are_sorted_and_joined(steps):
    tables = made(steps)
    found = pagetable.extents(tables.look(), tables.history[-1][0])
    assert (np.diff(found.page) > 0).all()
    assert (found.page[1:] >= (found.page + found.length)[:-1]).all()
    assert (found.slot > 0).all()


@given(lines, st.integers(0, 20), st.integers(0, 20))
def test_differences_are_those_of_the_dictionaries(steps, first, second):
    tables = made(steps)
    count = len(tables.history)
    (a, old), (b, new) = tables.history[first % count], tables.history[second % count]
    seen: dict[int, tuple[int, int]] = {}
    for found in pagetable.differences(tables.look(), a, b):
        pages, olds, _ = pagetable.expand(found.olds())
        news = pagetable.expand(found.news())[1]
        for page, s, t in zip(pages.tolist(), olds.tolist(), news.tolist(), strict=True):
            assert page not in seen
            seen[page] = s, t
    unlike = {
        page: (old.get(page, (0, 0))[0], new.get(page, (0, 0))[0])
        for page in range(PAGES)
        if old.get(page, (0, 0))[0] != new.get(page, (0, 0))[0]
    }
    assert seen == unlike


def test_differences_skip_what_is_shared(monkeypatch):
    """Two tables of many leaves that differ in one page: two leaves are decoded, not all."""
    tables = made([("change", 0, PAGES, 1, False), ("change", 7, 1, 1, False)])
    (a, _), (b, _) = tables.history[1:]
    decoded = []
    leaf = Nodes.leaf

    def counting(self, node):
        decoded.append(node)
        return leaf(self, node)

    look = tables.look()
    monkeypatch.setattr(Nodes, "leaf", counting)
    assert sum(len(d) for d in pagetable.differences(look, a, b)) == 1
    assert len(set(decoded)) == 2 or not a.height


@given(lines, lines, lines, st.integers(0, 20), st.integers(0, 20))
@settings(max_examples=60)
def test_exclusive_is_what_dropping_frees(trunk, left, right, fork, floor):
    """V with children N (and M), P an ancestor: exactly V's slots born after P that none has."""
    tables = made(trunk)
    at = fork % len(tables.history)
    table, pages = tables.history[at]
    others = []
    for steps in (left, right):
        made(steps, at, tables)
        others.append(tables.history[-1])
    # versions count up along the trunk: the table at `at` is of version `at`
    born_after = floor % (at + 1)
    for children in (others[:1], others, []):
        freed: Pages = {}
        for part in pagetable.exclusive(
            tables.look(), table, [t for t, _ in children], VersionId(born_after)
        ):
            freed |= as_dict(part)
        there = {slot for _, p in children for slot, _ in p.values()}
        assert freed == {
            page: (slot, birth)
            for page, (slot, birth) in pages.items()
            if birth > born_after and slot not in there
        }


@given(lines, lines, lines, st.integers(0, 20), st.integers(0, 20))
@settings(max_examples=60)
def test_exclusive_nodes_are_those_that_no_other_reaches(trunk, left, right, fork, ancestor):
    tables = made(trunk)
    at = fork % len(tables.history)
    table = tables.history[at][0]
    others = []
    for steps in (left, right):
        made(steps, at, tables)
        others.append(tables.history[-1][0])
    parent = ancestor % (at + 1)

    def reached(table: Table) -> set[int]:
        return {ref.node for ref in pagetable.walk(tables.look(), table)}

    for children in (others[:1], others, []):
        refs = pagetable.exclusive_nodes(tables.look(), table, children, VersionId(parent))
        found = [ref.node for ref in refs]
        assert len(set(found)) == len(found)
        kept = set().union(*(reached(t) for t in [*children, tables.history[parent][0]]))
        assert set(found) == reached(table) - (kept if at != parent else reached(table))


@given(lines)
@settings(max_examples=30)
def test_what_is_dropped_leaves_exactly_the_nodes_of_the_rest(steps):
    """Drop every version but the last, oldest first: its nodes are all that is left."""
    tables = made(steps)
    kept = 0
    last = len(tables.history) - 1
    for version in range(1, last):
        table, _ = tables.history[version]
        child = tables.history[version + 1][0]
        for ref in pagetable.exclusive_nodes(tables.look(), table, [child], VersionId(kept)):
            del tables.records.there[number_key(NODE, ref.node)]
    table, pages = tables.history[last]
    reached = {ref.node for ref in pagetable.walk(tables.look(), table)}
    # a birth of an ancestor that was dropped stays in the nodes that outlive it
    assert tables.records.nodes() == reached
    assert as_dict(pagetable.extents(tables.look(), table)) == pages


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9), st.booleans()), max_size=8),
       st.booleans())  # fmt: skip
def test_flatten_is_what_the_newest_says(runs, keep_zeros):
    stack, expected = [], {}
    for birth, (start, length, zero) in enumerate(reversed(runs), 1):
        slot = 0 if zero else 100 * birth
        column = (np.array([v], np.int64) for v in (start, length, slot, birth))
        stack.insert(0, Extents(*column))
        for i in range(length):
            expected[start + i] = (slot + i if slot else 0, birth)
    flat = pagetable.flatten(stack, keep_zeros=keep_zeros)
    pages, slots, births = (column.tolist() for column in pagetable.expand(flat))
    found = dict(zip(pages, zip(slots, births, strict=True), strict=True))
    assert found == {p: s for p, s in expected.items() if keep_zeros or s[0]}


def extents_of(*rows):
    return Extents(*(np.array(column, np.int64) for column in zip(*rows, strict=True)))


def test_flatten_joins_runs_that_continue_each_other():
    """Of one birth, too: pages that were moved together keep theirs."""
    low = extents_of((0, 1, 10, 3), (5, 1, 40, 3), (9, 2, 60, 2))
    top = extents_of((1, 1, 11, 3), (5, 1, 50, 3))
    flat = pagetable.flatten([top, low])
    assert flat.page.tolist() == [0, 5, 9]
    assert flat.length.tolist() == [2, 1, 2]
    assert flat.slot.tolist() == [10, 50, 60]


def test_flatten_of_many_small_runs():
    """A commit's pages over those before: some replace one, some stand between two."""
    low = extents_of(*((page, 1, 100 + page, 1) for page in range(0, 40, 2)))
    top = extents_of((3, 1, 7, 2), (4, 1, 8, 2), (60, 5, 20, 2))
    flat = pagetable.flatten([top, low])
    found = as_dict(flat)
    assert found == {p: (100 + p, 1) for p in range(0, 40, 2) if p != 4} | {
        3: (7, 2), 4: (8, 2), **{60 + i: (20 + i, 2) for i in range(5)}
    }  # fmt: skip
    assert (np.diff(flat.page) > 0).all()


@pytest.mark.parametrize("far", [0, 1 << 20])
def test_a_large_leaf_is_painted_for_who_commits_to_it_again_and_again(far: int) -> None:
    """Looked up by searching its runs at first; on the line of commits, not beside it."""
    tables, dense = Tables(), pagetable.DenseLeaves()

    def begin() -> Nodes:
        return Nodes(tables.records, NodeCache(), 0, tables.records.new_id, dense)  # type: ignore[arg-type]

    pages = np.append(np.arange(0, 4000, 2), [far + 4001])
    look = begin()
    first = pagetable.update(look, Table(), pagetable.singles(pages, pages + 10, 1), VersionId(1))
    look.committed()
    table = first
    for version in range(2, 3 + 2 * painted.PATIENCE):
        look = begin()
        found, _ = pagetable.lookup(look, table, np.array([2, 3, 4]))
        assert found.tolist() == [12, 0, 14 if version == 2 else 8_000 + version - 1]
        nodes = [node for _, node in pagetable.leaves(look, table)]
        assert any(dense.get((0, node)) for node in nodes) == (version >= 2 + painted.PATIENCE)
        new = pagetable.singles(np.array([4]), np.array([8_000 + version]), version)
        table = pagetable.update(look, table, new, VersionId(version))
        look.committed()
    # ... but not for who goes back to where the line began: perhaps once
    aside = begin()
    assert pagetable.lookup(aside, first, np.array([2, 3]))[0].tolist() == [12, 0]
    assert not any(dense.get((0, node)) for _, node in pagetable.leaves(aside, first))


def test_a_far_page_makes_the_tree_tall():
    tables = Tables()
    far = (1 << 40) - 1
    new = pagetable.singles(np.array([far]), np.array([9]), 1)
    with shrunk(USUAL):
        table = pagetable.update(tables.look(), Table(), new, VersionId(1))
        assert table.height == 4
        assert pagetable.lookup(tables.look(), table, np.array([0, far]))[0].tolist() == [0, 9]
        near = pagetable.update(
            tables.look(), table, pagetable.singles(np.array([3]), np.array([4]), 2), VersionId(2)
        )
        assert as_dict(pagetable.extents(tables.look(), near)) == {3: (4, 2), far: (9, 1)}
        cut = pagetable.truncate(tables.look(), near, 3, VersionId(3))
        assert as_dict(pagetable.extents(tables.look(), cut)) == {}


@pytest.mark.parametrize("leaves", [2, 3, 5, 70, 200])
@pytest.mark.parametrize("before", [0, 7])
def test_one_run_over_many_leaves(leaves: int, before: int) -> None:
    """A commit of a large region is one extent: every leaf that it crosses has its part."""
    look = Tables().look()
    span = pagetable.span(Table())
    count = leaves * span - before - 3
    run = Extents(*(np.array([v], np.int64) for v in (before, count, 100, 1)))
    table = pagetable.update(look, Table(), run, VersionId(1))
    pages = np.unique(np.clip(np.arange(-2, 3)[:, None] + np.arange(leaves + 1) * span, 0, None))
    inside = (pages >= before) & (pages < before + count)
    slots, births = pagetable.lookup(look, table, pages)
    assert slots.tolist() == np.where(inside, pages - before + 100, 0).tolist()
    assert births.tolist() == inside.astype(int).tolist()
    assert int(pagetable.extents(look, table).length.sum()) == count
