"""Nodes of page tables: decoded, checked, cached, and seen through one transaction."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from pagestore.bounds import check_extents, check_refs
from pagestore.errors import CorruptionError
from pagestore.format import (
    NODE,
    Extents,
    IntArray,
    NodeId,
    NodeRef,
    Records,
    number_key,
    pack_branch,
    pack_leaf,
    pack_run,
    unpack_branch,
    unpack_leaf,
    unpack_run,
)
from pagestore.pagetable.painted import DenseLeaves, Painted
from pagestore.pagetable.stack import Single, expand, resolve

CACHED_EXTENTS = 1 << 21
WORTH_PAINTING = 256  # extents


class Leaf(NamedTuple):
    """A decoded leaf: newest extents, then references to older runs, newest first."""

    inline: Extents
    runs: np.ndarray[Any, Any]  # of RUN_REF


class NodeCache:
    """Decoded leaves and runs, least recently used out first.

    Keys are a node id and the catalog's count of moves: compaction is the one thing that rewrites
    a node, and a thread may still read what another has moved since.
    """

    def __init__(self) -> None:
        self._nodes: OrderedDict[tuple[int, int], Leaf | Extents] = OrderedDict()
        self._weight = 0
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int]) -> Leaf | Extents | None:
        with self._lock:
            found = self._nodes.get(key)
            if found is not None:
                self._nodes.move_to_end(key)
            return found

    def put(self, key: tuple[int, int], value: Leaf | Extents) -> None:
        with self._lock:
            if key in self._nodes:
                return
            self._nodes[key] = value
            self._weight += _weight(value)
            while self._weight > CACHED_EXTENTS:
                self._weight -= _weight(self._nodes.popitem(last=False)[1])


def _weight(value: Leaf | Extents) -> int:
    return 64 + (len(value) if isinstance(value, Extents) else len(value.inline))


class Nodes:
    """Page-table nodes seen through one transaction."""

    def __init__(
        self,
        records: Records,
        cache: NodeCache,
        moves: int,
        new_id: Callable[[], NodeId] | None = None,
        dense: DenseLeaves | None = None,
    ) -> None:
        self.records = records
        self.cache = cache
        self.moves = moves
        self.new_id = new_id  # None: read-only
        self.dense = dense
        self._replaced: dict[int, tuple[int, Single]] = {}
        self._fresh: dict[int, Leaf | Extents] = {}

    def leaf(self, node: int) -> Leaf:
        found = self._decoded(node, _leaf)
        if not isinstance(found, Leaf):
            raise CorruptionError(f"page-table node {node} is not a leaf")
        return found

    def run(self, node: int) -> Extents:
        found = self._decoded(node, _run)
        if not isinstance(found, Extents):
            raise CorruptionError(f"page-table node {node} is not a run")
        return found

    def branch(self, node: int) -> np.ndarray[Any, Any]:
        return unpack_branch(self._raw(node))

    def write(self, value: Leaf | Extents | np.ndarray[Any, Any]) -> NodeId:
        assert self.new_id is not None
        node = self.new_id()
        self.replace(node, value)
        if not isinstance(value, np.ndarray):
            self._fresh[node] = value
        return node

    def replace(self, node: int, value: Leaf | Extents | np.ndarray[Any, Any]) -> None:
        """Store a node under its id; for compaction, which moves pages under their nodes."""
        if isinstance(value, Leaf):
            raw = pack_leaf(value.inline, value.runs)
        elif isinstance(value, Extents):
            raw = pack_run(value)
        else:
            raw = pack_branch(value)
        self.records.put(number_key(NODE, node), raw)

    def committed(self) -> None:
        """Share the nodes that this transaction wrote, now that they are durable."""
        for node, value in self._fresh.items():
            self.cache.put((self.moves, node), value)
        if self.dense is not None:
            for new, (old, top) in self._replaced.items():
                self.dense.replaced((self.moves, old), (self.moves, new), top)

    def replaced(self, old: int, new: int, extents: Extents) -> None:
        """Note that a leaf took the place of another, with these extents on top."""
        self._replaced[new] = (old, expand(extents))

    def put_on_top(self, old: int, new: int) -> Single | None:
        """What a leaf of this transaction has on top of the one it replaced; None: not known."""
        made = self._replaced.get(new)
        return made[1] if made is not None and made[0] == old else None

    def locate(
        self, node: int, pages: IntArray, *, paint: bool = False
    ) -> tuple[IntArray, IntArray]:
        """Slot (0: zeros) and birth of some sorted pages of a leaf; `paint` it, if it is large."""
        painted = self.dense.get((self.moves, node)) if self.dense is not None else None
        if painted is None:
            stack = stack_of(self, node)
            dense, large = self.dense, sum(map(len, stack)) >= WORTH_PAINTING
            if dense is None or not (paint and large and dense.worth((self.moves, node))):
                return resolve(stack, pages)[:2]
            painted = Painted.of(stack)
            dense.put((self.moves, node), painted)
        return painted.at(pages)

    def _raw(self, node: int) -> memoryview:
        raw = self.records.view(number_key(NODE, node))
        if raw is None:
            raise CorruptionError(f"page-table node {node} is missing from the catalog")
        return raw

    def _decoded(self, node: int, decode: Callable[[memoryview], Leaf | Extents]) -> Leaf | Extents:
        found = self._fresh.get(node)
        if found is None:
            found = self.cache.get((self.moves, node))
        if found is None:
            found = decode(self._raw(node))
            self.cache.put((self.moves, node), found)
        return found


def _leaf(raw: memoryview) -> Leaf:
    inline, runs = unpack_leaf(raw)
    check_refs(runs["node"], "leaf")
    return Leaf(check_extents(inline), runs)


def _run(raw: memoryview) -> Extents:
    return check_extents(unpack_run(raw))


class Once:
    """The nodes that a walk of one table has met (T5)."""

    def __init__(self) -> None:
        self._met: set[int] = set()

    def meet(self, nodes: Iterable[int]) -> None:
        for node in nodes:
            if node in self._met:
                raise CorruptionError(f"page-table node {node} stands in two places (T5)")
            self._met.add(node)


def stack_of(nodes: Nodes, node: int) -> list[Extents]:
    leaf = nodes.leaf(node)
    return [leaf.inline, *(nodes.run(int(n)) for n in leaf.runs["node"])]


def refs_in(array: np.ndarray[Any, Any]) -> Iterator[NodeRef]:
    for node, birth in zip(array["node"].tolist(), array["birth"].tolist(), strict=True):
        if node:
            yield NodeRef(node, birth)
