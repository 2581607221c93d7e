"""How far a ranking is from a reference's, and what it can cost at most: from the two rankings alone, no judgements.

Knows no metric's table, no index and no file: rankings in, one value a query out. docs/statistics.md has the proofs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from toolkit.errors import DataError

# How likely a reader goes on to the next document; 0.9 puts 86 % of the weight on the first ten (Webber et al. 2010).
RBO_PERSISTENCE = 0.9
_BLOCK_CELLS = 2**24


class Ranking(Protocol):
    """What a search found: (queries, k) row numbers, best first, -1 for none; and their scores."""

    rows: np.ndarray
    scores: np.ndarray


def overlap(ranking: Ranking, reference: Ranking, *, k: int) -> np.ndarray:
    """Share of the reference's first `k` documents that `ranking` has among its own first `k`; (queries,).

    For an approximate index against exact search this is what ann-benchmarks calls recall.
    """
    found, wanted = _first(ranking.rows, reference.rows, k)
    hits = _places(wanted, found) >= 0
    return hits.sum(axis=1) / np.maximum((wanted >= 0).sum(axis=1), 1)


def rank_biased_overlap(ranking: Ranking, reference: Ranking, *, k: int) -> np.ndarray:
    """Rank-biased overlap of the first `k` documents, extrapolated (Webber, Moffat & Zobel 2010); (queries,).

    The overlap at every depth, deeper ones counting less by a factor of 0.9 each; what lies beyond `k` is taken to
    agree as the first `k` do. 1 for equal rankings, 0 for rankings without a document in common.
    """
    found, wanted = _first(ranking.rows, reference.rows, k)
    depth = wanted.shape[1]
    place = _places(wanted, found)
    # A document is in both first d from the larger of its two ranks on.
    both = np.where(place >= 0, np.maximum(place, np.arange(depth)), depth)
    joining = np.zeros((len(both), depth + 1))
    np.add.at(joining, (np.arange(len(both))[:, None], both), 1.0)
    shared = np.cumsum(joining[:, :depth], axis=1) / np.arange(1, depth + 1)
    weights = (1 - RBO_PERSISTENCE) / RBO_PERSISTENCE * RBO_PERSISTENCE ** np.arange(1, depth + 1)
    return shared @ weights + shared[:, -1] * RBO_PERSISTENCE**depth


def most_ndcg_lost(
    ranking: Ranking, reference: Ranking, doc_ids: Sequence[str] | None = None, *, k: int
) -> np.ndarray:
    """The most nDCG@`k` that `ranking` can have less than `reference`, whatever is relevant; (queries,), 0 to 1.

    0 where the first `k` are the same in the same order. Over all judgements, graded ones too, the largest
    loss is that of some set of documents with one gain: of the documents by what each loses of its discount,
    1 / log2(rank + 1), the first j, divided by the best possible sum of j discounts.

    doc_ids : orders documents of equal score as trec_eval does, by id descending; None leaves them as they stand.
    """
    found, wanted = _first(
        *(one.rows if doc_ids is None else as_evaluated(one, doc_ids) for one in (ranking, reference)), k
    )
    depth = wanted.shape[1]
    discount = 1.0 / np.log2(np.arange(2, depth + 2))
    place = _places(wanted, found)
    kept = np.where(place >= 0, discount[place], 0.0)
    lost = np.where(wanted >= 0, discount - kept, 0.0)
    # One that gains, or is in neither ranking, would only lower the quotient.
    lost = -np.sort(-np.maximum(lost, 0.0), axis=1)
    return (np.cumsum(lost, axis=1) / np.cumsum(discount)).max(axis=1)


def _first(rows: np.ndarray, others: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    if len(rows) != len(others):
        raise DataError(f"rankings of {len(rows)} and {len(others)} queries cannot be compared")
    return rows[:, :k], others[:, :k]


def _places(wanted: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Where each wanted document stands among those found, from 0; -1 for nowhere; of the shape of `wanted`."""
    places = np.empty(wanted.shape, dtype=np.int64)
    step = max(1, _BLOCK_CELLS // max(1, wanted.shape[1] * found.shape[1]))
    for start in range(0, len(wanted), step):
        part = slice(start, start + step)
        same = (wanted[part, :, None] == found[part, None, :]) & (wanted[part, :, None] >= 0)
        places[part] = np.where(same.any(axis=2), same.argmax(axis=2), -1)
    return places


def as_evaluated(ranking: Ranking, doc_ids: Sequence[str]) -> np.ndarray:
    """The rows in the order in which they are judged: by score, then by id descending; -1 at the end."""
    there = ranking.rows >= 0
    # Only the ids that were found: a corpus can be far larger, and this is asked for every setting.
    rows, place = np.unique(ranking.rows, return_inverse=True)
    by_id = np.empty(len(rows), dtype=np.int64)
    by_id[sorted(range(len(rows)), key=lambda i: doc_ids[rows[i]])] = np.arange(len(rows))
    scores = np.where(there, ranking.scores, -np.inf)
    order = np.lexsort((-by_id[place].reshape(there.shape), -scores, ~there), axis=1)
    return np.take_along_axis(ranking.rows, order, axis=1)
