"""Every state that a crash may leave, as far as one can count them: from a record, in order.

After each operation: everything up to it is there, and nothing else (a crash that loses nothing).
At each sync, each write that is one (``O_DSYNC``), and wherever the workload said that something
is acknowledged: what is pending may be lost, in any combination, torn at any sector, or have given
its file the length and not the bytes. Up to six pending operations: every combination. More: none,
all, all but one, only one, and some at random.

The same seed gives the same states in the same order.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

from tools.crash.disk import SECTOR, WHOLE, Choice, Disk, Part, Tree, digest
from tools.crash.record import DIRECTORY, FILE, Kind, Op

ALL_SUBSETS = 6  # pending operations of which every combination is tried
RANDOM_SUBSETS = 12
TORN_OPS = 3  # pending writes that are torn at one point


@frozen(eq=False)
class State:
    """What a crash may leave.

    Attributes
    ----------
    point : int
        Operations that had begun.
    said : int
        Marks that the workload had made: that many steps are acknowledged.
    words : str
    tree : dict
    """

    point: int
    said: int
    words: str
    tree: Tree


def states(
    ops: Sequence[Op], initial: Tree, inodes: Mapping[str, int], seed: int
) -> Iterator[State]:
    """Every state, each once: equal ones, of which as much is acknowledged, are one."""
    seen: set[tuple[int, bytes]] = set()
    for state in _all(ops, initial, inodes, seed):
        key = (state.said, digest(state.tree))
        if key not in seen:
            seen.add(key)
            yield state


def _all(ops: Sequence[Op], initial: Tree, inodes: Mapping[str, int], seed: int) -> Iterator[State]:
    disk, said = Disk(initial, inodes), 0
    for point, op in enumerate(ops):
        if op.kind is Kind.SYNC or op.dsync:
            yield from _lossy(disk, point, said, str(op), seed)
        disk.apply(op)
        if op.dsync:
            yield from _torn_dsync(ops, disk, point, said)
        if op.kind is Kind.MARK:
            said += 1
            yield from _lossy(disk, point, said, f"mark {said}", seed)
        elif op.kind in FILE or op.kind in DIRECTORY:
            yield State(point, said, f"after {op}", disk.everything())


def _torn_dsync(ops: Sequence[Op], disk: Disk, point: int, said: int) -> Iterator[State]:
    """It is durable when it returns; what was pending before it may still be lost."""
    yield State(point, said, f"only {ops[point]}", disk.after_crash({}))


def _lossy(disk: Disk, point: int, said: int, where: str, seed: int) -> Iterator[State]:
    rng = random.Random(f"{seed} {point}")
    pending = disk.pending
    for words, choice in itertools.chain(_subsets(pending, rng), _torn(pending, rng)):
        tree = disk.after_crash(choice)
        yield State(point, said, f"at {where}: {words} of {len(pending)} pending", tree)


def _subsets(pending: Mapping[int, Op], rng: random.Random) -> Iterator[tuple[str, Choice]]:
    numbers = list(pending)
    if len(numbers) <= ALL_SUBSETS:
        for n in range(len(numbers) + 1):
            for chosen in itertools.combinations(numbers, n):
                yield f"{list(chosen)}", dict.fromkeys(chosen, WHOLE)
        return
    yield "none", {}
    yield "all", dict.fromkeys(numbers, WHOLE)
    for one in numbers:
        yield f"all but {one}", {n: WHOLE for n in numbers if n != one}
        yield f"only {one}", {one: WHOLE}
    for _ in range(RANDOM_SUBSETS):
        some = [n for n in numbers if rng.random() < 0.5]
        yield f"{some}", dict.fromkeys(some, WHOLE)


def _torn(pending: Mapping[int, Op], rng: random.Random) -> Iterator[tuple[str, Choice]]:
    writes = [n for n, op in pending.items() if op.kind is Kind.WRITE and len(op.data) > SECTOR]
    for torn in rng.sample(writes, min(TORN_OPS, len(writes))):
        count = -(-len(pending[torn].data) // SECTOR)
        half = count // 2
        for sectors in (
            range(half), range(half, count), range(1), range(1, count),
            sorted(rng.sample(range(count), half)),
        ):  # fmt: skip
            for others in ({n: WHOLE for n in pending if n != torn}, {}):
                with_others = "with" if others else "without"
                part = Part(tuple(sectors))
                words = f"{len(sectors)} sectors of {torn} {with_others} the others"
                yield words, others | {torn: part}
        size_only = {torn: Part(size_only=True)}
        yield f"the length alone of {torn}", dict.fromkeys(pending, WHOLE) | size_only
    yield (
        "lengths alone",
        {n: Part(size_only=True) if op.kind is Kind.WRITE else WHOLE for n, op in pending.items()},
    )
