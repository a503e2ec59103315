"""Which pages bridges show wrongly, and reading scattered slots into memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pagestore
from pagestore import CorruptionError, FullError, wiring
from pagestore.arena import Arena, FileIO
from pagestore.format import Extents

PAGE = 4096


def extents_of(slots):
    """One extent for each page that has a slot."""
    page = np.flatnonzero(slots)
    return Extents(page, np.ones(len(page), np.int64), slots[page], np.zeros(len(page), np.int64))


def show(memory, extents):
    for page, length, slot in wiring._rows(extents):
        memory[page : page + length] = np.arange(slot, slot + length) if slot else 0


# runs of slots that begin anywhere, holes, and single pages put over them
tables = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 20), st.sampled_from([0, 5, 9, 60, 100, 101])),
    min_size=1,
    max_size=12,
)


@given(tables, st.integers(1, 5), st.integers(0, 10))
@settings(deadline=None)
def test_bridges_and_what_they_show_wrongly_make_the_table(runs, long, gap):
    slots = np.zeros(60, np.int64)
    for page, length, apart in runs:
        slots[page : page + length] = np.arange(page, page + length) + apart if apart else 0
    if not slots.any():
        return
    extents = extents_of(slots)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wiring, "LONG", long)
        patch.setattr(wiring, "BRIDGE_GAP", gap)
        bridges = wiring._bridges(extents)
    memory = np.zeros(60, np.int64)
    show(memory, bridges)
    before = memory.copy()
    wrong = wiring._shown_wrongly(wiring._without_gaps(extents), bridges)
    show(memory, wrong)
    assert np.array_equal(memory, slots)
    assert int(wrong.length.sum()) == np.count_nonzero(before != slots)


@pytest.fixture
def arena(tmp_path):
    """An arena with its number in each slot."""
    pagestore.open(tmp_path / "store").close()
    arena = Arena(tmp_path / "store" / "arena", writable=True)
    arena.grow(600)
    data = np.repeat(np.arange(600), PAGE // 8)
    arena.write(1, data[PAGE // 8 :].data.cast("B"))
    yield arena
    arena.close()


class Short(FileIO):
    """Reads less than it is asked for."""

    def preadv(self, fd, vector, offset):
        sizes = np.minimum(np.cumsum(vector[:, 1]), 5000)
        return super().preadv(fd, np.stack((vector[:, 0], np.diff(sizes, prepend=0)), 1), offset)


@pytest.mark.parametrize("io", [FileIO, Short])
def test_scattered_slots_are_read_into_memory(arena, io):
    arena.io = io()
    rng = np.random.default_rng(2)
    memory = np.zeros((600, PAGE // 8), np.int64)
    start = np.sort(rng.choice(np.arange(1, 600, 3), 150, replace=False))
    order = rng.permutation(150)
    slots, lengths = start[order], rng.integers(1, 4, 150)
    at = np.cumsum(lengths) - lengths
    arena.read_into(memory.ctypes.data + at * PAGE, slots, lengths)
    expected = np.concatenate([np.arange(s, s + n) for s, n in zip(slots, lengths, strict=True)])
    assert np.array_equal(memory[: len(expected)], np.repeat(expected, PAGE // 8).reshape(-1, 512))
    assert not memory[len(expected) :].any()


def test_what_cannot_be_read_into_memory(arena):
    memory = np.zeros(PAGE, np.uint8)
    one = np.array([1])
    with pytest.raises(CorruptionError, match="cut"):
        arena.read_into(one * memory.ctypes.data, one * arena.slots, one)
    with pytest.raises(FullError):
        arena.read_into(one * PAGE, one, one)  # nothing is mapped there
