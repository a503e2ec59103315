"""The data of the demo: a table of prices, a row for an instrument, a column for a minute."""

from typing import Any

import numpy as np
import xxhash

MINUTES = 1024
_BLOCK = 2048  # rows made at once: small enough to stay in a processor's cache

Prices = np.ndarray[Any, np.dtype[np.float64]]


def make_prices(mebibytes: int, rng: np.random.Generator) -> Prices:
    """Return random walks in cents, one for each instrument."""
    prices = np.empty((mebibytes * 2**20 // (8 * MINUTES), MINUTES))
    for start in range(0, len(prices), _BLOCK):
        block = prices[start : start + _BLOCK]
        rng.standard_normal(out=block)
        block *= 0.001
        np.cumsum(block, axis=1, out=block)
        np.exp(block, out=block)
        block *= rng.lognormal(4.0, 0.7, (len(block), 1))
        np.round(block, 2, out=block)
    return prices


def correct(prices: Prices, cells: int, rng: np.random.Generator) -> None:
    """Change some prices all over the table, as late corrections do."""
    rows = rng.integers(0, prices.shape[0], cells)
    minutes = rng.integers(0, prices.shape[1], cells)
    prices[rows, minutes] = np.round(prices[rows, minutes] * 1.01 + 0.01, 2)


def digest(prices: Prices) -> str:
    """Return a hash of every byte."""
    return xxhash.xxh3_128_hexdigest(prices.data)
