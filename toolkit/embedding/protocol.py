"""What an embedder is: finished strings in, full-dimension unit rows out.

An engine knows nothing of instructions, dimensions, caches or files. It may hand out rows in
whatever order its hardware likes (`stream`); `encode` puts them back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from toolkit.errors import VectorError
from toolkit.space import EmbeddingSpace

# Positions in the caller's list, and their rows: (m,) int64 and (m, full_dim) float32.
Block = tuple[np.ndarray, np.ndarray]


@runtime_checkable
class Embedder(Protocol):
    """Anything that turns finished strings into full-dimension unit rows."""

    @property
    def space(self) -> EmbeddingSpace:
        """What decides the vectors' values."""
        ...

    def stream(self, texts: Sequence[str]) -> Iterator[Block]:
        """Yield every position of `texts` exactly once with its row, as soon as it is ready."""
        ...

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(n, full_dim) float32 rows in input order; norm 1, or 0 for a text without tokens."""
        ...


class StreamingEmbedder(ABC):
    """Base of the engines here: an engine writes `stream`, and has `encode` from it."""

    @property
    @abstractmethod
    def space(self) -> EmbeddingSpace:
        """What decides the vectors' values."""

    @abstractmethod
    def stream(self, texts: Sequence[str]) -> Iterator[Block]:
        """Yield every position of `texts` exactly once with its row, as soon as it is ready."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(n, full_dim) float32 rows in input order; norm 1, or 0 for a text without tokens."""
        blocks: Iterable[Block] = self.stream(texts)
        if len(texts) == 1:  # a query waits for every line here
            blocks = list(blocks)
            if len(blocks) == 1 and len(blocks[0][1]) == 1:
                return blocks[0][1]
        rows = np.empty((len(texts), self.space.full_dim), dtype=np.float32)
        filled = np.zeros(len(texts), dtype=bool)
        for positions, block in blocks:
            rows[positions] = block
            filled[positions] = True
        if not filled.all():
            missing = int(np.argmin(filled))
            raise VectorError(f"{self.space.engine} returned no vector for text {missing} of {len(texts)}")
        return rows

    def close(self) -> None:
        """Release connections or device memory; the default has none."""
