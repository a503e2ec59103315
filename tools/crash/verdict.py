"""Whether a store that a crash, or a fault, has left is what it must be, and can be used.

Runs in a process that may die of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

import pagestore
from tools.crash.ledger import Known, difference, digest, outline, survey

FRESH = Known({"branch main": 1}, {1: digest({})})
MAPPINGS: tuple[Literal["auto", "portable"], ...] = ("auto", "portable")


def judge(
    path: Path,
    allowed: Sequence[Known | None],
    ever: Mapping[int, str],
    turn: int = 0,
    check: Callable[[pagestore.Store], object] | None = None,
) -> str | None:
    """Say what is wrong with a store; None if nothing is.

    Parameters
    ----------
    path : Path
        Of the store; it is changed.
    allowed : sequence of Known or None
        What it may hold; None: it need not be there.
    ever : mapping
        Contents of versions that it may still hold.
    turn : int
        Which way of mapping memory is used, in turn.
    check : callable, optional
        Of the program whose store it is; raises if it makes no sense.
    """
    if not path.exists() and None not in allowed:
        return "the store is gone"
    wanted = [FRESH if known is None else known for known in allowed]
    mapping = MAPPINGS[turn % 2]
    try:
        with pagestore.open(path, mapping=mapping) as store:
            found = survey(store)
            wrong = [difference(found, known, ever) for known in wanted]
            if None not in wrong:
                return " or ".join(str(w) for w in wrong)
            complaint = _objection(store, check) or _findings(store) or _go_on(store, found)
            if complaint:
                return complaint
            left = outline(store)
        with pagestore.open(path, mapping=mapping) as store:
            return None if outline(store) == left else "opening it again has changed something"
    except pagestore.PagestoreError as error:
        return f"{type(error).__name__}: {error}"


def _objection(
    store: pagestore.Store, check: Callable[[pagestore.Store], object] | None
) -> str | None:
    try:
        if check is not None:
            check(store)
    except Exception as error:
        return f"the program's check says {error!r}"
    return None


def _findings(store: pagestore.Store) -> str | None:
    return "; ".join(f"{f.invariant} {f.where}: {f.what}" for f in store.check(data=True)) or None


def _go_on(store: pagestore.Store, before: Known) -> str | None:
    """Commit, name, delete and compact; say what is then not as it must be."""
    contents = _change(store)
    head = store.version("main").id
    store.snapshot("made after the crash")
    names = {**before.names, "branch main": head, "snapshot made after the crash": head}
    victim = next(iter(store.snapshots))
    store.delete_snapshot(victim)
    del names[f"snapshot {victim}"]
    store.compact()
    wanted = Known(names, {v: before.versions[v] for v in names.values() if v != head})
    wanted.versions[head] = digest(contents)
    return difference(survey(store), wanted, before.versions) or _findings(store)


def _change(store: pagestore.Store) -> dict[str, np.ndarray]:
    """Commit a change of every region and a new one; return what must be there then."""
    with store.begin() as ws:
        contents = {name: array.copy() for name, array in ws.items()}
        ws.create("made after the crash", 3 * store.page_size)
        contents["made after the crash"] = np.zeros(3 * store.page_size, np.uint8)
        for name, array in contents.items():
            for there in (ws[name], array):
                there.reshape(-1)[::3000] += 1
    return contents
