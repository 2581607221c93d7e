"""Search in stages: a short or coarse first stage, then exact scores of its candidates at a longer dimension.

Knows nothing of quality or of plans. The idea is Matryoshka's adaptive retrieval (Kusupati et al.
2022, section 4.3): the cheap stage reads every vector, the expensive one only the few that remain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from time import perf_counter

import numpy as np

from toolkit.errors import PlanError, VectorError
from toolkit.search.backend import Index
from toolkit.search.exact.compute import LAST
from toolkit.search.neighbours import Neighbours
from toolkit.search.threads import thread_count
from toolkit.vectors import Vectors, truncate

_BLOCK_ROWS = 16_384


class Rescorer:
    """Exact cosines of chosen rows at one dimension, from memory or from a memory-mapped file.

    vectors : full-dimension rows; a mapped file is read only where a candidate lies. Prefix norms
        are computed once, here, so that no row is cut or normalized while searching.
    """

    def __init__(self, vectors: Vectors, dim: int) -> None:
        if not 1 <= dim <= vectors.full_dim:
            raise PlanError(
                f"rescoring dimension {dim} is outside the vectors'; choose 1..{vectors.full_dim}"
            )
        self.dim = dim
        self.mapped = isinstance(vectors.rows, np.memmap)
        # A plain view: each operation on numpy's memmap class costs microseconds of its own.
        self._rows = np.asarray(vectors.rows)[:, :dim]
        inverse = np.zeros(len(vectors), dtype=np.float32)
        for start in range(0, len(vectors), _BLOCK_ROWS):
            block = self._rows[start : start + _BLOCK_ROWS].astype(np.float64)
            norms = np.sqrt(np.einsum("ij,ij->i", block, block))
            np.divide(
                1.0, norms, out=inverse[start : start + len(block)], where=norms > 0, casting="same_kind"
            )
        self._inverse = inverse
        self._some_empty = bool((inverse == 0).any())

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the rows this stage may read, at its dimension, and of their norms."""
        return self._rows.nbytes + self._inverse.nbytes

    def best(self, queries: np.ndarray, candidates: np.ndarray, keep: int) -> Neighbours:
        """The `keep` best of each query's candidates, best first; equal scores by row, empty texts last.

        queries : (q, dim) float32, cut and normalized; candidates : (q, c) rows, -1 for none.
        """
        count = len(queries)
        rows = np.empty((count, keep), dtype=np.int64)
        scores = np.empty((count, keep), dtype=np.float32)
        work = partial(self._best_of_each, queries, candidates, rows, scores)
        workers = min(thread_count(), count)
        if workers == 1:
            work(range(count))
        else:
            # Gathering rows and products release the interpreter's lock.
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(work, [range(i, count, workers) for i in range(workers)]))
        return Neighbours(rows, scores)

    def _best_of_each(
        self,
        queries: np.ndarray,
        candidates: np.ndarray,
        rows: np.ndarray,
        scores: np.ndarray,
        which: range,
    ) -> None:
        keep = rows.shape[1]
        for i in which:
            # In rising order a mapped file is read forwards, and a stable sort settles equal scores.
            some = np.sort(candidates[i])
            cosines = (self._rows[some] @ queries[i]) * self._inverse[some]
            if self._some_empty:
                cosines[self._inverse[some] == 0] = LAST
            cosines[some < 0] = -np.inf
            order = np.argsort(-cosines, kind="stable")[:keep]
            rows[i] = some[order]
            scores[i] = cosines[order]
            if self._some_empty:
                scores[i][scores[i] == LAST] = -np.inf


@dataclass(frozen=True)
class Stage:
    """A rescoring stage: how many candidates it is handed, whatever k is, and what scores them."""

    rescorer: Rescorer
    candidates: int


class Funnel:
    """A first index and the rescoring stages after it.

    first : searched with `search_args`.
    stages : each hands its best on to the next; the last one's k best are the result. Equal or
        falling numbers of candidates.
    """

    def __init__(
        self,
        first: Index,
        stages: Sequence[Stage],
        *,
        search_args: Mapping[str, int] | None = None,
    ) -> None:
        if not stages:
            raise PlanError("a funnel needs at least one rescoring stage; search the index itself otherwise")
        handed = [stage.candidates for stage in stages]
        if min(handed) < 1 or handed != sorted(handed, reverse=True):
            raise PlanError(f"candidates {handed} of the stages must be at least 1 and must not grow")
        for stage in stages:
            if len(stage.rescorer) != len(first):
                raise PlanError(
                    f"the first stage holds {len(first)} rows and a later one {len(stage.rescorer)}; "
                    "build both from the same vectors"
                )
        self._first = first
        self._stages = tuple(stages)
        self._search_args = search_args

    @property
    def stage_bytes(self) -> tuple[int, ...]:
        """Stored bytes of each stage: the index as serialized, then the rows at each later dimension."""
        return (self._first.index_bytes, *(stage.rescorer.stored_bytes for stage in self._stages))

    def prepare(self, queries: np.ndarray) -> np.ndarray:
        """Full-dimension queries (q, full_dim) cut for every stage, side by side in one array."""
        dims = (self._first.dim, *(stage.rescorer.dim for stage in self._stages))
        return np.concatenate([truncate(queries, dim) for dim in dims], axis=1)

    def search(self, prepared: np.ndarray, k: int) -> tuple[Neighbours, tuple[float, ...]]:
        """The k nearest rows of each query by the last stage's cosine, and the seconds of each stage."""
        return self.bare_search(k)(prepared)

    def bare_search(self, k: int) -> Callable[[np.ndarray], tuple[Neighbours, tuple[float, ...]]]:
        """`search` with its arguments checked beforehand, for timing."""
        total = len(self._first)
        if not 1 <= k <= total:
            raise PlanError(f"k {k} is outside the corpus of {total} documents; choose 1..{total}")
        handed = [min(stage.candidates, total) for stage in self._stages]
        if min(handed) < k:
            raise PlanError(
                f"{min(handed)} candidates cannot give {k} neighbours; hand each stage at least k = {k}"
            )
        first = self._first.bare_search(handed[0], self._search_args)
        start = self._first.dim
        steps = []
        for stage, keep in zip(self._stages, [*handed[1:], k], strict=True):
            columns = slice(start, start + stage.rescorer.dim)
            steps.append((columns, partial(stage.rescorer.best, keep=keep)))
            start = columns.stop
        width = start

        def search(prepared: np.ndarray) -> tuple[Neighbours, tuple[float, ...]]:
            if prepared.ndim != 2 or prepared.shape[1] != width:
                raise VectorError(
                    f"queries {prepared.shape} are not prepared for this funnel; give them to prepare()"
                )
            clock = [perf_counter()]
            rows = first(np.ascontiguousarray(prepared[:, : self._first.dim]))[1]
            clock.append(perf_counter())
            for columns, best in steps:
                found = best(prepared[:, columns], rows)
                rows = found.rows
                clock.append(perf_counter())
            return found, tuple(later - earlier for earlier, later in pairwise(clock))

        return search
