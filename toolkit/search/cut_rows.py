"""A corpus cut to one dimension and normalized, without its empty texts, as index builders read it.

Knows no index. Rows are numbered anew without the empty ones; `kept` tells which row of the corpus each is.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from toolkit.errors import DimensionError
from toolkit.vectors import Vectors, truncate

BLOCK_ROWS = 16_384
# Cut rows up to this size stay in memory for the next index; larger ones are cut anew, block by block.
_HELD_BYTES = 2 << 30


class CutRows:
    """The rows of `vectors` that are not zero at `dim`."""

    def __init__(self, vectors: Vectors, dim: int) -> None:
        if not 1 <= dim <= vectors.full_dim:
            raise DimensionError(
                f"dimension {dim} is outside the vectors' range; choose 1..{vectors.full_dim}"
            )
        self.dim = dim
        self._vectors = vectors

    def __len__(self) -> int:
        return len(self._vectors) - len(self.empty)

    @property
    def documents(self) -> int:
        """Rows of the corpus, empty ones included."""
        return len(self._vectors)

    @cached_property
    def empty(self) -> np.ndarray:
        """Corpus rows that are zero at this dimension, ascending; (m,) int64."""
        rows, found = self._vectors.rows, []
        for start in range(0, len(rows), BLOCK_ROWS):
            block = rows[start : start + BLOCK_ROWS]
            # Hardly any row begins with a zero, so hardly any is looked at further.
            zero = np.flatnonzero(block[:, 0] == 0)
            found.append(start + zero[~block[zero, : self.dim].any(axis=1)])
        return np.concatenate(found) if found else np.empty(0, np.int64)

    @cached_property
    def kept(self) -> np.ndarray | None:
        """The corpus row of each row here; (n,) int64, or None where all rows are kept."""
        return np.delete(np.arange(self.documents), self.empty) if self.empty.size else None

    @property
    def fits(self) -> bool:
        """Whether all rows may be held in memory at once."""
        return len(self) * self.dim * 4 <= _HELD_BYTES

    @cached_property
    def all(self) -> np.ndarray:
        """Every row, (n, dim) float32, held for the next index too."""
        rows = self._vectors.at(self.dim)
        return rows if self.kept is None else rows[self.kept]

    @property
    def stored(self) -> np.ndarray:
        """(documents, full_dim) rows as they are stored: an array, or a mapped file."""
        return self._vectors.rows

    @property
    def prefixes(self) -> np.ndarray:
        """(documents, dim) rows as they are stored, empty ones included, neither copied nor normalized."""
        return self.stored[:, : self.dim]

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, (b, dim) float32 rows), so that a mapped file never loads whole."""
        for start in range(0, len(self), BLOCK_ROWS):
            end = min(start + BLOCK_ROWS, len(self))
            if self.fits:
                yield start, self.all[start:end]
            elif self.kept is None:
                yield start, truncate(self._vectors.rows[start:end], self.dim)
            else:
                yield start, self.take(np.arange(start, end))

    def take(self, which: np.ndarray) -> np.ndarray:
        """(m, dim) float32 rows, in that order."""
        if self.fits:
            return self.all[which]
        return self._vectors.take(which if self.kept is None else self.kept[which]).at(self.dim)
