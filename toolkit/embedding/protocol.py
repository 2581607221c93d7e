"""What an embedder is: finished strings in, full-dimension unit rows out, from any thread.

An engine knows nothing of instructions, dimensions, caches or files. It may hand out rows in whatever
order its hardware likes (`stream`); `encode` and `submit` put them back. `engine.Engine` is the base of
the engines here, and `adapt.as_engine` makes one of any object that has only `space` and `encode` or
`stream`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Protocol, runtime_checkable

import numpy as np

from toolkit.space import EmbeddingSpace

# Positions in the caller's list, and their rows: (m,) int64 and (m, full_dim) float32.
Block = tuple[np.ndarray, np.ndarray]


@runtime_checkable
class Embedder(Protocol):
    """Turns finished strings into full-dimension unit rows; every method may be called by any thread.

    A row has norm 1, or 0 for a text without tokens.
    """

    @property
    def space(self) -> EmbeddingSpace:
        """What decides the vectors' values."""
        ...

    def submit(self, texts: Sequence[str], *, timeout_s: float | None = None) -> Future[np.ndarray]:
        """Queue texts; the result is (n, full_dim) float32 rows in input order.

        timeout_s : how long to wait for a place in a full queue; None as long as it takes, 0 not at all.

        A cancelled future gives its place back; texts that were not started are never computed. Raises
        QueueFullError where no place came free in time, EngineClosedError after `close`.
        """
        ...

    def stream(self, texts: Sequence[str]) -> Iterator[Block]:
        """Yield every position of `texts` exactly once with its row, as soon as it is ready.

        Nothing begins before the first block is asked for, and only a few blocks are made ahead. Leaving
        the iterator early gives its place back.
        """
        ...

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(n, full_dim) float32 rows in input order."""
        ...

    def close(self) -> None:
        """Finish what was submitted, then release connections and device memory.

        Open streams end with an EngineClosedError, and so does every later call.
        """
        ...
