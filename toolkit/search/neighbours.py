"""What a search returns, whichever index did it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolkit.errors import VectorError


@dataclass(frozen=True)
class Neighbours:
    """The k nearest documents of each query, best first.

    rows : (queries, k) int64 corpus row numbers; -1 where an index found fewer than k.
    scores : (queries, k) float32, higher is nearer (inner product; minus the Hamming distance for
        binary indexes).
    """

    rows: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        if self.rows.shape != self.scores.shape or self.rows.ndim != 2:
            raise VectorError(
                f"neighbour rows {self.rows.shape} and scores {self.scores.shape} must be equal 2-D shapes"
            )

    @property
    def k(self) -> int:
        """How many neighbours each query has."""
        return int(self.rows.shape[1])

    def top(self, k: int) -> Neighbours:
        """The best `k` of each query."""
        return Neighbours(self.rows[:, :k], self.scores[:, :k])
