"""The page of `pagestore report` in a real browser: what it shows is what the store says."""

from __future__ import annotations

import itertools

import pytest

from tests.browser import COUNT_OF, click, go_to, picked, shown_value
from tests.conftest import PAGE
from tests.test_lineage import random_history

pytest_plugins = ["tests.browser"]


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


def square(page):
    edge, across, squares = page.evaluate(
        "() => { const m = pagestoreReport.map; return [m.edge, m.across, m.squares]; }"
    )
    assert across * edge <= page.locator("#map").bounding_box()["width"]
    assert squares == 600
    return (edge - 1) ** 2
