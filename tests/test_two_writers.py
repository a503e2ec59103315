"""What one process keeps in memory is not believed once another has committed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pagestore

PAGES = 100
OTHER = """
import sys, numpy as np, pagestore
with pagestore.open(sys.argv[1], "r+") as store, store.begin() as ws:
    for turn in range(int(sys.argv[2])):
        ws["x"][:] = np.arange(ws["x"].size) + 1000 * turn
        ws.commit()
"""


def test_checksums_of_slots_that_another_process_wrote(make_store: Callable[..., Any]) -> None:
    """Slots that this process knows are freed and written again elsewhere, then replaced here."""
    for turns in range(1, 7):  # which slots the other ends on is the allocator's business
        store: pagestore.Store = make_store(f"{turns}.ps")
        with store.begin() as ws:
            ws.create("x", PAGES * 512, "i8")[:] = 1
        for value in range(4):
            with store.begin() as ws:
                ws["x"][:] = value + 2
        command = [sys.executable, "-c", OTHER, str(store.path), str(turns)]
        subprocess.run(command, check=True)
        with store.begin() as ws:
            assert ws["x"][1] == 1000 * (turns - 1) + 1
            ws["x"][:] = range(7, PAGES * 512 + 7)
        assert list(store.check(data=True)) == []


def test_a_commit_of_nothing_forgets_no_checksums(make_store):
    """A transaction that writes nothing leaves what is known of the others as it was."""
    store = make_store()
    with store.begin() as ws:
        ws.create("a", 64 * 4096)[:] = 1
        ws.commit()
        known = store._shared.sums
        before = len(known._known)
        ws["a"][:] = 1  # the same bytes: no version is made
        version = ws.commit()
        ws["a"][0] = 2
        assert ws.commit().id > version.id
        assert len(known._known) >= before >= 1


def test_slots_that_another_process_took_before_a_transaction_of_nothing(make_store):
    """A transaction that writes nothing has not looked at the free slots: they are read again."""
    store: pagestore.Store = make_store()
    with store.begin() as ws:
        ws.create("x", PAGES * 512, "i8")[:] = 1
    with store.begin() as ws:
        ws["x"][:] = 2
    command = [sys.executable, "-c", OTHER, str(store.path), "1"]
    subprocess.run(command, check=True)
    with store._shared.write():
        pass
    with store.begin() as ws:
        ws["x"][:] = 3
        ws.flush()
    assert list(store.check(data=True)) == []
    with store.begin() as ws:
        ws["x"][:] = 4
    assert list(store.check(data=True)) == []
