"""From what a user types to a store, a version or a region, and help when it is not there.

Stores are opened here and nowhere else: only `put` may make one.
"""

import difflib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Literal

import pagestore
from pagestore.cli.failure import Fatal
from pagestore.cli.output import printable


def open_store(path: Path, mode: Literal["r", "r+"]) -> pagestore.Store:
    """Open a store that is there."""
    if not path.is_dir():
        raise Fatal(f"there is no store at '{path}'")
    return pagestore.open(path, mode)


def resolve(store: pagestore.Store, ref: str) -> pagestore.Version:
    """Return the version that `ref` means: a name, an id, or either with ``~N``."""
    name, tilde, steps = ref.partition("~")
    if tilde and not steps.isdecimal():
        raise Fatal(f"'{printable(ref)}' is not a ref: a number must follow the '~'")
    start = _version(store, name)
    back = int(steps or 0)
    version = next(islice(store.log(start), back, None), None)
    if version is None:
        raise Fatal(f"'{printable(name)}' has fewer than {back} versions before it")
    return version


def _version(store: pagestore.Store, name: str) -> pagestore.Version:
    names = [*store.snapshots, *store.branches]
    try:
        return store.version(int(name) if name.isdecimal() and name not in names else name)
    except pagestore.NotFoundError:
        raise missing("snapshot, branch or version", name, names) from None


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
