"""Writing early: memory is let go of, and the commit stays all or nothing."""

from __future__ import annotations

import os

import numpy as np
import pytest

import pagestore
from pagestore import workspace
from pagestore.directory import PINS
from pagestore.pins import Pins
from tests.worker import Worker

PAGE = 4096


def stored(store: pagestore.Store) -> int:
    """Pages that some version refers to."""
    return store.stats().referred_bytes // store.page_size


def test_flush_lets_go_of_memory_and_commit_keeps_it_all(filled):
    ws = filled.begin()
    array = ws["x"]
    array[2 * PAGE : 6 * PAGE] = 5
    ws.flush()
    assert (array[2 * PAGE : 6 * PAGE] == 5).all()
    assert (filled.view("main")["x"] == 1).all()
    array[3 * PAGE] = 6  # once more, after it was written
    array[8 * PAGE] = 7
    ws.flush()
    array[9 * PAGE] = 8
    ws.commit()
    assert np.array_equal(filled.view("main")["x"], array)
    assert stored(filled) == 14


def test_flushed_and_taken_back(filled):
    """Pages that were written early and turn out as they were, or zeros."""
    ws = filled.begin()
    array = ws["x"]
    version = filled.version("main").id
    array[:] = 2
    ws.flush()
    array[:] = 1
    ws.flush()
    assert ws.commit().id == version
    array[:] = 2
    ws.flush()
    array[: 5 * PAGE] = 0
    ws.commit()
    assert stored(filled) == 9
    assert np.array_equal(filled.view("main")["x"], array)


def test_flushed_pages_that_are_cut(filled):
    ws = filled.begin()
    ws["x"][5 * PAGE :] = 2
    ws.flush()
    ws.resize("x", 5 * PAGE)
    ws.commit()
    ws["x"][0] = 5
    ws.commit()
    assert stored(filled) == 9


def test_flushed_arrays_outlive_a_close(filled):
    """What was written early and never committed stays as long as an array shows it."""
    ws = filled.begin()
    array = ws["x"]
    array[:] = 5
    ws.flush()
    ws.close()
    for value in range(6, 12):
        with filled.begin() as other:
            other["x"][:] = value
        assert (array == 5).all()
    free = filled.stats().free_bytes
    del array
    with filled.begin() as other:
        other["y"][0] = 7
    assert filled.stats().free_bytes > free


def test_what_a_process_that_died_had_written_early_is_free_again(store):
    with store.begin() as ws:
        ws.create("x", 10 * PAGE)[:] = 1
    worker = Worker(store.path, {}, None)
    worker("flush", "main", "x", b"\2" * 10 * PAGE)
    with store.begin() as ws:
        ws["x"][0] = 3
    mine = store.stats()
    worker.kill()
    with store.begin() as ws:
        ws["x"][0] = 4
    assert store.stats().free_bytes == mine.free_bytes + 10 * PAGE + PAGE  # and the old head's


def test_a_small_share_of_memory_flushes_by_itself(make_store, tracking, monkeypatch):
    monkeypatch.setattr(workspace, "CHECK_SECONDS", 0)
    flushed = []
    flush = pagestore.Workspace.flush

    def counting(self):
        flushed.append(1)
        flush(self)

    monkeypatch.setattr(pagestore.Workspace, "flush", counting)
    store = make_store(tracking=tracking, flush_share=1e-9)
    with store.begin() as ws:
        ws.create("x", 100 * PAGE)
        for page in range(100):
            ws["x"][page * PAGE : (page + 1) * PAGE] = page + 1
            ws.write("x", 0, b"\7")
    assert flushed
    expected = np.repeat(np.arange(1, 101, dtype=np.uint8), PAGE)
    expected[0] = 7
    assert np.array_equal(store.view("main")["x"], expected)


def test_a_reservation_that_came_to_nothing_is_held_by_nobody(filled):
    numbers = []

    def reserve_in_vain():
        with filled._shared.write() as write:
            numbers.append(write.reserve(write.take(3)).number)
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        reserve_in_vain()
    other = Pins(os.path.join(filled.path, PINS))
    assert other.abandoned(numbers[0])
    other.close()


def test_a_number_that_somebody_holds_is_passed_over(filled):
    """Or the slots would be taken for abandoned as soon as that one lets go."""
    other = Pins(os.path.join(filled.path, PINS))
    with filled._shared.read() as (records, _):
        number = records.meta.next_number
    held = [other.reserve(n) for n in range(number, number + 5)]
    ws = filled.begin()
    ws["x"][:] = 3
    ws.flush()
    del held
    assert other.abandoned(number)
    with filled.begin() as second:  # takes what is abandoned
        second["y"][:] = 4
    assert (ws["x"] == 3).all()
    ws.commit()
    other.close()
