"""What a damaged store comes to: read all of it, check it, in processes that may die of it.

Knows nothing of how the store was damaged.
"""

from __future__ import annotations

import faulthandler
import itertools
import os
import resource
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import xxhash

import pagestore

ACCEPTED = ("identical", "finding: ", "CorruptionError: ", "FormatError: ", "NotFoundError: ")
WHOLE = 16 << 20  # bytes of a region that are read; of a larger one its ends
END = 1 << 16
SECONDS = 20
MOST_MEMORY = 1 << 31  # what reading or checking a damaged store may allocate


def contents(store: pagestore.Store) -> tuple[list[Any], dict[int, Any]]:
    """Everything that a store says about itself, in values that compare."""
    names = []
    versions: dict[int, Any] = {}
    heads = {}
    for kind, mapping in (("snapshot", store.snapshots), ("branch", store.branches)):
        for name, version in mapping.items():
            names.append((kind, name, version.id, version.message, version.names))
            heads[version.id] = version
    for head in heads.values():
        for version in store.log(head):
            if version.id not in versions:
                versions[version.id] = (
                    version.parent,
                    version.time,
                    version.message,
                    arrays(store, version),
                )
    return names, versions


def arrays(store: pagestore.Store, ref: str | pagestore.Version) -> dict[str, Any]:
    """Dtype, shape and a hash of the bytes of every region of a version."""
    with store.view(ref) as view:
        return {name: _array(view, region) for name, region in view.regions.items()}


def _array(view: pagestore.SnapshotView, region: pagestore.Region) -> tuple[str, Any, bytes]:
    if region.nbytes <= WHOLE:
        data = view[region.name].tobytes()
    else:
        data = _ends(view, region)
        _ = view[region.name]  # goes through all of its table, as single reads do not
        if _ends(view, region) != data:
            raise AssertionError(f"{region.name}: memory shows other bytes than the arena has")
    return str(region.dtype), region.shape, xxhash.xxh3_128_digest(data)


def _ends(view: pagestore.SnapshotView, region: pagestore.Region) -> bytes:
    return view.read(region.name, 0, END) + view.read(region.name, region.nbytes - END, END)


def look_around(store: pagestore.Store) -> None:
    """Ask all that is not part of `contents`."""
    store.stats()
    heads = [*store.branches.values(), *store.snapshots.values()]
    for one, other in itertools.pairwise(heads):
        for _ in store.diff(one, other):
            pass
    with store.live() as live:
        live.refresh()


def verdict(
    path: Path,
    expected: object,
    mode: Literal["r", "a"] = "r",
    also: Callable[[pagestore.Store], None] = lambda _: None,
) -> str:
    """What opening, reading and checking a damaged store comes to, in a line."""
    found: object = None
    said = ""
    try:
        with pagestore.open(path, mode) as store:
            try:
                found = contents(store)
                also(store)
            except pagestore.PagestoreError as error:
                said = f"{type(error).__name__}: {error}"
            findings = list(store.check(data=True))
    except pagestore.PagestoreError as error:
        return said or f"{type(error).__name__}: {error}"
    except BaseException as error:
        return f"not of the tree: {error!r}"
    if findings:
        return f"finding: {findings[0]}"
    if said:
        return said
    return "identical" if found == expected else f"other contents: {found}"


def survey(
    count: int,
    look: Callable[[int], str],
    seconds: int = SECONDS,
    prepare: Callable[[], None] = lambda: None,
) -> list[str]:
    """Call `look(i)` for each i below `count` in forked children; its text, or "signal N".

    One child does as many as it survives; each child calls `prepare` first.
    """
    results: list[str] = []
    while len(results) < count:
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.close(read)
                _limit()
                prepare()
                with os.fdopen(write, "w", buffering=1, errors="backslashreplace") as pipe:
                    for i in range(len(results), count):
                        signal.alarm(seconds)
                        pipe.write(" ".join(look(i).splitlines()) + "\n")
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            results += pipe.read().split("\n")[:-1]
        status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status):
            results.append(f"signal {os.WTERMSIG(status)}")
        elif len(results) < count:
            results.append("not of the tree: the child ended without an answer")
    return results


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    faulthandler.disable()  # such a death is an answer


def unnoticed(results: Iterable[str]) -> list[tuple[int, str]]:
    """Those results that are neither "identical" nor say what is wrong."""
    return [(i, r) for i, r in enumerate(results) if not r.startswith(ACCEPTED)]


def deadly(results: Iterable[str]) -> list[tuple[int, str]]:
    """Those results that no bytes whatever may cause: a death, a hang, a stray exception."""
    return [(i, r) for i, r in enumerate(results) if r.startswith(("signal ", "not of the tree"))]
