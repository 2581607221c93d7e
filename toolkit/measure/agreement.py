"""How far a ranking is from a reference's, and what it can cost at most: from the two rankings alone, no judgements.

Knows no metric's table, no index and no file: rankings in, one value a query out. docs/statistics.md has the proofs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from toolkit.errors import DataError

# How likely a reader goes on to the next document; 0.9 puts 86 % of the weight on the first ten (Webber et al. 2010).
RBO_PERSISTENCE = 0.9


class Ranking(Protocol):
    """What a search found: (queries, k) row numbers, best first, -1 for none; and their scores."""

    rows: np.ndarray
    scores: np.ndarray


def overlap(ranking: Ranking, reference: Ranking, *, k: int) -> np.ndarray:
    """Share of the reference's first `k` documents that `ranking` has among its own first `k`; (queries,).

    For an approximate index against exact search this is what ann-benchmarks calls recall.
    """
    pair = SideBySide.of(ranking.rows, reference.rows).first(k)
    hits = pair.places >= 0
    return hits.sum(axis=1) / np.maximum(pair.there.sum(axis=1), 1)


def rank_biased_overlap(ranking: Ranking, reference: Ranking, *, k: int) -> np.ndarray:
    """Rank-biased overlap of the first `k` documents, extrapolated (Webber, Moffat & Zobel 2010); (queries,).

    The overlap at every depth, deeper ones counting less by a factor of 0.9 each; what lies beyond `k` is taken to
    agree as the first `k` do. 1 for equal rankings, 0 for rankings without a document in common.
    """
    place = SideBySide.of(ranking.rows, reference.rows).first(k).places
    depth = place.shape[1]
    # A document is in both first d from the larger of its two ranks on.
    both = np.where(place >= 0, np.maximum(place, np.arange(depth)), depth)
    joining = np.zeros((len(both), depth + 1))
    np.add.at(joining, (np.arange(len(both))[:, None], both), 1.0)
    shared = np.cumsum(joining[:, :depth], axis=1) / np.arange(1, depth + 1)
    weights = (1 - RBO_PERSISTENCE) / RBO_PERSISTENCE * RBO_PERSISTENCE ** np.arange(1, depth + 1)
    # The weights sum up to 1 only as far as floats do.
    return np.minimum(shared @ weights + shared[:, -1] * RBO_PERSISTENCE**depth, 1.0)


def most_ndcg_lost(
    ranking: Ranking, reference: Ranking, doc_ids: Sequence[str] | None = None, *, k: int
) -> np.ndarray:
    """The most nDCG@`k` that `ranking` can have less than `reference`, whatever is relevant; (queries,), 0 to 1.

    0 where the first `k` are the same in the same order. Over all judgements, graded ones too, the largest
    loss is that of some set of documents with one gain: of the documents by what each loses of its discount,
    1 / log2(rank + 1), the first j, divided by the best possible sum of j discounts.

    doc_ids : orders documents of equal score as trec_eval does, by id descending; None leaves them as they stand.
    """
    return _most_ndcg_lost(_in_order(ranking, reference, doc_ids).first(k))


def most_recall_lost(
    ranking: Ranking, reference: Ranking, doc_ids: Sequence[str] | None = None, *, k: int
) -> np.ndarray:
    """The same of recall@`k`: 1 where any of the reference's first `k` documents is lost: it alone may be relevant."""
    return _most_recall_lost(_in_order(ranking, reference, doc_ids).first(k))


def most_mrr_lost(
    ranking: Ranking, reference: Ranking, doc_ids: Sequence[str] | None = None, *, k: int
) -> np.ndarray:
    """The same of MRR@`k`: the most that any one document loses of 1 / rank, which is 0 beyond `k`."""
    return _most_mrr_lost(_in_order(ranking, reference, doc_ids).first(k))


def kept_ndcg(
    ranking: Ranking, reference: Ranking, doc_ids: Sequence[str] | None = None, *, k: int
) -> np.ndarray:
    """nDCG@`k` of `ranking` if the reference's own first `k` documents, and no others, are relevant; (queries,).

    All of them count alike, so the reference itself has 1 throughout; so has a query that it finds nothing for.
    """
    return _kept_ndcg(_in_order(ranking, reference, doc_ids).first(k))


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Where each document of a reference's ranking stands in another.

    places : (queries, depth) the rank, from 0, of the reference's documents in the ranking; -1 for nowhere.
    back : (queries, depth of the ranking) the same the other way round.
    there, back_there : where the reference, and the ranking, have a document at all.
    """

    places: np.ndarray
    back: np.ndarray
    there: np.ndarray
    back_there: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, reference: np.ndarray) -> SideBySide:
        """Of (queries, depth) row numbers, -1 for none; raises DataError for rankings of other queries."""
        if len(rows) != len(reference):
            raise DataError(f"rankings of {len(rows)} and {len(reference)} queries cannot be compared")
        places = _places(reference, rows)
        back = np.full(rows.shape, -1, dtype=np.int64)
        query, rank = np.nonzero(places >= 0)
        back[query, places[query, rank]] = rank
        return cls(places, back, reference >= 0, rows >= 0)

    def first(self, k: int) -> SideBySide:
        """The first `k` of both."""
        places, back = (np.where(side < k, side, -1) for side in (self.places[:, :k], self.back[:, :k]))
        return SideBySide(places, back, self.there[:, :k], self.back_there[:, :k])

    @property
    def swapped(self) -> SideBySide:
        """The ranking as the reference of its reference."""
        return SideBySide(self.back, self.places, self.back_there, self.there)


def bounds(pair: SideBySide, family: str, k: int) -> dict[str, np.ndarray]:
    """What judgements can show at most of one metric, ``ndcg``, ``recall`` or ``mrr``, at depth `k`.

    Returns ``most_lost`` and ``most_gained``, (queries,) each; for nDCG also ``by_reference``, see `kept_ndcg`.
    """
    most_lost = BOUNDED[family]
    cut = pair.first(k)
    found = {"most_lost": most_lost(cut), "most_gained": most_lost(cut.swapped)}
    return found | {"by_reference": _kept_ndcg(cut)} if family == "ndcg" else found


def as_evaluated(ranking: Ranking, doc_ids: Sequence[str]) -> np.ndarray:
    """The rows in the order in which they are judged: by score, then by id descending; -1 at the end."""
    there = ranking.rows >= 0
    scores = np.where(there, ranking.scores, -np.inf)
    rows = ranking.rows.copy()
    # Mostly there are no equal scores, and nothing to be done.
    unsettled = ~(scores[:, :-1] > scores[:, 1:]).all(axis=1)
    part, scores, there = rows[unsettled], scores[unsettled], there[unsettled]
    # Only the ids that were found: a corpus can be far larger, and this is asked for every setting.
    found, place = np.unique(part, return_inverse=True)
    by_id = np.empty(len(found), dtype=np.int64)
    by_id[sorted(range(len(found)), key=lambda i: doc_ids[found[i]])] = np.arange(len(found))
    order = np.lexsort((-by_id[place].reshape(there.shape), -scores, ~there), axis=1)
    rows[unsettled] = np.take_along_axis(part, order, axis=1)
    return rows


def _in_order(ranking: Ranking, reference: Ranking, doc_ids: Sequence[str] | None) -> SideBySide:
    return SideBySide.of(
        *(one.rows if doc_ids is None else as_evaluated(one, doc_ids) for one in (ranking, reference))
    )


def _most_ndcg_lost(pair: SideBySide) -> np.ndarray:
    discount = _discount(pair.places.shape[1])
    lost = np.where(pair.there, discount - _worth(pair.places, _discount(pair.back.shape[1])), 0.0)
    # One that gains, or is in neither ranking, would only lower the quotient.
    lost = -np.sort(-np.maximum(lost, 0.0), axis=1)
    return (np.cumsum(lost, axis=1) / np.cumsum(discount)).max(axis=1)


def _most_recall_lost(pair: SideBySide) -> np.ndarray:
    return (pair.there & (pair.places < 0)).any(axis=1).astype(np.float64)


def _most_mrr_lost(pair: SideBySide) -> np.ndarray:
    reciprocal, other = (1.0 / np.arange(1, side.shape[1] + 1) for side in (pair.places, pair.back))
    lost = np.where(pair.there, reciprocal - _worth(pair.places, other), 0.0)
    return np.maximum(lost.max(axis=1), 0.0)


BOUNDED = {"ndcg": _most_ndcg_lost, "recall": _most_recall_lost, "mrr": _most_mrr_lost}


def _kept_ndcg(pair: SideBySide) -> np.ndarray:
    ideal = np.where(pair.there, _discount(pair.there.shape[1]), 0.0).sum(axis=1)
    kept = _worth(pair.places, _discount(pair.back.shape[1])).sum(axis=1)
    # Sums of the same discounts in another order may differ in the last digit.
    return np.where(ideal > 0, np.minimum(kept / np.where(ideal > 0, ideal, 1.0), 1.0), 1.0)


def _discount(depth: int) -> np.ndarray:
    return 1.0 / np.log2(np.arange(2, depth + 2))


def _worth(places: np.ndarray, by_rank: np.ndarray) -> np.ndarray:
    """What each document is worth at the place where it stands; 0 for nowhere."""
    return np.where(places >= 0, by_rank[places], 0.0)


def _places(wanted: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Where each wanted document stands among those found, from 0; -1 for nowhere; of the shape of `wanted`."""
    # One sorted list for all queries: a query's documents lie between multiples of `span`, "none" at the multiple.
    span = 2 + max(int(wanted.max(initial=-1)), int(found.max(initial=-1)))
    start = np.arange(len(wanted), dtype=np.int64)[:, None] * span
    order = np.argsort(found, axis=1, kind="stable")
    listed = (np.take_along_axis(found, order, axis=1) + 1 + start).ravel()
    sought = (wanted + 1 + start).ravel()
    if not listed.size:
        return np.full(wanted.shape, -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(listed, sought), listed.size - 1)
    hit = (listed[at] == sought) & (wanted.ravel() >= 0)
    return np.where(hit, order.ravel()[at], -1).reshape(wanted.shape)
