"""The exact scan over rows that stay where they are, in a mapped file larger than memory: nothing is built or copied.

Each search reads the file once, whether it is for one query or for many. Knows nothing of how the rows came there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from toolkit.errors import PlanError, ResultsError, VectorError
from toolkit.files import write_atomically
from toolkit.search import threads as search_threads
from toolkit.search.backend import BareSearch
from toolkit.search.cut_rows import BLOCK_ROWS, CutRows
from toolkit.search.exact.compute import Compute
from toolkit.search.exact.search import exact_search
from toolkit.search.neighbours import Neighbours
from toolkit.vectors import Vectors


class MappedIndex:
    """All rows of `rows` at its dimension, as they are stored."""

    description = "exact scan of stored vectors"
    device = "cpu"
    thread_safe = True
    peak_bytes = 0
    build_s = 0.0

    def __init__(self, rows: CutRows) -> None:
        self._rows = rows
        self.steps_s: Mapping[str, float] = {}
        self.dim = rows.dim
        self.index_bytes = len(rows) * rows.dim * rows.prefixes.itemsize

    @classmethod
    def load(cls, path: Path, dim: int) -> MappedIndex:
        """Map what `save` left; raises OSError or ValueError for a file that is not there or damaged."""
        return cls(CutRows(Vectors.open(path), dim))

    def __len__(self) -> int:
        return len(self._rows)

    def search(self, queries: np.ndarray, k: int, search_args: Mapping[str, int] | None = None) -> Neighbours:
        """The k nearest rows of each query by cosine; equal scores by row."""
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise VectorError(f"queries {queries.shape} do not fit an index of dimension {self.dim}")
        self._check(k, search_args)
        return self._scan(queries, k)

    def bare_search(self, k: int, search_args: Mapping[str, int] | None = None) -> BareSearch:
        """The scan itself, by as many threads as searches may use."""
        self._check(k, search_args)

        def search(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            found = self._scan(queries, k)
            return found.scores, found.rows

        return search

    def accelerated(self) -> MappedIndex:
        """Itself: a file larger than memory is larger than a device's."""
        return self

    def save(self, path: Path) -> None:
        """A second name for the file of rows where the disk has that, a copy of it where not."""
        unfinished = path.with_name(f"{path.name}.mapped")
        try:
            # What a killed process left may be the user's own file by another name: it must not be written to.
            unfinished.unlink(missing_ok=True)
            if not self._linked(unfinished):
                self._copy(unfinished)
            unfinished.replace(path)
            write_atomically(facts_path(path), json.dumps({"dim": self.dim}).encode())
        except OSError as error:
            raise ResultsError(f"index {path} cannot be written: {error.strerror}") from error
        finally:
            unfinished.unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing is held."""

    def _check(self, k: int, search_args: Mapping[str, int] | None) -> None:
        if search_args:
            raise PlanError(f"backend 'exact' has no search argument {next(iter(search_args))!r}")
        if not 1 <= k <= len(self):
            raise PlanError(f"k {k} is outside the index's {len(self)} documents; choose 1..{len(self)}")

    def _scan(self, queries: np.ndarray, k: int) -> Neighbours:
        compute = Compute("numpy", "cpu", threads=search_threads.thread_count())
        found = exact_search(self._rows.prefixes, queries, [self.dim], k=k, compute=compute)[self.dim]
        if self._rows.kept is None:
            return found
        # Empty texts come last in a scan, and an index has none: its rows are numbered without them.
        return Neighbours(np.searchsorted(self._rows.kept, found.rows), found.scores)

    def _linked(self, path: Path) -> bool:
        rows = self._rows.stored
        if not isinstance(rows, np.memmap) or rows.filename is None:
            return False
        try:
            whole = np.load(rows.filename, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):
            return False
        # Part of a file, or one that is no .npy, cannot be read back by its name alone.
        same = (whole.shape, whole.dtype, whole.offset) == (rows.shape, rows.dtype, rows.offset)
        if not same or whole.strides != rows.strides:
            return False
        try:
            os.link(Path(rows.filename).resolve(), path)
        except OSError:
            return False
        return True

    def _copy(self, path: Path) -> None:
        rows = self._rows.prefixes
        made = np.lib.format.open_memmap(path, "w+", rows.dtype, rows.shape)
        for start in range(0, len(rows), BLOCK_ROWS):
            made[start : start + BLOCK_ROWS] = rows[start : start + BLOCK_ROWS]
        made.flush()


def facts_path(path: Path) -> Path:
    """Where an index of this backend has what its rows do not say."""
    return path.with_name(f"{path.name}.json")
