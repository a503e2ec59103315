"""The page table: a persistent radix tree from page number to slot, over a transaction's records.

Owns: looking up, flattening, changing and comparing tables. Does not know what a version, a name
or a transaction is; the catalog's record for a region holds the root.

A *branch* has 64 children. A *leaf* spans 2**18 pages and is a small log-structured stack: the
newest extents inline, then references to older *runs* of extents, each shared between all the
versions that have it. A commit adds its pages on top and merges runs of similar size, so it
writes what changed (times a logarithm) in one or two records, where copying a path of plain radix
nodes for each page dirtied a scattered catalog page for each (docs/decisions/001).

- T1  Nodes are immutable: a new version writes new nodes and shares the rest.
- T2  Extents of one run are sorted by page and disjoint; the newest run that has a page wins.
- T3  An extent carries the version that wrote it (its birth), however often it is merged.
- T4  An extent at slot 0 says that its pages are zeros; the oldest run of a leaf needs none.
- T5  A node stands in one place of a table. A walk that meets one again stops: it would not end.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from pagestore.bounds import check_extents, check_refs
from pagestore.errors import CorruptionError
from pagestore.format import (
    BRANCH_REF,
    FAN,
    FAN_BITS,
    LEAF_BITS,
    LEAF_SPAN,
    NO_VERSION,
    NODE,
    RUN_REF,
    Extents,
    IntArray,
    NodeId,
    NodeRef,
    Records,
    Table,
    VersionId,
    number_key,
    pack_branch,
    pack_leaf,
    pack_run,
    sorted_unique,
    unpack_branch,
    unpack_leaf,
    unpack_run,
)

INLINE_MAX = 96  # extents in a leaf itself: 1.5 KiB, under LMDB's limit for a small value
MERGE_RATIO = 2  # a run is merged while it is at most this many times the size of what is new
CACHED_EXTENTS = 1 << 21
WORTH_PAINTING = 256  # extents
WORTH_COMPARING = 1 << 14  # extents
DENSE_PAGES = 1 << 22  # in all painted leaves together: 64 MiB of memory
DENSE = 1 << 13  # extents: from here on a leaf's pages are painted one by one


Single = tuple[IntArray, IntArray, IntArray]
"""Page, slot and birth of single pages, sorted by page."""


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


class DenseLeaves:
    """Leaves painted page by page, for whoever commits to them again and again.

    Only for write transactions, of which there is one at a time: a commit repaints in place.
    """

    def __init__(self) -> None:
        self._leaves: OrderedDict[tuple[int, int], Painted] = OrderedDict()

    def get(self, key: tuple[int, int]) -> Painted | None:
        found = self._leaves.get(key)
        if found is not None:
            self._leaves.move_to_end(key)
        return found

    def put(self, key: tuple[int, int], painted: Painted) -> None:
        self._leaves[key] = painted
        while sum(len(p.slot) for p in self._leaves.values()) > DENSE_PAGES:
            self._leaves.popitem(last=False)

    def repaint(self, old: tuple[int, int], new: tuple[int, int], top: Single) -> None:
        """Let what was painted for a leaf show the one that replaced it."""
        painted = self._leaves.pop(old, None)
        if painted is not None:
            self.put(new, painted.with_pages(*top))


class Painted(NamedTuple):
    """Slot (-1: never written, 0: zeros) and birth of every page from a leaf's first on."""

    slot: IntArray
    birth: IntArray

    @classmethod
    def of(cls, stack: Sequence[Extents]) -> Painted:
        """Paint runs, newest first, over each other."""
        end = max((int(run.page[-1] + run.length[-1]) for run in stack if len(run)), default=0)
        painted = cls(np.full(end, -1, np.int64), np.zeros(end, np.int64))
        for run in reversed(stack):
            painted = painted.over(run)
        return painted

    def over(self, run: Extents) -> Painted:
        """Paint one more run; in place where it fits."""
        return self.with_pages(*expand(run)) if len(run) else self

    def with_pages(self, pages: IntArray, slots: IntArray, births: IntArray) -> Painted:
        """Paint some sorted pages, at least one; in place where it fits."""
        short = int(pages[-1]) + 1 - len(self.slot)
        painted = self
        if short > 0:
            painted = Painted(
                np.concatenate((self.slot, np.full(short, -1, np.int64))),
                np.concatenate((self.birth, np.zeros(short, np.int64))),
            )
        painted.slot[pages], painted.birth[pages] = slots, births
        return painted

    def at(self, pages: IntArray) -> tuple[IntArray, IntArray]:
        """Slot (0: zeros) and birth of some pages."""
        if not len(self.slot):
            return np.zeros(len(pages), np.int64), np.zeros(len(pages), np.int64)
        inside = np.minimum(pages, len(self.slot) - 1)
        slot = np.where(pages < len(self.slot), np.maximum(self.slot[inside], 0), 0)
        return slot, np.where(pages < len(self.slot), self.birth[inside], 0)


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
                self.dense.repaint((self.moves, old), (self.moves, new), top)

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
            # a leaf of this transaction has what is asked of it on top: no need to paint it
            worth = paint and node not in self._fresh and sum(map(len, stack)) >= WORTH_PAINTING
            if self.dense is None or not worth:
                return resolve(stack, pages)[:2]
            painted = Painted.of(stack)
            self.dense.put((self.moves, node), painted)
        return painted.at(pages)

    def _raw(self, node: int) -> bytes:
        raw = self.records.get(number_key(NODE, node))
        if raw is None:
            raise CorruptionError(f"page-table node {node} is missing from the catalog")
        return raw

    def _decoded(self, node: int, decode: Callable[[bytes], Leaf | Extents]) -> Leaf | Extents:
        found = self._fresh.get(node)
        if found is None:
            found = self.cache.get((self.moves, node))
        if found is None:
            found = decode(self._raw(node))
            self.cache.put((self.moves, node), found)
        return found


def _leaf(raw: bytes) -> Leaf:
    inline, runs = unpack_leaf(raw)
    check_refs(runs["node"], "leaf")
    return Leaf(check_extents(inline), runs)


def _run(raw: bytes) -> Extents:
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


# --------------------------------------------------------------------------- stacks of extents


def flatten(stack: Sequence[Extents], *, keep_zeros: bool = False) -> Extents:
    """Overlay runs, newest first, into one that is sorted, disjoint and joined up.

    Costs a sort of the extents involved, not of the pages they cover.
    """
    stack = [run for run in stack if len(run)]
    if sum(map(len, stack)) > DENSE and len(stack) > 1:
        return _flatten_dense(stack, keep_zeros=keep_zeros)
    flat = stack[0] if stack else Extents.empty()
    if len(stack) == 2:
        over = _over(*stack)
        if over is not None:
            flat, stack = over, []
    if len(stack) <= 1:
        zero = flat.slot == 0
        return flat if keep_zeros or not zero.any() else flat.take(~zero)
    edges = _edges(stack)
    start, length = edges[:-1], np.diff(edges)
    slot, birth, known = resolve(stack, start)
    use = known if keep_zeros else known & (slot != 0)
    return join_up(Extents(start[use], length[use], slot[use], birth[use]))


def _over(top: Extents, low: Extents) -> Extents | None:
    """Two runs, none of whose births both have, in one; None where `top` cuts an extent of `low`.

    No extent then continues another: neither is there anything to join.
    """
    end = low.page + low.length
    first = (top.page + top.length).searchsorted(low.page, "right")
    covered = top.page.searchsorted(end, "left") > first
    cut = covered & (low.length > 1)
    if cut.any() or top.birth.min() <= low.birth.max():
        return None
    if covered.any():
        low = low.take(~covered)
    both = Extents.join((top, low))
    return both.take(both.page.argsort(kind="stable"))


def _flatten_dense(stack: Sequence[Extents], *, keep_zeros: bool) -> Extents:
    """Overlay many extents by painting on every page which one it has: faster than sorting once
    most are short. Small numbers, since what costs is memory that is touched for the first time.
    """
    every = Extents.join(stack)
    ends = [int(run.page[-1] + run.length[-1]) for run in stack]
    owner = np.full(max(ends) + 2, -1, np.int32)  # of page - 1: none at either end
    first = len(every)
    for run in reversed(stack):
        first -= len(run)
        index = np.arange(first, first + len(run), dtype=np.int32)
        offset = run.page - (np.cumsum(run.length) - run.length) + 1
        page = np.repeat(offset.astype(np.int32), run.length)
        page += np.arange(len(page), dtype=np.int32)
        owner[page] = np.repeat(index, run.length)
    edge = np.flatnonzero(owner[1:] != owner[:-1])
    who, start, length = owner[edge[:-1] + 1], edge[:-1], np.diff(edge)
    known = who >= 0
    who, start, length = who[known], start[known], length[known]
    slot = every.slot[who]
    stored = slot != 0
    slot = np.where(stored, slot + (start - every.page[who]), 0)
    flat = Extents(start, length, slot, every.birth[who])
    return join_up(flat if keep_zeros or stored.all() else flat.take(stored))


def resolve(stack: Sequence[Extents], pages: IntArray) -> tuple[IntArray, IntArray, Any]:
    """Slot and birth of each page, and which pages any run of the stack has."""
    slot = np.zeros(len(pages), np.int64)
    birth = np.zeros(len(pages), np.int64)
    known = np.zeros(len(pages), np.bool_)
    todo = np.arange(len(pages))
    for run in stack:
        if not len(run):
            continue
        at = np.searchsorted(run.page, pages[todo], "right") - 1
        inside = pages[todo] - run.page[at]
        hit = (at >= 0) & (inside < run.length[at])
        where, at, inside = todo[hit], at[hit], inside[hit]
        first = run.slot[at]
        slot[where] = np.where(first != 0, first + inside, 0)
        birth[where] = run.birth[at]
        known[where] = True
        todo = todo[~hit]
        if not len(todo):
            break
    return slot, birth, known


def join_up(e: Extents) -> Extents:
    """Join neighbours that continue each other in pages, slots and birth."""
    if len(e) < 2:
        return e
    end, zero = e.page + e.length, e.slot == 0
    follows = (end[:-1] == e.page[1:]) & (e.birth[:-1] == e.birth[1:])
    follows &= np.where(
        zero[:-1], zero[1:], ~zero[1:] & (e.slot[:-1] + e.length[:-1] == e.slot[1:])
    )
    if not follows.any():
        return e
    heads = np.flatnonzero(np.concatenate(([True], ~follows)))
    last = np.concatenate((heads[1:], [len(e)])) - 1
    return Extents(e.page[heads], end[last] - e.page[heads], e.slot[heads], e.birth[heads])


def singles(pages: IntArray, slots: IntArray, birth: int) -> Extents:
    """Extents for pages written one by one; `pages` sorted."""
    one = np.ones(len(pages), np.int64)
    return join_up(Extents(pages, one, slots, np.full(len(pages), birth, np.int64)))


def expand(e: Extents) -> Single:
    """Page, slot and birth of every single page of some extents."""
    count = int(e.length.sum())
    if count == len(e):
        return e.page, e.slot, e.birth
    within = np.arange(count) - np.repeat(np.cumsum(e.length) - e.length, e.length)
    first = np.repeat(e.slot, e.length)
    slot = np.where(first != 0, first + within, 0)
    return np.repeat(e.page, e.length) + within, slot, np.repeat(e.birth, e.length)


# ------------------------------------------------------------------------------------- reading


def span(table: Table) -> int:
    """How many pages the table can hold without growing a level."""
    return LEAF_SPAN << (FAN_BITS * table.height)


def leaves(nodes: Nodes, table: Table, wanted: IntArray | None = None) -> Iterator[tuple[int, int]]:
    """First page and node id of each leaf that exists; only those numbered in `wanted`."""
    if table.root is not None:
        yield from _leaves(nodes, table.root.node, table.height, 0, wanted, Once())


def _leaves(
    nodes: Nodes, node: int, height: int, index: int, wanted: IntArray | None, once: Once
) -> Iterator[tuple[int, int]]:
    once.meet((node,))
    if height == 0:
        if wanted is None:
            once.meet(nodes.leaf(node).runs["node"].tolist())
        yield index << LEAF_BITS, node
        return
    children = nodes.branch(node)["node"]
    shift = FAN_BITS * (height - 1)
    present = np.flatnonzero(children)
    if wanted is not None:
        present = np.intersect1d(present, (wanted >> shift) - (index << FAN_BITS))
    for child in present.tolist():
        below = (index << FAN_BITS) + child
        part = wanted if wanted is None else wanted[(wanted >> shift) == below]
        yield from _leaves(nodes, int(children[child]), height - 1, below, part, once)


def stack_of(nodes: Nodes, node: int) -> list[Extents]:
    leaf = nodes.leaf(node)
    return [leaf.inline, *(nodes.run(int(n)) for n in leaf.runs["node"])]


def extents(nodes: Nodes, table: Table) -> Extents:
    """Every page of the table that has a slot, as sorted extents."""
    parts = []
    for base, node in leaves(nodes, table):
        flat = flatten(stack_of(nodes, node))
        parts.append(Extents(flat.page + base, flat.length, flat.slot, flat.birth))
    return parts[0] if len(parts) == 1 else Extents.join(parts)


def lookup(nodes: Nodes, table: Table, pages: IntArray) -> tuple[IntArray, IntArray]:
    """Slot (0: zeros) and birth of each of some sorted pages."""
    slot = np.zeros(len(pages), np.int64)
    birth = np.zeros(len(pages), np.int64)
    if table.root is None or not len(pages):
        return slot, birth
    if table.height == 0:
        return nodes.locate(table.root.node, pages, paint=True)
    for base, node in leaves(nodes, table, sorted_unique(pages >> LEAF_BITS)):
        a, b = np.searchsorted(pages, (base, base + LEAF_SPAN))
        slot[a:b], birth[a:b] = nodes.locate(node, pages[a:b] - base, paint=True)
    return slot, birth


def walk(nodes: Nodes, table: Table) -> Iterator[NodeRef]:
    """Every node of the table, the root first."""
    if table.root is not None:
        yield from _walk(nodes, table.root, table.height)


def _walk(nodes: Nodes, ref: NodeRef, height: int) -> Iterator[NodeRef]:
    yield ref
    if height:
        for child in _refs(nodes.branch(ref.node)):
            yield from _walk(nodes, child, height - 1)
    else:
        yield from _refs(nodes.leaf(ref.node).runs)


def _refs(array: np.ndarray[Any, Any]) -> Iterator[NodeRef]:
    for node, birth in zip(array["node"].tolist(), array["birth"].tolist(), strict=True):
        if node:
            yield NodeRef(node, birth)


# ------------------------------------------------------------------------------------ changing


def update(nodes: Nodes, table: Table, new: Extents, version: VersionId) -> Table:
    """Return a table in which the pages of `new` (sorted, born in `version`) lie where it says."""
    if not len(new):
        return table
    last, top = int(new.page[-1] + new.length[-1]), table
    while span(top) < last:
        top = Table(None, top.height + 1)
    if table.root is None or top.height == table.height:
        return Table(_update(nodes, table.root, top.height, 0, new, version), top.height)
    part = clip(new, 0, span(table))
    low = _update(nodes, table.root, table.height, 0, part, version) if len(part) else table.root
    return _grow(nodes, Table(low, table.height), clip(new, span(table), last), version)


def _grow(nodes: Nodes, table: Table, new: Extents, version: VersionId) -> Table:
    """Put levels on top, each node written once, until the pages of `new` have room."""
    assert table.root is not None
    while len(new):
        children = np.zeros(FAN, BRANCH_REF)
        children[0] = (table.root.node, table.root.birth)
        height, size = table.height, LEAF_BITS + FAN_BITS * table.height
        for i in range(1, FAN):
            part = clip(new, i << size, (i + 1) << size)
            if len(part):
                child = _update(nodes, None, height, i, part, version)
                children[i] = (child.node, child.birth)
        table = Table(NodeRef(nodes.write(children), version), height + 1)
        new = clip(new, FAN << size, int(new.page[-1] + new.length[-1]))
    return table


def _update(
    nodes: Nodes, ref: NodeRef | None, height: int, index: int, new: Extents, version: VersionId
) -> NodeRef:
    if height == 0:
        base = index << LEAF_BITS
        new = Extents(new.page - base, new.length, new.slot, new.birth)
        old = nodes.leaf(ref.node) if ref else Leaf(Extents.empty(), np.empty(0, RUN_REF))
        node = nodes.write(_push(nodes, old, new, version))
        if ref:
            nodes.replaced(ref.node, node, new)
        return NodeRef(node, version)
    children = nodes.branch(ref.node).copy() if ref else np.zeros(FAN, BRANCH_REF)
    size = LEAF_BITS + FAN_BITS * (height - 1)
    for below in _crossed(new, size):
        part = clip(new, below << size, (below + 1) << size)
        node, birth = children[below - (index << FAN_BITS)].tolist()
        old_child = NodeRef(node, birth) if node else None
        child = _update(nodes, old_child, height - 1, below, part, version)
        children[below - (index << FAN_BITS)] = (child.node, child.birth)
    return NodeRef(nodes.write(children), version)


def _crossed(e: Extents, size: int) -> list[int]:
    """Numbers of the pieces of 2**size pages in which some page of `e` lies."""
    first, last = e.page >> size, (e.page + e.length - 1) >> size
    count = last - first + 1
    within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    crossed: list[int] = sorted_unique(np.repeat(first, count) + within).tolist()
    return crossed


def clip(e: Extents, start: int, stop: int) -> Extents:
    """The part of sorted extents that lies in [start, stop)."""
    a = int(np.searchsorted(e.page + e.length, start, "right"))
    b = int(np.searchsorted(e.page, stop, "left"))
    e = e.take(slice(a, b))
    skip = np.maximum(start - e.page, 0)
    over = np.maximum(e.page + e.length - stop, 0)
    slot = np.where(e.slot != 0, e.slot + skip, 0)
    return Extents(e.page + skip, e.length - skip - over, slot, e.birth)


def _push(nodes: Nodes, leaf: Leaf, new: Extents, version: VersionId) -> Leaf:
    """Put extents on top of a leaf's stack, and merge what has become of similar size."""
    runs = leaf.runs
    top = flatten([new, leaf.inline], keep_zeros=len(runs) > 0)
    if len(top) <= INLINE_MAX:
        return Leaf(top, runs)
    merged, weight = [top], len(top)
    while len(runs) and int(runs[0]["count"]) <= MERGE_RATIO * weight:
        merged.append(nodes.run(int(runs[0]["node"])))
        weight += int(runs[0]["count"])
        runs = runs[1:]
    top = flatten(merged, keep_zeros=len(runs) > 0)
    if not len(top):
        return Leaf(top, runs)
    ref = np.array([(nodes.write(top), version, len(top))], RUN_REF)
    return Leaf(Extents.empty(), np.concatenate((ref, runs)))


def truncate(nodes: Nodes, table: Table, pages: int, version: VersionId) -> Table:
    """Return a table in which every page from number `pages` on is zeros."""
    if table.root is None or pages >= span(table):
        return table
    if pages == 0:
        return Table(None, table.height)
    root = _truncate(nodes, table.root, table.height, 0, pages, version)
    return Table(root, table.height)


def _truncate(
    nodes: Nodes, ref: NodeRef, height: int, index: int, pages: int, version: VersionId
) -> NodeRef:
    if height == 0:
        first = pages - (index << LEAF_BITS)
        column = (np.array([v], np.int64) for v in (first, LEAF_SPAN - first, 0, version))
        return NodeRef(
            nodes.write(_push(nodes, nodes.leaf(ref.node), Extents(*column), version)), version
        )
    children = nodes.branch(ref.node).copy()
    size = LEAF_BITS + FAN_BITS * (height - 1)
    edge = (pages >> size) - (index << FAN_BITS)
    children[edge + 1 :] = (0, 0)
    node, birth = children[edge].tolist()
    if node and pages & ((1 << size) - 1) == 0:
        children[edge] = (0, 0)
    elif node:
        child = _truncate(
            nodes, NodeRef(node, birth), height - 1, (index << FAN_BITS) + edge, pages, version
        )
        children[edge] = (child.node, child.birth)
    return NodeRef(nodes.write(children), version)


# ----------------------------------------------------------------------------------- comparing


class Difference:
    """Pages that two tables place differently: columns of int64, sorted by page."""

    __slots__ = ("length", "new_birth", "new_slot", "old_birth", "old_slot", "page")

    def __init__(
        self,
        page: IntArray,
        length: IntArray,
        old_slot: IntArray,
        old_birth: IntArray,
        new_slot: IntArray,
        new_birth: IntArray,
    ) -> None:
        self.page = page
        self.length = length
        self.old_slot = old_slot
        self.old_birth = old_birth
        self.new_slot = new_slot
        self.new_birth = new_birth

    def __len__(self) -> int:
        return len(self.page)

    def olds(self) -> Extents:
        return Extents(self.page, self.length, self.old_slot, self.old_birth)

    def news(self) -> Extents:
        return Extents(self.page, self.length, self.new_slot, self.new_birth)

    def take(self, index: Any) -> Difference:
        columns = (self.page, self.length, self.old_slot, self.old_birth)
        news = (self.new_slot, self.new_birth)
        return Difference(*(c[index] for c in columns + news))


class _Side(NamedTuple):
    """A subtree of one of the tables that are compared; it may be lower than its place."""

    node: int
    birth: int
    height: int
    once: Once  # of its whole table


def differences(
    nodes: Nodes, old: Table, new: Table, floor: int = NO_VERSION
) -> Iterator[Difference]:
    """What `new` places differently from `old`; skips every subtree and run that they share.

    With `floor`, what `old` has from that version or before is taken as shared: passed over.
    """
    level = max(old.height, new.height)
    yield from _differences(nodes, _side(old), _side(new), level, 0, floor)


def _side(table: Table) -> _Side | None:
    root = table.root
    return None if root is None else _Side(root.node, root.birth, table.height, Once())


def _differences(
    nodes: Nodes, old: _Side | None, new: _Side | None, level: int, index: int, floor: int
) -> Iterator[Difference]:
    if (old and new and old.node == new.node) or not (old or new):
        return
    if floor and (old is None or old.birth <= floor):
        return
    if level:
        olds, news = _children(nodes, old, level), _children(nodes, new, level)
        for child in sorted(olds.keys() | news.keys()):
            below = (index << FAN_BITS) + child
            yield from _differences(
                nodes, olds.get(child), news.get(child), level - 1, below, floor
            )
        return
    found = _leaf_difference(nodes, old, new, floor)
    if len(found):
        yield Difference(
            found.page + (index << LEAF_BITS), found.length, found.old_slot, found.old_birth,
            found.new_slot, found.new_birth,
        )  # fmt: skip


def _children(nodes: Nodes, side: _Side | None, level: int) -> dict[int, _Side]:
    if side is None:
        return {}
    if side.height < level:
        return {0: side}
    children = nodes.branch(side.node)
    present = np.flatnonzero(children["node"])
    side.once.meet(children["node"][present].tolist())
    return {
        i: _Side(int(children["node"][i]), int(children["birth"][i]), level - 1, side.once)
        for i in present.tolist()
    }


def _leaf_difference(nodes: Nodes, old: _Side | None, new: _Side | None, floor: int) -> Difference:
    if old and new and (top := _on_top(nodes, old, new, floor)) is not None:
        start, new_slot, new_birth = top
        length = np.ones(len(start), np.int64)
        old_slot, old_birth = nodes.locate(old.node, start)
    else:
        for side in filter(None, (old, new)):
            side.once.meet(nodes.leaf(side.node).runs["node"].tolist())
        cover = _one_sided(nodes, old, new)
        if sum(map(len, cover)) > WORTH_COMPARING:
            return _painted_difference(nodes, old, new, floor)
        stack = [run for side in (old, new) for run in _runs(nodes, side).values()]
        start, length = _cut(cover, stack)
        old_slot, old_birth = _located(nodes, old, start)
        new_slot, new_birth = _located(nodes, new, start)
    keep = old_slot != new_slot
    if floor:
        keep &= old_birth > floor
    return Difference(start, length, old_slot, old_birth, new_slot, new_birth).take(keep)


def _on_top(nodes: Nodes, old: _Side, new: _Side, floor: int) -> Single | None:
    """Every page in which a leaf differs from another, where that is told without comparing.

    With `floor` the new one comes from the old one. As long as they share a run, what was changed,
    to zeros too, lies above it, and has a later birth than the old leaf.
    """
    top = nodes.put_on_top(old.node, new.node)
    if top is not None or not floor:
        return top
    leaf, shared = nodes.leaf(new.node), set(nodes.leaf(old.node).runs["node"].tolist())
    stack = [leaf.inline]
    for node in leaf.runs["node"].tolist():
        if node in shared:
            flat = flatten(stack, keep_zeros=True)
            return expand(flat.take(flat.birth > old.birth))
        stack.append(nodes.run(node))
    return None


def _painted_difference(
    nodes: Nodes, old: _Side | None, new: _Side | None, floor: int
) -> Difference:
    """Compare two leaves page by page: faster than piece by piece once most pieces are short."""
    a, b = (Painted.of(list(_runs(nodes, side).values())) for side in (old, new))
    size = min(len(a.slot), len(b.slot))
    longer = a if len(a.slot) > size else b
    differ = np.flatnonzero(a.slot[:size] != b.slot[:size])
    pages = np.concatenate((differ, np.arange(size, len(longer.slot))))
    (old_slot, old_birth), (new_slot, new_birth) = a.at(pages), b.at(pages)
    keep = old_slot != new_slot
    if floor:
        keep &= old_birth > floor
    one = np.ones(len(pages), np.int64)
    return Difference(pages, one, old_slot, old_birth, new_slot, new_birth).take(keep)


def _one_sided(nodes: Nodes, old: _Side | None, new: _Side | None) -> list[Extents]:
    """Runs that only one of two leaves has: a page that differs lies in one of them."""
    a, b = _runs(nodes, old), _runs(nodes, new)
    cover = [run for key, run in a.items() if key not in b]
    return cover + [run for key, run in b.items() if key not in a]


def _located(nodes: Nodes, side: _Side | None, pages: IntArray) -> tuple[IntArray, IntArray]:
    if side is None:
        return np.zeros(len(pages), np.int64), np.zeros(len(pages), np.int64)
    return nodes.locate(side.node, pages)


def _runs(nodes: Nodes, side: _Side | None) -> dict[int, Extents]:
    """Runs of a leaf by node id, newest first; the inline one under the leaf's own id."""
    if side is None:
        return {}
    leaf = nodes.leaf(side.node)
    runs = {side.node: leaf.inline}
    for node in leaf.runs["node"].tolist():
        runs[node] = nodes.run(node)
    return runs


def _cut(cover: Sequence[Extents], stack: Sequence[Extents]) -> tuple[IntArray, IntArray]:
    """Cut what `cover` covers into pieces within which every run of `stack` is linear."""
    edges = _edges(cover)
    covered = resolve(cover, edges[:-1])[2]
    start, stop = edges[:-1][covered], edges[1:][covered]
    long = stop - start > 1
    if long.any():
        # runs that are shared have edges of their own inside long pieces; one page has none
        extra = _edges_within(stack, start[long], stop[long])
        start = np.sort(np.concatenate((start, extra)))
        stop = np.sort(np.concatenate((stop, extra)))
    return start, stop - start


def _edges_within(stack: Sequence[Extents], start: IntArray, stop: IntArray) -> IntArray:
    """Edges of runs strictly inside disjoint, sorted pieces; costs what lies in the pieces."""
    found = []
    for run in stack:
        first = np.maximum(np.searchsorted(run.page, start, "right") - 1, 0)
        count = np.searchsorted(run.page, stop, "left") - first
        within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        index = np.repeat(first, count) + within
        found += [run.page[index], run.page[index] + run.length[index]]
    edges = sorted_unique(np.concatenate(found))
    at = np.searchsorted(start, edges, "right") - 1
    return edges[(at >= 0) & (edges > start[at]) & (edges < stop[at])]


def _edges(runs: Iterable[Extents]) -> IntArray:
    """Where extents begin and end: sorted, each once."""
    parts = [edge for run in runs for edge in (run.page, run.page + run.length)]
    return sorted_unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)


def newer(
    nodes: Nodes, table: Table, since: int, refs: list[NodeRef]
) -> Iterator[tuple[IntArray, IntArray]]:
    """Page and slot of what a table has from versions after `since`; its nodes go to `refs`."""
    if table.root is not None:
        yield from _newer(nodes, table.root, table.height, 0, since, refs, Once())


def _newer(
    nodes: Nodes, ref: NodeRef, height: int, index: int, since: int, refs: list[NodeRef], once: Once
) -> Iterator[tuple[IntArray, IntArray]]:
    if ref.birth <= since:
        return
    once.meet((ref.node,))
    refs.append(ref)
    if height:
        children = nodes.branch(ref.node)
        for i in np.flatnonzero(children["birth"] > since).tolist():
            below = (index << FAN_BITS) + i
            child = NodeRef(*children[i].tolist())
            yield from _newer(nodes, child, height - 1, below, since, refs, once)
        return
    leaf = nodes.leaf(ref.node)
    runs = [run for run in _refs(leaf.runs) if run.birth > since]  # on top of all older ones
    once.meet(run.node for run in runs)
    refs += runs
    flat = flatten([leaf.inline, *(nodes.run(run.node) for run in runs)], keep_zeros=True)
    page, slot, _ = expand(flat.take((flat.birth > since) & (flat.slot != 0)))
    yield page + (index << LEAF_BITS), slot


def exclusive(
    nodes: Nodes, table: Table, others: Sequence[Table], floor: VersionId
) -> Iterator[Extents]:
    """Extents of `table` born after `floor` that none of `others` has: what dropping it frees."""
    first = others[0] if others else Table()
    for found in differences(nodes, table, first, floor or -1):
        mine = found.olds().take((found.old_slot != 0) & (found.old_birth > floor))
        for other in others[1:]:
            mine = _not_in(nodes, mine, other)
        if len(mine):
            yield mine


def _not_in(nodes: Nodes, mine: Extents, other: Table) -> Extents:
    page, slot, birth = expand(mine)
    theirs, _ = lookup(nodes, other, page)
    left = slot != theirs
    one = np.ones(int(left.sum()), np.int64)
    return join_up(Extents(page[left], one, slot[left], birth[left]))


def exclusive_nodes(
    nodes: Nodes, table: Table, others: Sequence[Table], floor: int
) -> list[NodeRef]:
    """Nodes of `table` born after `floor` that none of `others` has."""
    level = max([table.height, *(o.height for o in others)])
    sides = [side for o in others if (side := _side(o))]
    found: list[NodeRef] = []
    _exclusive_nodes(nodes, _side(table), sides, level, floor, found)
    return found


def _exclusive_nodes(
    nodes: Nodes,
    side: _Side | None,
    others: Sequence[_Side],
    level: int,
    floor: int,
    found: list[NodeRef],
) -> None:
    if side is None or side.birth <= floor or any(o.node == side.node for o in others):
        return
    if level == 0:
        theirs = {n for o in others for n in nodes.leaf(o.node).runs["node"].tolist()}
        mine = [r for r in _refs(nodes.leaf(side.node).runs) if r.node not in theirs]
        side.once.meet(r.node for r in mine)
        found += [r for r in mine if r.birth > floor]
    else:
        families = [_children(nodes, o, level) for o in others]
        for i, child in _children(nodes, side, level).items():
            below = [family[i] for family in families if i in family]
            _exclusive_nodes(nodes, child, below, level - 1, floor, found)
    if side.height == level:
        found.append(NodeRef(NodeId(side.node), VersionId(side.birth)))
