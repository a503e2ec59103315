"""The page table: a persistent radix tree from page number to slot, over a transaction's records.

Owns: looking up, flattening, changing and comparing tables. Does not know what a version, a name
or a transaction is; the catalog's record for a region holds the root.

A *branch* has 64 children. A *leaf* spans 2**18 pages and is a small log-structured stack: the
newest extents inline, then references to older *runs* of extents, each shared between all the
versions that have it. A commit adds its pages on top and merges runs of similar size, so it
writes what changed (times a logarithm) in one or two records, where copying a path of plain radix
nodes for each page dirtied a scattered catalog page for each (docs/decisions/001).

`stack` overlays runs of extents; `painted` keeps a leaf page by page; `nodes` decodes, checks and
caches what lies in the catalog; `table` reads tables and makes the next one; `compare` tells what
differs.

- T1  Nodes are immutable: a new version writes new nodes and shares the rest.
- T2  Extents of one run are sorted by page and disjoint; the newest run that has a page wins.
- T3  An extent carries the version that wrote it (its birth), however often it is merged.
- T4  An extent at slot 0 says that its pages are zeros; the oldest run of a leaf needs none.
- T5  A node stands in one place of a table. A walk that meets one again stops: it would not end.
"""

from pagestore.pagetable.compare import Difference, differences, exclusive, exclusive_nodes, newer
from pagestore.pagetable.nodes import Leaf, NodeCache, Nodes
from pagestore.pagetable.painted import DenseLeaves
from pagestore.pagetable.stack import clip, expand, flatten, join_up, singles
from pagestore.pagetable.table import (
    count,
    extents,
    extents_within,
    leaves,
    lookup,
    span,
    truncate,
    update,
    walk,
)

__all__ = [
    "DenseLeaves",
    "Difference",
    "Leaf",
    "NodeCache",
    "Nodes",
    "clip",
    "count",
    "differences",
    "exclusive",
    "exclusive_nodes",
    "expand",
    "extents",
    "extents_within",
    "flatten",
    "join_up",
    "leaves",
    "lookup",
    "newer",
    "singles",
    "span",
    "truncate",
    "update",
    "walk",
]
