"""Tables: reading them, and making the next one from one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pagestore.format import (
    BRANCH_REF,
    FAN,
    FAN_BITS,
    LEAF_BITS,
    LEAF_SPAN,
    RUN_REF,
    Extents,
    IntArray,
    NodeRef,
    Table,
    VersionId,
    sorted_unique,
)
from pagestore.pagetable.nodes import Leaf, Nodes, Once, refs_in, stack_of
from pagestore.pagetable.stack import clip, flatten

INLINE_MAX = 96  # extents in a leaf itself: 1.5 KiB, under LMDB's limit for a small value
MERGE_RATIO = 2  # a run is merged while it is at most this many times the size of what is new


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


def extents_within(nodes: Nodes, table: Table, start: int, stop: int) -> Extents:
    """As `extents`, of the pages [start, stop) alone; only their leaves are read."""
    stop = min(stop, span(table))
    if start >= stop:
        return Extents.empty()
    wanted = np.arange(start >> LEAF_BITS, (stop - 1 >> LEAF_BITS) + 1)
    return clip(extents(nodes, table, wanted), start, stop)


def extents(nodes: Nodes, table: Table, wanted: IntArray | None = None) -> Extents:
    """Every page of the table that has a slot, as sorted extents; only of the leaves `wanted`."""
    parts = []
    for base, node in leaves(nodes, table, wanted):
        flat = flatten(stack_of(nodes, node))
        parts.append(Extents(flat.page + base, flat.length, flat.slot, flat.birth))
    return parts[0] if len(parts) == 1 else Extents.join(parts)


def count(nodes: Nodes, table: Table, most: int) -> int:
    """How many extents a table may have, or `most`; that, too, if it takes many nodes to know."""
    if table.root is None or table.height:
        return most if table.height else 0
    leaf = nodes.leaf(table.root.node)
    return min(most, len(leaf.inline) + int(leaf.runs["count"].sum()))


def lookup(nodes: Nodes, table: Table, pages: IntArray) -> tuple[IntArray, IntArray]:
    """Slot (0: zeros) and birth of each of some sorted pages."""
    if table.root is not None and table.height == 0 and len(pages):
        return nodes.locate(table.root.node, pages, paint=True)
    slot = np.zeros(len(pages), np.int64)
    birth = np.zeros(len(pages), np.int64)
    if table.root is None or not len(pages):
        return slot, birth
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
        for child in refs_in(nodes.branch(ref.node)):
            yield from _walk(nodes, child, height - 1)
    else:
        yield from refs_in(nodes.leaf(ref.node).runs)


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
        if index:
            new = Extents(new.page - (index << LEAF_BITS), new.length, new.slot, new.birth)
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
