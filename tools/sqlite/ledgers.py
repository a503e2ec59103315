"""A program for the crash harness: two databases of one store, between which money moves.

``python -m tools.crash program tools.sqlite.ledgers:work --check tools.sqlite.ledgers:check``
"""

from __future__ import annotations

import random
from pathlib import Path

import apsw

import pagestore
from pagestore.sqlite import connect, uri

ACCOUNTS, TOTAL, TURNS = 40, 4000, 12
MOVE = "UPDATE {}accounts SET amount = amount {} ?, note = ? WHERE id = ?"


def work(path: Path) -> None:
    """Transactions over both databases, spilled and undone ones, a snapshot, a branch, a VACUUM."""
    store = pagestore.open(path)
    db = connect(store)
    db.execute("ATTACH ? AS other", (uri(store, "other.db"),))
    with db:
        for schema in ("main", "other"):
            db.execute(f"CREATE TABLE {schema}.accounts(id INTEGER PRIMARY KEY, amount, note)")
            rows = ((i, TOTAL // ACCOUNTS // 2, "n" * 200) for i in range(ACCOUNTS))
            db.executemany(f"INSERT INTO {schema}.accounts VALUES (?, ?, ?)", rows)
            db.execute(f"CREATE INDEX {schema}.noted ON accounts(note)")
    chance = random.Random(1)
    for turn in range(TURNS):
        _move(db, chance)
        if turn == 3:
            db.pragma("pagestore_snapshot", "then")
        if turn == 5:
            db.pragma("cache_size", 5)
            db.execute("BEGIN; UPDATE main.accounts SET amount = -1, note = hex(randomblob(300))")
            db.execute("UPDATE other.accounts SET note = hex(randomblob(300)); ROLLBACK")
        if turn == 7:
            db.pragma("pagestore_branch", "aside")
        if turn == 9:
            db.execute("VACUUM main")
            store.delete_snapshot("then")
    db.close()
    store.close()


def _move(db: apsw.Connection, chance: random.Random) -> None:
    amount, note = chance.randrange(30), "m" * chance.randrange(2000)
    with db:
        db.execute(MOVE.format("main.", "-"), (amount, note, chance.randrange(ACCOUNTS)))
        db.execute(MOVE.format("other.", "+"), (amount, note, chance.randrange(ACCOUNTS)))


def check(store: pagestore.Store) -> None:
    """Every kept version has sound databases, and all of the money."""
    for name in [*store.branches, *store.snapshots]:
        regions = store.version(name).regions
        if not regions:
            continue
        assert set(regions) == {"main.db", "other.db"}, "one without the other"
        db = connect(store, at=name)
        db.execute("ATTACH ? AS other", (uri(store, "other.db", at=name),))
        for schema in ("main", "other"):
            assert db.pragma("integrity_check", schema=schema) == "ok"
        found = db.execute(
            "SELECT (SELECT sum(amount) FROM main.accounts)"
            " + (SELECT sum(amount) FROM other.accounts)"
        ).get
        db.close()
        assert found == TOTAL, f"{found} in {name}"
