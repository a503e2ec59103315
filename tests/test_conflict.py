"""Two writers on one branch: the same page is a conflict, other pages are put together."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from pagestore import ConflictError, FullError, NotFoundError, wiring
from tests.worker import Worker

PAGE = 4096


def refused(ws, *, because):
    """A commit and a refresh are refused, and nothing has moved."""
    version = ws.version.id
    contents = {name: ws[name].copy() for name in ws}
    head = ws._engine.pin_branch(ws.branch)[0].id
    for call in (ws.commit, ws.refresh):
        with pytest.raises(ConflictError, match=because):
            call()
    assert ws.version.id == version
    assert {name: a.tolist() for name, a in contents.items()} == {n: ws[n].tolist() for n in ws}
    assert ws._engine.pin_branch(ws.branch)[0].id == head


def test_the_same_page_is_a_conflict(filled):
    one, two = filled.begin(), filled.begin()
    one["x"][PAGE] = 2
    two["x"][PAGE + 1] = 3
    one.commit()
    refused(two, because="page 1 of region 'x'")
    two.rollback()
    two.refresh()
    two["x"][PAGE + 1] = 3
    two.commit()
    assert filled.view("main")["x"][PAGE : PAGE + 2].tolist() == [2, 3]


@pytest.mark.parametrize("via", ["commit", "refresh"])
def test_other_pages_are_rebased(filled, via):
    one, two = filled.begin(), filled.begin()
    mine, theirs = two["x"], one["x"]
    theirs[PAGE] = 2
    one["y"][0] = 2
    mine[5 * PAGE] = 3
    one.commit()
    if via == "refresh":
        assert two.refresh()
        assert not two.refresh()
        assert (mine[PAGE], mine[5 * PAGE], two["y"][0]) == (2, 3, 2)
    two.commit()
    assert (mine[PAGE], mine[5 * PAGE], two["y"][0]) == (2, 3, 2)
    assert np.array_equal(filled.view("main")["x"], mine)
    mine[PAGE] += 1
    two.commit()
    assert filled.view("main")["x"][PAGE] == 3


CONFLICTS = {
    "both created": (lambda w: w.create("z", 5), lambda w: w.create("z", 5), "created"),
    "changed, deleted": (lambda w: w["x"].fill(2), lambda w: w.delete("x"), "deleted"),
    "deleted, changed": (lambda w: w.delete("x"), lambda w: w["x"].fill(2), "changed"),
    "both resized": (lambda w: w.resize("x", 5), lambda w: w.resize("x", 50_000), "resized"),
    "cut, changed": (
        lambda w: w.resize("x", 5 * PAGE), lambda w: w["x"][7 * PAGE :].fill(3), "changed",
    ),
    "changed, cut": (
        lambda w: w["x"][7 * PAGE :].fill(3), lambda w: w.resize("x", 5 * PAGE), "page 7|cut",
    ),
    "cut in a page, changed": (
        lambda w: w.resize("x", 5 * PAGE + 9), lambda w: w["x"][5 * PAGE :][:1].fill(3), "page 5",
    ),
    "cut and grown, changed": (
        lambda w: (w.resize("x", 5 * PAGE), w.resize("x", 10 * PAGE)),
        lambda w: w["x"][7 * PAGE :].fill(3), "changed",
    ),
    "changed, made anew": (
        lambda w: w["x"].fill(2), lambda w: (w.delete("x"), w.create("x", 10 * PAGE)), "deleted",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONFLICTS)
def test_each_conflict(filled, case):
    mine, theirs, because = CONFLICTS[case]
    one, two = filled.begin(), filled.begin()
    mine(two)
    theirs(one)
    one.commit()
    refused(two, because=because)


REBASES = {
    "created, created": (lambda w: w.create("z", 5), lambda w: w.create("q", 5)),
    "deleted, changed": (lambda w: w.delete("x"), lambda w: w["y"].fill(2)),
    "changed, deleted": (lambda w: w["x"].fill(2), lambda w: w.delete("y")),
    "both deleted": (lambda w: w.delete("y"), lambda w: w.delete("y")),
    "grown, changed": (lambda w: w.resize("x", 20 * PAGE)[15 * PAGE :].fill(4),
                       lambda w: w["x"][PAGE:][:3].fill(3)),
    "changed, grown": (lambda w: w["x"][PAGE:][:3].fill(3),
                       lambda w: w.resize("x", 20 * PAGE)[15 * PAGE :].fill(4)),
    "cut, changed": (lambda w: w.resize("x", 5 * PAGE), lambda w: w["x"][PAGE:][:3].fill(3)),
    "changed, cut": (lambda w: w["x"][PAGE:][:3].fill(3), lambda w: w.resize("x", 5 * PAGE)),
    "made anew, other": (lambda w: (w.delete("x"), w.create("x", 20 * PAGE).fill(8)),
                         lambda w: w["y"].fill(2)),
}  # fmt: skip


@pytest.mark.parametrize("case", REBASES)
@pytest.mark.parametrize("via", ["commit", "refresh"])
def test_each_rebase(filled, case, via):
    """What both did one after the other is what the rebase makes of it."""
    mine, theirs = REBASES[case]
    filled.create_branch("straight")
    one, two = filled.begin(), filled.begin()
    held = {name: two[name] for name in two}
    mine(two)
    theirs(one)
    one.commit()
    if via == "refresh":
        assert two.refresh()
    two.commit()
    shown = {name: two[name].tolist() for name in two}
    with filled.view("main") as view:
        assert {name: view[name].tolist() for name in view} == shown
    with filled.begin("straight") as ws:
        theirs(ws)
        if case != "both deleted":
            mine(ws)
        assert {name: ws[name].tolist() for name in ws} == shown
    two.close()
    assert all(len(array) for array in held.values())


def test_arrays_of_a_region_that_another_deletes(filled):
    """They keep what they show, and its pages with it."""
    one, two = filled.begin(), filled.begin()
    held = two["x"]
    two["y"][0] = 5
    one.delete("x")
    one.commit()
    two.commit()
    assert "x" not in two
    for value in range(3, 9):
        two["y"][:] = value
        one.refresh()
        one["y"]
        two.create(f"z{value}", 10 * PAGE)[:] = value
        two.commit()
        assert (held == 1).all()


def test_another_process_after_a_transaction_that_wrote_nothing(store):
    """Such a transaction has no number: the next one may be another process's."""
    ws = store.begin()
    array = ws.create("x", 30 * PAGE)
    array[:] = 1
    ws.commit()
    assert store.expire(datetime.now(UTC) - timedelta(days=1)) == 0
    worker = Worker(store.path, {}, None)
    worker("commit", "main", "x", 0, b"\7" * 3 * PAGE)
    store.snapshot("theirs")
    worker("commit", "main", "x", 0, b"\5" * 3 * PAGE)
    worker.kill()
    array[20 * PAGE :] = 9
    ws.commit()
    assert (store.view("theirs")["x"][: 3 * PAGE] == 7).all()
    assert (array[: 3 * PAGE] == 5).all()


@pytest.mark.parametrize("changed", [False, True])
def test_a_region_that_outgrows_the_addresses_set_aside(make_store, monkeypatch, changed):
    monkeypatch.setattr(wiring, "RESERVE_LEAST", 16 * PAGE)
    monkeypatch.setattr(wiring, "RESERVE_FACTOR", 1)
    store = make_store()
    one = store.begin()
    one.create("x", 10 * PAGE)[:] = 1
    one.commit()
    two = store.begin()
    held = two["x"]
    if changed:
        held[5 * PAGE] = 2
    one.resize("x", 500 * PAGE)[400 * PAGE] = 3
    one.commit()
    if changed:
        with pytest.raises(FullError):
            two.refresh()
        assert held[5 * PAGE] == 2
        two.commit()
    else:
        assert two.refresh()
    assert two["x"].shape == (500 * PAGE,)
    assert two["x"][400 * PAGE] == 3
    assert two["x"][5 * PAGE] == 1 + changed
    two["x"][:] = 7
    two.commit()
    assert held[0] == 1


def test_a_branch_that_is_deleted_under_a_workspace(filled):
    filled.create_branch("b")
    ws = filled.begin("b")
    ws["x"][0] = 2
    filled.delete_branch("b")
    for call in (ws.commit, ws.refresh):
        with pytest.raises(NotFoundError):
            call()
    assert ws["x"][0] == 2
