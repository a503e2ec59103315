"""What `pagestore report` collects and writes, against what the store says; without a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import shutil
import threading
import time

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import pagestore
from pagestore.cli.group import group
from pagestore.cli.report import facts
from pagestore.cli.report.facts import collect
from pagestore.cli.report.page import page
from pagestore.cli.report.returned import origins
from pagestore.cli.report.runs import cells, decoded, encoded, split
from tests.conftest import PAGE
from tests.damage import small_store
from tests.test_lineage import random_history, shown
from tools.damage.reseal import load, resealed

NASTY = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "\u2028 and \u2029",
    "%DATA% %SCRIPT% %POLICY%",
    "a\tb\nc\x1b[31m \u202egnp.exe",
    "]]>&lt;&amp;'\"`${1}",
]


def data_of(html):
    """The data in a page, as a browser's parser would find them."""
    text = html.decode("utf-8")
    [found] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(found)


def report(*args, status=0):
    result = CliRunner().invoke(group, ["report", *map(str, args)])
    assert result.exit_code == status, result.output
    return result


# ------------------------------------------------------------------------------------ encoding


@given(st.sets(st.integers(0, 2**40)), st.integers(0, 12))
def test_runs_are_read_back(pages, near):
    some = np.array(sorted(pages | {p + i for p in list(pages)[:5] for i in range(near)}), np.int64)
    assert decoded(encoded(some)) == (some.tolist(), [])
    labels = some % 3
    assert decoded(encoded(some, labels), labelled=True) == (some.tolist(), labels.tolist())


@given(st.sets(st.integers(0, 10_000)), st.integers(0, 14))
def test_cells_are_where_pages_lie(pages, shift):
    some = np.array(sorted(pages), np.int64)
    assert cells(some, shift).tolist() == sorted({p >> shift for p in pages})


def test_runs_of_pages():
    start, length = split(np.array([1, 2, 3, 7, 8, 100]))
    assert (start.tolist(), length.tolist()) == ([1, 7, 100], [3, 2, 1])


# ---------------------------------------------------------------------------------- collecting


class Reader:
    """What the page's script makes of its data, in Python and slowly."""

    def __init__(self, data):
        self.data = data
        self.versions = data["versions"]

    def regions(self, i):
        """Place of a region → pages, dtype, shape."""
        parent = self.versions["parent"][i]
        found = self.regions(parent) if parent >= 0 else {}
        rows, gone = self.versions["regions"][i] or ([], [])
        kept = {place: row for place, row in found.items() if place not in gone}
        return kept | {place: row for place, *row in rows}

    def shown(self, i):
        """Place of a region → page → (writer, origin); none for zeros."""
        parent = self.versions["parent"][i]
        before = self.shown(parent) if parent >= 0 else {}
        found = {place: dict(before.get(place, {})) for place in self.regions(i)}
        for place, stored, zeros, returned in self.data["brought"][i]:
            table = found[place]
            table |= dict.fromkeys(decoded(stored)[0], (i, i))
            for zero in decoded(zeros)[0]:
                table.pop(zero, None)
            pairs = zip(*decoded(returned, labelled=True), strict=True)
            table |= {again: (i, first) for again, first in pairs}
        return found


@pytest.mark.parametrize("seed", range(6))
def test_the_page_knows_what_the_store_holds(store, seed):
    random_history(store, seed)
    data = json.loads(json.dumps(collect(store, [])))
    reader, versions = Reader(data), data["versions"]
    found = [reader.shown(i) for i in range(len(versions["id"]))]
    expected = list(shown(store.lineage()).values())
    for mine, theirs in zip(found, expected, strict=True):
        assert sorted(map(len, mine.values())) == sorted(len(t) for _, t in theirs.values())
        names = [data["regions"][place]["name"] for place in mine]
        assert sorted(names) == sorted(theirs)
    for i, version in enumerate(store.versions()):
        regions = {data["regions"][place]["name"]: row for place, row in reader.regions(i).items()}
        assert regions == {
            name: [-(-region.nbytes // PAGE), str(region.dtype), list(region.shape)]
            for name, region in version.regions.items()
        }
    for a in range(len(found)):
        for b in range(len(found)):
            said = {
                (data["regions"][place]["name"], page)
                for place in found[a].keys() & found[b].keys()
                for page in found[a][place].keys() | found[b][place].keys()
                if found[a][place].get(page, (0, -1))[1] != found[b][place].get(page, (0, -1))[1]
            }
            assert said == {
                (c.region, p)
                for c in store.diff(versions["id"][a], versions["id"][b])
                if c.kind == "written"
                for p in range(c.start, c.stop)
            }


@pytest.mark.parametrize("seed", range(6))
def test_sizes_are_those_of_the_store(store, seed):
    random_history(store, seed)
    versions = collect(store, [])["versions"]
    slots = [
        {at[0] for _, table in regions.values() for at in table.values()}
        for regions in shown(store.lineage()).values()
    ]
    for i, mine in enumerate(slots):
        others = set().union(*(s for j, s in enumerate(slots) if j != i))
        parent = versions["parent"][i]
        assert versions["referred"][i] == len(mine)
        assert versions["exclusive"][i] == len(mine - others)
        assert versions["new"][i] == len(mine - (slots[parent] if parent >= 0 else set()))
    space = store.space()
    for column in ("referred", "exclusive", "new"):
        sizes = [getattr(space[v], f"{column}_bytes") // PAGE for v in versions["id"]]
        assert versions[column] == sizes
    assert sum(versions["new"]) * PAGE == store.stats().referred_bytes


def test_what_a_child_has_deleted_is_its_parents_alone(make_store):
    store = make_store(history="all")
    with store.begin() as ws:
        ws.create("a", 3 * PAGE)[:] = 1
        ws.create("b", 5 * PAGE)[:] = 1
        ws.commit()
        ws.delete("b")
    assert collect(store, [])["versions"]["exclusive"][-2:] == [5, 0]


def test_beyond_the_budget_cells_stand_for_pages(store, monkeypatch):
    with store.begin() as ws:
        ws.create("big", 4000 * PAGE)[:: 4 * PAGE] = 1
        ws.create("small", 4 * PAGE)[:] = 1
    before = collect(store, [])
    monkeypatch.setattr(facts, "BUDGET", 400)
    data = collect(store, [])
    shifts = {region["name"]: region["shift"] for region in data["regions"]}
    assert shifts == {"big": 2, "small": 0}
    assert data["versions"]["referred"] == before["versions"]["referred"]
    [[_, text, zeros, returned]] = [b for b in data["brought"][-1] if b[0] == 0]
    assert (decoded(text)[0], zeros, returned) == (list(range(1000)), "", "")


def test_a_region_with_too_many_pages_for_a_browser_is_shown_in_cells(store, monkeypatch):
    monkeypatch.setattr(facts, "CELLS_MOST", 16)
    with store.begin() as ws:
        ws.create("a", 100 * PAGE)[:] = 1
        ws.create("b", 16 * PAGE)[:] = 1
        ws.create("c", 17 * PAGE)[0] = 1
        ws.create("d", 2**30 * PAGE)
    shifts = {region["name"]: region["shift"] for region in collect(store, [])["regions"]}
    assert shifts == {"a": 3, "b": 0, "c": 1, "d": 26}


@pytest.mark.parametrize("colliding", [False, True])
def test_contents_that_returned_are_told_from_others(colliding, monkeypatch):
    if colliding:  # every mix is that of another
        monkeypatch.setattr(
            "pagestore.cli.report.returned._perhaps_again", lambda _, page, __: np.arange(len(page))
        )

    def step(number, checksum, region=1):
        part = pagestore.Brought(
            "r", region, np.array([3]), np.array([number]), np.array([0]),
            np.array([checksum], np.uint64),
        )  # fmt: skip
        return pagestore.Step(None, (part,))

    steps = [step(1, 7), step(2, 8), step(3, 7), step(4, 7, region=2), step(5, 7)]
    assert [int(first[0]) for first in origins(steps)] == [0, 1, 0, 3, 0]


def test_many_regions_of_many_versions_are_said_once(store):
    for number in range(40):
        with store.begin() as ws:
            ws.create(f"region {number}", 100)[:] = 1
        store.snapshot(f"s{number}")
    changes = collect(store, [])["versions"]["regions"]
    assert sum(len(rows) for rows, _ in filter(None, changes)) == 40


# --------------------------------------------------------------------------------- the command


def test_the_page_is_written_whole_or_not_at_all(store, tmp_path):
    target = tmp_path / "r.html"
    said = report(store.path, "-o", target).output
    whole = target.read_bytes()
    assert said == f"{target}\t1\t{len(whole)}\n"
    assert data_of(whole)["versions"]["id"] == [store.version("main").id]
    assert report(store.path, "-o", "-").stdout_bytes.startswith(b"<!doctype html>")
    assert "No such file" in report(store.path, "-o", tmp_path / "no" / "r.html", status=128).stderr
    report(tmp_path / "nothing", "-o", target, status=128)
    assert target.read_bytes() == whole
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_nothing_in_the_store_is_written(store, tmp_path):
    with store.begin() as ws:
        ws.create("a", 3 * PAGE)[:] = 1

    def state():
        return {p.name: (p.stat().st_mtime_ns, p.stat().st_size) for p in store.path.iterdir()}

    before = state()
    report(store.path, "-o", tmp_path / "r.html")
    assert state() == before


def test_text_of_a_store_cannot_leave_its_place(store):
    with store.begin() as ws:
        ws.create("<img src=x onerror=alert(1)>", PAGE)[:] = 1
        for text in NASTY:
            ws["<img src=x onerror=alert(1)>"][0] += 1
            ws.commit(text)
            store.snapshot(f"<b>{len(store.snapshots)}</b>", message=text[::-1])
    html = page(collect(store, ["<script>"]))
    text = html.decode()
    assert text.count("<script") == text.count("</script>") == 2
    assert "alert(1)" not in text.partition('id="data">')[0]
    inside = text.partition('id="data">')[2].partition("</script>")[0]
    assert inside.isascii()
    assert not set(inside) & set("<>&")
    data = data_of(html)
    assert "</script><script>alert(1)</script>" in data["versions"]["message"]
    assert "a\\tb\\nc\\x1b[31m \\u202egnp.exe" in data["versions"]["message"]


def test_the_policy_allows_this_script_and_style_and_nothing_else(store):
    text = page(collect(store, [])).decode()
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy.startswith("default-src 'none'; ")
    for tag, source in (("style", "style-src"), ("script", "script-src")):
        [body] = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{source} 'sha256-{digest}'" in policy
    assert not re.findall(r"""(?:src|href)\s*=|url\(|@import|fetch\(|https?://(?!www\.w3)""", text)


def test_names_that_mean_something_in_a_template(make_store):
    store = make_store("%SCRIPT%%DATA% <b>.ps")
    text = page(collect(store, [])).decode()
    assert "<title>%SCRIPT%%DATA% &lt;b&gt;.ps · pagestore</title>" in text


def test_a_store_that_is_being_written(store, tmp_path):
    with store.begin() as ws:
        ws.create("a", 64 * PAGE)[:] = 1
    stop = threading.Event()

    def write():
        number = 0
        with store.begin() as ws:
            while not stop.is_set():
                ws["a"][number % 64 * PAGE] += 1
                ws.commit()
                number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            report(store.path, "-o", tmp_path / "r.html")
            versions = data_of((tmp_path / "r.html").read_bytes())["versions"]
            assert versions["referred"][-1] == 64
    finally:
        stop.set()
        writer.join()


def test_what_is_damaged_is_named_and_the_rest_is_shown(store, monkeypatch, tmp_path):
    with store.begin() as ws:
        ws.create("a", 8 * PAGE)[:] = 1
        ws.create("b", 8 * PAGE)[:] = 1
        ws.snapshot("s")
        ws["a"][0] = ws["b"][0] = 2
        ws.commit()
    compared = pagestore.lineage._compared

    def failing(nodes, old, region, since):
        if region.name == "a" and old is None:
            raise pagestore.CorruptionError("page-table node 9 is missing from the catalog")
        return compared(nodes, old, region, since)

    monkeypatch.setattr("pagestore.lineage._compared", failing)
    report(store.path, "-o", tmp_path / "r.html")
    data = data_of((tmp_path / "r.html").read_bytes())
    [what] = data["damaged"]
    assert "region 'a'" in what
    assert "node 9" in what
    assert data["versions"]["snapshots"][-2:] == [["s"], []]
    assert [region["name"] for region in data["regions"]] == ["a", "b"]


def test_records_that_lie_end_in_a_page_or_in_one_line(tmp_path):
    """With right checksums, whatever they say: no traceback, and what is made is whole."""
    small_store(tmp_path / "s.ps")
    records = load(tmp_path / "s.ps" / "catalog")
    made, refused = 0, 0
    for seed in range(80):
        try:
            change = resealed(records, random.Random(seed))
        except IndexError:  # nothing of that kind is in so small a store
            continue
        shutil.copytree(tmp_path / "s.ps", tmp_path / "x.ps")
        change.write(tmp_path / "x.ps" / "catalog")
        result = CliRunner().invoke(group, ["report", str(tmp_path / "x.ps"), "-o", "-"])
        assert result.exit_code in (0, 128), result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        if result.exit_code:
            assert result.stderr.startswith("fatal: ")
            refused += 1
        else:
            assert data_of(result.stdout_bytes)["versions"]["id"]
            made += 1
        shutil.rmtree(tmp_path / "x.ps")
    assert made > 40
    assert refused > 1


@pytest.mark.parametrize("letter", [b"V", b"N", b"K", b"S", b"B"])
def test_records_that_were_flipped_are_named(tmp_path, letter):
    small_store(tmp_path / "s.ps")
    keys = [key for key in load(tmp_path / "s.ps" / "catalog") if key[:1] == letter]
    for key in keys:
        with pagestore.open(tmp_path / "s.ps") as store:
            with store._shared.write() as write:
                was = write.records._txn.get(key)
                write.records._txn.put(key, was[:-1] + bytes([was[-1] ^ 1]))
                write.records.written += 1
            damaged = []
            data = collect(store, damaged)
            assert data["damaged"], key
            assert len(data["versions"]["id"]) >= len(store.versions(damaged=[]))
            with store._shared.write() as write:
                write.records._txn.put(key, was)
                write.records.written += 1


# -------------------------------------------------------------------------------------- large


@pytest.mark.slow
def test_2000_versions_of_a_gibibyte_take_seconds(make_store, tmp_path):
    """Each changes 100 pages of 262,144; names, branches, a region that grows."""
    store = make_store(history="all")
    chance = np.random.default_rng(8)
    pages = 1 << 18
    with store.begin() as ws:
        large = ws.create("large", (pages, PAGE), "u1")
        large[::16, 0] = 1
        ws.create("grows", PAGE)[:] = 1
        ws.commit("the first")
        for number in range(1998):
            large[chance.integers(0, pages, 100), 0] += 1
            if number % 100 == 0:
                ws.resize("grows", (number + 2) * PAGE)
            if number % 9 == 0:
                ws.snapshot(f"snapshot {number}")
            else:
                ws.commit(f"what was done in step {number}")
            if number % 500 == 100:
                store.create_branch(f"branch {number}")
    target = tmp_path / "r.html"
    start = time.process_time()
    report(store.path, "-o", target)
    took = time.process_time() - start
    print(f"{took:.1f} s of processor time, {target.stat().st_size:,} bytes")
    assert took < 10
    assert target.stat().st_size < 5_000_000
    data = data_of(target.read_bytes())
    assert len(data["versions"]["id"]) == 2000
    assert {region["shift"] for region in data["regions"]} == {0}
