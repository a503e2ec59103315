"""Several processes on one store, some of which are killed: nothing is lost, nothing changes."""

import contextlib
import functools
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from datetime import UTC, datetime

import numpy as np
import pytest

import pagestore
from pagestore import ConflictError, NotFoundError
from pagestore.format import RESERVED
from tests.damage import PAGE, assert_clean, directory_in_memory

SECONDS = 3.0
WORDS = PAGE // 8


@pytest.fixture
def path():
    with directory_in_memory() as top:
        yield top / "store"


class Children:
    """Forked processes; none outlives its test."""

    def __init__(self):
        self.running = {}

    def start(self, work, *args):
        """Run `work` in a child; returns its process id and what it writes to its first pipe."""
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            code = 1
            try:
                os.close(read)
                work(functools.partial(os.write, write), *args)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(write)
        self.running[pid] = read
        return pid, read

    def kill(self, pid):
        """End a child at once; everything that it said."""
        os.kill(pid, signal.SIGKILL)
        return self._collect(pid)[1]

    def wait(self, pid, seconds=60):
        """Let a child finish; everything that it said."""
        status, said = self._collect(pid, seconds)
        assert status == 0, f"status {status}"
        return said

    def _collect(self, pid, seconds=60):
        read = self.running.pop(pid)
        deadline = time.monotonic() + seconds
        said = b""
        os.set_blocking(read, False)
        while True:
            with contextlib.suppress(BlockingIOError):
                said += os.read(read, 1 << 20)
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                deadline += 60
            time.sleep(0.002)
        with contextlib.suppress(BlockingIOError):
            while part := os.read(read, 1 << 20):
                said += part
        os.close(read)
        return status, said


@pytest.fixture
def children():
    children = Children()
    yield children
    for pid in list(children.running):
        children.kill(pid)


def until(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield


# --------------------------------------------------------------------------------------- counters


def increment(path, cells, say, seconds):
    """Add 1 to some cells again and again; every commit that succeeded counts."""
    done = 0
    with pagestore.open(path) as store:
        for _ in until(seconds):
            with contextlib.suppress(ConflictError):
                with store.begin() as ws:
                    ws["n"][cells] += 1
                done += 1
    say(str(done).encode())


@pytest.mark.parametrize("where", ["disjoint pages", "the same page", "both"])
def test_counters(path, children, where):
    with pagestore.open(path) as store, store.begin() as ws:
        ws.create("n", (8, WORDS), "i8")
    cells: list[tuple[tuple[int, int], ...]] = {
        "disjoint pages": [((i, 3),) for i in range(4)],
        "the same page": [((0, i),) for i in range(4)],
        "both": [((0, 9), (i + 1, 3)) for i in range(4)],
    }[where]  # type: ignore[assignment]

    def work(say, mine):
        increment(path, tuple(np.array(mine).T), say, SECONDS / 2)

    pids = [children.start(work, mine)[0] for mine in cells]
    done = [int(children.wait(pid)) for pid in pids]
    assert sum(done) > 20
    with pagestore.open(path) as store:
        found = store.view("main")["n"]
        for mine, count in zip(cells, done, strict=True):
            assert found[mine[-1]] == count
        if where == "both":
            assert found[0, 9] == sum(done)
        assert found.sum() == sum(done) * len(cells[0])
        assert_clean(store)


def test_one_workspace_each_for_ever(path, children):
    """Long-lived workspaces that refresh after a conflict keep the invariant too."""
    with pagestore.open(path) as store, store.begin() as ws:
        ws.create("n", (4, WORDS), "i8")

    def work(say, page):
        done = 0
        with pagestore.open(path) as store:
            ws = store.begin()
            for _ in until(SECONDS / 2):
                ws["n"][page, 1] += 1
                ws["n"][3, page] = done + 1
                try:
                    ws.commit()
                    done += 1
                except ConflictError:
                    ws.rollback()
                    ws.refresh()
            ws.close()
        say(str(done).encode())

    pids = [children.start(work, page)[0] for page in range(3)]
    done = [int(children.wait(pid)) for pid in pids]
    with pagestore.open(path) as store:
        found = store.view("main")["n"]
        assert found[:3, 1].tolist() == done
        assert found[3, :3].tolist() == done
        assert_clean(store)


# ----------------------------------------------------------------------------------- a known course


def expected(n):
    """Region "a" after step n: a few pages a step, all of them at every tenth."""
    a = np.zeros((64, WORDS), "i8")
    for i in range(n - n % 10, n + 1):
        pages = slice(None) if i % 10 == 0 else [i % 64, i * 7 % 64]
        a[pages] = i
    return a


def take_step(store, ws, n):
    pages = slice(None) if n % 10 == 0 else [n % 64, n * 7 % 64]
    ws["a"][pages] = n
    if n % 3 == 0:
        ws.flush()
    ws.resize("b", (n % 50, PAGE))
    ws["b"][...] = n % 251
    ws["n"][0] = n
    if n % 4 == 0:
        ws.snapshot(f"s{n}")
    else:
        ws.commit()


def tidy(store, n):
    if n % 5 == 0:
        for name in list(store.snapshots)[:-2]:
            with contextlib.suppress(NotFoundError):
                store.delete_snapshot(name)
    if n % 7 == 0:
        store.compact()


def assert_exact(store, ref):
    with store.view(ref) as view:
        n = int(view["n"][0])
        assert (view["a"] == expected(n)).all()
        assert view["b"].shape == (n % 50, PAGE)
        assert (view["b"] == n % 251).all()
        return n


def start_course(path):
    with pagestore.open(path) as store, store.begin() as ws:
        ws.create("n", 1, "i8")
        ws.create("a", (64, WORDS), "i8")
        ws.create("b", (0, PAGE))


def follow_course(say, path):
    with pagestore.open(path) as store:
        ws = store.begin()
        n = int(ws["n"][0])
        say(b"\n%d\n" % n)
        while True:
            n += 1
            take_step(store, ws, n)
            say(b"%d\n" % n)
            tidy(store, n)


def test_killed_writers(path, children):
    """After each death: what was acknowledged, or the one step that was in flight."""
    start_course(path)
    rng = random.Random(7)
    deaths = 0
    with pagestore.open(path) as store:
        assert assert_exact(store, "main") == 0
    for _ in until(2.5 * SECONDS):
        pid, read = children.start(follow_course, path)
        os.read(read, 1)  # it has opened the store
        time.sleep(rng.choice([0, 0.001, 0.01, 0.05]) * rng.random())
        said = children.kill(pid)
        acknowledged = int(said.split()[-1]) if said.endswith(b"\n") and said.split() else None
        with pagestore.open(path, "r" if deaths % 2 else "a") as store:
            n = assert_exact(store, "main")
            assert acknowledged is None or n in (acknowledged, acknowledged + 1)
            for name in store.snapshots:
                assert assert_exact(store, name) == int(name[1:])
            assert_clean(store)
        deaths += 1
    assert deaths > 20
    with pagestore.open(path) as store:
        with store.begin() as ws:
            ws["n"][0] = -1
        with store._shared.read() as (records, _):
            assert not list(records.scan(RESERVED)), "a dead process's slots stay reserved"
        assert_clean(store)


def test_readers_never_see_a_change(path, children):
    """Hashes of pinned views stay, while others commit, delete, compact and die."""
    start_course(path)

    def read(say):
        rng = random.Random(os.getpid())
        looks = 0
        with pagestore.open(path, "r") as store:
            held = []
            live = store.live()
            for _ in until(SECONDS):
                names = [*store.snapshots, "main"]
                with contextlib.suppress(NotFoundError):
                    view = store.view(rng.choice(names))
                    held.append((view, int(view["n"][0]), view["a"], view["b"]))
                if len(held) > 4:
                    held.pop(rng.randrange(4))
                for _, n, a, b in held:
                    assert (a == expected(n)).all()
                    assert (b == n % 251).all()
                    looks += 1
                live.refresh()
                assert (live["a"] == expected(int(live["n"][0]))).all()
        say(str(looks).encode())

    readers = [children.start(read)[0] for _ in range(2)]
    rng = random.Random(3)
    for _ in until(SECONDS - 0.5):
        writer, _ = children.start(follow_course, path)
        victim, _ = children.start(read)
        time.sleep(0.05 + rng.random() * 0.3)
        children.kill(victim)
        children.kill(writer)
    for pid in readers:
        assert int(children.wait(pid)) > 10
    with pagestore.open(path) as store:
        assert_exact(store, "main")
        assert_clean(store)


# -------------------------------------------------------------------------------------- pins die


def hold(path, ref):
    def work(say):
        with pagestore.open(path, "r") as store:
            view = store.view(ref)
            array = view["a"]
            say(b"x")
            signal.pause()
            assert array.size

    return work


def test_a_killed_readers_pages_come_back(path, children):
    pages = 500
    with pagestore.open(path) as store:
        ws = store.begin()
        ws.create("a", (pages, PAGE))[:] = 1
        first = ws.commit()
        pid, said = children.start(hold(path, "main"))
        os.read(said, 1)
        ws["a"][:] = 2
        ws.commit()
        ws["a"][0] = 3
        ws.commit()
        assert store.version(first.id).id == first.id
        held = store.stats().free_bytes
        children.kill(pid)
        ws["a"][0] = 4
        ws.commit()
        with pytest.raises(NotFoundError):
            store.version(first.id)
        assert store.stats().free_bytes >= held + (pages - 2) * PAGE
        assert store.stats().referred_bytes == pages * PAGE
        ws.close()
        assert_clean(store)


def test_a_killed_flush_is_given_back(path, children):
    pages = 500
    with pagestore.open(path) as store, store.begin() as ws:
        ws.create("a", (pages, PAGE))[:] = 1

    def work(say):
        with pagestore.open(path) as store:
            ws = store.begin()
            ws["a"][:] = 2
            ws.flush()
            say(b"x")
            signal.pause()

    with pagestore.open(path) as store:
        for _ in range(3):
            pid, said = children.start(work)
            os.read(said, 1)
            assert_clean(store)
            with store.begin() as ws:  # not taken while its process lives
                ws["a"][0] += 1
            with store._shared.read() as (records, _):
                assert len(list(records.scan(RESERVED))) == 1
            assert_clean(store)
            children.kill(pid)
            with store.begin() as ws:
                ws["a"][0] += 1
            with store._shared.read() as (records, _):
                assert not list(records.scan(RESERVED))
            assert_clean(store)
        assert (store.view("main")["a"][1:] == 1).all()
        arena = store.stats().arena_bytes
        assert arena < 4 * pages * PAGE, "what was given back is not used again"


def test_a_killed_process_amid_a_transaction(path, children):
    """LMDB's lock is robust: the next writer goes on."""
    start_course(path)

    def work(say):
        with pagestore.open(path) as store, store._shared.write() as write:
            write.take(10)
            say(b"x")
            signal.pause()

    for _ in range(5):
        pid, said = children.start(work)
        os.read(said, 1)
        children.kill(pid)
        with pagestore.open(path) as store:
            with store.begin() as ws:
                n = int(ws["n"][0]) + 1
                take_step(store, ws, n)
            assert assert_exact(store, "main") == n
            assert_clean(store)


def test_creating_one_store_from_many_processes(path, children):
    def work(say):
        with pagestore.open(path) as store:
            say(store._shared.arena.superblock.store_id)
            with store.begin() as ws:
                ws.create(f"r{os.getpid()}", 10)

    pids = [children.start(work)[0] for _ in range(8)]
    identities = {children.wait(pid) for pid in pids}
    assert len(identities) == 1
    assert [p.name for p in path.parent.iterdir()] == ["store"]
    with pagestore.open(path) as store:
        assert len(store.view("main")) == 8
        assert_clean(store)


def test_nothing_changed_and_another_committed(path, children):
    """A transaction that writes nothing gets no number from LMDB: another's may have the next."""
    with pagestore.open(path) as store:
        ws = store.begin()
        for name in "ab":
            ws.create(name, 20 * PAGE)[:] = 1
        ws.commit()

        def work(say):
            with pagestore.open(path) as store, store.begin() as ws:
                ws["b"][:] = ws["b"][0] + 1

        for i in range(5):
            ws["a"][:] = i
            ws.commit()
            store.expire(datetime(2000, 1, 1, tzinfo=UTC))
            children.wait(children.start(work)[0])
            ws["a"][:] = 100 + i
            ws.commit()
            view = store.view("main")
            assert (view["a"] == 100 + i).all()
            assert (view["b"] == 2 + i).all()
            assert_clean(store)
        ws.close()


def test_threads_and_processes_take_locks_both_ways(path, children):
    """Readers wait for a version's lock while writers hold others: never in a circle."""
    start_course(path)

    def work(say):
        with pagestore.open(path) as store:
            counts = [0, 0]

            def write():
                for i, _ in enumerate(until(SECONDS / 2)):
                    with contextlib.suppress(ConflictError), store.begin() as ws:
                        ws["a"][i % 64, os.getpid() % WORDS] += 1
                    counts[0] += 1

            def look():
                for _ in until(SECONDS / 2):
                    with contextlib.suppress(NotFoundError):
                        for version in list(store.log())[:3]:
                            store.view(version).close()
                            counts[1] += 1

            threads = [threading.Thread(target=t) for t in (write, look, look)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
                assert not thread.is_alive(), "deadlock"
            say(b"%d" % min(counts))

    pids = [children.start(work)[0] for _ in range(3)]
    assert all(int(children.wait(pid, 30)) > 5 for pid in pids)
    with pagestore.open(path) as store:
        assert_clean(store)


def test_a_reader_that_was_killed_holds_back_no_page_of_the_catalog(make_store):
    """LMDB keeps its place among the readers, and what it saw, until somebody looks."""
    store = make_store()
    with store.begin() as ws:
        ws.create("a", 1)
        size = store.stats().catalog_bytes
        code = (
            "import os, sys, pagestore\n"
            "with pagestore.open(sys.argv[1])._shared.read():\n"
            "    os.kill(os.getpid(), 9)"
        )
        killed = subprocess.run([sys.executable, "-c", code, store.path], check=False)
        assert killed.returncode == -signal.SIGKILL
        for i in range(400):
            ws.write("a", 0, bytes([i % 250 + 1]))
            ws.commit()
    assert store.stats().catalog_bytes < size + (4 << 20)
