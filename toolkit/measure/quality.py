"""How good a ranking is, per query: nDCG, recall, MRR, MAP, overlap; rank correlation; bitext retrieval.

Knows no index, model or file: only row numbers, scores and judgements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from toolkit.errors import DataError, PlanError

METRICS = ("ndcg@10", "recall@1", "recall@10", "recall@100", "mrr@10", "map")
_CUT = {"ndcg": "ndcg_cut", "recall": "recall"}


class Ranking(Protocol):
    """What a search found: (queries, k) row numbers, best first, -1 for none; and their scores."""

    rows: np.ndarray
    scores: np.ndarray


def evaluate(
    ranking: Ranking,
    doc_ids: Sequence[str],
    query_ids: Sequence[str],
    qrels: Mapping[str, Mapping[str, int]],
    *,
    metrics: Sequence[str] = METRICS,
) -> dict[str, np.ndarray]:
    """Quality of each query by pytrec_eval, as {metric: (queries,) float64} in the order of `query_ids`.

    ranking : row i of its arrays is query i; row numbers point into `doc_ids`.
    qrels : query id -> document id -> gain; a gain of 1 or more is relevant, nDCG uses the gain itself.
    metrics : ``ndcg@k``, ``recall@k``, ``mrr@k`` with any k, or ``map``.

    As in trec_eval (and mteb), documents are ordered by score and then by id descending, whatever their
    order in `ranking`: documents of equal float32 score have no order of their own. A query without a
    relevant document, or for which nothing was found, gets 0. MAP sees no deeper than `ranking` goes.

    Raises PlanError for an unknown metric, DataError if `ranking` does not fit the ids.
    """
    import pytrec_eval

    rows, scores = ranking.rows, ranking.scores
    if rows.shape != scores.shape or len(rows) != len(query_ids):
        raise DataError(
            f"ranking of {rows.shape} rows and {scores.shape} scores does not fit {len(query_ids)} queries; "
            "it needs one row a query"
        )
    if rows.size and rows.max() >= len(doc_ids):
        raise DataError(f"ranking names document {rows.max()}, but there are {len(doc_ids)}")
    names = {metric: _trec_name(metric) for metric in metrics}
    judged = {query_id: dict(qrels.get(query_id, {})) for query_id in query_ids}
    evaluator = pytrec_eval.RelevanceEvaluator(judged, set(names.values()))
    ids = np.asarray(doc_ids, dtype=object)
    run = {}
    for query_id, found, nearness in zip(query_ids, rows, scores, strict=True):
        kept = found >= 0
        run[query_id] = dict(zip(ids[found[kept]].tolist(), nearness[kept].tolist(), strict=True))
    by_query = evaluator.evaluate(run)
    values = {}
    for metric, name in names.items():
        key = name.replace(".", "_")
        column = np.array([by_query.get(query_id, {}).get(key, 0.0) for query_id in query_ids])
        values[metric] = _cut_reciprocal(column, metric) if name == "recip_rank" else column
    return values


def overlap(ranking: Ranking, reference: Ranking, *, k: int = 10) -> np.ndarray:
    """Share of the reference's first `k` documents that `ranking` has among its own first `k`; (queries,).

    For an approximate index against exact search this is what ann-benchmarks calls recall.
    """
    found, wanted = ranking.rows[:, :k], reference.rows[:, :k]
    if len(found) != len(wanted):
        raise DataError(f"rankings of {len(found)} and {len(wanted)} queries cannot be compared")
    there = wanted >= 0
    hits = (wanted[:, :, None] == found[:, None, :]).any(axis=2) & there
    return hits.sum(axis=1) / np.maximum(there.sum(axis=1), 1)


def spearman(cosines: np.ndarray, scores: np.ndarray) -> float:
    """Spearman's rank correlation of (n,) similarities with (n,) human scores; nan if either is constant."""
    from scipy.stats import rankdata

    if len(cosines) != len(scores):
        raise DataError(f"{len(cosines)} similarities for {len(scores)} scores; there must be one a pair")
    x, y = (ranks - ranks.mean() for ranks in (rankdata(cosines), rankdata(scores)))
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 0 else float("nan")


def bitext_hits(ranking: Ranking) -> np.ndarray:
    """1.0 where text i's nearest candidate is its translation, row i, else 0.0; (n,). The mean: accuracy."""
    return (ranking.rows[:, 0] == np.arange(len(ranking.rows))).astype(np.float64)


def _trec_name(metric: str) -> str:
    name, _, cut = metric.partition("@")
    if metric == "map":
        return "map"
    if cut.isdecimal() and int(cut) > 0:
        if name == "mrr":
            return "recip_rank"
        if name in _CUT:
            return f"{_CUT[name]}.{int(cut)}"
    raise PlanError(f"metric {metric!r} is unknown; choose ndcg@k, recall@k, mrr@k (as in ndcg@10) or map")


def _cut_reciprocal(reciprocal: np.ndarray, metric: str) -> np.ndarray:
    """MRR@k: a first relevant document below rank k counts nothing."""
    deepest = int(metric.partition("@")[2])
    return np.where(reciprocal >= 1.0 / deepest, reciprocal, 0.0)
