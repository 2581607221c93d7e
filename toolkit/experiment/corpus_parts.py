"""Nested random parts of a corpus, to measure how quality changes with its size.

A larger corpus has more documents that are mistaken for the relevant ones, and the relevant ones remain: so every
part holds all documents that are relevant to the queries it is asked. Knows no index and no metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.data.sets import RetrievalSet
from toolkit.search.neighbours import Neighbours

# Below so many documents a list of 400 candidates to rescore holds most of the corpus.
FEWEST_DOCUMENTS = 500
MOST_QUERIES = 500
_HALVINGS = 4
# Relevant documents make up this share of the smallest part at most: the rest must be able to be mistaken for them.
_RELEVANT_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class CorpusParts:
    """Which documents each part holds, and which queries are asked there.

    order : all corpus rows; a part of n documents holds the first n, so the smaller is within the larger.
    queries : rows of the queries that are asked, ascending. kept : how many of `order` come first as relevant to them.
    sizes : of the parts, ascending, without the whole; empty for a corpus too small to be divided.
    """

    order: np.ndarray
    queries: np.ndarray
    kept: int
    sizes: tuple[int, ...]

    def rows(self, documents: int) -> np.ndarray:
        """The corpus rows of a part, ascending."""
        return np.sort(self.order[:documents])

    def measures(self, documents: int) -> bool:
        """Whether a part of that size can say something of quality."""
        return documents >= max(FEWEST_DOCUMENTS, self.kept / _RELEVANT_SHARE)


def corpus_parts(data: RetrievalSet, nearest: Neighbours, *, seed: int) -> CorpusParts:
    """Halves, quarters .. of a corpus down to a sixteenth, as far as there is something to measure in them.

    nearest : what the exact search finds; its first document stands for the relevant ones where none are judged.
    At most MOST_QUERIES queries are asked, with relevant documents that make up an eighth of the corpus at most.
    """
    rng = np.random.default_rng([seed, len(data.docs)])
    documents = len(data.docs)
    relevant = _relevant(data, nearest)
    seen: set[int] = set()
    asked: list[int] = []
    for query in rng.permutation(len(data.queries)).tolist():
        if len(asked) == MOST_QUERIES or len(seen | relevant[query]) > documents / 8:
            break
        if relevant[query]:
            asked.append(query)
            seen |= relevant[query]
    first = rng.permutation(sorted(seen)).astype(np.int64)
    others = rng.permutation(np.setdiff1d(np.arange(documents), first))
    parts = CorpusParts(np.concatenate([first, others]), np.sort(np.array(asked, np.int64)), len(first), ())
    sizes = tuple(n for i in range(_HALVINGS, 0, -1) if parts.measures(n := round(documents / 2**i)))
    return CorpusParts(parts.order, parts.queries, parts.kept, sizes if len(asked) > 1 else ())


def _relevant(data: RetrievalSet, nearest: Neighbours) -> Sequence[set[int]]:
    if not data.labelled:
        return [{int(row)} if row >= 0 else set() for row in nearest.rows[:, 0]]
    judged = {doc_id for gains in data.qrels.values() for doc_id in gains}
    row_of: Mapping[str, int] = {doc_id: row for row, doc_id in enumerate(data.doc_ids) if doc_id in judged}
    return [
        {row_of[doc_id] for doc_id, gain in data.qrels.get(query_id, {}).items() if gain > 0}
        for query_id in data.query_ids
    ]
