"""Small constants, so that small stores take the paths that large ones take.

A leaf of four pages makes tall trees, one extent in it makes stacks of runs that merge, four log
records make the free set fold, and three pieces are too many to be mapped one by one.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import numpy as np
import pytest


def _tree(leaf_bits: int, fan_bits: int) -> dict[str, object]:
    return {
        "LEAF_BITS": leaf_bits,
        "LEAF_SPAN": 1 << leaf_bits,
        "_LEAF_MASK": np.uint64((1 << leaf_bits) - 1),
        "_SHIFT": np.uint64(leaf_bits),
        "FAN_BITS": fan_bits,
        "FAN": 1 << fan_bits,
    }


TALL = _tree(2, 1)
STACKED = _tree(6, 1) | {"INLINE_MAX": 1, "MERGE_RATIO": 1}
USUAL = _tree(18, 6)
SMALL = {
    # pagetable
    "INLINE_MAX": 3,
    "CACHED_EXTENTS": 256,
    "WORTH_PAINTING": 2,
    "PATIENCE": 1,
    "DENSE": 4,
    "WORTH_COMPARING": 6,
    "DENSE_PAGES": 64,
    "PACKED_LEAST": 2,
    "CHECKED_AT_ONCE": 2,
    "LOADED_AT_ONCE": 1,
    # diff
    "MOST_ANCESTORS": 4,
    # space
    "FREE_CHUNK": 64,
    "LOG_RECORDS": 4,
    "SHORT_RUN": 4,
    "FEW_RUNS": 2,
    "GROW_LEAST": 16,
    "LOOK_LEAST": 8,
    # direct, wiring, workspace, compact
    "MOST_CALLS": 3,
    "FEW": 3,
    "LONG": 2,
    "BRIDGE_GAP": 2,
    "COMPARE_BATCH": 3,
    "WINDOW": 8,
    "MOST_RUNS": 2,
    "SEGMENT": 16,
    "MOST_HOLES": 1,
    "HOLE_BYTES": 1 << 14,
    "FLUSH_PIECES": 4,
}


@contextlib.contextmanager
def shrunk(tree: dict[str, object] = TALL, **others: object) -> Iterator[None]:
    """Patch the constants in every module that has them, imported by name or defined."""
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == "pagestore":
                for constant, value in (SMALL | tree | others).items():
                    if constant in vars(module):
                        patch.setattr(module, constant, value)
        yield
