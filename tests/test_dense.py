"""The catalog after a compaction: whoever closes the store last leaves it dense."""

import os
import shutil

import lmdb
import numpy as np
import pytest

import pagestore
from pagestore import dense, kernel, structure
from pagestore.errors import BrokenError, CorruptionError
from pagestore.pins import Pins
from pagestore.transaction import Transaction

PAGE = 4096


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def compacted(path):
    """A store most of whose catalog is free pages, compacted and not closed yet."""
    store = pagestore.open(path)
    with store.begin() as ws:
        array = ws.create("x", 256 * PAGE)
        rng = np.random.default_rng(3)
        for i in range(150):
            array.reshape(-1, PAGE)[rng.choice(256, 20)] += 1
            ws.snapshot(f"v{i}")
    store.delete_snapshot(*(f"v{i}" for i in range(149)))
    store.compact()
    return store


def catalog(path):
    return path / "catalog"


def contents(path):
    with pagestore.open(path) as store, store.view("v149") as view:
        assert list(store.check(data=True)) == []
        return view["x"].tobytes()


def left(path):
    return sorted(file.name for file in path.iterdir())


def test_closing_leaves_the_catalog_dense(compacted, path):
    mode = os.stat(catalog(path)).st_mode
    before, files = catalog(path).stat().st_size, left(path)
    with compacted.view("main") as view:
        expected = view["x"].tobytes()
    last = compacted._engine.catalog.last
    compacted.close()
    assert catalog(path).stat().st_size < before / 4
    assert os.stat(catalog(path)).st_mode == mode
    assert left(path) == files
    assert contents(path) == expected
    with pagestore.open(path) as store:
        assert store._engine.catalog.last > last  # N3
        with store.begin() as ws:
            ws["x"][5] = 77
        store.snapshot("later")
        assert list(store.check(data=True)) == []


def test_without_a_compaction_it_stays_as_it_is(compacted, path):
    compacted.close()
    file = os.stat(catalog(path)).st_ino
    with pagestore.open(path) as store:
        store.delete_snapshot("v149")
    assert os.stat(catalog(path)).st_ino == file


def test_not_again_where_little_is_free(compacted, path):
    compacted.close()
    file = str(catalog(path))
    assert structure.unused(file) < dense.LEAST_SAVED
    assert not dense.exchange(file, f"{file}.dense")
    assert "catalog.dense" not in left(path)


def test_the_copy_is_one_that_lmdb_can_follow(compacted, path):
    compacted.close()
    pagestore.examine(path)


def test_what_nobody_refers_to_has_no_checksums(path):
    with pagestore.open(path) as store:
        with store.begin() as ws:
            ws.create("x", 2048 * PAGE)[:] = 1
        with store.begin() as ws:
            ws["x"][:] = 0
        engine = store._engine
        with engine.read() as (records, _):
            assert records.count(b"K") >= 16
        store.compact()
        with engine.read() as (records, _):
            assert records.count(b"K") == 0
        with store.begin() as ws:
            ws["x"][:] = 2
        assert list(store.check(data=True)) == []


def test_an_older_catalog_is_still_told(compacted, path, tmp_path):
    shutil.copy(catalog(path), tmp_path / "old")
    compacted.close()
    with pagestore.open(path) as store, store.begin() as ws:
        ws["x"][0] = 9
    shutil.copy(tmp_path / "old", catalog(path))
    with pytest.raises(CorruptionError, match="went back in time"):
        pagestore.open(path)


def test_not_while_another_process_has_the_store_open(compacted, path):
    file = os.stat(catalog(path)).st_ino
    other = Pins(str(path / "pins"))  # a lock of its own: it is like another process
    other.enter(lambda: None)
    compacted.close()
    assert os.stat(catalog(path)).st_ino == file
    other.leave(lambda: None)
    other.close()
    contents(path)


def test_not_where_it_has_another_name(compacted, path, tmp_path):
    os.link(catalog(path), tmp_path / "too")
    compacted.close()
    assert os.path.samefile(catalog(path), tmp_path / "too")


@pytest.mark.parametrize("error", [lmdb.DiskError("no room"), OSError(28, "no room")])
def test_where_it_cannot_be_made_the_old_one_stays(compacted, path, monkeypatch, error):
    def fails(*_):
        raise error

    file, files = os.stat(catalog(path)).st_ino, left(path)
    monkeypatch.setattr(dense, "_fill", fails)
    compacted.close()
    assert os.stat(catalog(path)).st_ino == file
    assert left(path) == files
    contents(path)


def test_damage_is_not_copied(compacted, path, monkeypatch):
    file = os.stat(catalog(path)).st_ino
    monkeypatch.setattr(Transaction, "add_up", lambda _: 1)
    compacted.close()
    monkeypatch.undo()
    assert os.stat(catalog(path)).st_ino == file
    contents(path)


def test_what_a_dead_process_left_is_removed(compacted, path):
    compacted.close()
    (path / "catalog.dense").write_bytes(b"half of it")
    contents(path)
    assert not (path / "catalog.dense").exists()


def test_a_number_of_the_other_parity_is_refused(compacted, path):
    compacted.close()
    with pytest.raises(ValueError, match="meta page 1"):
        structure.renumber(str(catalog(path)), 1 << 20)


def test_commits_to_the_new_file_wait_for_its_name(compacted, path, monkeypatch):
    """The sync of the directory failed, or the process died before it: who comes next does it."""
    file = os.stat(catalog(path)).st_ino

    real = kernel.sync

    def fails(what):
        if what == str(path):
            raise OSError(5, "the disk failed")
        real(what)

    monkeypatch.setattr(kernel, "sync", fails)
    compacted.close()
    assert os.stat(catalog(path)).st_ino != file
    with pytest.raises(BrokenError, match="the disk failed"):
        pagestore.open(path)
    synced = []
    monkeypatch.setattr(kernel, "sync", synced.append)
    contents(path)
    assert synced == [str(path)]
    with pagestore.open(path) as store, store.begin() as ws:
        ws["x"][0] = 9
    before = len(synced)
    contents(path)
    assert len(synced) == before, "who wrote has sealed it"
