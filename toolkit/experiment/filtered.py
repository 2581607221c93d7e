"""Searches among the documents that a filter lets pass: timed, and compared with the exact search of just those.

Knows indexes by their protocol; one that has no filtered search gets empty figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from toolkit.errors import PlanError
from toolkit.measure.timing import single_query_ms
from toolkit.search.backend import BareSearch, Filtering, Index
from toolkit.search.cut_rows import CutRows
from toolkit.search.exact.search import exact_search
from toolkit.search.exact.sharded import merged
from toolkit.search.filters import passing
from toolkit.vectors import Vectors

# Recall looks at so many neighbours, or at all that pass if they are fewer.
DEPTH = 10
_WARMUP = 10
_BLOCK_ROWS = 262_144
_MS, _RECALL = "filtered_ms_", "filtered_recall_"


class FilteredTruth:
    """The exact neighbours of some queries among the documents that pass, by dimension and share.

    corpus : full-dimension rows. queries : (q, full_dim) float32.
    """

    def __init__(self, corpus: Vectors, queries: np.ndarray) -> None:
        self._corpus, self._queries = corpus, queries
        self._found: dict[tuple[int, float], np.ndarray] = {}

    def nearest(self, dim: int, share: float) -> np.ndarray:
        """(q, at most `DEPTH`) corpus rows; empty texts pass no filter."""
        if (dim, share) not in self._found:
            cut = CutRows(self._corpus, dim)
            kept = np.arange(len(cut)) if cut.kept is None else cut.kept
            which = kept[passing(len(cut), share)]
            # Half of a corpus may be more than memory holds.
            starts = range(0, len(which), _BLOCK_ROWS)
            found = []
            for start in starts:
                rows = self._corpus.take(which[start : start + _BLOCK_ROWS]).rows
                found.append(exact_search(rows, self._queries, [dim], k=min(DEPTH, len(rows))))
            near = merged(found, list(starts), k=min(DEPTH, len(which)))[dim]
            self._found[dim, share] = which[near.rows]
        return self._found[dim, share]


def sample_names(shares: Sequence[float]) -> list[str]:
    """What the samples of these filters go by in the raw store."""
    return [f"{kind}{share:g}" for share in shares for kind in (_MS, _RECALL)]


def filtered_samples(
    index: Index | None,
    queries: np.ndarray,
    truth: FilteredTruth,
    shares: Sequence[float],
    *,
    k: int,
    search_args: Mapping[str, int],
) -> dict[str, np.ndarray]:
    """One round of each filter: (1, q) milliseconds of single queries and (1, q) recall; NaN without filters.

    index : None for a search with later stages, which has no filtered form here. queries : (q, dim), cut.
    """
    samples = {}
    for share in shares:
        search = None if index is None else _search(index, k, share, search_args)
        if search is None:
            taken_ms = recall = np.full(len(queries), np.nan)
        else:
            near = truth.nearest(index.dim, share)
            for i in range(_WARMUP):
                row = i % len(queries)
                search(queries[row : row + 1])
            taken_ms = single_query_ms(search, queries)
            found = [search(queries[i : i + 1])[1][0, :DEPTH] for i in range(len(queries))]
            recall = np.array([np.isin(a, b).mean() for a, b in zip(near, found, strict=True)])
        samples |= {f"{_MS}{share:g}": taken_ms[None], f"{_RECALL}{share:g}": recall[None]}
    return samples


def filtered_columns(samples: Mapping[str, np.ndarray]) -> dict[str, float]:
    """``filtered_1pct_p95_ms`` and ``filtered_1pct_recall`` of each share that was measured."""
    columns = {}
    for name in samples:
        if name.startswith(_MS):
            share = name.removeprefix(_MS)
            column = f"filtered_{100 * float(share):g}pct"
            columns[f"{column}_p95_ms"] = float(np.percentile(samples[name], 95))
            columns[f"{column}_recall"] = float(samples[f"{_RECALL}{share}"].mean())
    return columns


def _search(index: Index, k: int, share: float, search_args: Mapping[str, int]) -> BareSearch | None:
    if not isinstance(index, Filtering):
        return None
    try:
        return index.filtered_search(k, share, search_args)
    except PlanError:
        return None
