"""Everything at random, for as long as one likes: random workloads, crashes, faults, bad inputs.

A *round* has a seed, and is the same whenever that seed is given.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from attrs import define, field

from tools.crash import deep, examine, faults, images, rehearse, workloads
from tools.crash.examine import Share
from tools.crash.rehearse import Record
from tools.crash.shim import Plan
from tools.crash.stage import Stage, stage
from tools.damage import victim
from tools.scratch import directory_in_memory

Say = Callable[[str], None]
IMAGE_SHARE = 0.2  # of the time
DAMAGE_SHARE = 0.15  # of the rounds
FAULT_STRIDE = 9
SECOND_STRIDE = 250


@define
class Total:
    """What was tried, and what was wrong."""

    tried: Counter[str] = field(factory=Counter)
    failures: list[str] = field(factory=list)

    def add(self, other: Total) -> None:
        self.tried += other.tried
        self.failures += other.failures

    def __str__(self) -> str:
        counts = [f"{n:,} {what}" for what, n in sorted(self.tried.items())]
        return ", ".join([*counts, f"{len(self.failures)} failures"])


def torture(seed: int, seconds: float, keep: Path, jobs: int, say: Say) -> Total:
    """Play rounds from `seed` on until the time is over; bad states are left below `keep`."""
    total = _images(seed, seconds * IMAGE_SHARE, keep, say)
    begun = said = time.monotonic()
    seeds = iter(range(seed, 1 << 62))
    with ProcessPoolExecutor(jobs) as pool:
        running = {pool.submit(play, next(seeds), keep) for _ in range(jobs)}
        while running:
            done, running = wait(running, timeout=10, return_when=FIRST_COMPLETED)
            for future in done:
                _take_in(future, total, say)
                if time.monotonic() - begun < seconds * (1 - IMAGE_SHARE):
                    running.add(pool.submit(play, next(seeds), keep))
            if done and time.monotonic() - said > 10:
                said = time.monotonic()
                say(f"{_rate(total, said - begun)}; {total}")
    say(f"{_rate(total, time.monotonic() - begun)}; {total}")
    return total


def _images(seed: int, seconds: float, keep: Path, say: Say) -> Total:
    """Real file systems, where they can be had."""
    total, report = Total(), images.torture(seed, seconds, keep)
    for name, cycles in report.cycle_seconds.items():
        total.tried["crashes of real file systems"] += len(cycles)
        if cycles:
            middle = statistics.median(cycles) * 1000
            say(f"{name}: {len(cycles)} copies under a running store, {middle:.0f} ms each")
    for name, why in report.skipped.items():
        say(f"{name}: skipped: {why}")
    for failed in report.failures:
        total.failures.append(f"{failed.setting}, seed {seed}, {failed.words}: {failed.what}")
        say(f"FAILED {total.failures[-1]}; see {keep}")
    return total


def _take_in(future: Future[Total], total: Total, say: Say) -> None:
    result = future.result()
    for failure in result.failures:
        say(f"FAILED {failure}")
    total.add(result)


def _rate(total: Total, seconds: float) -> str:
    return f"{total.tried['crash states'] / seconds * 60:,.0f} states per minute"


def play(seed: int, keep: Path) -> Total:
    """One round."""
    total, rng = Total(), random.Random(seed)
    if rng.random() < DAMAGE_SHARE:
        report = victim.torture(seed, keep=keep, count=1)
        total.tried["bad inputs"] += report.inputs
        total.failures += report.failures
        return total
    fixed = rng.choice(workloads.FROM_NOTHING)
    name = f"{workloads.WANDER}{seed}" if rng.random() < 0.7 else fixed
    with stage() as server, directory_in_memory() as work:
        try:
            _round(server, name, seed, rng, work, keep, total)
        except Exception as error:
            total.failures.append(f"{name}, seed {seed}: {error}")
    return total


def _round(
    server: Stage, name: str, seed: int, rng: random.Random, work: Path, keep: Path, total: Total
) -> None:
    top, log = deep.fresh(work / "first")
    record, _ = rehearse.record(server, name, top, log)
    _look(record, name, seed, Share(rng.randrange(3), 3), keep, total)
    for words, second in deep.second_records(server, record, seed, work, SECOND_STRIDE):
        _look(
            second,
            f"{name}, second crash after {words}",
            seed,
            Share(rng.randrange(5), 5),
            keep,
            total,
        )
    for plan, failed in deep.failed_sync_records(server, name, record, work, stride=4):
        since = deep.failing_point(failed)
        _look(failed, f"{name}, {plan}", seed, Share(since=since), keep, total)
    for what, plan in () if name in workloads.TWO_PROCESSES else _faults():
        first = rng.randint(1, FAULT_STRIDE)
        (work / "fault").mkdir(exist_ok=True)
        found = faults.sweep(
            server, name, plan, record.known, work / "fault", first=first, stride=FAULT_STRIDE
        )
        total.tried[what] += found.points
        total.failures += [f"{name}, seed {seed}, {w.plan}: {w.what}" for w in found.wrong]


def _faults() -> Iterator[tuple[str, Plan]]:
    for plan in faults.KILLS:
        yield "kill points", plan
    for plan in faults.ERRORS:
        yield "error points", plan


def _look(record: Record, name: str, seed: int, share: Share, keep: Path, total: Total) -> None:
    report = examine.examine(record, seed, share)
    total.tried["crash states"] += report.states
    for failure in report.failures:
        where = keep / f"{os.getpid()}-{len(total.failures)}-state-{failure.number}"
        examine.keep(record, seed, failure.number, where)
        total.failures.append(
            f"{name}, seed {seed}, state {failure.number} ({failure.words}): {failure.what}; "
            f"it is left in {where}"
        )
