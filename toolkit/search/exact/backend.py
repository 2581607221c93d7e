"""The exact scan as an index backend: cut rows in memory, compared one by one. Needs no package beside numpy.

Rows that are too many to be copied are scanned where they lie (`mapped.py`). Knows one index, ``Flat``, and one
precision, ``float32``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import numpy as np
from threadpoolctl import threadpool_limits

from toolkit.errors import PlanError, ResultsError, VectorError
from toolkit.files import parse_json, write_atomically
from toolkit.search import threads as search_threads
from toolkit.search.backend import BareSearch, IndexSpec
from toolkit.search.cut_rows import CutRows
from toolkit.search.exact.compute import Compute
from toolkit.search.exact.mapped import MappedIndex, facts_path
from toolkit.search.exact.search import exact_search
from toolkit.search.filters import passing
from toolkit.search.neighbours import Neighbours

# From so many queries on, the scan by blocks beats one product and a partial sort of all of it.
_BATCH = 8


class ExactBackend:
    """Exact nearest neighbours by scanning every row."""

    name = "exact"

    def check(self, spec: IndexSpec, *, documents: int, k: int) -> None:  # noqa: ARG002 - of any number
        """Raise PlanError for an index or a precision it does not have."""
        if spec.index != "Flat":
            raise PlanError(f"backend 'exact' has no index {spec.index!r}; choose 'Flat', or backend 'faiss'")
        if spec.precision != "float32":
            raise PlanError(
                f"backend 'exact' stores float32, not {spec.precision}; choose precision 'float32', or "
                "backend 'faiss' (pip install 'embedding-toolkit[cpu]')"
            )
        if spec.build_args:
            raise PlanError(f"backend 'exact' has no build argument {next(iter(spec.build_args))!r}")

    def check_search(self, spec: IndexSpec, search_args: Mapping[str, int]) -> None:  # noqa: ARG002
        """Raise PlanError for any search argument."""
        if search_args:
            raise PlanError(f"backend 'exact' has no search argument {next(iter(search_args))!r}")

    def searches(self, spec: IndexSpec) -> Sequence[Mapping[str, int]]:  # noqa: ARG002
        """One way to search."""
        return [{}]

    def compared(
        self,
        spec: IndexSpec,
        search_args: Mapping[str, int],  # noqa: ARG002
        *,
        documents: int,
        k: int,  # noqa: ARG002
    ) -> tuple[float, float]:
        """Every vector."""
        return float(documents), 4.0 * spec.dim

    def builder(self, rows: CutRows, *, seed: int) -> ExactBuilder:  # noqa: ARG002 - nothing is drawn
        """A builder of the one index there is."""
        return ExactBuilder(rows)

    def load(self, path: Path) -> ExactIndex | MappedIndex:
        """Read rows from a file, or map it; raises ResultsError."""
        try:
            facts = parse_json(facts_path(path).read_bytes())
            if "dim" in facts:
                return MappedIndex.load(path, facts["dim"])
            with path.open("rb") as file:
                rows = np.load(file, allow_pickle=False)
            return ExactIndex(rows, facts["steps_s"])
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise ResultsError(f"index {path} cannot be read: {error}; build it again") from error

    @contextmanager
    def threads(self, count: int) -> Iterator[None]:
        """Limit the product's BLAS and the scan's workers."""
        with threadpool_limits(limits=count, user_api="blas"), search_threads.limited(count):
            yield


class ExactBuilder:
    """Cuts the rows."""

    def __init__(self, rows: CutRows) -> None:
        self._rows = rows

    def build(self, spec: IndexSpec) -> ExactIndex | MappedIndex:  # noqa: ARG002 - checked already, and only one exists
        """The rows in memory, or where they lie."""
        if not self._rows.fits:
            return MappedIndex(self._rows)
        began = perf_counter()
        rows = np.ascontiguousarray(self._rows.all)
        return ExactIndex(rows, {"add": perf_counter() - began})


class ExactIndex:
    """(n, dim) float32 unit rows."""

    description = "exact scan"
    device = "cpu"
    thread_safe = True
    peak_bytes = 0

    def __init__(self, rows: np.ndarray, steps_s: Mapping[str, float]) -> None:
        self._rows = rows
        self.steps_s = dict(steps_s)
        self.dim = rows.shape[1]
        self.build_s = sum(self.steps_s.values())
        self.index_bytes = rows.nbytes

    def __len__(self) -> int:
        return len(self._rows)

    def search(self, queries: np.ndarray, k: int, search_args: Mapping[str, int] | None = None) -> Neighbours:
        """The k nearest rows of each query by cosine; equal scores by row."""
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise VectorError(f"queries {queries.shape} do not fit an index of dimension {self.dim}")
        self._check(k, search_args)
        return self._scan(np.ascontiguousarray(queries, dtype=np.float32), k)

    def bare_search(self, k: int, search_args: Mapping[str, int] | None = None) -> BareSearch:
        """One product and a partial sort for a few queries, the scan by blocks for many."""
        self._check(k, search_args)
        rows = self._rows

        def search(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            if len(queries) >= _BATCH:
                found = self._scan(queries, k)
                return found.scores, found.rows
            scores = queries @ rows.T
            if k < len(rows):
                best = np.argpartition(scores, len(rows) - k, axis=1)[:, -k:]
            else:
                best = np.broadcast_to(np.arange(len(rows)), scores.shape)
            near = np.take_along_axis(scores, best, axis=1)
            order = np.lexsort((best, -near), axis=1)
            return np.take_along_axis(near, order, axis=1), np.take_along_axis(best, order, axis=1)

        return search

    def filtered_search(
        self, k: int, share: float, search_args: Mapping[str, int] | None = None
    ) -> BareSearch:
        """A scan of the rows that pass, which are copied out beforehand."""
        self._check(k, search_args)
        which = np.flatnonzero(passing(len(self), share))
        rows = self._rows[which]

        def search(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            scores = queries @ rows.T
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            lacking = ((0, 0), (0, k - order.shape[1]))
            near = np.take_along_axis(scores, order, axis=1)
            return np.pad(near, lacking, constant_values=-np.inf), np.pad(
                which[order], lacking, constant_values=-1
            )

        return search

    def accelerated(self) -> ExactIndex:
        """Itself: the scan of an index is made for the CPU."""
        return self

    def save(self, path: Path) -> None:
        """Write the rows as .npy and the seconds beside them, each whole or not at all."""
        unfinished = path.with_name(f"{path.name}.unfinished")
        try:
            with unfinished.open("wb") as file:
                np.save(file, self._rows)
            unfinished.replace(path)
            write_atomically(facts_path(path), json.dumps({"steps_s": self.steps_s}).encode())
        except OSError as error:
            raise ResultsError(f"index {path} cannot be written: {error.strerror}") from error
        finally:
            unfinished.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the rows."""
        self._rows = self._rows[:0]

    def _check(self, k: int, search_args: Mapping[str, int] | None) -> None:
        if search_args:
            raise PlanError(f"backend 'exact' has no search argument {next(iter(search_args))!r}")
        if not 1 <= k <= len(self):
            raise PlanError(f"k {k} is outside the index's {len(self)} documents; choose 1..{len(self)}")

    def _scan(self, queries: np.ndarray, k: int) -> Neighbours:
        compute = Compute("numpy", "cpu", threads=search_threads.thread_count())
        return exact_search(self._rows, queries, [self.dim], k=k, compute=compute)[self.dim]
