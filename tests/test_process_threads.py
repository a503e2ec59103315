"""Threads that share a store, and the garbage collector, which may run in the middle of anything.

Each test runs in a process of its own, which says where every thread is when it hangs.
"""

import contextlib
import faulthandler
import gc
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable

import numpy as np
import pytest

import pagestore
from pagestore import ClosedError, ConflictError, InvalidError, NotFoundError, placing
from pagestore.pins import Pins
from tests.damage import PAGE, assert_clean, contents, directory_in_memory, in_child, small_store

SECONDS = 2.5
HANG = 25
WORDS = PAGE // 8


@pytest.fixture
def path():
    with directory_in_memory() as top:
        yield top / "store"


def alone(work, *args):
    """Run a test in a child; a failure or a deadlock there is one here."""

    def run():
        faulthandler.enable()
        faulthandler.dump_traceback_later(HANG, exit=True)
        sys.setswitchinterval(1e-4)
        try:
            work(*args)
        except BaseException as error:
            return "".join(traceback.format_exception(error))[-1500:]
        return "fine"

    assert in_child(run, HANG + 10) == "fine"


class Threads:
    """Threads whose exceptions are the test's."""

    def __init__(self):
        self.threads, self.errors, self.stop = [], [], threading.Event()

    def start(self, work, *args):
        def run():
            try:
                work(*args)
            except BaseException as error:
                self.errors.append(error)
                self.stop.set()

        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()

    def join(self, seconds=SECONDS):
        self.stop.wait(seconds)
        self.stop.set()
        for thread in self.threads:
            thread.join()
        if self.errors:
            raise self.errors[0]


# --------------------------------------------------------------------------------------- sharing


def share(path):
    with pagestore.open(path) as store:
        with store.begin() as ws:
            ws.create("n", (6, WORDS), "i8")
            ws.create("mirror", (6, WORDS), "i8")
        threads, done = Threads(), [0] * 4

        def write(i):
            while not threads.stop.is_set():
                with contextlib.suppress(ConflictError):
                    with store.begin() as ws:
                        for name in ("n", "mirror"):
                            ws[name][i, 0] += 1
                            ws[name][5, 0] += i % 2  # some fight for a page
                    done[i] += 1

        def look():
            live = store.live()
            while not threads.stop.is_set():
                with store.view("main") as view:
                    assert (view["n"] == view["mirror"]).all()
                live.refresh()
                assert (live["n"] == live["mirror"]).all()

        def name():
            rng = random.Random(1)
            while not threads.stop.is_set():
                names = list(store.snapshots)
                if len(names) > 5:
                    store.delete_snapshot(rng.choice(names))
                store.snapshot(f"s{rng.random()}")
                assert list(store.log())
                store.stats()

        for i in range(4):
            threads.start(write, i)
        threads.start(look)
        threads.start(name)
        threads.join()
        found = store.view("main")["n"]
        assert found[:4, 0].tolist() == done
        assert found[5, 0] == done[1] + done[3]
        assert min(done) > 0
        for kept in store.snapshots:
            view = store.view(kept)
            assert (view["n"] == view["mirror"]).all()
        assert_clean(store)


def test_threads_share_a_store(path):
    alone(share, path)


def share_a_workspace(path):
    with pagestore.open(path) as store:
        ws = store.begin()
        for i in range(4):
            ws.create(f"r{i}", (8, WORDS), "i8")
        ws.commit()
        threads, done = Threads(), [0] * 4

        def work(i):
            while not threads.stop.is_set():
                value = np.full(WORDS, done[i] + 1, "i8")
                ws.write(f"r{i}", PAGE * (done[i] % 8), value)
                assert ws.read(f"r{i}", PAGE * (done[i] % 8), 8) == value[:1].tobytes()
                ws.commit()
                if done[i] % 5 == i:
                    ws.flush()
                done[i] += 1

        for i in range(4):
            threads.start(work, i)
        threads.join()
        ws.commit()
        view = store.view("main")
        for i in range(4):
            last = [max((k + 1 for k in range(done[i]) if k % 8 == p), default=0) for p in range(8)]
            assert view[f"r{i}"][:, 0].tolist() == last
        ws.close()
        assert_clean(store)


def test_threads_share_a_workspace(path):
    alone(share_a_workspace, path)


def open_and_close(path):
    before = small_store(path)
    threads = Threads()

    def work():
        while not threads.stop.is_set():
            with pagestore.open(path) as store:
                array = store.view("one")["a"]
                with contextlib.suppress(ClosedError):
                    assert store.version("one").names == ("one",)
            assert array[5] == 5

    for _ in range(4):
        threads.start(work)
    threads.join()
    with pagestore.open(path) as store:
        assert contents(store) == before
        assert_clean(store)


def test_opening_and_closing_in_threads(path):
    alone(open_and_close, path)


# -------------------------------------------------------------------------------------- finalisers


class Cycle:
    """Garbage that only the collector finds, and that holds a pin."""

    def __init__(self, store, ref):
        self.view = store.view(ref)
        self.array = self.view["a"]
        self.me = self


def collect_everywhere(path):
    small_store(path)
    with pagestore.open(path) as store:
        threads = Threads()

        def litter():
            while not threads.stop.is_set():
                for ref in ("one", "two", "main", "side"):
                    with contextlib.suppress(NotFoundError):
                        Cycle(store, ref)

        def write():
            i = 0
            with store.begin() as ws:
                while not threads.stop.is_set():
                    i += 1
                    ws["a"][i % 2048] = i
                    if i % 3 == 0:
                        ws.flush()
                    ws.commit()
                    ws.resize("b", (3, 5000 + i % 2))

        def collect():
            while not threads.stop.is_set():
                gc.collect()
                time.sleep(0.001)

        gc.set_threshold(20, 2, 2)
        for work in (litter, litter, write, collect):
            threads.start(work)
        threads.join()
        gc.collect()
        with store.begin() as ws:
            ws["a"][0] = -7
        gc.collect()
        pins = store._shared.pins
        assert pins.held == 0, (pins._counts, pins.done)
        names = {"one", "two", "main", "side"}
        assert store.stats().versions <= len(names) + 1  # and a fork point
        assert_clean(store)


def test_the_collector_runs_amid_everything(path):
    alone(collect_everywhere, path)


def collect_in_the_lock(path):
    """The worst place: in the thread that holds the locks of the pins, at every step there."""
    small_store(path)
    with pagestore.open(path) as store:
        pins = store._shared.pins
        ws = store.begin()
        ws["a"][1] = 1
        gc.collect()
        gc.freeze()  # what is old is left alone: it makes each collection short

        def trace(frame, event, arg):
            if frame.f_code.co_filename.endswith(("pins.py", "engine.py", "catalog.py")):
                gc.collect()
                return trace
            return None

        for i in range(3):
            held = [Cycle(store, "one") for _ in range(5)]
            held.clear()
            sys.settrace(trace)
            try:
                ws["a"][1] = i
                ws.commit()
                store.view("two").close()
                store.snapshot(f"new {i}")
                store.delete_snapshot(f"new {i}")
            finally:
                sys.settrace(None)
        ws.close()
        del ws
        gc.collect()
        assert pins.held == 0
        assert_clean(store)


def test_the_collector_runs_in_the_lock(path):
    alone(collect_in_the_lock, path)


def drop_in_another_thread(path):
    """An array dies in one thread while another commits: its version goes at the next commit."""
    with pagestore.open(path) as store:
        ws = store.begin()
        ws.create("a", (100, PAGE))[:] = 1
        for i in range(60):
            old = ws.commit()
            array = store.view("main")["a"]
            ws["a"][:] = i % 250 + 2
            started = threading.Event()

            def drop(held, started=started):
                started.set()
                held.clear()

            held = [array]
            del array
            thread = threading.Thread(target=drop, args=(held,))
            thread.start()
            started.wait()
            ws.commit()
            thread.join()
            ws["a"][0, 0] += 1
            ws.commit()
            with pytest.raises(NotFoundError):
                store.version(old.id)
        ws.close()
        assert_clean(store)


def test_arrays_die_in_another_thread(path):
    alone(drop_in_another_thread, path)


# ------------------------------------------------------------------------------------------- pins


def test_waiting_for_a_pin_holds_no_lock(tmp_path):
    """Two open files on the lock file are two processes to the kernel."""
    mine, theirs = Pins(tmp_path / "pins"), Pins(tmp_path / "pins")
    assert theirs.try_exclusive(5)
    pins = []
    waiting = threading.Thread(target=lambda: pins.append(mine.acquire(5)))
    waiting.start()
    time.sleep(0.05)
    done = []

    def go_on():
        done.append(mine.try_exclusive(6))
        mine.acquire(7)
        mine.end_exclusive()

    other = threading.Thread(target=go_on, daemon=True)
    other.start()
    other.join(5)
    assert done == [True]
    assert not other.is_alive()
    assert waiting.is_alive()
    theirs.end_exclusive()
    waiting.join(5)
    assert not waiting.is_alive()
    assert not theirs.try_exclusive(5)
    mine.close()
    theirs.close()


class Collecting(dict):
    """A registry at whose look-ups a finalizer closes something."""

    def __init__(self, known, held):
        super().__init__(known)
        self.held = held

    def get(self, key, default=None):
        found = super().get(key, default)
        while self.held:
            self.held.pop().close()
        return found


@pytest.mark.parametrize("which", ["another", "the same"])
def test_a_finalizer_may_close_a_store_while_its_thread_opens_one(path, which):
    def work():
        held = [pagestore.open(path if which == "the same" else path.with_name("other"))]
        with pytest.MonkeyPatch.context() as patch:
            registry = Collecting(pagestore.engine._registry, held)
            patch.setattr(pagestore.engine, "_registry", registry)
            store = pagestore.open(path)
            assert not held
            store.snapshot("it works")
            store.close()
            assert not registry

    alone(work)


OTHERS: dict[str, Callable[[pagestore.Store, pagestore.Workspace], object]] = {
    "commit": lambda store, ws: ws.commit(),
    "flush": lambda store, ws: ws.flush(),
    "name": lambda store, ws: store.snapshot("meanwhile"),
    "branch": lambda store, ws: store.create_branch("meanwhile"),
    "delete": lambda store, ws: store.delete_snapshot("one"),
    "compact": lambda store, ws: store.compact(),
}


@pytest.mark.parametrize("what", OTHERS)
@pytest.mark.parametrize("where", ["before", "amid"])
def test_a_finalizer_that_writes_amid_a_commit_of_its_thread(path, monkeypatch, where, what):
    """It is refused, and the commit is none the worse: the slots that it took stay taken."""
    small_store(path)
    refused = []
    with pagestore.open(path) as store, store.begin() as ws, store.begin("side") as other:
        other["a"][-1] = 7

        class Careless:
            def __del__(self):
                try:
                    OTHERS[what](store, other)
                except Exception as error:
                    refused.append(type(error))

        def meddling(*args):
            if where == "before":
                Careless()
            done = real(*args)
            if where == "amid":
                Careless()
            return done

        real = placing.write_pages
        for _ in range(3):
            ws["a"][:] = ws["a"] + 1
            with monkeypatch.context() as patch:
                patch.setattr(placing, "write_pages", meddling)
                ws.commit()
        assert refused == [InvalidError] * 3
        OTHERS[what](store, other)
        ws["a"][:] = ws["a"] + 1
        ws.commit()
        expected = ws["a"].tobytes()
        other.commit()
        assert other["a"][-1] == 7
    with pagestore.open(path) as store:
        assert store.view("main")["a"].tobytes() == expected
        assert_clean(store)
