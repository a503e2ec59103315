"""What is done to a store while it is recorded: small, and each about one thing.

A workload is a function of a `Course`. It begins with no store at all, but for `recovery`.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from pagestore import catalog, dense, space
from pagestore.pagetable import table
from tools.crash.course import Course

Workload = Callable[[Course], None]


def creation(course: Course) -> None:
    """From nothing to the first commits."""
    course.open(create=True)
    course.create("a", 6)
    course.write("a", slice(None), 1)
    course.commit()
    course.create("b", 3)
    course.write("b", slice(1, 3), 2)
    course.commit_named("first")
    course.close()


def growth(course: Course) -> None:
    """Regions and the arena grow; pages become zeros; regions are cut and removed."""
    course.open(create=True)
    course.create("a", 4)
    for i in range(5):
        course.resize("a", 4 + 9 * i)
        course.write("a", slice(9 * i, None), i)
        course.commit()
    course.create("b", 150)
    course.write("b", slice(None), 9)
    course.commit()
    course.create("c", 300)
    course.write("c", slice(None), 10)
    course.commit()
    course.remove("b")
    course.resize("a", 7)
    course.zero("a", slice(2, 5))
    course.commit()
    course.write("a", slice(None), 11)
    course.commit()
    course.close()


def steady(course: Course) -> None:
    """The same pages again and again: slots are freed and used again."""
    course.open(create=True)
    course.create("a", 24)
    course.write("a", slice(None), 0)
    course.commit()
    for i in range(10):
        course.write("a", [i % 7, 3 * i % 24, 23 - i], i + 1)
        course.commit()
    course.write("a", slice(None), 99)
    course.commit()
    course.write("a", slice(4, 20), 100)
    course.commit()
    course.close()


def naming(course: Course) -> None:
    """Snapshots are made, on commits and after them, and deleted in another order."""
    course.open(create=True)
    course.create("a", 12)
    course.write("a", slice(None), 1)
    course.commit_named("one")
    for i in range(2, 5):
        course.write("a", [i, i + 1, 0], i)
        course.commit_named(f"number {i}")
    course.snapshot("again", at="number 3")
    course.delete_snapshot("number 3")
    course.delete_snapshot("one")
    course.write("a", [5, 6], 50)
    course.commit()
    course.commit_named("number 5")
    course.delete_snapshot("again")
    course.write("a", slice(0, 6), 51)
    course.commit()
    course.delete_snapshot("number 5", "number 2", "number 4")
    course.close()


def branches(course: Course) -> None:
    """Lines of work that part; a fork point loses its name, then its children."""
    course.open(create=True)
    course.create("a", 10)
    course.write("a", slice(None), 1)
    course.commit_named("fork")
    course.create_branch("side", at="fork")
    course.write("a", [1, 2], 2)
    course.commit()
    course.switch("side")
    course.write("a", [2, 3], 3)
    course.create("only here", 2)
    course.write("only here", [1], 4)
    course.commit()
    course.delete_snapshot("fork")
    course.create_branch("third", at="side")
    course.write("a", [4, 5], 5)
    course.commit()
    course.switch("third")
    course.write("a", slice(0, 9, 2), 6)
    course.commit()
    course.delete_branch("side")
    course.switch("main")
    course.write("a", [0], 7)
    course.commit()
    course.delete_branch("third")
    course.write("a", [9], 8)
    course.commit()
    course.close()


def compaction(course: Course) -> None:
    """Scattered pages are gathered, twice; holes are made."""
    course.open(create=True)
    course.create("a", 40)
    course.write("a", slice(None), 1)
    course.commit_named("old")
    for i in range(4):
        course.write("a", slice(i, None, 5), i + 2)
        course.commit()
    course.compact()
    course.write("a", slice(1, None, 3), 9)
    course.commit_named("new")
    course.delete_snapshot("old")
    course.compact()
    course.write("a", [0, 39], 10)
    course.commit()
    course.close()


def flushing(course: Course) -> None:
    """A transaction that is written early, in pieces; one of them is given up."""
    course.open(create=True)
    course.create("a", 60)
    course.write("a", slice(0, 30), 1)
    course.flush()
    course.write("a", slice(20, 60), 2)
    course.flush()
    course.write("a", [0, 21, 59], 3)
    course.commit()
    course.write("a", slice(0, 60, 2), 4)
    course.flush()
    course.switch("main")
    course.write("a", [7, 8], 5)
    course.commit()
    course.write("a", slice(10, 40), 6)
    course.flush()
    course.write("a", slice(12, 20), 7)
    course.flush()
    course.commit_named("flushed")
    course.write("a", [1], 8)
    course.commit()
    course.close()


def two_writers(course: Course) -> None:
    """Two processes in turn, on one branch and on two; each takes over what the other did."""
    course.start_other()
    course.open(create=True)
    course.create("a", 16)
    course.write("a", slice(None), 1)
    course.commit()
    course.other_commits("main", "a", 3, 2)
    course.write("a", [4, 5], 3)
    course.commit()
    course.create_branch("side", at="main")
    course.other_commits("side", "a", 6, 4)
    course.write("a", [7], 5)
    course.other_commits("main", "a", 8, 6)
    course.commit()
    course.other_commits("side", "a", 9, 7)
    course.snapshot("kept", at="side")
    course.delete_branch("side")
    course.other_commits("main", "a", 10, 8)
    course.delete_snapshot("kept")
    course.write("a", [0, 15], 9)
    course.commit()
    course.other_ends()
    course.close()


def reopening(course: Course) -> None:
    """The store is closed and opened between commits: seals are written, and are stale again."""
    course.open(create=True)
    course.create("a", 8)
    for i in range(4):
        course.write("a", slice(i, i + 3), i + 1)
        course.commit()
        course.reopen()
    course.snapshot("late")
    course.reopen()
    course.write("a", [0, 7], 9)
    course.commit()
    course.close()


def history(course: Course) -> None:
    """Every commit is kept, until all expire."""
    course.options["history"] = "all"
    course.open(create=True)
    course.create("a", 8)
    for i in range(6):
        course.write("a", [i, 7 - i], i + 1)
        course.commit()
    course.snapshot("here")
    course.expire()
    course.write("a", slice(None), 9)
    course.commit()
    course.delete_snapshot("here")
    course.expire()
    course.write("a", [2, 3], 10)
    course.commit()
    course.close()


def mixed(course: Course) -> None:
    """A bit of everything: for faults, which are tried at every operation."""
    course.open(create=True)
    course.create("a", 20)
    course.write("a", slice(None), 1)
    course.commit_named("one")
    course.write("a", slice(0, 20, 3), 2)
    course.flush()
    course.write("a", [1, 2], 3)
    course.commit()
    course.create_branch("side", at="one")
    course.switch("side")
    course.write("a", slice(4, 9), 4)
    course.commit()
    course.delete_snapshot("one")
    course.switch("main")
    course.resize("a", 30)
    course.write("a", slice(15, 30), 5)
    course.commit_named("two")
    course.delete_branch("side")
    course.reopen()
    course.write("a", slice(0, 30, 2), 6)
    course.commit()
    course.delete_snapshot("two")
    course.compact()
    course.write("a", slice(3, 12), 7)
    course.commit()
    course.close()


def watched(course: Course) -> None:
    """Views are held while what they show is dropped, and others write where they can."""
    course.open(create=True)
    course.create("a", 16)
    course.write("a", slice(None), 1)
    course.commit_named("seen")
    course.watch("seen")
    course.write("a", slice(0, 8), 2)
    course.commit()
    course.watch("main")
    course.delete_snapshot("seen")
    for i in range(4):
        course.write("a", slice(i, 16, 2), i + 3)
        course.commit()
        course.write("a", slice(None), i + 20)
        course.commit()
    course.unwatch()
    for i in range(2):
        course.write("a", slice(None), i + 40)
        course.commit()
    course.close()


def recovery(course: Course) -> None:
    """What a crash left is taken up: two commits and a deletion. Begins with a store."""
    course.adopt()
    course.write("a", slice(0, 3), 70)
    course.commit_named("recovered")
    course.write("a", [0, -1], 71)
    course.commit()
    course.delete_snapshot("recovered")
    course.close()


TWO_PROCESSES = {"two_writers"}
"""Those of which a second process would have to bear the faults: it is not made to."""
AS_SHIPPED = {"creation", "growth"}
"""Those that run with the store's own constants; the others with small ones (`shrink`)."""


def shrink() -> None:
    """Let this process grow the arena little, and look for free slots and fold logs soon.

    Only what a writer decides is changed, nothing that a reader must know. Slots are then used
    again after a few commits, as in a store that has run for months.
    """
    space.GROW_LEAST, space.LOOK_LEAST, space.SHORT_RUN = 24, 8, 4
    space.ALIGNED, space.LOG_RECORDS = 32, 5
    table.INLINE_MAX = 3
    catalog.RESERVE = 1 << 16
    dense.LEAST_SAVED = 1


class _Wanderer:
    """Random steps that are always allowed; the same for the same seed."""

    def __init__(self, course: Course, seed: int) -> None:
        self.course = course
        self.rng = random.Random(seed)
        self.count = 0

    def walk(self, steps: int) -> None:
        rng, course = self.rng, self.course
        if rng.random() < 0.2:
            course.options["history"] = "all"
        if rng.random() < 0.2:
            course.options["page_size"] = 16384
        course.options["tracking"] = rng.choice(("auto", "auto", "pagemap", "compare"))
        course.options["mapping"] = rng.choice(("auto", "auto", "portable"))
        course.open(create=True)
        course.create("a", rng.randint(1, 60))
        moves = {
            self.commit: 6, self.commit_named: 3, self.resize: 1, self.flush: 2, self.forget: 3,
            self.name: 1, self.expire: 1, self.branch: 2, self.switch: 1,
            course.compact: 1, course.reopen: 1,
        }  # fmt: skip
        for _ in range(steps):
            rng.choices(list(moves), list(moves.values()))[0]()
        course.close()

    def write(self) -> None:
        if "a" not in self.course.now:
            self.course.create("a", self.rng.randint(1, 60))
        pages = range(len(self.course.now["a"]))
        self.count += 1
        if self.rng.random() < 0.1:
            self.course.zero("a", slice(self.rng.choice(pages), None))
        chosen = self.rng.sample(pages, self.rng.randint(1, len(pages)))
        self.course.write("a", sorted(chosen), self.count)

    def commit(self) -> None:
        self.write()
        self.course.commit()

    def commit_named(self) -> None:
        self.write()
        self.course.commit_named(f"snapshot {self.count}")

    def resize(self) -> None:
        self.write()
        self.course.resize("a", self.rng.randint(1, 90))
        self.commit()

    def flush(self) -> None:
        self.write()
        self.course.flush()

    def expire(self) -> None:
        if "history" in self.course.options:
            self.course.expire()

    def names(self, kind: str) -> list[str]:
        names = self.course.ledger.names
        return [name.removeprefix(kind) for name in names if name.startswith(kind)]

    def forget(self) -> None:
        snapshots = self.names("snapshot ")
        branches = [b for b in self.names("branch ") if b not in ("main", self.course.branch)]
        if snapshots and (not branches or self.rng.random() < 0.7):
            self.course.delete_snapshot(
                *self.rng.sample(snapshots, min(len(snapshots), self.rng.choice((1, 1, 3))))
            )
        elif branches:
            self.course.delete_branch(self.rng.choice(branches))

    def name(self) -> None:
        self.count += 1
        at = self.rng.choice(self.names("snapshot ") + self.names("branch "))
        self.course.snapshot(f"named {self.count}", at=at)

    def branch(self) -> None:
        self.count += 1
        at = self.rng.choice(self.names("snapshot ") + self.names("branch "))
        self.course.create_branch(f"branch {self.count}", at=at)
        self.course.switch(f"branch {self.count}")

    def switch(self) -> None:
        self.course.switch(self.rng.choice(self.names("branch ")))


WANDER = "wander "
STEPS = 14


def find(name: str) -> Workload:
    """The workload of a name; ``"wander 7"`` is a random one, of the seed 7."""
    if name.startswith(WANDER):
        return lambda course: _Wanderer(course, int(name.removeprefix(WANDER))).walk(STEPS)
    return ALL[name]


FROM_NOTHING = (
    "creation", "growth", "steady", "naming", "branches", "compaction", "flushing", "two_writers",
    "reopening", "history", "watched", "mixed",
)  # fmt: skip
ALL: dict[str, Workload] = {
    work.__name__: work
    for work in (
        creation, growth, steady, naming, branches, compaction, flushing, two_writers, reopening,
        history, watched, mixed, recovery,
    )
}  # fmt: skip
