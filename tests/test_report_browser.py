"""The page of `pagestore report` in a real browser: mouse, keys, looks, odd and large stores."""

from __future__ import annotations

import random
import shutil
import time
from contextlib import suppress

import numpy as np
import pytest

import pagestore
from pagestore.cli.report.facts import collect
from pagestore.cli.report.page import page as page_of
from pagestore.cli.report.runs import encoded
from tests.browser import COUNT_OF, click, go_to, picked, place_of, settle
from tests.conftest import PAGE
from tests.damage import small_store
from tests.test_report import NASTY
from tools.damage.reseal import load, resealed

pytest_plugins = ["tests.browser"]


# ------------------------------------------------------------------------------ mouse and keys


def test_versions_are_picked_with_the_mouse(history, show):
    page = show(history)
    for name in ("day-0", "day-4", "what-if"):
        click(page, name)
        assert picked(page) == (history.version(name).id, None)
        assert name in page.inner_text("#pick-a")
    page.click("#pick-b")
    click(page, "day-2")
    assert picked(page) == (history.version("what-if").id, history.version("day-2").id)
    click(page, "day-3")  # the next click picks the first of the two again
    assert picked(page)[0] == history.version("day-3").id


def test_versions_are_picked_with_keys(history, show):
    page = show(history)
    page.focus("#graph")
    newest = history.version("main")
    page.keyboard.press("ArrowLeft")
    assert f"version {newest.parent}" in page.inner_text("#graph-said")
    page.keyboard.press("Enter")
    assert picked(page) == (newest.parent, None)
    page.keyboard.press("Home")
    page.keyboard.press("Shift+Enter")
    assert picked(page) == (newest.parent, history.versions()[0].id)
    page.keyboard.press("Escape")
    assert picked(page)[1] is None
    page.keyboard.press("End")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press(" ")
    assert history.version(picked(page)[0]).id > 0
    before = place_of(page, "day-0"), place_of(page, "day-5")
    page.keyboard.press("+")
    page.keyboard.press("+")
    after = place_of(page, "day-0"), place_of(page, "day-5")
    assert after[1]["x"] - after[0]["x"] >= before[1]["x"] - before[0]["x"]


def test_everything_is_reached_with_the_tab_key_and_has_a_name(history, show):
    page = show(history)
    reached = []
    for _ in range(200):
        page.keyboard.press("Tab")
        here = page.evaluate(
            """() => { const e = document.activeElement;
                const ring = getComputedStyle(e).outlineStyle;
                return e === document.body ? null : [e.id || e.textContent, ring,
                  e.getAttribute("aria-label") ?? e.getAttribute("aria-labelledby")
                  ?? (e.labels?.[0]?.textContent || e.textContent)]; }"""
        )
        if here is None:
            break
        reached.append(here)
    ids = [name for name, _, _ in reached]
    for wanted in ("goto-text", "zoom-in", "pick-a", "pick-b", "graph", "region", "by-age",
                   "by-sharing", "map", "unnamed", "filter"):  # fmt: skip
        assert wanted in ids
    assert all(ring != "none" for _, ring, _ in reached), "a focus that cannot be seen"
    assert all(label.strip() for _, _, label in reached)


def test_the_map_is_read_with_keys(history, show):
    page = show(history)
    go_to(page, "day-5")
    page.focus("#map")
    page.keyboard.press("ArrowRight")
    said = page.inner_text("#map-said")
    assert "page 1 of prices" in said
    assert "since day-0" in said
    page.click("#by-sharing")
    page.focus("#map")
    page.keyboard.press("End")
    assert "page 599 of prices" in page.inner_text("#map-said")
    assert f"in {len(history.versions()) - 1} versions" in page.inner_text("#map-said")
    page.select_option("#region", "index")
    page.focus("#map")
    page.keyboard.press("End")
    assert "page 19 of index, zeros" in page.inner_text("#map-said")


def test_a_drag_moves_the_graph_and_picks_nothing(history, show):
    page = show(history, size=(400, 800))
    for _ in range(8):
        page.click("#zoom-in")
    before, now = place_of(page, "day-3"), picked(page)
    box = page.locator("#graph").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 250, box["y"] + 20, steps=5)
    page.mouse.up()
    assert place_of(page, "day-3")["x"] != before["x"]
    assert picked(page) == now


def test_the_table_is_sorted_and_filtered(history, show):
    page = show(history)

    def column(what):
        return [
            int(value)
            for value in page.locator(f"#space tbody [data-what={what}]").evaluate_all(
                "all => all.map(cell => cell.dataset.value)"
            )
        ]

    for what in ("exclusive", "new", "shared", "referred"):
        header = page.locator(f"#space th[data-key={what}]")
        header.locator("button").focus()
        seen = set()
        for _ in range(2):
            page.keyboard.press("Enter")  # the heading keeps the focus
            order = header.get_attribute("aria-sort")
            assert column(what) == sorted(column(what), reverse=order == "descending")
            seen.add(order)
        assert seen == {"ascending", "descending"}
    page.click("#space th[data-key=name] button")
    names = page.locator("#space tbody .names").all_inner_texts()
    assert names == [*(f"day-{i}" for i in range(5)), "main day-5", "what-if"]
    page.fill("#filter", "day-4")
    assert page.locator("#space tbody tr").count() == 1
    page.fill("#filter", "no such")
    assert "No version matches" in page.inner_text("#space tbody")


# -------------------------------------------------------------------------------------- looks


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_and_can_be_read(history, show, scheme, width):
    page = show(history, color_scheme=scheme, size=(width, 800))
    click(page, "day-4")
    click(page, "day-1", modifiers=["Shift"])
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 30
    assert min(contrasts.values()) >= 4.5, min(contrasts.items(), key=lambda item: item[1])
    background = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, background.removeprefix("rgb(").removesuffix(")").split(","))) > 380
    assert light == (scheme == "light")


CONTRASTS = """() => {
  const light = ([r, g, b]) => { const f = c => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
    return .2126 * f(r) + .7152 * f(g) + .0722 * f(b); };
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] === 1) return c; } return [255, 255, 255]; };
  const found = {};
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement, text = walk.currentNode.textContent.trim();
    if (!text || !e.checkVisibility() || ["SCRIPT", "STYLE"].includes(e.tagName) || e.closest("svg, .hidden, :disabled")) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
    found[text] = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  }
  return found; }"""  # noqa: E501


def test_it_follows_when_the_scheme_changes(history, show):
    page = show(history, color_scheme="light")
    zeros = "#edf0f2", "#212a33"
    page.select_option("#region", "index")
    settle(page)
    assert page.evaluate(COUNT_OF, zeros[0])
    page.emulate_media(color_scheme="dark")
    settle(page)
    settle(page)  # the change is noticed in one frame, and drawn in the next
    assert page.evaluate(COUNT_OF, zeros[1])
    assert not page.evaluate(COUNT_OF, zeros[0])


# --------------------------------------------------------------------------- hostile and large


def test_text_of_a_store_is_only_text(make_store, show):
    store = make_store("<script>alert(2)<·script>.ps")
    name = "<img src=x onerror=alert(1)>"
    with store.begin() as ws:
        ws.create(name, 3 * PAGE)[:] = 1
        for text in NASTY:
            ws[name][0] += 1
            ws.commit(text)
            store.snapshot(f"<script>alert(3)</script>{len(store.snapshots)}", message=text[::-1])
    page = show(store, damaged=["<img src=x onerror=alert(4)>"])
    for version in store.versions():
        go_to(page, version.id)
    go_to(page, "<script>alert(3)</script>1")
    click(page, "main", modifiers=["Shift"])
    page.locator("#map").hover(position={"x": 5, "y": 5})
    page.locator("#graph").hover(position=place_of(page, "main"))
    page.check("#unnamed")
    settle(page)
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2
    assert name in page.inner_text("#version")
    assert "<img src=x onerror=alert(4)>" in page.inner_text("#damage-list")
    assert "\\u202egnp.exe" in page.content()
    assert "\u202e" not in page.content()


def test_a_script_that_is_not_its_own_does_not_run(history, show, tmp_path, browser):
    foreign = b"<script>window.mine = 1</script></body>"
    whole = page_of(collect(history, [])).replace(b"</body>", foreign)
    assert foreign in whole
    (tmp_path / "x.html").write_bytes(whole)
    with browser.new_context() as context:
        page = context.new_page()
        page.goto((tmp_path / "x.html").as_uri())
        assert page.inner_text("#name") == "s.ps"
        assert page.evaluate("() => typeof window.mine") == "undefined"


def test_an_empty_store(store, show):
    page = show(store)
    assert "no regions" in page.inner_text("#legend")
    assert page.locator("#space tbody tr").count() == 1


def test_records_that_lie_do_not_upset_the_page(tmp_path, show):
    small_store(tmp_path / "s.ps")
    records, shown = load(tmp_path / "s.ps" / "catalog"), 0
    for seed in range(16):
        where = tmp_path / f"{seed}.ps"
        shutil.copytree(tmp_path / "s.ps", where)
        with suppress(IndexError, pagestore.PagestoreError):  # there is no such record; no page
            resealed(records, random.Random(seed)).write(where / "catalog")
            with pagestore.open(where, "r") as store:
                page = show(store)
            page.evaluate(
                """() => { const r = pagestoreReport;
                  r.data.versions.id.forEach((_, v) => { r.pick(v); r.pick(0, "b"); }); }"""
            )
            page.close()
            shown += 1
    assert shown > 6


def test_what_is_damaged_is_said_first(history, show):
    page = show(history, damaged=["version 3, region 'a': page-table node 9 is missing"])
    assert page.is_visible("#damage")
    assert "node 9 is missing" in page.inner_text("#damage-list")


def test_a_history_too_large_for_single_pages_says_so(make_store, show, monkeypatch):
    monkeypatch.setattr("pagestore.cli.report.facts.BUDGET", 1500)
    store = make_store(history="all")
    chance = np.random.default_rng(1)
    with store.begin() as ws:
        ws.create("a", 8000 * PAGE)[::PAGE] = 1
        for number in range(4):
            at = chance.integers(0, 8000, 500)
            ws["a"][at * PAGE] = number + 2
            ws.snapshot(f"s{number}")
    page = show(store)
    go_to(page, "s3")
    click(page, "s0", modifiers=["Shift"])
    assert "too large for single pages" in page.inner_text("#map-note")
    assert page.inner_text("#difference-sum").startswith("At most ")
    at_most = int(page.locator("#difference-sum").get_attribute("data-pages"))
    assert at_most >= sum(c.stop - c.start for c in store.diff("s0", "s3"))


def many(versions, pages):
    """What `collect` gives of a large store, without making one: it takes minutes."""
    chance = np.random.default_rng(5)
    parent = [-1, *(max(0, i - int(chance.integers(1, 4))) for i in range(1, versions))]
    brought = [[[0, encoded(np.arange(pages)), "", ""]]]
    for _ in range(versions - 1):
        at = np.unique(chance.integers(0, pages, 100))
        brought.append([[0, encoded(at), "", ""]])
    start = 1_750_000_000_000
    return {
        "store": {
            "name": "many.ps", "path": "many.ps", "pageSize": PAGE, "made": start,
            "pagestore": pagestore.__version__, "warnings": [], "pins": [],
        },
        "regions": [{"name": "r", "shift": 0}],
        "versions": {
            "id": list(range(1, versions + 1)), "parent": parent,
            "time": [start + 60_000 * i for i in range(versions)],
            "message": [f"message {i}" for i in range(versions)],
            "snapshots": [[f"s{i}"] if i % 3 else [] for i in range(versions)],
            "branches": [*([] for _ in range(versions - 1)), ["main"]],
            "notes": [[] for _ in range(versions)],
            "regions": [[[[0, pages, "uint8", [pages * PAGE]]], []], *[None] * (versions - 1)],
            "referred": [pages] * versions, "exclusive": [0] * versions, "new": [100] * versions,
        },
        "brought": brought, "layout": [], "damaged": [],
    }  # fmt: skip


def test_2000_versions_of_a_gibibyte_are_shown_at_once(browser, tmp_path):
    file = tmp_path / "many.html"
    file.write_bytes(page_of(many(2000, 1 << 18)))
    assert file.stat().st_size < 5_000_000
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        start = time.monotonic()
        page.goto(file.as_uri())
        page.wait_for_function("() => pagestoreReport.map.squares > 0")
        assert time.monotonic() - start < 10
        for step, bound in (
            ("() => pagestoreReport.pick(1000)", 1.5),
            ("() => pagestoreReport.pick(300, 'b')", 1.5),
            ("() => document.getElementById('by-sharing').click()", 2.5),
            ("() => document.getElementById('unnamed').click()", 1.5),
        ):
            took = page.evaluate(
                f"""async () => {{ const start = performance.now(); ({step})();
                  await new Promise(r => requestAnimationFrame(() => setTimeout(r)));
                  return (performance.now() - start) / 1000; }}"""
            )
            assert took < bound, step
