"""What differs between tables, and what one has that others do not; at the price of that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from pagestore.format import (
    FAN_BITS,
    LEAF_BITS,
    NO_VERSION,
    Extents,
    IntArray,
    NodeId,
    NodeRef,
    Table,
    VersionId,
    sorted_unique,
)
from pagestore.pagetable.nodes import Nodes, Once, refs_in
from pagestore.pagetable.painted import Painted
from pagestore.pagetable.stack import Single, edges_of, expand, flatten, join_up, resolve
from pagestore.pagetable.table import lookup

WORTH_COMPARING = 1 << 14  # extents
SHORT = 4  # pages: extents that are no longer on average are compared page by page


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
    nodes: Nodes, old: Table, new: Table, floor: int = NO_VERSION, since: int = NO_VERSION
) -> Iterator[Difference]:
    """What `new` places differently from `old`; skips every subtree and run that they share.

    With `floor`, what `old` has from that version or before is taken as shared: passed over.

    With `since`, only pages are looked at that one of them has from a later version: what was
    merged meanwhile need not be compared. That may leave pages out that one of them does not have
    at all; and any page, unless the older one is that version and the other one descends from it.
    """
    level = max(old.height, new.height)
    yield from _differences(nodes, _side(old), _side(new), level, 0, floor, since)


def _side(table: Table) -> _Side | None:
    root = table.root
    return None if root is None else _Side(root.node, root.birth, table.height, Once())


def _differences(
    nodes: Nodes,
    old: _Side | None,
    new: _Side | None,
    level: int,
    index: int,
    floor: int,
    since: int,
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
                nodes, olds.get(child), news.get(child), level - 1, below, floor, since
            )
        return
    found = _leaf_difference(nodes, old, new, floor, since)
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


def _leaf_difference(
    nodes: Nodes, old: _Side | None, new: _Side | None, floor: int, since: int
) -> Difference:
    if old and new and (top := _on_top(nodes, old, new, floor)) is not None:
        start, new_slot, new_birth = top
        length = np.ones(len(start), np.int64)
        old_slot, old_birth = nodes.locate(old.node, start)
    else:
        for side in filter(None, (old, new)):
            side.once.meet(nodes.leaf(side.node).runs["node"].tolist())
        cover, shared = _told_apart(nodes, old, new)
        if since:
            shared += cover  # pieces are cut at edges of what is passed over, too
            cover = [run.take(run.birth > since) for run in cover]
        if sum(map(len, cover)) > WORTH_COMPARING:
            return _painted_difference(nodes, old, new, floor)
        start, length = _cut(cover, shared)
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


def _told_apart(
    nodes: Nodes, old: _Side | None, new: _Side | None
) -> tuple[list[Extents], list[Extents]]:
    """Runs that only one of two leaves has, where every page lies that differs; and the others."""
    a, b = _runs(nodes, old), _runs(nodes, new)
    one_sided = [run for key, run in (a | b).items() if (key in a) != (key in b)]
    return one_sided, [run for key, run in a.items() if key in b]


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


def _cut(cover: Sequence[Extents], shared: Sequence[Extents]) -> tuple[IntArray, IntArray]:
    """Cut what `cover` covers into pieces within which it and the shared runs are linear."""
    if sum(int(run.length.sum()) for run in cover) <= SHORT * sum(map(len, cover)):
        pages = sorted_unique(np.concatenate([expand(run)[0] for run in cover]))
        return pages, np.ones(len(pages), np.int64)
    edges = edges_of(cover)
    covered = resolve(cover, edges[:-1])[2]
    start, stop = edges[:-1][covered], edges[1:][covered]
    long = stop - start > 1
    if shared and long.any():
        # what is shared has edges of its own inside long pieces; one page has none
        extra = _edges_within(shared, start[long], stop[long])
        start = np.sort(np.concatenate((start, extra)))
        stop = np.sort(np.concatenate((stop, extra)))
    return start, stop - start


def _edges_within(runs: Sequence[Extents], start: IntArray, stop: IntArray) -> IntArray:
    """Edges of runs strictly inside disjoint, sorted pieces; costs what lies in the pieces."""
    found = []
    for run in runs:
        first = np.maximum(np.searchsorted(run.page, start, "right") - 1, 0)
        count = np.searchsorted(run.page, stop, "left") - first
        within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        index = np.repeat(first, count) + within
        crossed = run.take(index)
        found += [crossed.page, crossed.page + crossed.length]
    edges = sorted_unique(np.concatenate(found))
    at = np.searchsorted(start, edges, "right") - 1
    return edges[(at >= 0) & (edges > start[at]) & (edges < stop[at])]


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
    runs = [run for run in refs_in(leaf.runs) if run.birth > since]  # on top of all older ones
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
        mine = [r for r in refs_in(nodes.leaf(side.node).runs) if r.node not in theirs]
        side.once.meet(r.node for r in mine)
        found += [r for r in mine if r.birth > floor]
    else:
        families = [_children(nodes, o, level) for o in others]
        for i, child in _children(nodes, side, level).items():
            below = [family[i] for family in families if i in family]
            _exclusive_nodes(nodes, child, below, level - 1, floor, found)
    if side.height == level:
        found.append(NodeRef(NodeId(side.node), VersionId(side.birth)))
