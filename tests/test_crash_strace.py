"""Two recorders, one record: what strace tells of a workload is what the shim tells of it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.odd_calls import copying, odd
from tools.crash import rehearse, shim, strace
from tools.crash.examine import Share, examine
from tools.crash.record import Kind, Op, UnsoundError, read_log
from tools.crash.stage import Stage, marks_path, stage
from tools.crash.strace_calls import Reader
from tools.crash.strace_follow import Follower

pytestmark = pytest.mark.skipif(strace.missing() is not None, reason=str(strace.missing()))

SAMPLE = 60


@pytest.fixture(scope="module")
def server() -> Iterator[Stage]:
    if shim.compiler() is None:
        pytest.skip("there is no C compiler for the shim to compare with")
    with stage() as found:
        yield found


def normal(ops: Sequence[Op]) -> list[tuple[Any, ...]]:
    """Without what differs between two runs: inodes, names of temporary directories, most bytes."""
    numbers: dict[int, int] = {0: 0}

    def path(text: str) -> str:
        return re.sub(r"/\.store\.[0-9a-f]+", "/.store.new", text)

    def data(op: Op) -> object:
        if op.kind is Kind.RENAME:
            return path(op.target)
        return op.data if op.kind is Kind.MARK else len(op.data)

    return [
        (
            op.kind.name, path(op.path), numbers.setdefault(op.inode, len(numbers)),
            op.offset, op.size, op.dsync, op.error, data(op),
        )
        for op in ops
    ]  # fmt: skip


def places(tmp_path: Path, name: str) -> tuple[Path, Path]:
    top = tmp_path / name / "top"
    top.mkdir(parents=True)
    return top, tmp_path / name / "log"


@pytest.mark.parametrize("workload", ["creation", "compaction", "two_writers", "mixed"])
def test_equal_to_the_shim(server: Stage, tmp_path: Path, workload: str):
    one = rehearse.record(server, workload, *places(tmp_path, "shim"))[0]
    other = strace.record_with_strace(rehearse.perform, workload, *places(tmp_path, "strace"))
    assert normal(other.ops) == normal(one.ops)
    assert other.known == one.known


def test_equal_from_a_store_that_is_there(server: Stage, tmp_path: Path):
    top, log = places(tmp_path, "shim")
    rehearse.record(server, "creation", top, log)
    other, other_log = places(tmp_path, "strace")
    shutil.copytree(top, other, dirs_exist_ok=True)
    log.unlink()
    marks_path(log).unlink()
    one = rehearse.record(server, "recovery", top, log)[0]
    two = strace.record_with_strace(rehearse.perform, "recovery", other, other_log)
    assert normal(two.ops) == normal(one.ops)
    assert two.inodes.keys() == one.inodes.keys()


def test_its_crash_states_are_judged(tmp_path: Path):
    record = strace.record_with_strace(rehearse.perform, "mixed", *places(tmp_path, "strace"))
    report = examine(record, 1, Share(0, 15, SAMPLE))
    assert report.states == SAMPLE
    assert report.failures == []


def test_odd_calls_are_equal(server: Stage, tmp_path: Path):
    one, other = places(tmp_path, "shim"), places(tmp_path, "strace")
    done = server.run(odd, one[0], record=one)
    assert done.error == ""
    ops = strace.trace(odd, other[0], record=other)
    assert normal(ops) == normal(read_log(one[1]))
    assert len(ops) == 29


def test_what_is_not_followed_is_said(tmp_path: Path):
    places_of = places(tmp_path, "strace")
    ops = strace.trace(copying, places_of[0], record=places_of)
    assert [op.path for op in ops if op.kind is Kind.UNKNOWN] == ["/b", "/a", "/c"]


def test_an_exception_is_not_a_record(tmp_path: Path):
    with pytest.raises(AssertionError, match="KeyError"):
        strace.record_with_strace(
            rehearse.perform, "there is no such workload", *places(tmp_path, "strace")
        )


def hexed(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


def follow(top: Path, *lines: str) -> list[Op]:
    fd = f"3<{hexed(str(top / 'a'))}>"
    opened = f'1 openat(AT_FDCWD, "{hexed(str(top / "a"))}", O_RDWR|O_CREAT, 0666) = {fd}'
    thread = "1 clone3({flags=CLONE_VM|CLONE_FILES}, 88) = 2"
    text = [line.replace("FD", fd).encode() for line in (opened, thread, *lines)]
    return list(Follower(top, top / "log", top).follow(text))


def test_calls_at_once_about_one_file_have_no_order(tmp_path: Path):
    with pytest.raises(UnsoundError, match="at once"):
        follow(
            tmp_path,
            "1 fsync(FD <unfinished ...>",
            '2 pwrite64(FD, "\\x61", 1, 5) = 1',
            "1 <... fsync resumed>) = 0",
        )


def test_calls_that_are_interrupted_by_others_are_whole(tmp_path: Path):
    ops = follow(
        tmp_path,
        '1 pwrite64(FD, "\\x61\\x62", 2, 5 <unfinished ...>',
        "2 --- SIGCHLD ---",
        "2 +++ exited with 0 +++",
        "1 <... pwrite64 resumed>) = 1",
        "1 fsync(FD) = ? ERESTARTSYS (To be restarted)",
        "1 fdatasync(FD) = -1 EIO (Input/output error)",
    )
    assert [(op.kind, op.size, op.data, op.error) for op in ops[1:]] == [
        (Kind.WRITE, 2, b"a", 0),
        (Kind.SYNC, 0, b"", 5),
    ]


def test_a_child_that_is_seen_before_its_maker_returns(tmp_path: Path):
    ops = follow(
        tmp_path,
        '1 write(FD, "\\x61\\x62", 2) = 2',
        "1 clone(child_stack=NULL, flags=SIGCHLD <unfinished ...>",
        '3 write(FD, "\\x63", 1) = 1',
        "1 <... clone resumed>, child_tidptr=0x7f) = 3",
        '1 write(FD, "\\x64", 1) = 1',
    )
    assert [op.offset for op in ops if op.kind is Kind.WRITE] == [0, 2, 3]


def test_a_cut_string_is_refused():
    with pytest.raises(UnsoundError, match="cut"):
        list(Reader().calls([b'1 write(3, "\\x61"..., 2) = 2']))
