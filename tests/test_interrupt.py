"""A signal handler that raises, such as Ctrl-C's: after any call, the store is whole and usable.

Python runs handlers where a function begins and where a call of C code ends: what `sys.setprofile`
reports too. So the tests raise there, at one event after the other.
"""

import os
import sys

import numpy as np
import pytest

import pagestore

# what is raised in a finalizer, Python ignores
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

PACKAGE = os.path.join(os.path.dirname(pagestore.__file__), "")
PAGE = 4096
PAGES = 8


def in_finalizer(frame):
    """Where Python ignores what is raised."""
    while frame and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


class Interruption:
    """Raises KeyboardInterrupt at the nth place where a handler could; says whether it did."""

    def __init__(self, at):
        self.left = at
        self.done = False

    def _event(self, frame, event, _):
        if event in ("call", "c_return") and not self.done:
            name = frame.f_code.co_filename
            ours = name.startswith(PACKAGE) or name.endswith("/contextlib.py")
            if ours and not in_finalizer(frame):
                self.left -= 1
                if self.left < 0:
                    self.done = True
                    sys.setprofile(None)
                    raise KeyboardInterrupt

    def __call__(self, call):
        try:
            sys.setprofile(self._event)
            call()
        except KeyboardInterrupt:
            return True
        finally:
            sys.setprofile(None)
        return False


def contents(view):
    return {name: view.read(name, 0, PAGES * PAGE) for name in view}


@pytest.fixture
def store(make_store):
    store = make_store()
    with store.begin() as ws:
        ws.create("array", PAGES * PAGE)[:] = 1
        ws.create("bytes", PAGES * PAGE)
    return store


class Change:
    """Changes both regions of a workspace, each time differently, and knows what they hold."""

    def __init__(self, ws):
        self.ws = ws
        self.array = ws["array"]
        self.then = contents(ws)
        self.now = {name: bytearray(held) for name, held in self.then.items()}

    def make(self, number):
        at, value = number % PAGES * PAGE, number % 255 + 1
        self.array[at + number % 7] = value
        self.now["array"][at + number % 7] = value
        self.ws.write("bytes", at, bytes([value]))
        self.now["bytes"][at] = value

    def expected(self):
        return {name: bytes(held) for name, held in self.now.items()}


def interrupt(store, call, step):
    """Run `call` for every `step`th place until it comes through; yield after each interruption."""
    at = 0
    while True:
        interruption = Interruption(at)
        interruption(lambda at=at: call(at))
        if not interruption.done:  # what is raised in a callback of C code may go no further
            return
        yield at
        at += step


@pytest.mark.parametrize("action", ["commit", "snapshot", "flush", "refresh"])
def test_a_workspace_holds_its_changes_or_their_version(store, action):
    ws = store.begin()
    change = Change(ws)

    def call(at):
        if action == "snapshot":
            ws.snapshot(f"s{at}")
        else:
            getattr(ws, action)()

    change.make(0)
    lost = 0
    for at in interrupt(store, call, 1 if action == "commit" else 3):
        with store.view("main") as head:
            durable = contents(head)
        assert durable in (change.then, change.expected()), at
        try:
            assert contents(ws) == change.expected(), at
            ws.commit()
        except pagestore.BrokenError:  # it says so, and the version is there
            assert durable == change.expected()
            lost += 1
            ws.close()
            ws = store.begin()
            change = Change(ws)
        with store.view("main") as head:
            assert contents(head) == change.expected(), at
        change.then = change.expected()
        change.make(at + 1)
    assert lost < 70
    ws.close()
    del change.array
    assert not store._shared.pins.held


def test_going_back_can_be_done_again(store):
    ws = store.begin()
    change = Change(ws)
    change.make(1)
    for at in interrupt(store, lambda _: ws.rollback(), 3):
        ws.rollback()
        assert contents(ws) == change.then
        change.make(at)


@pytest.mark.parametrize("action", ["view", "begin", "live", "delete", "compact", "branch"])
def test_nothing_stays_locked(store, action):
    def call(at):
        if action == "view":
            with store.view("main") as view:
                np.asarray(view["array"]).sum()
        elif action == "begin":
            with store.begin() as ws:
                ws.write("bytes", 0, bytes([at % 250]))
        elif action == "live":
            with store.live() as live:
                live.read("bytes", 0, 10)
        elif action == "delete":
            store.delete_snapshot("old")
        elif action == "compact":
            store.compact()
        else:
            store.create_branch("side")
            store.delete_branch("side")

    for at in interrupt(store, call, 5):
        assert not store._shared.pins._exclusive
        assert not store._shared.pins.held, at
        if "side" in store.branches:
            store.delete_branch("side")
        with store.begin() as ws:
            ws.write("bytes", PAGE, bytes([at % 251]))
            if action == "delete" and "old" not in store.snapshots:
                ws.snapshot("old")
    assert list(store.check(data=True)) == []


def test_a_region_has_one_of_both_sizes(store):
    ws = store.begin()
    change = Change(ws)
    size = PAGES * PAGE

    def call(_):
        ws.resize("array", size + 5 * PAGE)
        ws.resize("array", size - PAGE - 5)

    for at in interrupt(store, call, 3):
        assert ws.regions["array"].nbytes in (size, size + 5 * PAGE, size - PAGE - 5)
        ws.resize("array", size)
        held = ws["array"].tobytes()
        assert held == ws.read("array", 0, size)
        assert held[: size - PAGE - 5] == change.now["array"][: size - PAGE - 5]
        change.now["array"][:] = held
        ws.commit()
        with store.view("main") as head:
            assert contents(head) == change.expected(), at
        change.make(at)
