"""Is space for small commits written ahead, and never over anything that is in use?"""

from __future__ import annotations

import subprocess
import sys

import pagestore
from pagestore.arena import FileIO
from pagestore.catalog import RESERVE
from pagestore.space import GROW_LEAST
from pagestore.structure import used

PAGE = 4096


class Writes(FileIO):
    """Notes how many bytes each write has."""

    def __init__(self):
        self.sizes = []

    def pwrite(self, fd, data, offset):
        self.sizes.append(len(data))
        return super().pwrite(fd, data, offset)


def test_space_for_small_commits_is_written_ahead(make_store):
    """Once for many commits, and not for a large one."""
    store = make_store()
    ahead = GROW_LEAST * PAGE
    with store.begin() as ws:
        store._shared.arena.io = io = Writes()
        a = ws.create("a", (600, PAGE))
        for i in range(1, 40):
            a[i % 4] = i
            ws.commit()
        assert io.sizes.count(ahead) == 1
        io.sizes.clear()
        a[:] = 41  # not what any of its pages holds
        ws.commit()
        pages = 600 * PAGE
        assert pages <= sum(io.sizes) < pages + PAGE  # the head's copy too


COMMIT = """
import sys, pagestore
with pagestore.open(sys.argv[1]) as store, store.begin() as ws:
    for i in range(1, 8):
        ws["a"][i] = 2
        ws.commit()
"""


def test_what_another_process_committed_is_not_written_over(make_store):
    """Space is written ahead by whoever adds it to the file, and only then."""
    store = make_store()
    with store.begin() as ws:
        a = ws.create("a", (64, PAGE))
        a[0] = 1
        ws.commit()  # the arena grows, and is written ahead
    subprocess.run([sys.executable, "-c", COMMIT, store.path], check=True)
    with store.begin() as ws:
        for i in range(8, 64):
            ws["a"][i] = 3
            ws.commit()
    with store.view("main") as view:
        assert (view["a"][1:8] == 2).all()


def test_the_catalog_has_zeros_behind_its_last_page(make_store):
    store = make_store()
    for i in range(50):
        store.snapshot(f"{i}")
    catalog = store._shared.catalog
    used = (int(catalog._env.info()["last_pgno"]) + 1) * catalog._page
    raw = (store.path / "catalog").read_bytes()
    assert len(raw) - used >= RESERVE // 2 - (64 << 10)
    assert not any(raw[used:])


def test_zeros_behind_the_catalog_are_cut_when_a_store_is_closed(tmp_path):
    path = tmp_path / "s.ps"
    with pagestore.open(path) as store:
        store.snapshot("a")
        assert (path / "catalog").stat().st_size > used(path / "catalog") + RESERVE // 4
    assert (path / "catalog").stat().st_size == used(path / "catalog")
    with pagestore.open(path, "r+") as store:
        store.snapshot("b")
        with (path / "catalog").open("ab") as file:
            file.write(b"not zeros")
    assert (path / "catalog").read_bytes().endswith(b"not zeros")


def test_a_page_that_lmdb_counts_is_never_cut(tmp_path, monkeypatch):
    """Should its own count be damaged, what lies behind is no zeros."""
    path = tmp_path / "s.ps"
    with pagestore.open(path) as store:
        store.snapshot("a")
        size = used(path / "catalog")
        monkeypatch.setattr("pagestore.structure.used", lambda _: size - PAGE)
    assert (path / "catalog").stat().st_size > size
