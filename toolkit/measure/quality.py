"""How good a ranking is, per query: nDCG, recall, MRR, MAP; rank correlation; bitext retrieval.

What each metric is called and what it means is in `metrics.py`. Knows no index, model or file: only row
numbers, scores and judgements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from toolkit.errors import DataError, PlanError
from toolkit.measure.agreement import Ranking
from toolkit.measure.metrics import Metric, metric_named


def evaluate(
    ranking: Ranking,
    doc_ids: Sequence[str],
    query_ids: Sequence[str],
    qrels: Mapping[str, Mapping[str, int]],
    *,
    metrics: Sequence[str],
) -> dict[str, np.ndarray]:
    """Quality of each query by pytrec_eval, as {metric: (queries,) float64} in the order of `query_ids`.

    ranking : row i of its arrays is query i; row numbers point into `doc_ids`.
    qrels : query id -> document id -> gain; a gain of 1 or more is relevant, nDCG uses the gain itself.
    metrics : ``ndcg@k``, ``recall@k``, ``mrr@k``, ``map@k`` with any k.

    As in trec_eval (and mteb), documents are ordered by score and then by id descending, whatever their
    order in `ranking`: documents of equal float32 score have no order of their own. A query without a
    relevant document, or for which nothing was found, gets 0. No metric sees deeper than `ranking` goes.

    Raises PlanError for a metric that is not of this kind, DataError if `ranking` does not fit the ids.
    """
    import pytrec_eval

    rows, scores = ranking.rows, ranking.scores
    if rows.shape != scores.shape or len(rows) != len(query_ids):
        raise DataError(
            f"ranking of {rows.shape} rows and {scores.shape} scores does not fit {len(query_ids)} queries; "
            "it needs one row per query"
        )
    if rows.size and rows.max() >= len(doc_ids):
        raise DataError(f"ranking names document {rows.max()}, but there are {len(doc_ids)}")
    wanted = [_by_trec(name) for name in metrics]
    judged = {query_id: dict(qrels.get(query_id, {})) for query_id in query_ids}
    evaluator = pytrec_eval.RelevanceEvaluator(judged, {metric.trec for metric in wanted})
    # Only the ids that were found: a corpus can be far larger.
    ids = {row: doc_ids[row] for row in np.unique(rows[rows >= 0]).tolist()}
    run = {}
    for query_id, found, nearness in zip(query_ids, rows, scores, strict=True):
        kept = found >= 0
        named = [ids[row] for row in found[kept].tolist()]
        run[query_id] = dict(zip(named, nearness[kept].tolist(), strict=True))
    by_query = evaluator.evaluate(run)
    values = {}
    for metric in wanted:
        key = metric.trec.replace(".", "_")
        column = np.array([by_query.get(query_id, {}).get(key, 0.0) for query_id in query_ids])
        values[metric.name] = _cut_reciprocal(column, metric) if key == "recip_rank" else column
    return values


def spearman(cosines: np.ndarray, scores: np.ndarray) -> float:
    """Spearman's rank correlation of (n,) similarities with (n,) human scores; nan if either is constant."""
    from scipy.stats import rankdata

    if len(cosines) != len(scores):
        raise DataError(f"{len(cosines)} similarities for {len(scores)} scores; there must be one per pair")
    x, y = (ranks - ranks.mean() for ranks in (rankdata(cosines), rankdata(scores)))
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 0 else float("nan")


def bitext_hits(ranking: Ranking) -> np.ndarray:
    """1.0 where text i's nearest candidate is its translation, row i, else 0.0; (n,). The mean: accuracy."""
    return (ranking.rows[:, 0] == np.arange(len(ranking.rows))).astype(np.float64)


def _by_trec(name: str) -> Metric:
    metric = metric_named(name)
    if not metric.trec:
        raise PlanError(
            f"metric {name!r} does not follow from judgements of documents; choose ndcg@k or recall@k"
        )
    return metric


def _cut_reciprocal(reciprocal: np.ndarray, metric: Metric) -> np.ndarray:
    """MRR@k: a first relevant document below rank k counts nothing."""
    return np.where(reciprocal >= 1.0 / metric.depth, reciprocal, 0.0)
