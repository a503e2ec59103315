"""What a store must hold: which versions, with which bytes, under which names.

A workload says after each step that is acknowledged what the store must now hold (`Known`). After
a crash the store must hold what was said last, or what would have been said next: nothing between.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xxhash
from attrs import define, field, frozen

import pagestore

Contents = Mapping[str, np.ndarray[Any, Any]]


def digest(contents: Contents) -> str:
    """Equal for the same regions with the same dtypes, shapes and bytes."""
    h = xxhash.xxh3_128()
    for name in sorted(contents):
        array = contents[name]
        h.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode())
        h.update(np.ascontiguousarray(array).view(np.uint8).data)
    return h.hexdigest()


@frozen
class Known:
    """What a store holds.

    Attributes
    ----------
    names : dict
        Snapshot or branch, with its kind before it -> version id.
    versions : dict
        Id of each kept version -> digest of its contents.
    """

    names: dict[str, int]
    versions: dict[int, str]

    def dump(self) -> str:
        return json.dumps([self.names, list(self.versions.items())])

    @classmethod
    def parse(cls, text: str) -> Known | None:
        values = json.loads(text)
        return None if values is None else cls(values[0], dict(values[1]))


NO_STORE = "null"


def outline(store: pagestore.Store) -> tuple[dict[str, int], dict[int, pagestore.Version]]:
    """Names, and every version that can be reached; no contents are read."""
    names: dict[str, int] = {}
    versions: dict[int, pagestore.Version] = {}
    for kind, named in (("snapshot", store.snapshots), ("branch", store.branches)):
        for name, version in named.items():
            names[f"{kind} {name}"] = version.id
            while version.id not in versions:
                versions[version.id] = version
                if not version.parent:
                    break
                version = store.version(version.parent)
    return names, versions


def survey(store: pagestore.Store) -> Known:
    """What a store says that it holds: every byte of every version is read."""
    names, versions = outline(store)
    contents: dict[int, str] = {}
    for version in versions:
        with store.view(version) as view:
            contents[version] = digest(view)
    return Known(names, contents)


def difference(found: Known, wanted: Known, before: Mapping[int, str]) -> str | None:
    """In which way a store is not what it must be; None where it is.

    Versions that nothing keeps may still be there, since somebody had looked at them when they were
    to be dropped; then they are what they were (`before`).
    """
    if found.names != wanted.names:
        return f"names are {found.names}, not {wanted.names}"
    for version, content in found.versions.items():
        if content != wanted.versions.get(version, before.get(version)):
            return f"version {version} is not what was committed"
    missing = wanted.versions.keys() - found.versions.keys()
    return f"versions {sorted(missing)} are missing" if missing else None


@define
class Ledger:
    """The model: what was committed, as plain arrays, and which versions are to be kept (I4)."""

    marked: set[int] = field(factory=set)  # kept by history="all"
    names: dict[str, int] = field(factory=dict)
    parents: dict[int, int] = field(factory=dict)
    contents: dict[int, Contents] = field(factory=dict)
    _digests: dict[int, str] = field(factory=dict)

    def begin(self, root: int) -> None:
        """A new store: its first version is empty."""
        self.names, self.parents, self.contents = {"branch main": root}, {root: 0}, {root: {}}

    def committed(self, branch: str, version: int, contents: Contents) -> None:
        if version == self.names[f"branch {branch}"]:
            return
        self.parents[version] = self.names[f"branch {branch}"]
        self.contents[version] = {name: array.copy() for name, array in contents.items()}
        self.names[f"branch {branch}"] = version
        self.drop()

    def drop(self) -> None:
        """Forget what nothing keeps."""
        while True:
            children = list(self.parents.values())
            named = set(self.names.values())
            kept = named | self.marked
            loose = [v for v in self.parents if v not in kept and children.count(v) < 2]
            if not loose:
                return
            gone = loose[0]
            parent = self.parents.pop(gone)
            del self.contents[gone]
            self.parents = {v: parent if p == gone else p for v, p in self.parents.items()}

    def known(self) -> Known:
        for version in self.contents.keys() - self._digests.keys():
            self._digests[version] = digest(self.contents[version])
        return Known(dict(self.names), {v: self._digests[v] for v in self.contents})
