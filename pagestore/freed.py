"""What deleting some names and versions together would free, told by the code that deletes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from attr import frozen

from pagestore.format import BRANCH, SNAPSHOT, VERSION, VersionId, named_key, number_key
from pagestore.pagetable import Nodes
from pagestore.reclaim import would_free
from pagestore.transaction import Transaction


@frozen
class Freed:
    """What deleting some names and versions together would free.

    Attributes
    ----------
    versions : tuple of int
        The versions that would be dropped, newest first: also unnamed ones that only these kept.
    freed_bytes : int
        Bytes of the pages that only they refer to.
    staying : mapping of int to str
        Those of the versions asked for that would stay, and what keeps them.
    """

    versions: tuple[int, ...]
    freed_bytes: int
    staying: Mapping[int, str]


def freed_by(records: Transaction, nodes: Nodes, refs: Iterable[object], page_size: int) -> Freed:
    """Find what deleting would free, without doing it; pins are taken to be gone."""
    ignored: set[bytes] = set()
    asked = {_forget(records, ref, ignored) for ref in refs}
    going, slots = would_free(records, nodes, set(asked), ignored)
    staying: dict[int, str] = {
        v: _why(records, v, ignored) for v in sorted(asked) if v not in going
    }
    return Freed(tuple(going), len(slots) * page_size, MappingProxyType(staying))


def _forget(records: Transaction, ref: object, ignored: set[bytes]) -> VersionId:
    """Add what keeps a version to `ignored`: one name, or for an id all names and the mark."""
    if isinstance(ref, str) and ref:
        for kind in (SNAPSHOT, BRANCH):
            found = records.name(kind, ref)
            if found is not None:
                ignored.add(named_key(found.version, kind, ref))
                return found.version
    version = records.resolve(ref).id
    ignored.add(number_key(VERSION, version))
    ignored |= {named_key(version, kind, name) for kind, name in records.names_of(version)}
    return version


def _why(records: Transaction, version: VersionId, ignored: Collection[bytes]) -> str:
    """What keeps a version that stays."""
    names = [
        name
        for kind, name in records.names_of(version)
        if named_key(version, kind, name) not in ignored
    ]
    if names:
        return f"named {', '.join(names)}"
    if records.version(version).keep and number_key(VERSION, version) not in ignored:
        return 'kept by history="all" until it expires'
    return f"versions {', '.join(map(str, records.children(version)))} come from it"
