"""The commands that look into a store, as a program reads them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import pagestore
from pagestore.cli import as_json, inspect_map
from pagestore.cli.inspect_pages import index_of
from pagestore.cli.values import index_range
from tests.market import RECORD
from tests.test_cli import COMMAND, PAGE, environment, fatal, objects, rows, run

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "inspect.md"


# ------------------------------------------------------------------------------- for programs


def documented():
    """The fields of each object, and their types, as the document has them."""
    text = DOCUMENT.read_text(encoding="utf-8")
    found = {}
    for name, table in re.findall(r"<!-- json: (\w+) -->\n((?:\|.*\n)+)", text):
        cells = (row.strip("| ").split(" | ") for row in table.splitlines()[2:])
        found[name] = {cell[0].strip("`"): cell[1] for cell in cells}
    return found


TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
TYPES = {
    "string": lambda v: isinstance(v, str),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "time": lambda v: isinstance(v, str) and TIME.fullmatch(v) is not None,
    "array": lambda v: isinstance(v, list),
    "object": lambda v: isinstance(v, dict),
    "descr": lambda v: isinstance(v, str | list),
}


def check_shape(name, value, optional=()):
    fields = documented()[name]
    assert set(value) | set(optional) == set(fields), name
    for field, one in value.items():
        wanted = fields[field]
        nullable = wanted.startswith("(")
        fits = TYPES[wanted.strip("()")]
        assert (nullable and one is None) or fits(one), f"{name}.{field}: {one!r} is no {wanted}"


def test_objects_are_as_documented(market):
    [store] = objects("inspect", market)
    check_shape("store", store)
    for head in store["heads"]:
        check_shape("head", head)
        for region in head["regions"]:
            check_shape("region", region)
    for version in [*store["newest"], *objects("log", market), *objects("log", market, "--all")]:
        check_shape("version", version)
    [version] = objects("inspect", market, "tuesday")
    check_shape("inspected", version)
    for by in ("birth", "sharing", "slot"):
        for cell in objects("inspect", market, "--map", "prices", "--by", by):
            check_shape("cell", cell)
    for options in ((), ("--sharing",)):
        for page in objects("inspect", market, "--table", "prices", *options):
            check_shape("page", page)
    for piece in objects("inspect", market, "--dump", "notes"):
        check_shape("bytes", piece)
    for region in ("prices", "trades"):
        for values in objects("inspect", market, "--dump", region, "--range", "0:5"):
            check_shape("values", values)
    for change in objects("diff", market, "monday", "audit", "--values"):
        check_shape("change", change)
    for change in objects("diff", market, "monday", "audit"):
        check_shape("change", change, optional=("values", "more_values"))
    for space in objects("du", market):
        check_shape("space", space)
    *each, total = objects("du", market, "monday", "audit")
    for freed in each:
        check_shape("freed", freed)
    check_shape("total", total)


def test_a_pin_is_as_documented(market):
    with pagestore.open(market, "r") as store, store.view("monday"):
        [found] = objects("inspect", market)
    for pin in found["pins"]:
        check_shape("pin", pin)
    assert [pin["process"] for pin in found["pins"]] == [os.getpid()]


def test_the_numbers_are_those_of_the_library(market):
    with pagestore.open(market, "r") as store:
        stats, space, versions = store.stats(), store.space(), store.versions()
        freed = store.freed_by("monday", "audit")
        table = store.page_table("thursday", "prices", sharing=True)
        layout = store.layout("main")["prices"]
    [found] = objects("inspect", market)
    for name in ("arena_bytes", "referred_bytes", "free_bytes", "versions", "snapshots"):
        assert found[name] == getattr(stats, name)
    assert [v["id"] for v in found["newest"]] == [v.id for v in versions]
    assert [head["branch"] for head in found["heads"]] == ["main", "audit", "what-if"]
    prices = found["heads"][0]["regions"][0]
    assert (prices["runs"], prices["zero_pages"]) == (layout.runs, layout.zero_pages)
    for one in objects("du", market):
        assert one["exclusive_bytes"] == space[one["version"]].exclusive_bytes
        assert one["new_bytes"] == space[one["version"]].new_bytes
    *_, total = objects("du", market, "monday", "audit")
    assert total["freed_bytes"] == freed.freed_bytes
    assert tuple(total["versions"]) == freed.versions
    pages = objects("inspect", market, "thursday", "--table", "prices", "--sharing")
    for column in ("page", "slot", "birth", "holders"):
        assert [page[column] for page in pages] == getattr(table, column).tolist()
    assert [int(page["checksum"], 16) for page in pages] == table.checksum.tolist()


@pytest.mark.parametrize("by", ["birth", "sharing", "slot"])
@pytest.mark.parametrize("bounds", [(0, 200), (37, 171), (150, 200), (5, 5)])
def test_cells_are_those_of_counting(market, monkeypatch, by, bounds):
    """Each page lies in one cell: of the newest birth, the fewest holders, the first slot."""
    monkeypatch.setattr(inspect_map, "CELLS", 16)
    with pagestore.open(market, "r") as store:
        table = store.page_table("thursday", "prices", *bounds, sharing=True)
    assert table.holders is not None
    column = {"birth": table.birth, "sharing": table.holders, "slot": table.slot}[by]
    options = ("--map", "prices", "--by", by, "--range", f"{bounds[0]}:{bounds[1]}")
    cells = objects("inspect", market, "thursday", *options)
    assert len(cells) <= 16
    assert [cell["start"] for cell in cells[1:]] == [cell["stop"] for cell in cells[:-1]]
    if bounds[0] < bounds[1]:
        assert (cells[0]["start"], cells[-1]["stop"]) == bounds
    for cell in cells:
        inside = (table.page >= cell["start"]) & (table.page < cell["stop"])
        values, slots, pages = column[inside], table.slot[inside], table.page[inside]
        assert cell["stored"] == len(values)
        pieces = int(((np.diff(slots) != 1) | (np.diff(pages) != 1)).sum()) + bool(len(slots))
        assert cell["pieces"] == pieces
        fold = max if by == "birth" else min
        assert cell["value"] == fold(values.tolist(), default=0)


def test_rows_in_a_pipe(market):
    kinds = [row[0] for row in rows(run("inspect", market))]
    assert list(dict.fromkeys(kinds)) == ["store", "head", "version"]
    assert rows(run("inspect", market, "audit"))[0][0] == "version"
    pages = rows(run("inspect", market, "monday", "--table", "prices", "--range", "3:5"))
    assert [row[0] for row in pages] == ["3", "4"]
    [*each, total] = rows(run("du", market, "monday", "audit"))
    assert [row[0] for row in each] == ["monday", "audit"]
    assert total == ["total", "2", str(7 * PAGE + 2 * PAGE)]  # row 0 is zeros
    first = rows(run("du", market, "--sort", "referred", "-n", "2"))
    assert len(first) == 2
    assert int(first[0][2]) >= int(first[1][2])


def test_what_a_name_and_an_id_stand_for(market):
    with pagestore.open(market, "r") as store:
        audit = store.version("audit").id
    assert rows(run("du", market, str(audit)))[-1] == rows(run("du", market, "audit"))[-1]
    assert rows(run("du", market, "main~1"))[0][0] == "main~1"
    assert "stays" not in run("du", market, "thursday", status=0)
    assert rows(run("du", market, "thursday"))[0][3] == "named main"


def test_contents(market):
    out = run("inspect", market, "audit", "--dump", "notes", "--range", "5:40")
    assert out.splitlines() == [
        "0000000005  07 07 07 07 07 41 41 41  41 41 41 41 41 41 41 41  |.....AAAAAAAAAAA|",
        "0000000015  41 41 41 41 41 41 41 41  41 41 41 41 41 41 41 41  |AAAAAAAAAAAAAAAA|",
        "0000000025  41 41 41                                          |AAA|",
    ]
    long = run("inspect", market, "audit", "--dump", "notes")
    assert "*" in long.splitlines()
    assert len(long.splitlines()) < 12
    [first, second, *_] = objects("inspect", market, "audit", "--dump", "prices", "--range", "3")
    assert (first["index"], first["values"]) == ([3, 0], [3.0] * 4)
    assert (second["index"], second["values"]) == ([3, 4], [3.0, "nan", 0.0, 3.0])
    [trade] = objects("inspect", market, "--dump", "trades", "--range", "999:")
    assert trade["values"] == [[0, 1.5]]
    assert run("inspect", market, "--dump", "prices", "--range", "200:300") == ""


def test_values_that_differ(market):
    changes = objects("diff", market, "monday", "audit", "--values", "--most", "3")
    assert [(c["region"], c["start"], c["stop"]) for c in changes] == [
        ("notes", 0, 1), ("prices", 3, 4)
    ]  # fmt: skip
    notes, prices = changes
    assert [v["index"] for v in notes["values"]] == [[0], [1], [2]]
    assert (notes["values"][0]["old"], notes["values"][0]["new"]) == (65, 7)
    assert notes["more_values"] == 7
    assert prices["values"] == [
        {"index": [3, 5], "old": 3.0, "new": "nan"}, {"index": [3, 6], "old": 3.0, "new": 0.0}
    ]  # fmt: skip
    assert (prices["element_start"], prices["element_stop"]) == (3 * 512, 4 * 512)
    in_a_pipe = rows(run("diff", market, "monday", "audit", "--values", "--most", "1"))
    assert in_a_pipe[1] == ["value", "[0]", "65", "7"]
    assert in_a_pipe[3] == ["value", "[3, 5]", "3", "nan"]


@pytest.mark.parametrize("size", [1, 24, 100, 4000])
def test_pieces_of_any_size(market, monkeypatch, size):
    """What is read in pieces is the same however large they are."""
    commands = [
        ("diff", market, "monday", "audit", "--values", "--most", "9"),
        ("inspect", market, "audit", "--dump", "notes", "--range", "3:5003"),
    ]
    whole = [run(*command) for command in commands]
    monkeypatch.setattr("pagestore.cli.values.PIECE", size)
    monkeypatch.setattr("pagestore.cli.inspect_pages.PIECE", 16 * size)
    assert [run(*command) for command in commands] == whole


def test_values_of_regions_that_changed_their_form(tmp_path):
    path = tmp_path / "s.ps"
    with pagestore.open(path) as store, store.begin() as ws:
        for name, shape in (("longer", (10,)), ("wider", (4, 4)), ("gone", 5), ("empty", (0,))):
            ws.create(name, shape, "i4")[...] = 1
        ws.snapshot("a")
        ws.resize("longer", (5000,))
        ws["longer"][9] = 2
        ws.resize("wider", (4, 8))
        ws["wider"][1, 1] = 5
        ws.delete("gone")
        ws.create("gone", 5, "f8")[2] = 3
        ws.snapshot("b")
    changes = objects("diff", path, "a", "b", "--values")
    written = {c["region"]: c for c in changes if c["kind"] == "written"}
    assert written["longer"]["values"] == [{"index": [9], "old": 1, "new": 2}]
    assert written["wider"]["values"] == []
    assert {c["region"]: c["kind"] for c in changes if c["region"] == "gone"} == {"gone": "created"}
    assert run("diff", path, "a", "b", "--values").count("value\t") == 1


# ------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    "options",
    [
        ("--table", "prices", "--map", "prices"), ("--range", "1:2"), ("-n", "-1"),
        ("--table", "prices", "--range", "2:1"), ("--table", "prices", "--range", "x"),
        ("--table", "prices", "--range", "-3:1"), ("--map", "prices", "--by", "age"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense(market, options):
    assert "Error" in fatal("inspect", market, *options, status=2)


def test_what_is_not_there(market):
    assert "did you mean 'prices'?" in fatal("inspect", market, "--map", "price")
    assert "did you mean 'monday'?" in fatal("inspect", market, "mondy")
    assert "did you mean 'audit'?" in fatal("du", market, "monday", "audi")
    assert "goes with neither" in fatal("diff", market, "1", "2", "--stat", "--json", status=2)
    assert "--all" in fatal("log", market, "monday", "--all", status=2)


# --------------------------------------------------------------------------------------- parts


@pytest.mark.parametrize(
    ("first", "stop", "shape", "text"),
    [
        (0, 10, (10,), "[0:10]"), (3, 4, (10,), "[3:4]"), (0, 0, (10,), "[]"),
        (512, 1024, (4, 512), "[1, 0:512]"), (600, 700, (4, 512), "[1, 88:188]"),
        (600, 1300, (4, 512), "[1:3]"), (0, 24, (2, 3, 4), "[0:2]"),
        (4, 7, (2, 3, 4), "[0, 1, 0:3]"),
        (4, 9, (2, 3, 4), "[0, 1:3]"), (0, 1, (), "[]"),
    ],
)  # fmt: skip
def test_the_smallest_index(first, stop, shape, text):
    assert index_range(first, stop, shape) == text
    if stop > first and shape:
        whole = np.arange(np.prod(shape)).reshape(shape)
        inside = set(np.ravel(eval(f"whole{text}", {"whole": whole})).tolist())
        assert set(range(first, stop)) <= inside
        assert index_of(first, shape) == np.unravel_index(first, shape)


# ------------------------------------------------------------------------------------- its speed


@pytest.mark.slow
def test_inspect_of_ten_thousand_versions(tmp_path):
    """Beside what starting takes: a second at most on any machine, and hardly more than for ten."""
    path, small = tmp_path / "large.ps", tmp_path / "small.ps"
    for where, count in ((small, 10), (path, 10_000)):
        with pagestore.open(where) as store:
            with store.begin() as ws:
                ws.create("x", 16 * PAGE)[:] = 1
            with store._shared.write() as write:  # named at once: 10,000 commits would take long
                records = write.records
                head = records.resolve("main")
                for i in range(count):
                    new = head._replace(id=records.new_version(), parent=head.id)
                    records.add_version(new)
                    name = pagestore.format.NameRecord(new.id, 0)
                    records.put_name(pagestore.format.SNAPSHOT, f"s{i}", name)
                    head = new
                records.put_name(pagestore.format.BRANCH, "main", name)
    took = {where: min(timed("inspect", where) for _ in range(3)) for where in (small, path)}
    assert objects("inspect", path)[0]["versions"] == 10_001
    assert took[path] - took[small] < 1.0, took


def timed(*args):
    start = time.perf_counter()
    subprocess.run(
        [*COMMAND, *map(str, args)], check=True, stdout=subprocess.DEVNULL, env=environment()
    )
    return time.perf_counter() - start


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float32(1.5), 1.5), (np.float64("inf"), "inf"), (np.longdouble(2), 2.0),
        (np.complex64(1 + 2j), [1.0, 2.0]), (np.clongdouble(1), [1.0, 0.0]), (np.bool_(1), True),
        (np.int8(-3), -3), (np.uint64(2**64 - 1), 2**64 - 1), (np.bytes_(b"a\xff"), "a\xff"),
        (np.str_("é"), "é"), (np.datetime64("2026-11-25"), "2026-11-25"),
        (np.array([(1, 2.5)], RECORD)[0], [1, 2.5]), (np.void(b"\0\1"), "\0\1"),
        (np.array([[1, 2]]), [[1, 2]]), (None, None),
    ],
)  # fmt: skip
def test_values_in_json(value, plain):
    assert json.loads(json.dumps(as_json.plain(value), allow_nan=False)) == plain


def test_commands_while_another_process_commits(tmp_path):
    """The head is dropped as soon as it is no head any more; nobody stumbles over that."""
    path = tmp_path / "s.ps"
    with pagestore.open(path) as store, store.begin() as ws:
        ws.create("x", 64 * PAGE)[:] = 1
        ws.snapshot("first")
    script = """if 1:
        import sys, pagestore
        with pagestore.open(sys.argv[1], "r+") as store, store.begin() as ws:
            for i in range(10**9):
                ws["x"][i % 60 * 4096 : (i % 60 + 3) * 4096] = i % 250 + 2
                ws.commit()
                print(i, flush=True)
    """
    command = [sys.executable, "-c", script, str(path)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment())
    try:
        for _ in range(6):
            for options in (
                ("inspect",), ("inspect", "main"), ("inspect", "--map", "x", "--by", "sharing"),
                ("inspect", "--table", "x"), ("inspect", "--dump", "x", "--range", "0:99"),
                ("diff", "first", "main", "--values"), ("du",), ("du", "main", "first"), ("log",),
            ):  # fmt: skip
                name, *rest = options
                objects(name, path, *rest)
    finally:
        child.kill()
        child.wait()
