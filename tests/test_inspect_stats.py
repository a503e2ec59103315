"""What a store says of itself as a whole, and who looks at it."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

import pagestore
from tests.conftest import PAGE
from tests.damage import become, directory_in_memory, in_child


def test_the_store_as_a_whole(make_store):
    before = datetime.now(UTC)
    store = make_store(page_size=4 * PAGE, history="all")
    with store.begin() as ws:
        ws.create("x", 40 * PAGE)[:] = 1
        ws.snapshot("one")
    stats = store.stats()
    assert (stats.format, stats.page_size, stats.history) == (1, 4 * PAGE, "all")
    assert (stats.versions, stats.snapshots, stats.branches) == (2, 1, 1)
    assert stats.store_id == store._shared.arena.superblock.store_id.hex()
    assert abs(stats.created - before) < timedelta(minutes=1)
    assert stats.arena_bytes == (store.path / "arena").stat().st_size
    assert stats.catalog_bytes == (store.path / "catalog").stat().st_size
    assert 0 < stats.catalog_used_bytes <= stats.catalog_bytes
    files = sum(file.stat().st_blocks * 512 for file in store.path.iterdir())
    assert stats.disk_bytes == files
    assert stats.disk_free_bytes > 0
    assert (stats.reserved_bytes, stats.unkept_bytes) == (0, 0)


def test_slots_set_aside_are_told(filled):
    ws = filled.begin()
    ws["x"][:] = 5
    ws.flush()
    stats = filled.stats()
    assert stats.reserved_bytes == 10 * PAGE
    assert stats.referred_bytes == 14 * PAGE  # what was committed
    ws.rollback()
    ws.close()


def test_who_pins_what(store):
    with store.begin() as ws:
        ws.create("x", 4 * PAGE)[:] = 1
        ws.snapshot("one")
        ws["x"][0] = 2
        ws.snapshot("two")
    one, two = store.version("one").id, store.version("two").id
    assert store.stats().pins == ()
    script = "import pagestore, sys; s = pagestore.open(sys.argv[1], 'r'); v = s.view('one')\n"
    script += "w = s.live(); print(v['x'][0], w['x'][0], flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(store.path)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "1 2\n"
        pins = store.stats().pins
        assert [(pin.version, pin.process) for pin in pins] == [(one, child.pid), (two, child.pid)]
        assert all(str(store.path) in pin.command for pin in pins)
        age = datetime.now(UTC) - pins[0].process_started
        assert timedelta(seconds=-2) < age < timedelta(minutes=5)
        store.delete_snapshot("one")
        assert store.stats().unkept_bytes == PAGE
        assert store.stats().warnings == ()
    finally:
        child.communicate("")
    assert store.stats().pins == ()


def holder(path):
    """A process that looks at the head, until it is killed."""
    script = "import pagestore, sys, time; s = pagestore.open(sys.argv[1], 'r'); w = s.live()\n"
    script += "w['x']; print('ready', flush=True); time.sleep(600)"
    command = [sys.executable, "-c", script, str(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def test_a_pin_goes_with_its_process(filled):
    child = holder(filled.path)
    assert [pin.process for pin in filled.stats().pins] == [child.pid]
    child.kill()
    child.communicate()
    assert filled.stats().pins == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up privileges")
def test_a_pin_of_somebody_else():
    """The kernel tells everybody that a byte is locked, but not by whom."""
    with directory_in_memory() as top:
        with pagestore.open(top / "s.ps") as store, store.begin() as ws:
            ws.create("x", PAGE)[:] = 1
        top.chmod(0o755)
        for file in (top / "s.ps").iterdir():
            file.chmod(0o666)

        def look():
            become(65534)
            with pagestore.open(top / "s.ps", "r") as store:
                return str([(pin.version, pin.process, pin.command) for pin in store.stats().pins])

        child = holder(top / "s.ps")
        try:
            assert in_child(look) == "[(2, None, '')]"
        finally:
            child.kill()
            child.communicate()


def test_who_drops_a_version_does_not_pin_it(filled):
    pins = filled._shared.pins
    assert pins.try_exclusive(filled.version("main").id)
    assert filled.stats().pins == ()
    pins.end_exclusive()


def test_a_pin_of_this_process(filled):
    with filled.view("main") as view:
        assert view["x"][0] == 1
        [pin] = filled.stats().pins
        assert (pin.version, pin.process) == (view.version.id, os.getpid())


def test_an_old_pin_and_a_full_disk_are_warned_of(filled, monkeypatch):
    filled.snapshot("old")
    with filled.begin() as ws:
        ws["x"][:] = 9
    with filled.view("old"):
        filled.delete_snapshot("old")
        assert filled.stats().warnings == ()
        monkeypatch.setattr("pagestore.stats.OLD_PIN", timedelta(0))
        [warning] = filled.stats().warnings
        assert f"pin of process {os.getpid()} (" in warning
        monkeypatch.setattr("pagestore.stats.LITTLE_LEFT", 1.01)
        assert "file system" in filled.stats().warnings[1]
