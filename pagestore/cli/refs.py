"""From what a user types to a store, a version or a region, and help when it is not there.

Stores are opened here and nowhere else: only `put` may make one.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import pagestore
from pagestore.cli.failure import Fatal
from pagestore.cli.output import printable

Found = TypeVar("Found")


def open_store(path: Path, mode: Literal["r", "r+"]) -> pagestore.Store:
    """Open a store that is there."""
    if not path.is_dir():
        raise Fatal(f"there is no store at '{path}'")
    return pagestore.open(path, mode)


def look_up(store: pagestore.Store, ref: str, look: Callable[[str], Found]) -> Found:
    """Return what `look` finds for `ref`, in one step: a branch may move between two."""
    try:
        return look(ref)
    except pagestore.NotFoundError:
        name = ref.partition("~")[0]
        names = [*store.snapshots, *store.branches]
        if name in names or name.isdecimal():
            raise  # the library knows better what is not there
        raise missing("snapshot, branch or version", name, names) from None


@contextmanager
def looking_at(store: pagestore.Store, ref: str) -> Iterator[pagestore.Version]:
    """Yield the version of `ref`, pinned meanwhile: a branch may move on, and leave it to go."""
    with look_up(store, ref, store.view) as view:
        yield view.version


def region_of(version: pagestore.Version, name: str) -> pagestore.Region:
    """Return the region `name` of `version`."""
    try:
        return version.regions[name]
    except KeyError:
        raise missing("region", name, version.regions) from None


def missing(kind: str, name: str, known: Iterable[str]) -> Fatal:
    """Return the error for a name that does not exist, with the one that may have been meant."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f"; did you mean '{printable(close[0])}'?" if close else ""
    return Fatal(f"there is no {kind} '{printable(name)}'{hint}")
