"""Bugs that are put into the store on purpose: what would a harness be worth that missed them?

Each one is a swallowed sync (the shim does that, the store is untouched) or a patch that is applied
in the recorded child alone. `hunt` says how the harness caught it, or that it did not.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from attrs import field, frozen

from pagestore import (
    arena,
    catalog,
    commit,
    decoded,
    pins,
    placing,
    reclaim,
    space,
    transaction,
    verify,
)
from pagestore.format import SNAPSHOT, named_key
from tools.crash import rehearse
from tools.crash.deep import fresh
from tools.crash.examine import Share, examine
from tools.crash.record import Kind, UnsoundError
from tools.crash.rehearse import Outcome, Record
from tools.crash.shim import Fault, Plan
from tools.crash.stage import Stage
from tools.damage.victim import Victim, wrong

Patch = Callable[[], None]
MOST_STATES = 400
"""Within how many crash states a planted bug must show."""
FEWEST_INPUTS, MOST_INPUTS = 120, 960
"""Within how many bad inputs; fewer are tried first."""
MOST_BEHIND = 90
"""States that are looked at behind one injected fault."""


@frozen
class Bug:
    """One planted bug.

    Attributes
    ----------
    name : str
    workload : str
        That shows it.
    patch : callable, optional
        Puts it into the store of the process that calls it.
    plan : Plan
        What fails or is swallowed meanwhile.
    every : bool
        The fault is tried at every operation, until the bug shows.
    step : int
        Crashes before this many steps are not looked at: 1 is when the store has been made.
    part : str
        Of a store, whose damage shows it: the bug is in reading.
    """

    name: str
    workload: str
    patch: Patch | None = None
    plan: Plan = field(factory=Plan)
    every: bool = False
    step: int = 1
    part: str = ""


def hunt(stage: Stage, bug: Bug, seed: int, work: Path) -> str | None:
    """How a bug was caught, and at which state; None if it was not.

    Raises
    ------
    AssertionError
        The workload shows the same without the bug.
    """
    if bug.part:
        return _hunt_by_damage(stage, bug, seed, work)
    clean = _record(stage, bug.workload, None, Plan(), work)
    if isinstance(clean, str):
        raise AssertionError(f"without {bug.name!r}: {clean}")
    left = MOST_STATES
    for plan in _plans(bug):
        record = _record(stage, bug.workload, bug, plan, work)
        if isinstance(record, str):
            return f"while it ran: {record}"
        if bug.every and _since(record, bug) == len(record.ops):
            return None
        since, most = _since(record, bug), min(left, MOST_BEHIND) if bug.every else left
        whole = Record(record.ops, record.initial, record.inodes, clean.known)
        report = examine(whole, seed, Share(most=most, since=since), stop_at_first=True)
        if report.failures:
            found = report.failures[0]
            return f"at state {MOST_STATES - left + report.states}, {found.words}: {found.what}"
        left -= report.states
        if left <= 0:
            return None
    return None


def _hunt_by_damage(stage: Stage, bug: Bug, seed: int, work: Path) -> str | None:
    count = FEWEST_INPUTS
    while count <= MOST_INPUTS:
        found = _unnoticed(stage, bug.name, bug.part, seed, count, work)
        if found:
            without = _unnoticed(stage, "none", bug.part, seed, count, work)
            if without:
                raise AssertionError(f"without {bug.name!r}: {without}")
            return f"at {len(found)} of {count} bad inputs: {found[0]}"
        count *= 2
    return None


def _unnoticed(stage: Stage, bug: str, part: str, seed: int, count: int, work: Path) -> list[str]:
    done = stage.run(try_bad_inputs, bug, part, seed, count, fresh(work / "damaged")[0])
    if done.error or done.signal:
        raise AssertionError(done.error or f"died of signal {done.signal}")
    unnoticed: list[str] = done.result
    return unnoticed


def try_bad_inputs(bug: str, part: str, seed: int, count: int, path: Path) -> list[str]:
    """Damage a store that is read with a bug; say what went unnoticed."""
    _plant(bug)
    victim = Victim.make(path)
    inputs = list(itertools.islice(victim.inputs(part, seed), count))
    results = victim.try_all(inputs)
    return [f"{inputs[i]}: {said[:200]}" for i, said in wrong(inputs, results)]


def _plant(bug: str) -> None:
    for planted in BUGS:
        if planted.name == bug and planted.patch:
            planted.patch()


def _since(record: Record, bug: Bug) -> int:
    """From which operation on the bug can show: the one that failed, or the first step."""
    for i, op in enumerate(record.ops):
        if bug.every and (op.error or (op.kind is Kind.WRITE and len(op.data) < op.size)):
            return i
    marks = [i for i, op in enumerate(record.ops) if op.kind is Kind.MARK]
    return marks[bug.step] if not bug.every else len(record.ops)


def _plans(bug: Bug) -> Iterator[Plan]:
    if not bug.every:
        yield bug.plan
        return
    for at in itertools.count(1):
        yield Plan(bug.plan.fault, at, error=bug.plan.error)


def _record(stage: Stage, workload: str, bug: Bug | None, plan: Plan, work: Path) -> Record | str:
    """A record of a workload with a bug in the store; or what was noticed at once."""
    top, log = fresh(work / "planted")
    name = bug.name if bug and bug.patch else ""
    try:
        return rehearse.record(stage, workload, top, log, plan, perform=perform, before=(name,))[0]
    except (AssertionError, UnsoundError) as error:
        return str(error).strip().splitlines()[-1]


def perform(bug: str, workload: str, top: Path, log: Path) -> Outcome:
    """Do a workload on a store that has a bug."""
    _plant(bug)
    return rehearse.perform(workload, top, log)


# ------------------------------------------------------------------------------------ the patches


def _replace(owner: Any, name: str, by: Callable[[Any], Any]) -> None:
    """Put `by(what was there)` in its place."""
    setattr(owner, name, by(getattr(owner, name)))


def _no_sync() -> None:
    _replace(arena.Arena, "sync", lambda sync: lambda self: None)


def _sync_after_catalog() -> None:
    sync, late = arena.Arena.sync, list[arena.Arena]()

    def first_the_catalog(write: Any) -> Any:
        @contextlib.contextmanager
        def both(self: Any, spare: Any = None) -> Iterator[Any]:
            with write(self, spare) as transaction:
                yield transaction
            while late:
                sync(late.pop())

        return both

    _replace(arena.Arena, "sync", lambda sync: lambda self: late.append(self))
    _replace(catalog.Catalog, "write", first_the_catalog)


def _no_metasync() -> None:
    _replace(
        lmdb,
        "open",
        lambda opens: lambda *args, **options: opens(*args, **(options | {"metasync": False})),
    )
    _replace(catalog.Catalog, "_check_size", lambda check: lambda self, env: None)


def _write_in_place() -> None:
    def in_place(stored: Any) -> Any:
        def both(where: arena.Arena, write: Any, memory: Any, before: Any) -> Any:
            placed = stored(where, write, memory, before)
            old = before.at(placed.pages)
            again = (old.slots != 0) & (placed.slots != 0)
            if memory is not None:
                placing.write_pages(where, memory[placed.pages[again]], old.slots[again])
            return placed

        return both

    _replace(commit, "store_pages", in_place)


def _reuse_early() -> None:
    """The slots that a commit frees are written by that very commit."""
    reused: set[int] = set()

    def early(stored: Any) -> Any:
        def store_pages(where: arena.Arena, write: Any, memory: Any, before: Any) -> Any:
            reused.clear()
            freed = before.slots[before.slots != 0]
            named = named_key(write.records.head("main"), SNAPSHOT)
            if memory is None or len(freed) < 2 or write.records.has(named):
                return stored(where, write, memory, before)
            take = write.take

            def from_freed(count: int, **options: Any) -> Any:
                if count > len(freed):
                    return take(count, **options)
                mine = np.sort(np.roll(freed, 1)[:count])
                reused.update(mine.tolist())
                return mine

            write.take = from_freed
            return stored(where, write, memory, before)

        return store_pages

    def unless_reused(give: Any) -> Any:
        return lambda self, slots: give(self, slots[~np.isin(slots, list(reused))])

    _replace(commit, "store_pages", early)
    _replace(space.Space, "give", unless_reused)


def _ignore_pins() -> None:
    def regardless(lock: Any) -> Any:
        return lambda self, version, mine=0: lock(self, version, mine) or True

    _replace(pins.Pins, "try_exclusive", regardless)


def _retry_sync() -> None:
    def stubborn(sync: Any) -> Any:
        def twice(self: Any, fd: int) -> None:
            try:
                sync(self, fd)
            except OSError:
                sync(self, fd)

        return twice

    _replace(arena.FileIO, "fdatasync", stubborn)


def _ignore_short_writes() -> None:
    def once(self: Any, data: memoryview, offset: int) -> None:
        self._call("writing", self.io.pwrite, self.fd, data, offset)

    _replace(arena.Arena, "_pwrite", lambda pwrite: once)


def _free_more() -> None:
    def one_more(expand: Any) -> Any:
        def freed(extents: Any) -> Any:
            pages, slots, births = expand(extents)
            return pages, np.append(slots, slots.max() + 1) if len(slots) else slots, births

        return freed

    _replace(reclaim, "expand", one_more)


def _free_less() -> None:
    def one_less(expand: Any) -> Any:
        def freed(extents: Any) -> Any:
            pages, slots, births = expand(extents)
            return pages, slots[:-1], births

        return freed

    _replace(reclaim, "expand", one_less)


def _trust_records() -> None:
    for module in (transaction, decoded):
        _replace(module, "unseal", lambda unseal: lambda key, value: value[8:])
    _replace(transaction, "unseal_view", lambda unseal: lambda key, value: memoryview(value)[8:])


def _trust_pages() -> None:
    _replace(verify, "_still_wrong", lambda wrong: lambda engine, slots, sums: [])


SYNC_FAILS = Plan(Fault.SYNC, error=5)
BUGS = (
    Bug("no arena sync at all", "steady", plan=Plan(swallow="arena")),
    Bug("no arena sync in a commit", "steady", _no_sync),
    Bug("arena sync after the catalog's commit", "steady", _sync_after_catalog),
    Bug("no catalog sync", "steady", plan=Plan(swallow="catalog")),
    Bug("metasync off", "steady", _no_metasync),
    Bug("writing in place", "steady", _write_in_place),
    Bug("a slot reused one commit early", "steady", _reuse_early),
    Bug("pins ignored when dropping", "watched", _ignore_pins),
    Bug("a failed sync tried again", "mixed", _retry_sync, SYNC_FAILS, every=True),
    Bug("a short write ignored", "steady", _ignore_short_writes, Plan(Fault.SHORT), every=True),
    Bug("the directory not synced at creation", "creation", plan=Plan(swallow="/"), step=0),
    Bug("a drop frees one page too many", "steady", _free_more),
    Bug("a drop frees one page too few", "steady", _free_less),
    Bug("checksums of records not compared", "", _trust_records, part="catalog"),
    Bug("checksums of pages not compared", "", _trust_pages, part="arena"),
)
