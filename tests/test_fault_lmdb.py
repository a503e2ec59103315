"""Injected failures of LMDB: the outcome of a commit is unknown, of anything before it never is."""

import errno
import os
import shutil
from typing import Any

import lmdb
import pytest

import pagestore
from pagestore import BrokenError, FullError, commit, kernel
from pagestore.format import Meta
from pagestore.transaction import Transaction
from tests.damage import assert_clean
from tests.test_fault import STEPS, course, memory_path, state

__all__ = ["course", "memory_path"]  # fixtures


class FaultyTransaction:
    def __init__(self, txn, error, late):
        self._txn, self._error, self._late = txn, error, late

    def __getattr__(self, name):
        return getattr(self._txn, name)

    def commit(self):
        if self._late:
            self._txn.commit()
        else:
            self._txn.abort()
        raise self._error


class FaultyEnvironment:
    """Its next commit fails: before anything was written, or after all was."""

    def __init__(self, env, error, late):
        self._env, self._error, self._late = env, error, late

    def __getattr__(self, name):
        return getattr(self._env, name)

    def begin(self, *args, write=False, **options):
        txn = self._env.begin(*args, write=write, **options)
        return FaultyTransaction(txn, self._error, self._late) if write else txn


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", [lmdb.DiskError, lmdb.MapFullError])
@pytest.mark.parametrize("at", range(len(STEPS)))
def test_lmdbs_commit_fails(course, memory_path, at, error, late):
    start, states = course
    path = memory_path / "store"
    shutil.copytree(start, path)
    with pagestore.open(path) as store:
        ws = store.begin()
        for step in STEPS[:at]:
            step(store, ws)
        catalog = store._shared.catalog
        faulty: Any = FaultyEnvironment(catalog._env, error("injected"), late)
        catalog._env = faulty
        try:
            STEPS[at](store, ws)
        except BrokenError:
            ws["a"][0, 0] ^= 1
            for use in (ws.commit, ws.flush, lambda: store.snapshot("more")):
                with pytest.raises(BrokenError, match="reopen"):
                    use()
        else:
            assert STEPS[at] in (STEPS[10], STEPS[11])
        assert state(store) in states[at : at + 2]
        assert_clean(store)
        ws.close()
    with pagestore.open(path) as store:
        allowed = states[at : at + 2]
        assert state(store) in allowed
        assert_clean(store)
        with store.begin() as ws:
            ws["a"][:, 5] = 1
        assert_clean(store)


@pytest.mark.parametrize("error", [lmdb.MapFullError, lmdb.TxnFullError, lmdb.DiskError])
def test_lmdbs_put_fails(course, memory_path, error, monkeypatch):
    """Before the commit nothing is unknown: what was done is undone, and can be done again."""
    start, states = course
    path = memory_path / "store"
    shutil.copytree(start, path)
    with pagestore.open(path) as store, store.begin() as ws:
        for i in range(4):
            STEPS[i](store, ws)
        put, left = Transaction.put, 3

        def failing(self, key, payload):
            nonlocal left
            left -= 1
            if not left:
                raise error("injected")
            put(self, key, payload)

        monkeypatch.setattr(Transaction, "put", failing)
        ws["a"][:] = 9
        with pytest.raises(FullError if error is not lmdb.DiskError else BrokenError):
            ws.commit()
        assert state(store) == states[4]
        assert_clean(store)
        if error is not lmdb.DiskError:
            ws.commit()
            assert (store.view("main")["a"] == 9).all()
        else:
            with pytest.raises(BrokenError):
                ws.commit()
            ws.close()


def test_a_failure_between_arena_and_catalog(course, memory_path, monkeypatch):
    """Any exception there leaves the workspace with its changes, and the store as it was."""
    path = memory_path / "store"
    shutil.copytree(course[0], path)
    with pagestore.open(path) as store, store.begin() as ws:
        ws["a"][:] = 5
        for name in ("drop_unkept", "check_conflicts", "differing"):
            with monkeypatch.context() as patch:

                def interrupted(*args, **options):
                    raise KeyboardInterrupt

                patch.setattr(commit, name, interrupted)
                try:
                    ws.commit()
                except KeyboardInterrupt:
                    pass
                else:
                    ws["a"][:] += 1
            assert_clean(store)
        ws.commit()
        assert (store.view("main")["a"] == ws["a"]).all()
        assert_clean(store)


@pytest.mark.parametrize(
    ("said", "error", "expected"),
    [
        ("open", lmdb.DiskError(f"catalog: {os.strerror(errno.ENOSPC)}"), FullError),
        ("open", lmdb.DiskError(f"catalog: {os.strerror(errno.EIO)}"), BrokenError),
        ("commit", lmdb.Error(f"mdb_txn_commit: {os.strerror(errno.EIO)}"), BrokenError),
        ("commit", lmdb.Error(f"mdb_txn_commit: {os.strerror(errno.ENOSPC)}"), FullError),
    ],
)
def test_lmdb_fails_while_a_store_is_made(memory_path, monkeypatch, said, error, expected):
    """An error of the tree, and nothing is left of the store: the same call can succeed then."""
    with monkeypatch.context() as patch:
        if said == "open":
            patch.setattr(lmdb, "open", raising(error))
        else:
            patch.setattr(Meta, "pack", raising(error))
        with pytest.raises(expected):
            pagestore.open(memory_path / "store")
    assert list(memory_path.iterdir()) == []
    with pagestore.open(memory_path / "store") as store:
        assert_clean(store)


def raising(error):
    def fail(*args, **options):
        raise error

    return fail


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, FullError), (errno.EFBIG, FullError), (errno.EIO, BrokenError)],
)
def test_room_for_the_catalog_cannot_be_reserved(
    course, memory_path, monkeypatch, number, expected
):
    """No room is one thing, a disk that fails another."""
    path = memory_path / "store"
    shutil.copytree(course[0], path)
    with pagestore.open(path) as store:
        store._shared.catalog._reserved = 0
        before = state(store)
        with monkeypatch.context() as patch:
            patch.setattr(kernel, "allocate", raising(OSError(number, os.strerror(number))))
            with pytest.raises(expected):
                store.snapshot("new")
        assert state(store) == before
        if expected is FullError:
            store.snapshot("new")
        else:
            with pytest.raises(BrokenError, match="reopen"):
                store.snapshot("new")
    with pagestore.open(path) as store:
        assert_clean(store)
