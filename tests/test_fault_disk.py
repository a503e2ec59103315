"""Real file systems that are full or read-only: small ones, mounted for the purpose.

Root mounts all kinds; anyone else a tmpfs, in a namespace of their own, where the kernel allows it.
"""

import contextlib
import errno
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import pagestore
from pagestore import FullError, ReadOnlyError, kernel
from pagestore.catalog import LOCK_ROOM
from pagestore.directory import BALLAST, CATALOG
from pagestore.structure import used
from tests.damage import PAGE, assert_clean, contents, in_child, small_store, verdict

PAGES = 256
MEGABYTES = 10
LEAST = {"xfs": 300, "btrfs": 120}  # MiB: what mkfs insists on; all but some is taken at once
TAKEN = "taken"
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


def run(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    if done.returncode:
        pytest.skip(f"{' '.join(command)}: {done.stderr.strip()}")


@contextlib.contextmanager
def mounted(at, *command):
    if os.getuid():
        pytest.skip("only root can mount")
    run("mount", *command, str(at))
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


@pytest.fixture(params=["tmpfs", "ext4", "xfs", "btrfs"])
def disk(request, tmp_path):
    """A small file system of its own."""
    kind, at = request.param, tmp_path / "disk"
    at.mkdir()
    if kind == "tmpfs":
        command = ["-t", "tmpfs", "-o", f"size={MEGABYTES}m", "none"]
    else:
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(LEAST.get(kind, MEGABYTES + 2) << 20)
        run(f"mkfs.{kind}", "-q", str(image))
        command = ["-t", kind, "-o", "loop", str(image)]
    with mounted(at, *command):
        leave_little(at)
        yield at


def leave_little(disk):
    """Take what there is beyond a few mebibytes, at no cost."""
    free = shutil.disk_usage(disk).free - (MEGABYTES << 20)
    if free > MEGABYTES << 20:
        with (disk / TAKEN).open("wb") as file:
            kernel.allocate(file.fileno(), 0, free)


def test_without_root(tmp_path):
    """The tests below once more, where this user may mount."""
    if not os.getuid():
        pytest.skip("root runs them as they are")
    run(*NAMESPACE, sys.executable, "-c", "")
    pytest_here = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__)
    selected = ("-k", "tmpfs or bind", f"--basetemp={tmp_path / 'inner'}")
    done = subprocess.run(
        [*NAMESPACE, *pytest_here, *selected], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def fill(disk):
    """Leave no room at all."""
    with (disk / "filler").open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 16, PAGE, 512):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass
        with contextlib.suppress(OSError):
            os.fsync(file.fileno())


@pytest.fixture
def store(disk):
    with pagestore.open(disk / "store") as store:
        with store.begin() as ws:
            ws.create("a", (PAGES, PAGE))[:] = np.arange(PAGES)[:, None] % 251 + 1
        store.snapshot("old")
        with store.begin() as ws:
            ws["a"][:] += 1
        assert_clean(store)
        yield store
        if not store._closed:
            assert_clean(store)


def until_full(store, ws):
    """Commit until there is no room, naming every version; what was acknowledged."""
    done = {}
    for i in range(100):
        ws["a"][:] = i
        try:
            ws.snapshot(f"kept {i}")
        except FullError:
            return i, done
        done[f"kept {i}"] = i
    raise AssertionError("the disk is never full")


def test_a_full_disk(disk, store):
    """Nothing is lost, deleting works and makes room, and then the same commit succeeds."""
    ws = store.begin()
    fill(disk)
    i, done = until_full(store, ws)
    before = contents(store)
    for _ in range(3):
        with pytest.raises(FullError) as caught:
            ws.commit()
        assert "no space" in str(caught.value)
        assert isinstance(caught.value, OSError)
        assert (ws["a"] == i).all()
    assert contents(store) == before
    for name, value in done.items():
        assert (store.view(name)["a"] == value).all()
    assert_clean(store)

    store.delete_snapshot("old")
    for name in done:
        store.delete_snapshot(name)
    assert list(store.snapshots) == []
    assert_clean(store)
    version = ws.commit("after all")
    assert version.message == "after all"
    assert (store.view("main")["a"] == i).all()
    ws.close()


def test_flushing_to_a_full_disk(disk, store):
    ws = store.begin()
    fill(disk)
    i, _ = until_full(store, ws)
    with pytest.raises(FullError):
        ws.flush()
    assert (ws["a"] == i).all()
    assert_clean(store)
    (disk / "filler").unlink()
    ws.flush()
    assert (ws["a"] == i).all()
    ws.commit()
    assert (store.view("main")["a"] == i).all()
    ws.close()


def test_many_deletions_on_a_full_disk(disk, store):
    """The ballast serves again and again."""
    with store.begin() as ws:
        for i in range(15):
            ws["a"][i] = i
            ws.snapshot(f"step {i}")
    fill(disk)
    for i in range(15):
        store.delete_snapshot(f"step {i}")
        fill(disk)
    assert list(store.snapshots) == ["old"]
    assert_clean(store)


def test_the_ballast_is_dropped_for_a_deletion(disk, store, monkeypatch):
    """Even where the catalog has nothing in reserve, and only once."""
    engine, path = store._shared, disk / "store"
    dropped = []
    drop = engine._drop_ballast

    def noted():
        dropped.append(drop())
        return dropped[-1]

    monkeypatch.setattr(engine, "_drop_ballast", noted)
    os.truncate(path / CATALOG, used(path / CATALOG))  # frees what is reserved behind it
    engine.catalog._reserved = 0
    fill(disk)
    with store.begin() as ws:
        ws["a"][:] = 0
        with pytest.raises(FullError):
            ws.commit()
        ws.rollback()
    with pytest.raises(FullError):
        store.snapshot("new")
    assert not dropped
    store.delete_snapshot("old")
    assert dropped == [True]
    assert_clean(store)
    (disk / "filler").unlink()
    store.snapshot("new")
    store.delete_snapshot("new")
    assert (path / BALLAST).stat().st_blocks * 512 >= 1 << 20, "it was not restored"


def test_opening_on_a_full_disk(disk, store):
    """By a process that finds the ballast gone, too."""
    before = contents(store)
    fill(disk)
    assert in_child(lambda: verdict(disk / "store", before, "r")) == "identical"
    assert in_child(lambda: verdict(disk / "store", before, "a")) == "identical"
    store.close()
    os.truncate(disk / "store" / BALLAST, 0)
    fill(disk)
    assert in_child(lambda: verdict(disk / "store", before, "a")) == "identical"
    with pagestore.open(disk / "store") as again:
        assert contents(again) == before
        assert_clean(again)


def test_many_readers_on_a_full_disk(disk, store):
    """Each takes a place in LMDB's lock file, which is memory that is mapped from the disk."""
    fill(disk)

    def work():
        with pagestore.open(disk / "store", "r") as again:
            env = again._shared.catalog._env
            readers = [env.begin() for _ in range(200)]
            return str(len(readers))

    assert in_child(work) == "200"


def test_creating_on_a_full_disk(disk):
    fill(disk)
    with pytest.raises(FullError):
        pagestore.open(disk / "store")
    assert [p.name for p in disk.iterdir() if p.name not in ("filler", TAKEN, "lost+found")] == []
    (disk / "filler").unlink()
    with pagestore.open(disk / "store") as store:
        assert_clean(store)


def test_a_file_system_that_is_full_again_and_again(disk, store):
    """Room comes and goes; every answer is either done or FullError, and true."""
    ws = store.begin()
    value = 0
    for i in range(12):
        if i % 2:
            (disk / "filler").unlink(missing_ok=True)
        else:
            fill(disk)
        ws["a"][:] = i
        try:
            ws.commit()
            value = i
        except FullError:
            assert not i % 2
        if value:
            assert (store.view("main")["a"] == value).all()
        assert_clean(store)
    assert value == 11
    ws.close()


# ------------------------------------------------------------------------------- read-only mounts


@pytest.mark.parametrize("lock", ["lock file", "no lock file"])
def test_a_read_only_file_system(disk, lock):
    path = disk / "store"
    before = small_store(path)
    if lock == "no lock file":
        (path / f"{CATALOG}-lock").unlink()
    run("mount", "-o", "remount,ro", str(disk))
    for mode in ("a", "r+"):
        with pytest.raises(ReadOnlyError, match="not writable"):
            pagestore.open(path, mode)
    with pytest.raises(ReadOnlyError):
        pagestore.open(disk / "new")
    with pagestore.open(path, "r") as store:
        assert contents(store) == before
        assert_clean(store)
        view, live = store.view("one"), store.live()
        view["a"][0] = 5
        assert not live.refresh()
        with pytest.raises(ReadOnlyError):
            store.snapshot("new")
    run("mount", "-o", "remount,rw", str(disk))
    with pagestore.open(path) as store:
        assert contents(store) == before
        assert_clean(store)


def test_a_read_only_bind_mount(tmp_path):
    before = small_store(tmp_path / "store")
    at = tmp_path / "at"
    at.mkdir()
    with mounted(at, "--bind", str(tmp_path / "store")):
        run("mount", "-o", "remount,bind,ro", str(at))
        assert in_child(lambda: verdict(at, before, "r")) == "identical"
        assert in_child(lambda: verdict(at, before, "a")).startswith("ReadOnlyError")
    with pagestore.open(tmp_path / "store") as store:
        assert contents(store) == before
        assert_clean(store)
    shutil.rmtree(tmp_path / "store")


def test_no_room_for_the_lock_file(tmp_path, monkeypatch):
    """LMDB would store into a mapping of it, and find a hole on a full disk: SIGBUS."""
    allocate = kernel.allocate

    def on_a_full_disk(fd, offset, size, **options):
        if size == LOCK_ROOM:
            raise OSError(errno.ENOSPC, "no space")
        allocate(fd, offset, size, **options)

    pagestore.open(tmp_path / "old").close()
    os.unlink(tmp_path / "old" / f"{CATALOG}-lock")
    monkeypatch.setattr(kernel, "allocate", on_a_full_disk)
    for name in ("old", "new"):
        with pytest.raises(FullError):
            pagestore.open(tmp_path / name)
    assert os.listdir(tmp_path) == ["old"]
    monkeypatch.undo()
    with pagestore.open(tmp_path / "old") as store:
        assert_clean(store)
