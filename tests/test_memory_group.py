"""A control group that limits memory: larger changes and views complete, or the kernel kills.

Needs the right to make a control group.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pagestore
from pagestore.format import RESERVED
from tests.damage import PAGE, assert_clean

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 96 << 20
BIG = 40  # pieces of a region that is larger than the limit
PIECE = 1024  # pages


class Group:
    """A control group with a limit on memory, of version 1 or 2."""

    def __init__(self, at, limit_name, swap_name):
        self.at = at
        at.mkdir()
        (at / limit_name).write_text(str(LIMIT))
        if swap_name and (at / swap_name).exists():
            (at / swap_name).write_text("0" if swap_name.startswith("memory.swap") else str(LIMIT))

    def remove(self):
        for _ in range(100):
            with contextlib.suppress(OSError):
                self.at.rmdir()
                return
            time.sleep(0.05)


def places():
    """Where a group could be made: in this process's own, or in those above it."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            top, names = "/sys/fs/cgroup/memory", ("limit_in_bytes", "memsw.limit_in_bytes")
        elif not controllers:
            top, names = "/sys/fs/cgroup", ("max", "swap.max")
        else:
            continue
        group = Path(top + path.rstrip("/"))
        for level in (group, *group.parents):
            if level.is_relative_to(top):
                yield level, *(f"memory.{name}" for name in names)


@pytest.fixture
def group():
    reasons = []
    for at, *names in places():
        new = at / f"pagestore-test-{os.getpid()}"
        try:
            made = Group(new, *names)
        except OSError as error:
            reasons.append(str(error))
            with contextlib.suppress(OSError):
                new.rmdir()
            continue
        yield made
        made.remove()
        return
    pytest.skip("; ".join(reasons) or "there is no memory controller")


@pytest.fixture
def big(tmp_path):
    """A store whose one region is larger than the limit."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, check=True)
    if kind.stdout.strip() == b"tmpfs":
        pytest.skip("files in memory count too")
    with pagestore.open(tmp_path / "big", flush_share=0.01) as store, store.begin() as ws:
        ws.create("a", (BIG, PIECE, PAGE))
        for i in range(BIG):
            ws["a"][i, :, ::512] = i + 1
            ws.flush()
    assert BIG * PIECE * PAGE > 1.5 * LIMIT
    return tmp_path / "big"


def corner(array):
    """A byte of every piece's last page."""
    return array[:, -1, 512].tolist()


CHILD = "import sys; from tests import test_memory_group as t; t.child(*sys.argv[1:])"


def within(group, work, *arguments):
    """Run a function of this module in a group; its text.

    In a process of its own: what a forked one copies of the tests' memory counts too.
    """
    command = [sys.executable, "-c", CHILD, str(group.at), work.__name__, *map(str, arguments)]
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    if run.returncode < 0:
        return f"signal {-run.returncode}"
    return run.stdout.strip() or run.stderr


def child(at, work, *arguments):
    (Path(at) / "cgroup.procs").write_text(str(os.getpid()))
    print(globals()[work](*arguments))


def change_all(path, how):
    by_itself = how == "by itself"
    with pagestore.open(path, flush_share=0.25 if by_itself else 1) as store:
        assert store._shared.private_limit <= LIMIT
        with store.begin() as ws:
            for i in range(BIG):
                ws["a"][i, :, 1::512] = i + 100
                ws["a"][i, :, ::512] += 1
                if not by_itself:
                    ws.flush()
            ws.snapshot("large")
        view = store.view("large")
        assert int(view["a"][:, :, ::512].sum(dtype="i8")) == sum(
            PIECE * 8 * (i + 2) for i in range(BIG)
        )
        return str(corner(view["a"]))


def change_too_much(path):
    store = pagestore.open(path)
    ws = store.begin()
    ws["a"][0] = 200
    ws.snapshot("acknowledged")
    ws["a"][1] = 201
    ws.flush()
    ws["a"][:] = 202  # more than there may be, in one statement
    return "alive"


@pytest.mark.parametrize("how", ["by itself", "flush()"])
def test_changes_larger_than_the_group_may_hold(big, group, how):
    assert within(group, change_all, big, how) == str([i + 2 for i in range(BIG)])
    with pagestore.open(big) as store:
        assert corner(store.view("main")["a"]) == [i + 2 for i in range(BIG)]
        assert_clean(store)


def test_killed_for_its_memory(big, group):
    """Everything acknowledged is there, and what the process had set aside comes back."""

    assert within(group, change_too_much, big) == f"signal {signal.SIGKILL}"
    with pagestore.open(big) as store:
        assert list(store.snapshots) == ["acknowledged"]
        assert corner(store.view("acknowledged")["a"]) == [200, *range(2, BIG + 1)]
        assert store.version("main").id == store.version("acknowledged").id
        assert_clean(store)
        with store._shared.read() as (records, _):
            assert list(records.scan(RESERVED)), "nothing had been set aside"
        before = store.stats()
        with store.begin() as ws:
            ws["a"][5, 0] = 1
        with store._shared.read() as (records, _):
            assert not list(records.scan(RESERVED))
        assert store.stats().free_bytes >= before.free_bytes + (PIECE - 1) * PAGE
        assert store.stats().referred_bytes == before.referred_bytes + PAGE
        assert_clean(store)
