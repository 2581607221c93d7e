"""The only place that truncates and normalizes embeddings.

Knows nothing of models or texts. Three defined outcomes of odd rows:

* a zero row (a text without tokens) stays zero at every dimension: its similarity to anything is 0;
* a row whose first `dim` numbers are all zero becomes a zero row at that dimension;
* NaN or infinity raises VectorError naming the first such row: it is never passed on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.errors import DimensionError, VectorError

_BLOCK_ROWS = 8_192


def normalize(rows: np.ndarray) -> np.ndarray:
    """L2-normalize each row; zero rows stay zero. Shape (n, dim), any float type in, float32 out.

    Raises VectorError for a NaN or infinite value, or an array that is not 2-D.
    """
    rows = np.asarray(rows)
    _check_shape(rows)
    unit = np.empty(rows.shape, dtype=np.float32)
    for start in range(0, len(rows), _BLOCK_ROWS):
        # In float64 and by blocks: float32 squares overflow at 1e19, and a whole float64 copy is large.
        block = rows[start : start + _BLOCK_ROWS].astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", block, block))
        if not np.isfinite(norms).all():
            _raise_not_finite(rows)
        norms[norms == 0.0] = 1.0
        np.divide(block, norms[:, None], out=unit[start : start + _BLOCK_ROWS], casting="same_kind")
    return unit


def truncate(rows: np.ndarray, dim: int) -> np.ndarray:
    """Matryoshka truncation: the first `dim` numbers of each row, then L2-normalized.

    Shape (n, full_dim) in, (n, dim) float32 out. Source: Kusupati et al. 2022, "Matryoshka
    Representation Learning"; a prefix of a unit vector has a norm below 1, so it must be normalized
    again for an inner product to be a cosine.

    Raises DimensionError outside 1..full_dim, VectorError as `normalize` does.
    """
    _check_shape(rows)
    if not 1 <= dim <= rows.shape[1]:
        raise DimensionError(f"dimension {dim} is outside the vectors' range; choose 1..{rows.shape[1]}")
    return normalize(rows[:, :dim])


def _check_shape(rows: np.ndarray) -> None:
    if rows.ndim != 2:
        raise VectorError(f"embeddings must be a 2-D array (n, dim), got shape {rows.shape}")
    if rows.dtype.kind != "f":
        raise VectorError(f"embeddings must be floating point, got {rows.dtype}")


def _raise_not_finite(rows: np.ndarray) -> None:
    broken = ~np.isfinite(rows).all(axis=1)
    raise VectorError(
        f"row {int(np.argmax(broken))} holds NaN or infinity ({int(broken.sum())} of {len(rows)} rows do); "
        "the model or its dtype overflowed: try dtype float32 or bfloat16"
    )


@dataclass(frozen=True)
class Vectors:
    """Full-dimension vectors of a list of texts, in memory or memory-mapped.

    rows : (n, full_dim) float32, or float16, which is only ever widened a block at a time; each row has norm 1, or 0
        for a text without tokens. Rows of a user's own file may have any length: every reader normalizes.
    """

    rows: np.ndarray

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.dtype not in (np.float32, np.float16):
            raise VectorError(
                f"expected 2-D rows of float32 or float16, got shape {self.rows.shape} of {self.rows.dtype}"
            )

    @classmethod
    def open(cls, path: str | Path) -> Vectors:
        """Memory-map a `.npy` file: nothing is read until it is used."""
        return cls(np.load(path, mmap_mode="r", allow_pickle=False))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def full_dim(self) -> int:
        """Length of an uncut vector."""
        return int(self.rows.shape[1])

    def at(self, dim: int) -> np.ndarray:
        """All rows cut to `dim` and normalized, (n, dim) float32 in memory."""
        return truncate(self.rows, dim)

    def take(self, indices: Sequence[int] | np.ndarray) -> Vectors:
        """The rows at `indices`, in that order."""
        return Vectors(self.rows[np.asarray(indices, dtype=np.int64)])

    def blocks(self, dim: int, *, block_rows: int = 65_536) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first row number, cut and normalized rows) so that a mapped file never loads whole."""
        for start in range(0, len(self), block_rows):
            yield start, truncate(self.rows[start : start + block_rows], dim)
