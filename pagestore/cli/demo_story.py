"""The chapters of the demo, in the order they are told."""

import os
import statistics
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from attrs import define, field

import pagestore
from pagestore.cli.demo_child import HOLDS
from pagestore.cli.demo_kill import Killing, child, kill_a_writer
from pagestore.cli.demo_market import Prices, correct, digest, make_prices
from pagestore.cli.demo_screen import Screen, human_time, private_memory, space_of, stopwatch
from pagestore.cli.failure import Fatal
from pagestore.cli.output import counted, human_size
from pagestore.cli.progress import working

SNAPSHOTS = 20
KILLS = 5
LAST = f"day-{SNAPSHOTS:02}"


@define
class Story:
    """What happens, and what each name held when it was made."""

    directory: Path
    size: int
    rng: np.random.Generator
    screen: Screen
    made: dict[str, str] = field(factory=dict)
    copy_time: float = 0.0
    copy_size: int = 0

    @property
    def path(self) -> Path:
        """Where the store is."""
        return self.directory / "market.ps"

    def tell(self) -> None:
        """Play every chapter."""
        with pagestore.open(self.path, "x") as store:
            with store.begin() as workspace:
                self.one_large_array(workspace)
                self.snapshots_in_a_row(store, workspace)
            self.all_at_once(store)
            self.branches(store)
            store.create_branch("crash", at=LAST)
        self.killed_writers()
        self.a_new_process()

    def one_large_array(self, workspace: pagestore.Workspace) -> None:
        """Make the array, copy it with NumPy to compare, and store it."""
        self.screen.heading("One large array")
        with working("making prices"), stopwatch() as took:
            prices = make_prices(self.size, self.rng)
        rows, minutes = prices.shape
        self.screen.say(
            f"{rows:,} instruments x {minutes:,} minutes of float64, made in {took():.1f} s"
        )
        with working("copying with np.save"), stopwatch() as copying:
            self.copy_size = _save(self.directory / "copy.npy", prices)
        self.copy_time = copying()
        before = space_of(self.path)
        with working("storing"), stopwatch() as storing:
            workspace.create("prices", prices.shape, prices.dtype)[:] = prices
            workspace.snapshot("day-00")
        self.made["day-00"] = digest(prices)
        grown = human_size(space_of(self.path) - before)
        self.screen.table(
            ("", "time", "on disk"),
            [
                ("np.save and fsync", human_time(self.copy_time), human_size(self.copy_size)),
                ("snapshot day-00", human_time(storing()), grown),
            ],
        )

    def snapshots_in_a_row(self, store: pagestore.Store, workspace: pagestore.Workspace) -> None:
        """Change a little, snapshot, and so on."""
        self.screen.heading(f"{SNAPSHOTS} snapshots in a row, each after more corrections")
        begun, on_disk = _stored(store), space_of(self.path)
        before, times, rows = begun, [], []
        for number, cells in enumerate(self.amounts(), start=1):
            name = f"day-{number:02}"
            correct(workspace["prices"], cells, self.rng)
            with stopwatch() as took:
                workspace.snapshot(name)
            self.made[name] = digest(workspace["prices"])
            times.append(took())
            after = _stored(store)
            pages = _pages_between(store, f"day-{number - 1:02}", name)
            rows.append((name, f"{pages:,}", human_time(took()), human_size(after - before)))
            before = after
        self.made["main"] = self.made[LAST]
        self.screen.table(("snapshot", "pages changed", "time", "stored"), rows)
        self.compare_cost(times, before - begun, space_of(self.path) - on_disk)

    def compare_cost(self, times: list[float], stored: int, on_disk: int) -> None:
        """Say what the same would cost with copies."""
        self.screen.say(
            f"together {human_time(sum(times))} (median {human_time(statistics.median(times))}) "
            f"and {human_size(stored)}"
        )
        self.screen.say(f"files grew by {human_size(on_disk)}, with room for what comes next")
        self.screen.say(
            f"{SNAPSHOTS} times the copy above: {SNAPSHOTS * self.copy_time:.1f} s "
            f"and {human_size(SNAPSHOTS * self.copy_size)}"
        )

    def all_at_once(self, store: pagestore.Store) -> None:
        """Open every snapshot, then read them all."""
        self.screen.heading("All of them readable at once")
        with ExitStack() as stack, working("reading"):
            before = private_memory()
            with stopwatch() as opening:
                views = [(name, stack.enter_context(store.view(name))) for name in store.snapshots]
            with stopwatch() as reading:
                found = {name: digest(view["prices"]) for name, view in views}
            own = max(0, private_memory() - before)
            total = sum(view["prices"].nbytes for _, view in views)
        self.screen.say(
            f"{len(views)} views opened in {human_time(opening())}, then all of their "
            f"{human_size(total)} read in {reading():.1f} s"
        )
        self.screen.say(f"private memory that this took: {human_size(own)}")
        self.compare(found)

    def branches(self, store: pagestore.Store) -> None:
        """Start a branch at a snapshot, snapshot it, and branch from that."""
        self.screen.heading("A branch of a snapshot of a branch of a snapshot")
        start = f"day-{SNAPSHOTS // 2:02}"
        for branch, name in (("what-if", "shock"), ("worse", "crisis"), ("worst", "ruin")):
            store.create_branch(branch, at=start)
            with store.begin(branch) as workspace:
                correct(workspace["prices"], 100, self.rng)
                with stopwatch() as took:
                    workspace.snapshot(name)
                self.made[name] = self.made[branch] = digest(workspace["prices"])
            pages = counted(_pages_between(store, start, name), "page")
            self.screen.say(
                f"{start} -> branch {branch}, {pages} changed -> snapshot {name} "
                f"in {human_time(took())}"
            )
            start = name

    def killed_writers(self) -> None:
        """Kill a process that commits, several times, and look."""
        self.screen.heading(f"{KILLS} writers killed with SIGKILL in the middle of a commit")
        self.made["crash"] = self.made[LAST]
        with working("killing"):
            rows = [_as_row(self.one_killed_writer()) for _ in range(KILLS)]
        self.screen.table(("killed", "one before took", "acknowledged", "found", "contents"), rows)
        wrong = [f"after a kill: {row[-1]}" for row in rows if row[-1] != "exact"]
        self.screen.verdict(wrong, "no acknowledged commit lost, none half there")

    def one_killed_writer(self) -> Killing:
        """Kill one; some are faster than the signal, so try until one was in a commit."""
        for _ in range(10):
            before, cells = self.made["crash"], self.amounts()[-1]
            killing = kill_a_writer(self.path, "crash", cells, before, self.rng)
            self.made["crash"] = killing.holds
            if killing.in_commit or killing.verdict != "exact":
                return killing
        raise Fatal("no kill hit a commit in ten attempts")

    def a_new_process(self) -> None:
        """Let another process read and check everything."""
        self.screen.heading("Restart: a new process reads every version and checks every page")
        with working("reading and checking"), stopwatch() as took, child("read", self.path) as it:
            assert it.stdout is not None
            said = [line.rstrip("\n").split("\t") for line in it.stdout]
            if it.wait() != 0:
                raise Fatal(f"the reader ended with status {it.returncode}")
        found = {facts[0]: facts[1] for word, *facts in said if word == HOLDS}
        damage = [" ".join(facts) for word, *facts in said if word != HOLDS]
        self.screen.say(
            f"{counted(len(found), 'name')} read and the store checked in {took():.1f} s"
        )
        missing = [f"{name} is missing" for name in self.made.keys() - found]
        self.compare(found)
        self.screen.verdict(missing + damage, "check(data=True) found no damage")

    def compare(self, found: dict[str, str]) -> None:
        """Compare hashes with those taken when the names were made."""
        wrong = [name for name in found if found[name] != self.made.get(name)]
        self.screen.verdict(wrong, f"all {len(found)} have the hash they had when they were made")

    def amounts(self) -> list[int]:
        """Return how many prices to correct before each snapshot: from one to very many."""
        pages = self.size * 256
        return [int(cells) for cells in np.geomspace(1, min(4000, pages // 16), SNAPSHOTS)]


def _save(path: Path, prices: Prices) -> int:
    """Save durably with NumPy alone, and return what that took of the disk."""
    with open(path, "wb") as file:
        np.save(file, prices)
        file.flush()
        os.fsync(file.fileno())
    size = path.stat().st_blocks * 512
    path.unlink()
    return size


def _stored(store: pagestore.Store) -> int:
    """Return the bytes of all the pages that versions refer to."""
    return store.stats().referred_bytes


def _pages_between(store: pagestore.Store, a: str, b: str) -> int:
    return sum(change.stop - change.start for change in store.diff(a, b))


def _as_row(killing: Killing) -> tuple[str, ...]:
    return (
        f"{human_time(killing.after)} into commit {killing.victim}",
        human_time(killing.took),
        f"commit {killing.acknowledged}",
        f"commit {killing.found}",
        killing.verdict,
    )
