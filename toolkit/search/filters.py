"""Which rows pass a filter of a given share, the same in every index: for filtered searches.

Each row gets a rank that says nothing of its content; a filter of a share passes the ranks below that share of
`GRAINS`. Knows no index.
"""

from __future__ import annotations

import numpy as np

GRAINS = 10_000
_SEED = 20_190


def ranks(count: int) -> np.ndarray:
    """(count,) int16, each in 0..9999 and evenly spread; the same for every index over as many rows."""
    order = np.random.default_rng(_SEED).permutation(count).astype(np.int64)
    return (order * GRAINS // max(count, 1)).astype(np.int16)


def bound(share: float) -> int:
    """Rows whose rank is below it pass a filter of this share, in 0..1."""
    return round(share * GRAINS)


def passing(count: int, share: float) -> np.ndarray:
    """(count,) bool: the rows that pass a filter of this share."""
    return ranks(count) < bound(share)
