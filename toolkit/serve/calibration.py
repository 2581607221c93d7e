"""Ranges for 8- and 4-bit vectors, from the vectors of texts: those of a sweep's corpus, or of any other set."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.vectors import truncate
from toolkit.wire.codes import Ranges

_KEPT_DIMS = 128


class Calibration:
    """Ranges at any dimension, computed when it is first asked for.

    rows : (n, full_dim) float32 unit rows of the calibration texts; may be memory-mapped.
    source : where the texts are from, for people.
    """

    def __init__(self, rows: np.ndarray, *, source: str) -> None:
        self._rows = rows
        self.source = source
        digest = hashlib.blake2b(str(rows.shape).encode(), digest_size=8)
        digest.update(np.ascontiguousarray(rows).data)
        self.id = digest.hexdigest()
        self._ranges: dict[int, Ranges] = {}

    @classmethod
    def open(cls, file: Path, *, source: str) -> Calibration:
        """From a `.npy` file of rows."""
        return cls(np.load(file, mmap_mode="r", allow_pickle=False), source=source)

    @property
    def full_dim(self) -> int:
        """Of the rows."""
        return int(self._rows.shape[1])

    def ranges(self, dim: int) -> Ranges:
        """At a dimension, of the rows cut to it and normalized again."""
        found = self._ranges.get(dim)
        if found is None:
            if len(self._ranges) >= _KEPT_DIMS:
                self._ranges.clear()
            found = self._ranges[dim] = Ranges.of(truncate(self._rows, dim))
        return found

    def about(self) -> dict[str, Any]:
        """As an answer names it."""
        return {"id": self.id, "source": self.source, "texts": len(self._rows)}

    def body(self, dim: int) -> dict[str, Any]:
        """As /v1/calibration gives it: what a client needs to read the codes."""
        ranges = self.ranges(dim)
        return {**self.about(), "dimensions": dim, "low": ranges.low, "high": ranges.high}
