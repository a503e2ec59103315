"""The page of `pagestore report` in a real browser: what it shows is what the store says.

Needs `playwright` (of the extra `test`) and a Chromium: of that name in the path, or named by
``CHROMIUM``. With ``PAGESTORE_BROWSER=required`` their absence is a failure.
"""

from __future__ import annotations

import itertools
import os
import shutil
import time

import numpy as np
import pytest

import pagestore
from pagestore.cli.report.facts import collect
from pagestore.cli.report.page import page as page_of
from tests.conftest import PAGE
from tests.test_lineage import random_history
from tests.test_report import NASTY

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="module")
def browser():
    lacking = None if CHROMIUM else "there is no Chromium (apt-get install chromium)"
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        lacking = "playwright is not installed (pip install 'pagestore[test]')"
    if lacking and os.environ.get("PAGESTORE_BROWSER") == "required":
        pytest.fail(lacking)
    if lacking:
        pytest.skip(lacking)
    with sync_playwright() as playwright:
        args = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=args)
        yield started
        started.close()


@pytest.fixture
def show(browser, tmp_path):
    """Open the page of a store; nothing may go wrong in it, and nothing be asked of a network."""
    contexts, opened, wrong = [], [], []

    def showing(store, *, damaged=(), size=(1280, 900), **options):
        file = tmp_path / f"{len(contexts)}.html"
        file.write_bytes(page_of(collect(store, list(damaged))))
        width, height = size
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(f"a dialog: {dialog.message}"))
        page.on("request", lambda asked: wrong.append(asked.url))
        page.goto(file.as_uri())
        opened.append(file.as_uri())
        return page

    yield showing
    for context in contexts:
        context.close()
    assert wrong == opened  # nothing but the pages themselves was asked for, and nothing was said


@pytest.fixture
def history(make_store):
    """Some days on main, a branch from the second of them, and a second region."""
    store = make_store(history="all")
    with store.begin() as ws:
        ws.create("prices", 600 * PAGE)[:] = 1
        ws.create("index", 20 * PAGE)[: 5 * PAGE] = 1
        ws.commit("the first")
        for number in range(6):
            ws["prices"][number * 90 * PAGE : (number * 90 + 3 + number) * PAGE] = number + 2
            ws["index"][number * PAGE] += 1
            ws.snapshot(f"day-{number}", f"message {number}")
    store.create_branch("what-if", at="day-1")
    with store.begin("what-if") as ws:
        ws["prices"][100 * PAGE : 140 * PAGE] = 9
        ws.commit("what if")
    return store


def picked(page):
    a, b = page.evaluate("() => [pagestoreReport.state.a, pagestoreReport.state.b]")
    ids = page.evaluate("() => pagestoreReport.data.versions.id")
    return ids[a], None if b is None else ids[b]


def place_of(page, name):
    """Where a version is drawn in the graph."""
    return page.evaluate(
        """name => { const v = pagestoreReport.find(name);
                     return {x: pagestoreReport.graphX(v), y: pagestoreReport.graphY(v)}; }""",
        name,
    )


def click(page, name, **options):
    page.locator("#graph").click(position=place_of(page, name), **options)


def go_to(page, ref):
    page.fill("#goto-text", str(ref))
    page.press("#goto-text", "Enter")


def shown_value(page, what):
    return int(page.locator(f"#version [data-what={what}]").get_attribute("data-value"))


# ------------------------------------------------------------------------------------- figures


def test_figures_are_those_of_the_store(history, show):
    page = show(history)
    stats, space = history.stats(), history.space()
    facts = dict(
        page.locator("#facts dd").evaluate_all(
            "all => all.map(dd => [dd.dataset.what, Number(dd.dataset.value)])"
        )
    )
    assert facts == {
        "versions": stats.versions, "snapshots": stats.snapshots, "branches": stats.branches,
        "page": PAGE, "arena": stats.arena_bytes, "in use": stats.referred_bytes,
        "free": stats.free_bytes, "catalog": stats.catalog_bytes,
    }  # fmt: skip
    page.check("#unnamed")
    rows = page.locator("#space tbody tr").evaluate_all(
        """rows => rows.map(row => [Number(row.dataset.id),
           ...[...row.querySelectorAll("[data-what]")].map(c => Number(c.dataset.value))])"""
    )
    assert {row[0]: tuple(row[1:]) for row in rows} == {
        v: (all_, all_ - of.exclusive_bytes, of.exclusive_bytes, of.new_bytes)
        for v, of in space.items()
        for all_ in [of.referred_bytes]
    }
    layout = {
        (branch, region): of.runs
        for branch in history.branches
        for region, of in history.layout(branch).items()
    }
    rows = page.locator("#runs tbody tr").evaluate_all(
        """rows => rows.map(row => [row.dataset.branch, row.dataset.region,
                                    Number(row.querySelector("[data-what=runs]").dataset.value)])"""
    )
    assert {(branch, region): runs for branch, region, runs in rows} == layout


def test_the_picked_version_is_described(history, show):
    page = show(history)
    space = history.space()
    assert picked(page) == (history.version("main").id, None)
    for name in ("day-3", "what-if"):
        go_to(page, name)
        version = history.version(name)
        assert picked(page)[0] == version.id
        text = page.inner_text("#version")
        assert f"#{version.id}" in text
        assert version.message in text
        assert shown_value(page, "referred") == space[version.id].referred_bytes
        assert shown_value(page, "exclusive") == space[version.id].exclusive_bytes
    go_to(page, history.version("day-2").id)
    assert picked(page)[0] == history.version("day-2").id
    go_to(page, "nobody")
    assert page.get_attribute("#goto-text", "aria-invalid") == "true"


@pytest.mark.parametrize("seed", range(4))
def test_the_map_shows_births_and_sharing_as_the_page_tables_have_them(store, show, seed):
    random_history(store, seed, versions=15)
    page = show(store)
    kept = [version.id for version in store.versions()]
    for at, version in enumerate(kept):
        for region in page.evaluate("v => pagestoreReport.regionsOf(v)", at):
            table = store.page_table(version, region["name"], sharing=True)
            writer, origin, holders = page.evaluate(
                """([v, place]) => { const r = pagestoreReport, s = r.shown(v, place);
                   return [[...s.writer], [...s.origin], [...r.sharing(v, place)]]; }""",
                [at, region["place"]],
            )
            stored = [p for p in range(region["pages"]) if origin[p] >= 0]
            assert stored == table.page.tolist()
            # a page was born after the kept ancestor of the version since which it is shown
            for p, birth in zip(stored, table.birth.tolist(), strict=True):
                first = store.version(kept[writer[p]])
                assert (first.parent or 0) < birth <= first.id
            assert [holders[p] for p in stored] == table.holders.tolist()


# --------------------------------------------------------------------------------- differences


@pytest.mark.parametrize("seed", range(4))
def test_the_difference_of_any_two_is_what_the_store_says(store, show, seed):
    random_history(store, 10 + seed, versions=15)
    page = show(store)
    kept = [version.id for version in store.versions()]
    for a, b in itertools.permutations(range(len(kept)), 2):
        said = page.evaluate(
            """([a, b]) => pagestoreReport.difference(a, b)
                             .map(f => [f.region, f.start, f.stop, f.kind])""",
            [a, b],
        )
        expected = [[c.region, c.start, c.stop, c.kind] for c in store.diff(kept[a], kept[b])]
        assert said == expected


def test_the_difference_is_listed_and_marked_in_the_map(history, show):
    page = show(history)
    assert not page.is_visible("#difference")
    click(page, "day-4")
    click(page, "day-1", modifiers=["Shift"])
    old, new = history.version("day-1"), history.version("day-4")
    assert picked(page) == (new.id, old.id)
    changes = list(history.diff("day-1", "day-4"))
    total = sum(c.stop - c.start for c in changes)
    assert page.locator("#difference-sum").get_attribute("data-pages") == str(total)
    assert page.inner_text("#difference-title") == "Difference: day-1 → day-4"
    assert page.locator("#difference-table tbody tr").count() == len(changes)
    first = page.locator("#difference-table tbody tr").first.inner_text().split("\t")
    assert first[:2] == [changes[0].region, changes[0].kind]
    regions = page.locator("#difference-regions li").evaluate_all(
        "all => all.map(li => [li.dataset.region, Number(li.dataset.pages)])"
    )
    assert dict(regions) == {
        name: sum(c.stop - c.start for c in changes if c.region == name)
        for name in {c.region for c in changes}
    }
    assert "differs" in page.inner_text("#legend")
    orange = page.evaluate(COUNT_OF, "#c2500a")
    in_prices = dict(regions)["prices"]
    assert 0.6 < orange / (in_prices * square(page)) < 1.4  # gaps, and edges between colours
    page.click("#swap")
    assert picked(page) == (old.id, new.id)
    page.click("#clear")
    assert picked(page) == (old.id, None)
    assert not page.is_visible("#difference")


COUNT_OF = """hex => { const c = document.getElementById("map");
  const copy = new OffscreenCanvas(c.width, c.height)
    .getContext("2d", { willReadFrequently: true });
  copy.drawImage(c, 0, 0);
  const d = copy.getImageData(0, 0, c.width, c.height).data, n = parseInt(hex.slice(1), 16);
  let found = 0;
  for (let i = 0; i < d.length; i += 4)
    if (d[i] === n >> 16 && d[i + 1] === (n >> 8 & 255) && d[i + 2] === (n & 255)) found++;
  return found; }"""


def square(page):
    edge, across, squares = page.evaluate(
        "() => { const m = pagestoreReport.map; return [m.edge, m.across, m.squares]; }"
    )
    assert across * edge <= page.locator("#map").bounding_box()["width"]
    assert squares == 600
    return (edge - 1) ** 2


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
    page.wait_for_function("() => pagestoreReport.map.region.name === 'index'")
    assert page.evaluate(COUNT_OF, zeros[0])
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(200)
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
    page.wait_for_timeout(100)
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
    from pagestore.cli.report.runs import encoded

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
            "regions": [[[0, pages, "uint8", [pages * PAGE]]], *[None] * (versions - 1)],
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
