"""Quality per query where only a pool of documents was judged for each, or of the whole corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from toolkit.data.sets import RetrievalSet
from toolkit.measure.quality import evaluate
from toolkit.search.exact.search import exact_search
from toolkit.search.neighbours import Neighbours
from toolkit.vectors import Vectors

_DEPTH = 100


def pooled_quality(
    corpus: Vectors,
    queries: Vectors,
    data: RetrievalSet,
    query_ids: Sequence[str],
    *,
    dims: Sequence[int],
    metric: str,
    pools: Mapping[str, Sequence[int]] | None = None,
) -> dict[int, np.ndarray]:
    """The metric of each query at each dimension, {dim: (queries,)}.

    query_ids : of the rows of `queries`, ids of `data`.
    pools : query id -> rows of `corpus` that may be ranked for it; None ranks the whole corpus.
    """
    if pools is None:
        found: Mapping[int, Neighbours] = exact_search(
            corpus.rows, queries.rows, dims, k=min(_DEPTH, len(data.docs))
        )
    else:
        found = {dim: _ranked(corpus.at(dim), queries.at(dim), [pools[i] for i in query_ids]) for dim in dims}
    return {
        dim: evaluate(ranking, data.doc_ids, query_ids, data.qrels, metrics=[metric])[metric]
        for dim, ranking in found.items()
    }


def _ranked(corpus: np.ndarray, queries: np.ndarray, pools: Sequence[Sequence[int]]) -> Neighbours:
    width = max(map(len, pools))
    rows = np.full((len(pools), width), -1, dtype=np.int64)
    scores = np.full((len(pools), width), -np.inf, dtype=np.float32)
    for i, pool in enumerate(pools):
        near = corpus[np.asarray(pool)] @ queries[i]
        order = np.argsort(-near, kind="stable")
        rows[i, : len(pool)] = np.asarray(pool)[order]
        scores[i, : len(pool)] = near[order]
    return Neighbours(rows, scores)
