"""A real browser that looks at pages of `pagestore report`; and a history to look at.

Needs `playwright` (of the extra `test`) and a Chromium: of that name in the path, or named by
``CHROMIUM``. With ``PAGESTORE_BROWSER=required`` their absence is a failure.
"""

from __future__ import annotations

import os
import shutil

import pytest

from pagestore.cli.report.facts import collect
from pagestore.cli.report.page import page as page_of
from tests.conftest import PAGE

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
        settle(page)
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


def settle(page):
    """Wait until what was asked for is drawn."""
    page.evaluate("() => new Promise(r => requestAnimationFrame(() => setTimeout(r)))")


def click(page, name, **options):
    settle(page)
    page.locator("#graph").click(position=place_of(page, name), **options)
    settle(page)


def go_to(page, ref):
    page.fill("#goto-text", str(ref))
    page.press("#goto-text", "Enter")
    settle(page)


def shown_value(page, what):
    return int(page.locator(f"#version [data-what={what}]").get_attribute("data-value"))


# how many pixels of the map have a colour
COUNT_OF = """hex => { const c = document.getElementById("map");
  const copy = new OffscreenCanvas(c.width, c.height)
    .getContext("2d", { willReadFrequently: true });
  copy.drawImage(c, 0, 0);
  const d = copy.getImageData(0, 0, c.width, c.height).data, n = parseInt(hex.slice(1), 16);
  let found = 0;
  for (let i = 0; i < d.length; i += 4)
    if (d[i] === n >> 16 && d[i + 1] === (n >> 8 & 255) && d[i + 2] === (n & 255)) found++;
  return found; }"""
