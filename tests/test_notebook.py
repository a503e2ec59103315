"""How stores, versions and views show themselves in a notebook."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

import pagestore
from pagestore import notebook
from tests.conftest import PAGE

HOSTILE = '<img src=x onerror="alert(1)"> & \u202egnp.exe'


class Read(HTMLParser):
    """The tags of a piece of HTML, which must be balanced, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self.open = set(), [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.open.append(tag)
        assert {name for name, _ in attrs} <= {"style"}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.cells.append(data)


TAGS = {"table", "caption", "thead", "tbody", "tr", "th", "td", "code"}


@pytest.fixture
def named(store):
    with store.begin() as ws:
        ws.create("<b>r</b>", (2, PAGE), "f8")[:] = 1
        ws.create("plain", 100)[:] = 1
        ws.commit(HOSTILE)
    store.snapshot("<i>s</i>")
    return store


def test_a_version_shows_itself(named):
    version = named.version("main")
    read = Read(version._repr_html_())
    assert read.tags <= TAGS
    for text in (f"Version {version.id}", "<i>s</i>, main", "<b>r</b>", "float64", "2, 4096",
                 "64.0 KiB", "100 B", HOSTILE.replace("\u202e", "\\u202e")):  # fmt: skip
        assert text in read.cells


def test_a_store_shows_its_names(named):
    read = Read(named._repr_html_())
    assert read.tags <= TAGS
    assert repr(named) in read.cells
    assert {"Branches", "main", "Snapshots", "<i>s</i>"} <= set(read.cells)


def test_views_show_their_regions(named):
    with named.begin() as ws:
        ws.create("fresh", 3 * PAGE)
        opened = [named.view("main"), named.live(), ws]
        for view in opened:
            read = Read(view._repr_html_())
            assert read.tags <= TAGS
            assert {"<b>r</b>", "plain", repr(view)} <= set(read.cells)
            assert ("fresh" in read.cells) == (view is ws)
            view.close()
            assert Read(view._repr_html_()).cells == [repr(view)]


def test_what_is_closed_still_shows_itself(named):
    view, version = named.view("main"), named.version("main")
    other = pagestore.open(named.path)
    other.close()
    assert "is closed" in "".join(Read(other._repr_html_()).cells)
    assert "<b>r</b>" in Read(view._repr_html_()).cells
    named.close()
    assert "<b>r</b>" in Read(version._repr_html_()).cells
    assert repr(view) in Read(view._repr_html_()).cells
    view.close()


def test_a_damaged_store_still_shows_itself(named, monkeypatch):
    def failing(*_):
        raise pagestore.CorruptionError("record 7 <b>is damaged</b>")

    monkeypatch.setattr("pagestore.transaction.Transaction.names_after", failing)
    assert "record 7 <b>is damaged</b>" in "".join(Read(named._repr_html_()).cells)


def test_only_some_of_many_are_looked_at(store, monkeypatch):
    for number in range(2 * notebook.ROWS):
        store.snapshot(f"s{number:03}")
    looked = []
    found = type(store.snapshots).__getitem__

    def counting(names, name):
        looked.append(name)
        return found(names, name)

    monkeypatch.setattr(type(store.snapshots), "__getitem__", counting)
    cells = Read(store._repr_html_()).cells
    assert "…" in cells
    assert f"s{notebook.ROWS - 1:03}" in cells
    assert f"s{notebook.ROWS:03}" not in cells
    assert len(looked) <= notebook.ROWS + 3


@pytest.mark.parametrize(
    ("nbytes", "shown"),
    [(0, "0 B"), (999, "999 B"), (1024, "1.0 KiB"), (3 << 29, "1.5 GiB"), (1 << 50, "1,024.0 TiB")],
)  # fmt: skip
def test_sizes_have_units(nbytes, shown):
    assert notebook.size(nbytes) == shown
