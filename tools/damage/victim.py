"""Bad inputs by the thousand: a seed, a store, damage, and what came of each.

Owns: batches of inputs in children that may die, and the report. `patches` and `reseal` say what
is done to the files, `outcome` what comes of it.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attrs import Factory, define, field

import pagestore
from pagestore.directory import ARENA, CATALOG
from tools.damage.life import live
from tools.damage.outcome import contents, deadly, look_around, survey, unnoticed, verdict
from tools.damage.patches import PAGE, Damage, Life, generators, write_files
from tools.damage.reseal import Resealed, load, resealed
from tools.scratch import directory_in_memory

BATCH = 500
Input = Damage | Resealed


@define
class Victim:
    """A store that is damaged and mended again and again."""

    path: Path
    life: Life
    expected: object = field(repr=False)

    @classmethod
    def make(cls, path: Path) -> Victim:
        life = live(path)
        with pagestore.open(path, "r") as store:
            return cls(path, life, contents(store))

    def inputs(self, part: str, seed: object) -> Iterator[Input]:
        """Endless bad inputs for a part of the store: "arena", "header", "catalog", "records"."""
        rng = random.Random(f"{seed} {part}")
        if part == "records":
            records = load(self.path / CATALOG)
            while True:
                yield resealed(records, rng)
        makers = generators(self.life)[part]
        while True:
            yield rng.choice(makers)(rng)

    def mend(self) -> None:
        write_files(self.path, self.life.now)

    def damage(self, bad: Input) -> None:
        """Leave the damage in the files."""
        if isinstance(bad, Resealed):
            bad.write(self.path / CATALOG)
        else:
            with (self.path / bad.file).open("r+b", buffering=0) as file:
                bad.write(file.fileno())

    def try_all(self, inputs: Sequence[Input], look: Callable[[], str] | None = None) -> list[str]:
        """What each input comes to; the store is as it was afterwards."""

        def judge(bad: Input) -> str:
            if isinstance(bad, Resealed):
                return verdict(self.path, self.expected, also=look_around)
            return verdict(self.path, self.expected)

        def one(i: int) -> str:
            bad = inputs[i]
            self.damage(bad)
            said = look() if look else judge(bad)
            self._undo(bad)
            return said

        results = survey(len(inputs), one, prepare=self.mend)
        self.mend()
        return results

    def _undo(self, bad: Input) -> None:
        if isinstance(bad, Resealed):
            self._mend(ARENA, 0, PAGE)
            self._mend(CATALOG, 0, len(self.life.now[CATALOG]))
            return
        whole = self.life.now[bad.file]
        with (self.path / bad.file).open("r+b", buffering=0) as file:
            bad.undo(file.fileno(), whole)
            file.truncate(len(whole))

    def _mend(self, name: str, start: int, stop: int) -> None:
        whole = self.life.now[name]
        with (self.path / name).open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), whole[start:stop], start)
            file.truncate(len(whole))


def wrong(inputs: Sequence[Input], results: Sequence[str]) -> list[tuple[int, str]]:
    """Results that must not be: what a stranger resealed may read as other data."""
    if inputs and isinstance(inputs[0], Resealed):
        return deadly(results)
    return unnoticed(results)


@define
class Report:
    """What a run tried and found."""

    seed: int
    seconds: float = 0.0
    counts: Counter[tuple[str, str]] = Factory(Counter)  # part or kind, and outcome
    failures: list[str] = Factory(list)

    @property
    def inputs(self) -> int:
        return sum(self.counts.values())

    def add(self, part: str, inputs: Sequence[Input], results: Sequence[str]) -> None:
        for result in results:
            self.counts[part, result.partition(":")[0]] += 1

    def __str__(self) -> str:
        lines = [f"{self.inputs} bad inputs from seed {self.seed} in {self.seconds:.0f} s"]
        lines += [f"  {part}: {said} {n}" for (part, said), n in sorted(self.counts.items())]
        return "\n".join(lines + self.failures)


PARTS = ("arena", "header", "catalog", "records")


def torture(
    seed: int, *, keep: Path, seconds: float | None = None, count: int | None = None
) -> Report:
    """Try bad inputs until the time or the count is over; keep the stores that went wrong.

    Parameters
    ----------
    seed : int
        Everything that is tried follows from it.
    keep : Path
        A store that came to what must not be is left in a directory of its own under this one.
    seconds, count : number, optional
        When to stop, at the end of a batch.
    """
    report, start = Report(seed), time.monotonic()
    with directory_in_memory() as top:
        victim = Victim.make(top / "store")
        streams = {part: victim.inputs(part, seed) for part in PARTS}
        while not _over(report, start, seconds, count):
            for part, stream in streams.items():
                inputs = [next(stream) for _ in range(BATCH)]
                results = victim.try_all(inputs)
                report.add(part, inputs, results)
                for i, said in wrong(inputs, results):
                    report.failures.append(_kept(victim, inputs[i], said, seed, keep))
        with pagestore.open(victim.path) as store:
            assert contents(store) == victim.expected, "the store was not mended"
    report.seconds = time.monotonic() - start
    return report


def _over(report: Report, start: float, seconds: float | None, count: int | None) -> bool:
    late = seconds is not None and time.monotonic() - start >= seconds
    return late or (count is not None and report.inputs >= count)


def _kept(victim: Victim, bad: Input, said: str, seed: int, keep: Path) -> str:
    """Leave the damaged store for whoever looks into it; what to say of it."""
    keep.mkdir(parents=True, exist_ok=True)
    where = Path(tempfile.mkdtemp(prefix=f"seed-{seed}-", dir=keep)) / "store"
    victim.damage(bad)
    shutil.copytree(victim.path, where)
    victim.mend()
    return f"seed {seed}: {bad}: {said[:300]} (kept in {where})"
