"""Killing a writer in the middle of a commit, and what is found afterwards."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from attrs import define, field, frozen

import pagestore
from pagestore.cli.demo_child import ACKNOWLEDGED, BEGIN
from pagestore.cli.demo_market import digest
from pagestore.cli.failure import Fatal


@define
class Writer:
    """What a writer said while it lived."""

    acknowledged: int = 0
    took: float = 0.0
    """Seconds that its last whole commit took."""
    announced: dict[int, str] = field(factory=dict)
    """The hash of what each commit was to hold."""

    def hear(self, line: str) -> str:
        """Take in a line that it said and return its first word."""
        if not line.endswith("\n"):  # it was killed amid saying that
            return ""
        word, number, fact = line.split()
        if word == ACKNOWLEDGED:
            self.acknowledged, self.took = int(number), float(fact)
        else:
            self.announced[int(number)] = fact
        return word


@frozen
class Killing:
    """One killed writer and what the store held afterwards."""

    victim: int
    """The commit that was going on."""
    after: float
    """Seconds from its start to the signal."""
    took: float
    """Seconds that the commit before it took."""
    acknowledged: int
    found: int
    holds: str
    """The hash of what was found."""
    announced: str | None
    """The hash of what was to be found."""

    @property
    def in_commit(self) -> bool:
        """Whether the signal came before the commit was acknowledged."""
        return self.acknowledged < self.victim

    @property
    def verdict(self) -> str:
        """``exact``, or what is wrong."""
        if self.found not in (self.acknowledged, self.acknowledged + 1):
            return f"commit {self.acknowledged} was acknowledged, {self.found} found"
        return "exact" if self.holds == self.announced else "other contents than announced"


@contextmanager
def child(*arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """Start another process of this demo; it does not outlive the block."""
    home = str(Path(pagestore.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "pagestore.cli.demo_child", *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def kill_a_writer(
    path: Path, branch: str, cells: int, before: str, rng: np.random.Generator
) -> Killing:
    """Let a writer commit to `branch`, kill it in a random commit, and look what is there."""
    writer = Writer(announced={0: before})
    victim = int(rng.integers(2, 8))
    moment = float(rng.random())
    after = _run_until_killed(writer, victim, moment, (path, branch, cells, rng.integers(2**32)))
    with pagestore.open(path, "r+") as store, store.view(branch) as view:
        message = view.version.message
        found = int(message.removeprefix("commit ")) if message.startswith("commit ") else 0
        holds = digest(view["prices"])
    return Killing(
        victim, after, writer.took, writer.acknowledged, found, holds, writer.announced.get(found)
    )


def _run_until_killed(
    writer: Writer, victim: int, moment: float, arguments: tuple[object, ...]
) -> float:
    with child("write", *arguments) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if writer.hear(line) == BEGIN and victim in writer.announced:
                start = time.perf_counter()
                time.sleep(moment * writer.took)
                process.kill()
                after = time.perf_counter() - start
                for rest in process.stdout:  # it may have been faster than the signal
                    writer.hear(rest)
                return after
    raise Fatal(f"the writer ended by itself with status {process.returncode}")
