"""The command line, as a person and as a script meet it."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import pagestore
from pagestore.cli import source
from pagestore.cli.demo_kill import Killing, Writer
from pagestore.cli.demo_screen import Screen
from pagestore.cli.demo_story import Story
from pagestore.cli.group import group

PAGE = 4096
COMMAND = [sys.executable, "-m", "pagestore.cli"]
rng = np.random.default_rng(7)


@pytest.fixture
def path(tmp_path):
    """Where a store may be made; if one was, nothing in it may be damaged afterwards."""
    where = tmp_path / "s.ps"
    yield where
    if where.exists():
        with pagestore.open(where, "r") as store:
            assert list(store.check(data=True)) == []


def run(*args, status=0, stdin=None):
    """Run a command in this process and return its standard output."""
    result = CliRunner().invoke(group, [str(arg) for arg in args], input=stdin)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    if not status:
        assert result.stderr == ""
    return result.stdout


def fatal(*args, status=128, stdin=None):
    """Run a command that fails and return what it says about that."""
    result = CliRunner().invoke(group, [str(arg) for arg in args], input=stdin)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    return result.stderr


def rows(output):
    return [line.split("\t") for line in output.splitlines()]


def objects(*args, status=0):
    """What a command prints with --json."""
    lines = run(*args, "--json", status=status).splitlines()
    return [json.loads(line, parse_constant=pytest.fail) for line in lines]


def put(path, content, *options, region="r"):
    """Store some bytes and return how many pages differed."""
    file = path.parent / "input"
    file.write_bytes(content)
    [[_, _, _, pages, size]] = rows(run("put", path, region, file, *options))
    assert int(size) == len(content)
    return int(pages)


def stored_bytes(path):
    return next(int(row[2]) for row in rows(run("inspect", path)) if row[1] == "referred_bytes")


def get(path, *options, region="r"):
    file = path.parent / "output"
    assert run("get", path, region, file, *options) == ""
    return file.read_bytes()


# ---- put and get


@pytest.mark.parametrize("size", [0, 1, PAGE - 1, PAGE, PAGE + 1, source.PIECE, source.PIECE + 9])
def test_what_is_put_is_got(path, size):
    content = rng.bytes(size)
    assert put(path, content) == -(-size // PAGE)
    assert get(path) == content


def test_the_next_version_stores_only_what_changed(path):
    old = bytearray(rng.bytes(1000 * PAGE))
    put(path, old, "--snapshot", "old")
    new = bytearray(old)
    for page in (0, 500, 501, 999):
        new[page * PAGE + 7] ^= 1
    assert put(path, new, "--snapshot", "new") == 4
    assert put(path, new, "--snapshot", "same") == 0
    assert stored_bytes(path) == 1004 * PAGE
    assert get(path, "--at", "old") == old
    assert get(path, "--at", "new") == get(path, "--at", "same") == new


def test_pages_of_zeros_are_not_stored(path):
    put(path, bytes(100 * PAGE) + b"end")
    assert stored_bytes(path) == PAGE


@pytest.mark.parametrize("sizes", [(9000, 100), (100, 9000), (9000, 0), (0, 9000), (8192, 8193)])
def test_a_file_that_grew_or_shrank(path, sizes):
    contents = [rng.bytes(size) for size in sizes]
    for number, content in enumerate(contents):
        put(path, content, "--snapshot", f"v{number}")
    for number, content in enumerate(contents):
        assert get(path, "--at", f"v{number}") == content


def test_what_was_cut_off_does_not_come_back(path):
    put(path, b"x" * 9000)
    put(path, b"x" * 10)
    put(path, b"x" * 10 + bytes(8990))
    assert get(path) == b"x" * 10 + bytes(8990)


def test_standard_input_and_output(path, monkeypatch):
    monkeypatch.setattr(source, "PIECE", 2 * PAGE)
    monkeypatch.setattr("pagestore.cli.put.PIECE", 2 * PAGE)
    for size in (100_000, 300_000, 5000, 0):
        content = rng.bytes(size)
        run("put", path, "r", "-", stdin=content)
        result = CliRunner().invoke(group, ["get", str(path), "r", "-"])
        assert (result.exit_code, result.stdout_bytes) == (0, content)


def test_a_real_pipe_and_a_redirected_file(path, tmp_path):
    content = rng.bytes(3_000_000)
    (tmp_path / "f").write_bytes(content)
    command = " ".join(COMMAND)
    script = f"cat f | {command} put s.ps a - && {command} put s.ps b - < f"
    script += f" && {command} get s.ps a - | cmp f && {command} get s.ps b - | cmp f"
    shell = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, env=environment()
    )
    assert (shell.returncode, shell.stderr) == (0, "")


ARRAYS = {
    "plain": np.arange(10_000.0).reshape(100, 100),
    "one dimension": np.arange(5, dtype="<i2"),
    "big endian": np.arange(5, dtype=">i4"),
    "Fortran": np.asfortranarray(rng.standard_normal((70, 30, 11))),
    "Fortran with long rows": np.asfortranarray(rng.standard_normal((2, 3, 9000))),
    "Fortran with one row": np.asfortranarray(rng.integers(0, 99, (1, 50_000), dtype="u2")),
    "empty": np.empty((0, 3)),
    "empty in Fortran order": np.asfortranarray(np.empty((3, 0))),
    "no dimension": np.array(2.5),
    "times": np.array(["2024-01-01", "2025-02-02"], dtype="M8[D]"),
    "complex": np.array([1 + 2j, 3j]),
    "booleans": np.array([True, False, True]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_becomes_an_array(path, tmp_path, monkeypatch, name):
    monkeypatch.setattr(source, "PIECE", 4 * PAGE)
    array = ARRAYS[name]
    np.save(tmp_path / "in.npy", array)
    run("put", path, "a", tmp_path / "in.npy")
    with pagestore.open(path, "r") as store, store.view("main") as view:
        assert view["a"].dtype == array.dtype
        assert view["a"].shape == array.shape
        np.testing.assert_array_equal(view["a"], array)
    run("get", path, "a", tmp_path / "out.npy")
    back = np.load(tmp_path / "out.npy")
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(back, array)


def test_another_dtype_or_shape_replaces_the_array(path, tmp_path):
    file = tmp_path / "a.npy"
    for array in (np.arange(99.0), np.arange(99), np.ones((5, 7), int), np.ones((2, 3, 4), "f4")):
        np.save(file, array)
        run("put", path, "a", file)
        run("get", path, "a", tmp_path / "b.npy")
        back = np.load(tmp_path / "b.npy")
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)


def test_raw_and_npy_can_be_said(path, tmp_path):
    np.save(tmp_path / "a.npy", np.arange(5))
    content = (tmp_path / "a.npy").read_bytes()
    run("put", path, "raw", tmp_path / "a.npy", "--raw")
    run("get", path, "raw", tmp_path / "b.npy", "--raw")
    assert (tmp_path / "b.npy").read_bytes() == content
    run("put", path, "array", "-", "--npy", stdin=content)
    run("get", path, "array", tmp_path / "c", "--npy")
    np.testing.assert_array_equal(np.load(tmp_path / "c"), np.arange(5))


def test_files_that_are_no_arrays(path, tmp_path):
    file = tmp_path / "a.npy"
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    assert "Python objects" in fatal("put", path, "a", file)
    for order in "CF":
        np.save(file, np.ones((30, 40)) if order == "C" else np.asfortranarray(np.ones((30, 40))))
        file.write_bytes(file.read_bytes()[:-1])
        assert "cut short" in fatal("put", path, "a", file)
    file.write_bytes(b"hello")
    assert "not a NumPy file" in fatal("put", path, "a", file)
    np.save(file, np.asfortranarray(np.ones((3, 4))))
    assert "Fortran" in fatal("put", path, "a", "-", "--npy", stdin=file.read_bytes())
    if path.exists():
        assert "no region" in fatal("get", path, "a", tmp_path / "out")


def test_a_failed_put_changes_nothing(path, tmp_path):
    file = tmp_path / "a.npy"
    np.save(file, np.arange(1000))
    run("put", path, "a", file)
    file.write_bytes(file.read_bytes()[:-8])
    fatal("put", path, "a", file)
    run("get", path, "a", tmp_path / "b.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), np.arange(1000))


def test_a_failed_get_leaves_the_file_alone(path, tmp_path):
    put(path, b"content")
    file = tmp_path / "f"
    file.write_bytes(b"precious")
    assert "no region" in fatal("get", path, "x", file)
    assert file.read_bytes() == b"precious"
    assert "No such file" in fatal("get", path, "r", tmp_path / "nowhere" / "f")
    assert list(tmp_path.glob(".*")) == []


def test_get_keeps_what_a_file_is(path, tmp_path):
    put(path, b"content")
    file, link = tmp_path / "f", tmp_path / "link"
    file.touch(mode=0o600)
    link.symlink_to(file)
    run("get", path, "r", link)
    assert link.is_symlink()
    assert file.read_bytes() == b"content"
    assert file.stat().st_mode & 0o777 == 0o600
    run("get", path, "r", "/dev/null")
    assert Path("/dev/null").is_char_device()


# ---- names and history


def test_the_life_of_a_store(path):
    put(path, b"1" * 9000, "--snapshot", "monday", "-m", "first")
    put(path, b"1" * 8999 + b"2", "--snapshot", "tuesday")
    assert [row[0] for row in rows(run("snapshot", path))] == ["monday", "tuesday"]

    [[name, id, _, _]] = rows(run("branch", path, "what-if", "--at", "monday"))
    assert name == "what-if"
    put(path, b"3" + b"1" * 8999, "--branch", "what-if", "-m", "a\tnote\nin two lines")
    assert [row[0] for row in rows(run("branch", path))] == ["main", "what-if"]
    newest, oldest, *_ = rows(run("log", path, "what-if"))
    assert (newest[1], newest[3], newest[4]) == (id, "what-if", r"a\tnote\nin two lines")
    assert (oldest[0], oldest[3], oldest[4]) == (id, "monday", "first")
    assert rows(run("log", path, "what-if", "-n", "1")) == [newest]

    differ = rows(run("diff", path, "monday", "tuesday"))
    assert differ == [["r", "written", "2", "3", "8192", "12288", "8192", "9000"]]
    assert rows(run("diff", path, "tuesday", "what-if", "--stat"))[0][:3] == ["r", "written", "2"]
    assert run("diff", path, "monday", "what-if~1", "--exit-code") == ""
    assert run("diff", path, "monday", "tuesday", "--exit-code", status=1) != ""
    assert rows(run("snapshot", path, "again", "--at", id))[0][:2] == ["again", id]
    assert get(path, "--at", "main~1") == b"1" * 9000

    assert run("delete", path, "tuesday", "what-if") == "branch\twhat-if\nsnapshot\ttuesday\n"
    assert [row[0] for row in rows(run("snapshot", path))] == ["again", "monday"]
    assert get(path, "--at", "monday") == b"1" * 9000
    assert len(rows(run("compact", path))[0]) == 2
    assert run("check", path, "--data") == ""


def test_deleting_only_one_kind(path):
    put(path, b"1", "--snapshot", "monday")
    run("branch", path, "what-if")
    assert "did you mean" not in fatal("delete", path, "monday", "--branch")
    assert "no snapshot 'what-if'" in fatal("delete", path, "what-if", "--snapshot")
    assert run("delete", path, "what-if", "--branch") == "branch\twhat-if\n"
    assert run("delete", path, "monday", "--snapshot") == "snapshot\tmonday\n"
    assert "main" in fatal("delete", path, "main")


def test_the_note_of_a_snapshot(path):
    put(path, b"1", "-m", "of the version")
    [[_, id, _, note]] = rows(run("snapshot", path, "a", "-m", "of the name"))
    assert note == "of the name"
    run("snapshot", path, "b")
    assert [row[3] for row in rows(run("snapshot", path))] == ["of the name", "of the version"]
    assert rows(run("log", path))[0][0] == id


# ---- what goes wrong


def test_names_that_do_not_exist(path):
    put(path, b"1", "--snapshot", "monday", region="prices")
    assert fatal("get", path, "prices", "-", "--at", "mnday") == (
        "fatal: there is no snapshot, branch or version 'mnday'; did you mean 'monday'?\n"
    )
    assert "did you mean 'prices'?" in fatal("get", path, "price", "-")
    assert "did you mean 'monday'?" in fatal("delete", path, "munday")
    assert "did you mean 'main'?" in fatal("put", path, "r", "-", "--branch", "mian", stdin=b"")
    for ref in ("999", "main~99", "main~x", "zzz"):
        assert fatal("log", path, ref).startswith("fatal: ")
    assert [row[0] for row in rows(run("snapshot", path))] == ["monday"]
    assert fatal("delete", path, "monday", "nonesuch")
    assert [row[0] for row in rows(run("snapshot", path))] == ["monday"]
    assert fatal("snapshot", path, "monday").startswith("fatal: ")


@pytest.mark.parametrize(
    "command",
    [
        ("get", "r", "-"),
        ("snapshot", "n"),
        ("snapshot",),
        ("branch", "n"),
        ("branch",),
        ("log",),
        ("diff", "a", "b"),
        ("delete", "n"),
        ("check",),
        ("compact",),
        ("inspect",),
        ("du",),
    ],
)
def test_only_put_makes_a_store(tmp_path, command):
    name, *rest = command
    assert "there is no store" in fatal(name, tmp_path / "none", *rest)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for other in ("empty", "file"):
        assert fatal(name, tmp_path / other, *rest).startswith("fatal: ")
    assert list((tmp_path / "empty").iterdir()) == []
    assert not (tmp_path / "none").exists()


def test_put_makes_no_store_for_a_file_that_is_not_there(tmp_path):
    assert "No such file" in fatal("put", tmp_path / "s", "r", tmp_path / "none")
    assert "is a directory" in fatal("put", tmp_path / "s", "r", tmp_path)
    assert not (tmp_path / "s").exists()


def test_wrong_usage():
    assert "did you mean 'check'?" in fatal("chekc", status=2)
    assert "Missing argument" in fatal("get", status=2)
    assert "No such option" in fatal("log", "s", "--nonesuch", status=2)


def test_help_and_version():
    assert run("--version").startswith("pagestore ")
    for command in ("", *group.commands):
        text = run(*filter(None, [command]), "--help")
        assert "Usage:" in text
        assert not re.search(r"[\b\\]|[a-z]\.\.\.$", text, re.MULTILINE)
        assert max(map(len, text.splitlines())) <= 80


def test_check_finds_damage(tmp_path):
    where = tmp_path / "s.ps"
    put(where, rng.bytes(64 * PAGE), "--snapshot", "one")
    largest = max((f for f in where.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    content = bytearray(largest.read_bytes())
    middle = content.index(get(where)[32 * PAGE : 33 * PAGE])
    content[middle] ^= 1
    largest.write_bytes(content)
    found = rows(run("check", where, "--data", status=1))
    assert found
    assert {len(row) for row in found} == {3}
    assert run("check", where) == ""


def test_check_of_a_store_from_a_stranger(tmp_path):
    where = tmp_path / "s.ps"
    put(where, rng.bytes(64 * PAGE), "--snapshot", "one")
    assert run("check", where, "--untrusted") == ""
    arena, catalog = where / "arena", where / "catalog"
    content = bytearray(arena.read_bytes())
    content[content.index(get(where)[32 * PAGE : 33 * PAGE])] ^= 1  # data is looked at too
    arena.write_bytes(content)
    assert "checksum" in run("check", where, "--untrusted", status=1)
    content = bytearray(catalog.read_bytes())
    content[16 + 24 + 48 + 4] = content[PAGE + 16 + 24 + 48 + 4] = 4  # LMDB's DUPSORT
    catalog.write_bytes(content)
    (found,) = rows(run("check", where, "--untrusted", status=1))
    assert "flags" in found[2]
    catalog.unlink()
    catalog.symlink_to(arena)
    assert "regular" in fatal("check", where, "--untrusted")
    assert "nothing.ps" in fatal("check", tmp_path / "nothing.ps", "--untrusted")


# ---- real processes


def environment(**more):
    home = str(Path(pagestore.__file__).parent.parent)
    return os.environ | {"PYTHONPATH": home} | more


def process(*args, **options):
    return subprocess.Popen(
        [*COMMAND, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**options.pop("env", {})),
        **options,
    )


@pytest.fixture
def long_log(path):
    with pagestore.open(path) as store, store.begin() as workspace:
        region = workspace.create("r", 1)
        for number in range(300):
            region += 1
            workspace.snapshot(f"s{number}", "x" * 500)
    return path


def test_a_reader_that_goes_away(long_log):
    it = process("log", long_log)
    assert it.stdout
    it.stdout.read(10)
    it.stdout.close()
    assert it.wait(60) == -signal.SIGPIPE
    assert it.stderr
    assert it.stderr.read() == b""
    it.stderr.close()


def test_a_pipe_gets_no_colours_whatever_the_environment_says(long_log):
    with process("log", long_log, env={"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}) as it:
        out, err = it.communicate(timeout=60)
    assert it.returncode == 0
    assert len(rows(out.decode())) >= 300
    assert b"\x1b" not in out
    assert err == b""


def test_names_that_the_terminal_has_no_letters_for(path):
    put(path, b"1", "--snapshot", "größe")
    env = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    with process("snapshot", path, env=env) as it:
        out, err = it.communicate(timeout=60)
    assert (it.returncode, err) == (0, b"")
    assert out.startswith(b"gr\\xf6\\xdfe\t")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_put(path, number):
    # who runs the tests in the background may have told them to ignore it
    meant = {"preexec_fn": lambda: signal.signal(number, signal.SIG_DFL)}
    with process("put", path, "r", "-", stdin=subprocess.PIPE, **meant) as it:
        assert it.stdin
        it.stdin.write(rng.bytes(100_000))
        it.stdin.flush()
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)
        it.send_signal(number)
        assert it.wait(60) == -number
        assert it.stderr
        assert it.stderr.read() == b""
    assert "no region" in fatal("get", path, "r", "-")


def test_progress_is_for_a_terminal(path, tmp_path):
    (tmp_path / "f").write_bytes(rng.bytes(50_000_000))
    ours, theirs = pty.openpty()
    command = [*COMMAND, "put", str(path), "r", str(tmp_path / "f")]
    env = environment(TERM="xterm")
    it = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=env)
    os.close(theirs)
    shown = b""
    try:
        while some := os.read(ours, 65536):
            shown += some
    except OSError:  # a terminal whose other side is closed
        pass
    os.close(ours)
    out, _ = it.communicate(timeout=60)
    assert it.returncode == 0
    assert len(rows(out.decode())) == 1
    assert b"putting" in shown


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_click_or_rich(missing):
    script = f"import sys; sys.modules[{missing!r}] = None; import pagestore.cli as c; "
    script += "sys.exit(c.main())"
    it = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment()
    )
    assert it.returncode == 128
    assert it.stderr == (f"fatal: the command line needs {missing}: pip install 'pagestore[cli]'\n")


# ---- the demo


def test_the_demo(tmp_path):
    with process("demo", "--size", 4, "--dir", tmp_path, "--seed", 1) as it:
        out, err = (text.decode() for text in it.communicate(timeout=120))
    assert (it.returncode, err) == (0, ""), out
    assert "FAIL" not in out
    assert "\x1b" not in out
    assert "each exact to the byte" in out
    assert list(tmp_path.iterdir()) == []


def test_a_demo_that_nobody_reads(tmp_path):
    it = process("demo", "--size", 4, "--dir", tmp_path)
    assert it.stdout
    assert it.stderr
    it.stdout.readline()
    it.stdout.close()
    assert it.wait(60) == -signal.SIGPIPE
    assert it.stderr.read() == b""
    it.stderr.close()
    assert list(tmp_path.iterdir()) == []


def test_the_demo_cleans_up_when_stopped(tmp_path):
    with process("demo", "--size", 64, "--dir", tmp_path) as it:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("*/market.ps")) and time.monotonic() < deadline:
            time.sleep(0.02)
        it.send_signal(signal.SIGTERM)
        it.wait(60)
        assert it.returncode == -signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_the_demo_notices_what_is_not_exact(tmp_path):
    screen = Screen()
    story = Story(tmp_path, 1, rng, screen, made={"a": "1", "b": "2"})
    story.compare({"a": "1", "b": "2"})
    assert screen.wrong == []
    story.compare({"a": "1", "b": "3"})
    assert screen.wrong == ["b"]


@pytest.mark.parametrize(
    ("acknowledged", "found", "holds", "verdict"),
    [
        (3, 3, "x", "exact"),
        (3, 4, "x", "exact"),
        (3, 2, "x", "commit 3 was acknowledged, 2 found"),
        (3, 3, "y", "other contents than announced"),
    ],
)
def test_the_demo_notices_a_lost_commit(acknowledged, found, holds, verdict):
    assert Killing(4, 0.0, 0.0, acknowledged, found, holds, "x").verdict == verdict


def test_the_demo_does_not_believe_half_a_line():
    writer = Writer(announced={0: "x"})
    assert writer.hear("begin 1 y\n") == "begin"
    assert writer.hear("acknowledged") == writer.hear("acknowledged 1") == ""
    assert (writer.acknowledged, writer.announced) == (0, {0: "x", 1: "y"})


def test_the_demo_looks_for_room(tmp_path):
    assert "free" in fatal("demo", "--size", 10**9, "--dir", tmp_path)
