"""Injected failures of LMDB: the outcome of a commit is unknown, of anything before it never is."""

import shutil
from typing import Any

import lmdb
import pytest

import pagestore
from pagestore import BrokenError, FullError, commit
from pagestore.catalog import Transaction
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
