"""Which unlabelled query is judged next: drawn with replacement, in proportion to what the settings can lose there.

Knows bounds and probabilities; no query, no file, no judgement.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np

from toolkit.errors import PlanError

# So much of the probability is spread evenly, so no query weighs more than 1 / 0.2 = 5 times what it does uniformly.
UNIFORM_SHARE = 0.2
_DOUBLE_BITS = 53


def draw_probabilities(bounds: np.ndarray) -> np.ndarray:
    """How likely each query of the pool is drawn, by what the settings in question can lose there; (queries,), sum 1.

    bounds : (queries, settings) the most of the metric that each setting can lose at each query, 0 or more.

    A fifth is spread evenly; the rest is in proportion to the mean, over settings, of each one's bound divided by
    its mean bound, so that a setting near the reference counts as much as one far from it. A setting that can lose
    nothing anywhere has no say; where none can, all queries are equally likely.

    Raises PlanError for no query, or for bounds that are negative or not numbers.
    """
    bounds = np.asarray(bounds, dtype=np.float64)
    if bounds.ndim != 2 or not len(bounds):
        raise PlanError(
            f"bounds of shape {bounds.shape} give no query to draw; they must be (queries, settings)"
        )
    if not (np.isfinite(bounds).all() and (bounds >= 0).all()):
        raise PlanError("bounds must be numbers of 0 or more; a setting without rankings has none to draw by")
    found = draw_density(bounds, bounds) / len(bounds)
    return found / found.sum()


def draw_density(bounds: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """How much more often than evenly a draw from `pool` takes, or would take, queries of such bounds; (queries,).

    bounds : (queries, settings) of any queries; pool : (others, settings) of those drawn from.
    """
    means = pool.mean(axis=0)
    open_ones = means > 0
    if not open_ones.any():
        return np.ones(len(bounds))
    share = (bounds[:, open_ones] / means[open_ones]).mean(axis=1)
    return UNIFORM_SHARE + (1.0 - UNIFORM_SHARE) * share


@dataclass(frozen=True, eq=False)
class Draws:
    """An endless sequence of draws with replacement: the same for a seed on any machine and with any version.

    probabilities : (queries,) as `draw_probabilities` gives them.
    seed : of the sequence.
    """

    probabilities: np.ndarray
    seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "_edges", np.cumsum(self.probabilities))

    def __getitem__(self, number: int) -> int:
        """The position, in the pool, of the query that is drawn as the `number`-th, from 0."""
        # A hash and not a generator: draw 1,000 needs no 999 others, and no library's stream can change under it.
        digest = hashlib.blake2b(f"{self.seed}:{number}".encode(), digest_size=8).digest()
        uniform = (int.from_bytes(digest, "little") >> (64 - _DOUBLE_BITS)) / 2**_DOUBLE_BITS
        place = np.searchsorted(self._edges, uniform * self._edges[-1], side="right")
        return int(min(place, len(self._edges) - 1))

    def __iter__(self) -> Iterator[int]:
        return (self[number] for number in count())
