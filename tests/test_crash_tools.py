"""The crash harness itself: what is recorded is what happened, and what a crash leaves of it."""

import errno
import mmap
import os
import subprocess
import sys

import pytest

from tools.crash import deep, disk, rehearse, shim
from tools.crash.disk import WHOLE, Disk, File, Part
from tools.crash.ledger import Known, Ledger, difference, digest
from tools.crash.record import Kind, Op, UnsoundError, check_sound, read_log
from tools.crash.shim import Fault, Plan
from tools.crash.stage import marks_path
from tools.crash.states import states
from tools.scratch import directory_in_memory

needs_compiler = pytest.mark.skipif(shim.compiler() is None, reason="no C compiler")


@needs_compiler
def test_the_recorder_leaves_nothing_behind(tmp_path):
    code = "from tools.crash import shim; assert shim.build().exists()"
    environment = os.environ | shim.search_path() | {"TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not [*tmp_path.iterdir()]


@pytest.fixture
def work():
    with directory_in_memory() as top:
        yield top


# ----------------------------------------------------------------------------------- the recorder


def every_call(top):
    """Change files in every way that there is."""
    flags = os.O_RDWR | os.O_CREAT
    (top / "there").mkdir()
    fd = os.open(top / "there" / "a", flags)
    os.write(fd, b"one" * 3000)
    os.pwrite(fd, b"two", 5000)
    os.writev(fd, [b"three", b"four" * 500])
    os.pwritev(fd, [b"five", b"six"], 20000)
    os.lseek(fd, 100, os.SEEK_SET)
    os.writev(fd, [b"seven"])
    os.ftruncate(fd, 30000)
    os.posix_fallocate(fd, 30000, 5000)
    os.fsync(fd)
    os.ftruncate(fd, 9001)
    appending = os.open(top / "there" / "a", os.O_WRONLY | os.O_APPEND | os.O_DSYNC)
    os.write(appending, b"eight")
    os.pwrite(appending, b"behind it", 3)  # Linux appends, whatever the offset
    os.truncate(top / "there" / "a", 9003)
    again = os.dup(fd)
    os.pwrite(again, b"nine", 8999)
    os.fdatasync(again)
    os.open(top / "there" / "b", flags | os.O_EXCL)
    os.rename(top / "there" / "b", top / "c")
    (top / "gone").write_bytes(b"never")
    (top / "gone").unlink()
    (top / "emptied").write_bytes(b"full")
    (top / "emptied").write_bytes(b"")
    directory = os.open(top, os.O_RDONLY)
    os.mkdir("by descriptor", dir_fd=directory)
    os.open("d", flags, dir_fd=directory)
    os.rename("d", "e", src_dir_fd=directory, dst_dir_fd=directory)
    os.rmdir("by descriptor", dir_fd=directory)
    os.fsync(directory)
    os.chdir(top)
    with open("relative", "wb") as file:
        file.write(b"buffered")


def run(server, work, function, plan=None):
    top, log = deep.fresh(work / "calls")
    (top / "old").write_bytes(b"was there")
    initial, inodes = disk.load(top), disk.inodes(top)
    done = server.run(function, top, record=(top, log), plan=plan)
    return rehearse.Record(read_log(log), initial, inodes, []), done, top


@needs_compiler
def test_every_call_is_recorded(server, work):
    record, done, top = run(server, work, every_call)
    assert not done.error
    check_sound(record.ops)
    rehearse.verify(record, top)
    kinds = {op.kind for op in record.ops}
    missing = set(Kind) - kinds
    assert missing == {Kind.RESERVE, Kind.PUNCH, Kind.MARK, Kind.SHARED_MAP, Kind.UNKNOWN}
    assert [op.path for op in record.ops if op.dsync] == ["/there/a"] * 2
    synced = [op.path for op in record.ops if op.kind is Kind.SYNC]
    assert synced == ["/there/a", "/there/a", ""]
    assert any(op.target == "/e" for op in record.ops if op.kind is Kind.RENAME)


def map_and_store(top):
    with (top / "old").open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0] = 1


def copy_in_the_kernel(top):
    with (top / "old").open("rb") as old, (top / "new").open("wb") as new:
        os.copy_file_range(old.fileno(), new.fileno(), 9)


def send_in_the_kernel(top):
    with (top / "old").open("rb") as old, (top / "new").open("wb") as new:
        os.sendfile(new.fileno(), old.fileno(), 0, 9)


@needs_compiler
@pytest.mark.parametrize("function", [map_and_store, copy_in_the_kernel, send_in_the_kernel])
def test_what_cannot_be_followed_is_not_passed_over(server, work, function):
    record, done, _ = run(server, work, function)
    assert not done.error
    with pytest.raises(UnsoundError):
        check_sound(record.ops)


@needs_compiler
def test_a_replay_that_is_not_what_is_there(server, work):
    record, _, top = run(server, work, every_call)
    (top / "old").write_bytes(b"WAS there")
    with pytest.raises(UnsoundError, match="/old"):
        rehearse.verify(record, top)


def write_and_sync(top):
    fd = os.open(top / "old", os.O_RDWR)
    answers = []
    for call in (lambda: os.pwrite(fd, b"12345678", 0), lambda: os.fsync(fd)):
        for _ in range(2):
            try:
                answers.append(call())
            except OSError as error:
                answers.append(errno.errorcode[error.errno or 0])
    return answers


@needs_compiler
@pytest.mark.parametrize(
    ("plan", "answers"),
    [
        (Plan(), [8, 8, None, None]),
        (Plan(Fault.ERROR, 2, error=errno.ENOSPC), [8, "ENOSPC", None, None]),
        (Plan(Fault.ERROR, 2, forever=True, error=errno.EIO), [8, "EIO", "EIO", "EIO"]),
        (Plan(Fault.SHORT, 1), [4, 8, None, None]),
        (Plan(Fault.SHORT, 1, forever=True), [4, 4, None, None]),
        (Plan(Fault.SYNC, 1, error=errno.EIO), [8, 8, "EIO", None]),
        (Plan(Fault.SYNC, 2, error=errno.EIO), [8, 8, None, "EIO"]),
        (Plan(swallow="old"), [8, 8, None, None]),
    ],
    ids=str,
)
def test_faults(server, work, plan, answers):
    record, done, _ = run(server, work, write_and_sync, plan)
    assert done.result == answers
    failed = [op for op in record.ops if op.error]
    assert len(failed) == sum(isinstance(answer, str) for answer in answers)
    assert any(op.kind is Kind.SYNC for op in record.ops) != bool(plan.swallow)


@needs_compiler
@pytest.mark.parametrize(("fault", "writes"), [(Fault.KILL_BEFORE, 1), (Fault.KILL_AFTER, 2)])
def test_deaths(server, work, fault, writes):
    record, done, top = run(server, work, write_and_sync, Plan(fault, 2))
    assert done.signal == 9
    assert len(record.ops) == writes
    rehearse.verify(record, top)


# ------------------------------------------------------------------------------ the disk's model


def write(data, offset=0, path="/a", inode=1, **more):
    return Op(Kind.WRITE, path, inode, offset, len(data), data=data, **more)


def sync(path="/a", inode=1, error=0):
    return Op(Kind.SYNC, path, inode, error=error)


A, B, C = b"A" * 1024, b"B" * 1024, b"C" * 1024


def after(ops, choice, initial=b""):
    """Bytes of /a after some operations and a crash."""
    start = File()
    start.write(0, initial)
    model = Disk({"": None, "/a": start}, {"/a": 1})
    for op in ops:
        model.apply(op)
    file = model.after_crash(choice)["/a"]
    assert file is not None
    return b"".join(data for _, data in file.runs())[: file.size].ljust(file.size, b"\0")


def test_what_is_pending_may_be_lost():
    assert after([write(A), write(B, 1024)], {}) == b""
    assert after([write(A), write(B, 1024)], {1: WHOLE}) == A
    assert after([write(A), write(B, 1024)], {2: WHOLE}) == bytes(1024) + B
    assert after([write(A), sync(), write(B, 1024)], {}) == A
    assert after([write(A), sync(inode=2, path="/b")], {}) == b""


def test_a_synchronous_write_saves_itself_alone():
    assert after([write(A), write(B, 1024, dsync=True)], {}) == bytes(1024) + B
    assert after([write(A), write(B, 0, dsync=True)], {1: WHOLE}) == B


def test_the_order_of_writes_to_one_place():
    assert after([write(A), write(B), sync()], {}) == B
    assert after([write(A), write(B)], {1: WHOLE}) == A
    assert after([write(A), write(B)], {1: WHOLE, 2: WHOLE}) == B


def test_torn_writes_and_lengths():
    assert after([write(A)], {1: Part((1,))}) == bytes(512) + A[:512]
    assert after([write(A)], {1: Part(size_only=True)}) == bytes(1024)
    assert after([write(A)], {1: Part((0,))}, initial=C) == A[:512] + C[:512]
    assert after([Op(Kind.RESIZE, "/a", 1, size=512)], {}, initial=C) == C
    assert after([Op(Kind.RESIZE, "/a", 1, size=512)], {1: WHOLE}, initial=C) == C[:512]
    assert after([Op(Kind.PUNCH, "/a", 1, 0, 512)], {1: WHOLE}, initial=C) == bytes(512) + C[:512]


def test_a_failed_sync_dooms_what_was_pending():
    failed = [write(A), sync(error=5), write(B, 1024), sync()]
    assert after(failed, {}) == bytes(1024) + B
    assert after(failed, {1: WHOLE}) == A + B


def test_names_last_when_their_directory_is_synced():
    def tree(ops, choice):
        model = Disk({"": None}, {})
        for op in ops:
            model.apply(op)
        return sorted(model.after_crash(choice))

    made = [
        Op(Kind.MKDIR, "/d", 7),
        Op(Kind.CREATE, "/d/a", 1),
        write(A, path="/d/a"),
        sync("/d/a"),
    ]
    assert tree(made, {}) == [""]
    assert tree(made, {1: WHOLE, 2: WHOLE}) == ["", "/d", "/d/a"]
    assert tree(made, {2: WHOLE}) == [""]
    synced = [*made, sync("/d", 7)]
    assert tree(synced, {1: WHOLE}) == ["", "/d", "/d/a"]
    moved = [*synced, sync("", 2), Op(Kind.RENAME, "/d", 7, data=b"/e")]
    assert tree(moved, {}) == ["", "/d", "/d/a"]
    assert tree(moved, {7: WHOLE}) == ["", "/e", "/e/a"]
    assert tree([*moved, sync("", 2)], {}) == ["", "/e", "/e/a"]


def test_an_inode_number_that_comes_again():
    model = Disk({"": None}, {})
    for op in (
        Op(Kind.CREATE, "/a", 1), write(A), Op(Kind.UNLINK, "/a", 1),
        Op(Kind.CREATE, "/b", 1), write(B, path="/b"),
    ):  # fmt: skip
        model.apply(op)
    tree = model.everything()
    assert sorted(tree) == ["", "/b"]
    assert tree["/b"] is not None
    assert dict(tree["/b"].runs())[0][:1024] == B


def test_every_combination_of_a_few():
    """Four writes of one sector: 16 combinations at the sync, each of them once."""
    ops = [write(bytes([65 + i]) * 512, 512 * i) for i in range(4)] + [sync()]
    start = {"": None, "/a": File()}
    found = [state for state in states(ops, start, {"/a": 1}, 0) if state.point == 4]
    before = [state for state in states(ops, start, {"/a": 1}, 0) if state.point < 4]
    lengths = 1  # all four lengths, no bytes: every other one of that kind is there already
    assert len(found) + len(before) == 2**4 + lengths
    assert [s.words for s in states(ops, start, {"/a": 1}, 0)] == [s.words for s in before + found]


# ------------------------------------------------------------------------------------- the model


def test_the_ledger_keeps_what_must_be_kept():
    ledger = Ledger()
    ledger.begin(1)
    ledger.names["snapshot fork"] = 1
    ledger.names["branch side"] = 1
    ledger.committed("main", 2, {})
    ledger.committed("side", 3, {})
    ledger.committed("main", 4, {})
    assert ledger.parents == {1: 0, 3: 1, 4: 1}
    del ledger.names["snapshot fork"]
    ledger.drop()
    assert ledger.parents == {1: 0, 3: 1, 4: 1}
    del ledger.names["branch side"]
    ledger.drop()
    assert ledger.parents == {4: 0}


def test_differences_are_told():
    def told(*known):
        return difference(*known) or ""

    one, two = digest({}), "f" * 32
    wanted = Known({"branch main": 2}, {2: two, 1: one})
    assert difference(wanted, wanted, {}) is None
    assert "missing" in told(Known({"branch main": 2}, {2: two}), wanted, {})
    assert "not what" in told(Known({"branch main": 2}, {2: one, 1: one}), wanted, {})
    assert "names" in told(Known({"branch main": 1}, {2: two, 1: one}), wanted, {})
    more = Known({"branch main": 2}, {2: two, 1: one, 9: one})
    assert difference(more, wanted, {9: one}) is None
    assert "not what" in told(more, wanted, {})


def test_marks_have_a_file_of_their_own(tmp_path):
    assert marks_path(tmp_path / "log") == tmp_path / "log.marks"
