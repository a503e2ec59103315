"""What a lack of memory in the middle of a call leaves behind: nothing that is half done."""

import os

import lmdb
import pytest

import pagestore
from pagestore import BrokenError, FullError, draft, engine, kernel, wiring, workspace
from pagestore.checksums import KnownSums
from tests.damage import PAGE, assert_clean, directory_in_memory, in_child
from tests.test_memory_limits import PAGES, headroom, prepare


def failing_once(monkeypatch, target, name, error=MemoryError, at=1):
    """Let a function fail at its next call (or a later one), and work from then on."""
    call, calls = getattr(target, name), []

    def failing(*args, **options):
        calls.append(1)
        if len(calls) == at:
            raise error("injected")
        return call(*args, **options)

    monkeypatch.setattr(target, name, failing)


@pytest.fixture
def rows(store):
    with store.begin() as ws:
        ws.create("a", (PAGES, PAGE))[:] = 1
    return store


@pytest.mark.parametrize("deleted", [False, True])
def test_a_live_view_whose_refresh_failed(rows, monkeypatch, deleted):
    """It is where it was, and the next refresh brings all of it to the head."""
    with rows.begin() as ws:
        ws.create("b", (PAGES, PAGE))[:] = 1
    live = rows.live()
    old, arrays = live.version.id, [live["a"], live["b"]]
    with rows.begin() as ws:
        ws["a"][:4:2] = 2
        ws["b"][:4:2] = 2
    with monkeypatch.context() as patch:
        failing_once(patch, kernel, "map_file", OSError, at=3)  # halfway through one of them
        with pytest.raises(FullError):
            live.refresh()
    assert live.version.id == old
    with rows.begin() as ws:
        ws["a"][2] = 3
        ws["b"][2] = 3
        if deleted:
            ws.delete("b")
        head = ws.commit()
    assert live.refresh()
    assert live.version.id == head.id
    assert arrays[0][:4, 0].tolist() == [2, 1, 3, 1]
    assert arrays[1][:4, 0].tolist() == ([1, 1, 1, 1] if deleted else [2, 1, 3, 1])
    assert not live.refresh()


def test_a_workspace_that_could_not_follow_its_commit(rows, monkeypatch):
    """The version is there; what stayed behind says so, and commits nothing."""
    ws = rows.begin()
    array = ws["a"]
    array[:] = 2
    ws.flush()
    failing_once(monkeypatch, draft, "lookup")
    with pytest.raises(BrokenError, match="is committed"):
        ws.snapshot("done")
    assert (rows.view("done")["a"] == 2).all()
    for use in (ws.commit, ws.flush, ws.rollback, ws.refresh, lambda: ws["a"]):
        with pytest.raises(BrokenError, match="begin another"):
            use()
    ws.close()
    rows.delete_snapshot("done")
    with rows.begin() as other:
        other["a"][:] = 3
    assert (array == 2).all()


def test_letting_go_of_memory_never_shows_anything_else(rows, monkeypatch):
    monkeypatch.setattr(workspace.Workspace, "_is_large", lambda self: True)
    ws = rows.begin()
    array = ws["a"]
    array[::2] = 2
    failing_once(monkeypatch, wiring.Wiring, "wire")
    with pytest.raises(BrokenError, match="is committed"):
        ws.commit()
    assert array[:4, 0].tolist() == [2, 1, 2, 1]
    ws.close()


def test_what_was_written_is_known_though_there_was_no_memory_for_it(rows, monkeypatch):
    ws = rows.begin()
    ws["a"][5] = 2
    failing_once(monkeypatch, draft, "_store_pages")
    with pytest.raises(MemoryError):
        ws.commit()
    ws.commit()
    assert (rows.view("main")["a"][5] == 2).all()
    ws.close()


def test_a_scan_whose_answer_found_no_memory(rows, monkeypatch):
    if rows._shared.tracker.name != "userfault":
        pytest.skip("the kernel does not track writes")
    ws = rows.begin()
    ws["a"][5] = 2
    failing_once(monkeypatch, kernel, "pages")
    ws.commit()
    assert (rows.view("main")["a"][5] == 2).all()
    ws.close()
    rows._shared.tracker._exact = True  # it gave up, as it must


def test_a_rollback_that_failed(rows, monkeypatch):
    ws = rows.begin()
    ws["a"][:5] = 2
    ws.flush()
    ws["a"][9] = 2
    failing_once(monkeypatch, wiring.Wiring, "rewire")
    with pytest.raises(MemoryError):
        ws.rollback()
    ws.rollback()
    assert (ws["a"] == 1).all()
    version = rows.version("main").id
    assert ws.commit().id == version
    ws.close()


def test_growing_that_failed(rows, monkeypatch):
    """What was cut off stays cut off."""
    ws = rows.begin()
    old = ws["a"]
    ws.resize("a", (PAGES // 2, PAGE))
    old[PAGES // 2 :] = 7
    failing_once(monkeypatch, wiring.Wiring, "_map_each", OSError)
    with pytest.raises(FullError):
        ws.resize("a", (PAGES, PAGE))
    assert not ws.resize("a", (PAGES, PAGE))[PAGES // 2 :].any()
    ws.close()


def test_cutting_that_failed(rows, monkeypatch):
    """Nothing is cut, not even the rest of the last page."""
    ws = rows.begin()
    ws["a"][:] = 2
    failing_once(monkeypatch, wiring.Wiring, "_map_each", OSError)
    with pytest.raises(FullError):
        ws.resize("a", (PAGES * PAGE // 2 - 100,))
    assert (ws["a"] == 2).all()
    ws.close()


def test_a_commit_stands_whatever_comes_after_it(rows, monkeypatch):
    ws = rows.begin()
    for target, name in (
        (rows._shared.arena, "write_head"),
        (rows._shared.catalog, "_lengthen"),
        (rows._shared.dense, "replaced"),
    ):
        with monkeypatch.context() as patch:
            failing_once(patch, target, name)
            ws["a"][3] += 1
            version = ws.commit()
        assert rows.version("main").id == version.id
    assert (rows.view("main")["a"][3] == 4).all()
    ws.close()


def test_checksums_that_found_no_room(rows, monkeypatch):
    """A commit for whose checksums there is no memory fails, and can be tried again."""
    with rows.begin() as ws:
        ws["a"][:] += 1
        with monkeypatch.context() as patch:
            failing_once(patch, KnownSums, "_make_room")
            rows._shared.sums._known.clear()
            with pytest.raises(MemoryError):
                ws.commit()
        ws.commit()
    assert list(rows.check(data=True)) == []


def test_closing_without_memory(tmp_path, monkeypatch):
    """The seal is left out, and every file is closed."""
    before = len(os.listdir("/proc/self/fd"))
    store = pagestore.open(tmp_path / "s")
    with store.begin() as ws:
        ws.create("a", 10)
    failing_once(monkeypatch, engine, "seal_of")
    store.close()
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # what the tracker shares
    with pagestore.open(tmp_path / "s") as store:
        assert_clean(store)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (engine, "_examine_catalog"),
        (engine, "_open_catalog"),
        (engine, "_open_pins"),
        (engine.Engine, "_verify_identity"),
        (engine.Engine, "_restore_ballast"),
    ],
)
def test_opening_without_memory(tmp_path, monkeypatch, owner, name):
    pagestore.open(tmp_path / "s").close()
    before = len(os.listdir("/proc/self/fd"))
    failing_once(monkeypatch, owner, name)
    with pytest.raises(MemoryError):
        pagestore.open(tmp_path / "s")
    assert len(os.listdir("/proc/self/fd")) == before
    with pagestore.open(tmp_path / "s") as store:
        assert_clean(store)


class NoMemory:
    """An LMDB environment that finds none for its next transaction, or for its commit."""

    def __init__(self, env, where):
        self._env, self._where = env, where

    def __getattr__(self, name):
        return getattr(self._env, name)

    def begin(self, *args, **options):
        where, self._where = self._where, None
        if where == "begin":
            raise lmdb.MemoryError("injected")
        txn = self._env.begin(*args, **options)
        return NoMemoryForCommit(txn) if where == "commit" else txn


class NoMemoryForCommit:
    def __init__(self, txn):
        self._txn = txn

    def __getattr__(self, name):
        return getattr(self._txn, name)

    def commit(self):
        raise MemoryError("injected")


def test_lmdb_without_memory(rows):
    ws = rows.begin()
    ws["a"][:] = 2
    catalog = rows._shared.catalog
    env = catalog._env
    for use in (ws.commit, lambda: rows.version("main")):
        catalog._env = NoMemory(env, "begin")
        with pytest.raises(FullError, match="no memory"):
            use()
    ws.commit()
    assert (rows.view("main")["a"] == 2).all()
    ws.close()


def test_a_commit_that_was_not_even_called(rows):
    """The outcome counts as unknown, and LMDB's lock is not held any longer."""
    catalog = rows._shared.catalog
    env = catalog._env
    catalog._env = NoMemory(env, "commit")
    with pytest.raises(BrokenError) as caught:
        rows.snapshot("new")
    env.begin(write=True).abort()  # it would wait for ever
    assert "reopen" in str(caught.value)


def test_a_large_catalog_is_not_taken_for_a_damaged_one(tmp_path):
    with directory_in_memory() as top:
        path = top / "s"
        prepare(path)
        with lmdb.open(str(path / "catalog"), subdir=False, map_size=1 << 30) as env:
            for i in range(30):
                with env.begin(write=True) as txn:
                    txn.put(b"~junk%d" % i, bytes(10 << 20))

        def work():
            with headroom(290 << 20):
                try:
                    pagestore.open(path)
                except pagestore.PagestoreError as error:
                    return type(error).__name__
            return "opened"

        assert in_child(work) == "FullError"
