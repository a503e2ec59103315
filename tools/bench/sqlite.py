"""`python -m tools.bench.sqlite`: SQLite in a store against SQLite in files, both durable.

Each operation is done in turns by all, some rounds long; printed are medians. The database is made
in a file, of generated customers and orders, and copied into the store.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import apsw

import pagestore
from pagestore.sqlite import connect, import_file

OURS, JOURNAL, WAL = "store", "file, rollback journal", "file, WAL"
ROUNDS, SPOTS, TESTS = 7, 1000, 100
CITIES = ("Bonn", "Lyon", "Turin", "Porto", "Gent", "Graz", "Lund", "Cork")
Work = Callable[[apsw.Connection, int], int]  # returns how many operations it did
SCHEMA = """
CREATE TABLE customers(id INTEGER PRIMARY KEY, name, city, email);
CREATE TABLE orders(id INTEGER PRIMARY KEY, customer, item, price, note);
"""
NEW = "INSERT INTO orders(customer, item, price, note) VALUES (?, ?, ?, ?)"


def fill(path: Path, megabytes: int) -> int:
    """Make a database of at least that size; return how many orders it has."""
    chance, db = random.Random(1), apsw.Connection(str(path))
    db.pragma("synchronous", "off")
    db.execute(SCHEMA)
    orders = 0
    with db:
        for i in range(megabytes * 400):
            name = f"Customer {chance.randrange(10**6)}"
            row = (i, name, chance.choice(CITIES), f"{name[9:]}@example.com")
            db.execute("INSERT INTO customers VALUES (?, ?, ?, ?)", row)
    while path.stat().st_size < megabytes * 10**6 * 0.92:  # the rest is the index
        with db:
            rows = [_order(chance, megabytes * 400) for _ in range(50_000)]
            db.executemany(NEW, rows)
        orders += len(rows)
    db.execute("CREATE INDEX by_customer ON orders(customer)")
    db.close()
    return orders


def _order(chance: random.Random, customers: int) -> tuple[int, str, float, str]:
    note = "please ring twice " * chance.randrange(12)
    return chance.randrange(customers), f"item {chance.randrange(5000)}", chance.random(), note


def insert_each(db: apsw.Connection, turn: int) -> int:
    for i in range(40):
        db.execute(NEW, (i, "tea", 1.5, "autocommit"))
    return 40


def insert_batch(db: apsw.Connection, turn: int) -> int:
    with db:
        db.executemany(NEW, ((i, "cake", 2.5, "batch " * 20) for i in range(1000)))
    return 1


def read_points(db: apsw.Connection, turn: int) -> int:
    for i in range(SPOTS):
        db.execute("SELECT price FROM orders WHERE id = ?", (1 + i * 37 % 5000,)).get  # noqa: B018
    return SPOTS


def scan(db: apsw.Connection, turn: int) -> int:
    db.execute("SELECT sum(length(note)) FROM orders").get  # noqa: B018
    return 1


WORKS: dict[str, Work] = {
    "durable autocommit insert": insert_each,
    "1,000 rows in a transaction": insert_batch,
    "point read, warm": read_points,
    "full scan, warm": scan,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.sqlite", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--dir", default=tempfile.gettempdir())
    parser.add_argument("--fixture", action="store_true", help="only what a test's database costs")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pagestore-sqlite-", dir=options.dir))
    try:
        with pagestore.open(folder / "s.ps") as store:
            orders = fill(folder / "template.db", options.megabytes)
            began = time.perf_counter()
            size = import_file(store, folder / "template.db").regions["main.db"].nbytes
            took = time.perf_counter() - began
            print(f"{size / 1e6:.0f} MB, {orders:,} orders, copied in within {took:.1f} s")
            if options.fixture:
                fixtures(store, folder / "template.db")
                return
            store.snapshot("template")
            branches(store, folder / "template.db")
            in_turns(store, folder)
            assert list(store.check()) == []
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def in_turns(store: pagestore.Store, folder: Path) -> None:
    """All works, by all, in turns."""
    connections = {OURS: connect(store)}
    for name, mode in ((JOURNAL, "delete"), (WAL, "wal")):
        path = folder / f"{mode}.db"
        shutil.copyfile(folder / "template.db", path)
        connections[name] = apsw.Connection(str(path))
        connections[name].pragma("journal_mode", mode)
    for db in connections.values():
        db.pragma("synchronous", "full")
        scan(db, 0)
    for title, work in WORKS.items():
        times: dict[str, list[float]] = {name: [] for name in connections}
        for turn in range(ROUNDS):
            for name, db in connections.items():
                began = time.perf_counter()
                count = work(db, turn)
                times[name].append((time.perf_counter() - began) / count)
        medians = {name: statistics.median(values) for name, values in times.items()}
        shown = ", ".join(f"{name} {_time(t)}" for name, t in medians.items())
        speed = ", ".join(f"{medians[n] / medians[OURS]:.2f} x {n}" for n in (JOURNAL, WAL))
        print(f"{title}: {shown}; speed {speed}")
    for db in connections.values():
        db.close()


def branches(store: pagestore.Store, template: Path) -> None:
    """A private database from a template, with its first row changed durably."""
    change = "UPDATE customers SET name = 'changed' WHERE id = 1"
    steps: list[tuple[float, ...]] = []
    copies: list[float] = []
    before = store.stats().referred_bytes
    for i in range(ROUNDS):
        marks = [time.perf_counter()]
        store.create_branch(f"b{i}", at="template")
        marks.append(time.perf_counter())
        db = connect(store, branch=f"b{i}")
        marks.append(time.perf_counter())
        db.execute(change)
        marks.append(time.perf_counter())
        db.close()
        steps.append(tuple(b - a for a, b in itertools.pairwise(marks)))
        began = time.perf_counter()
        copy = template.with_name("copy.db")
        shutil.copyfile(template, copy)
        file = apsw.Connection(str(copy))
        file.execute(change)
        copies.append(time.perf_counter() - began)
        file.close()
        copy.unlink()
    space = (store.stats().referred_bytes - before) // ROUNDS
    total = statistics.median(map(sum, steps))
    parts = ", ".join(
        f"{what} {_time(statistics.median(times))}"
        for what, times in zip(("branch", "open", "change"), zip(*steps, strict=True), strict=True)
    )
    copied = statistics.median(copies)
    print(f"a branch, opened and changed: {_time(total)} ({parts}), {space:,} bytes")
    print(f"a copy of the file, opened and changed: {_time(copied)}, {copied / total:.0f} times")
    for i in range(ROUNDS):
        store.delete_branch(f"b{i}")


def fixtures(store: pagestore.Store, template: Path) -> None:
    """What tests pay for a database of their own: made, read or changed, thrown away."""
    from pagestore.sqlite.testing import Prepared

    prepared = Prepared(store, lambda db: None)

    def branch(use: Work) -> None:
        database = prepared.branch()
        use(database.connect(), 0)
        database.close()

    def copy(use: Work, synchronous: str) -> None:
        path = template.with_name("copy.db")
        shutil.copyfile(template, path)
        file = apsw.Connection(str(path))
        file.pragma("synchronous", synchronous)
        use(file, 0)
        file.close()
        path.unlink()

    ways: dict[str, Callable[[Work], None]] = {
        "a branch": branch,
        "a copy": lambda use: copy(use, "full"),
        "a copy that is not synced": lambda use: copy(use, "off"),
    }
    for title, use in (("one row read", read_row), ("two transactions", change_twice)):
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(TESTS):
            for name, way in ways.items():
                began = time.perf_counter()
                way(use)
                times[name].append(time.perf_counter() - began)
        shown = ", ".join(f"{name} {_time(statistics.median(t))}" for name, t in times.items())
        print(f"a test with {title}: {shown}")


def read_row(db: apsw.Connection, turn: int) -> int:
    return len(db.execute("SELECT * FROM customers WHERE id = 1").fetchall())


def change_twice(db: apsw.Connection, turn: int) -> int:
    db.execute(NEW, (1, "tea", 1.5, "of a test"))
    db.execute("UPDATE customers SET name = 'changed' WHERE id = 1")
    return 2


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} us"


if __name__ == "__main__":
    main()
