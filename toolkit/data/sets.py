"""The two kinds of evaluation set, whatever they were read from. Knows nothing of models."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from toolkit.errors import DataError


def _bytes(text: str) -> bytes:
    """UTF-8; lone surrogates, which broken decoding leaves and UTF-8 cannot hold, are kept distinct."""
    return text.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, eq=False)
class RetrievalSet:
    """Queries, a corpus, and which document answers which query.

    name : how tables and charts name it.
    doc_ids, docs : corpus ids and texts (title and body joined by a space), in file order.
    query_ids, queries : only queries with at least one judgement.
    qrels : query id -> document id -> gain (0 is judged and not relevant).
    """

    name: str
    doc_ids: Sequence[str]
    docs: Sequence[str]
    query_ids: Sequence[str]
    queries: Sequence[str]
    qrels: Mapping[str, Mapping[str, int]]

    def __post_init__(self) -> None:
        if not self.docs:
            raise DataError(f"{self.name}: the corpus is empty; it needs at least one document")
        if not self.queries:
            raise DataError(f"{self.name}: no query has a judgement; check the split and the query ids")
        for kind, ids in (("document", self.doc_ids), ("query", self.query_ids)):
            if len(set(ids)) != len(ids):
                twice = next(i for i, times in Counter(ids).items() if times > 1)
                raise DataError(f"{self.name}: {kind} id {twice!r} stands more than once; ids must differ")
        known = set(self.doc_ids)
        for query_id, gains in self.qrels.items():
            for doc_id in gains:
                if doc_id not in known:
                    raise DataError(
                        f"{self.name}: qrels of query {query_id!r} name document {doc_id!r}, "
                        "which is not in the corpus"
                    )

    @cached_property
    def content_hash(self) -> str:
        """16 hex digits over all texts, ids and judgements: results of other content never mix."""
        digest = hashlib.blake2b(digest_size=8)
        for part in (self.doc_ids, self.docs, self.query_ids, self.queries):
            for text in part:
                encoded = _bytes(text)
                digest.update(len(encoded).to_bytes(8, "little") + encoded)
        for query_id in self.query_ids:
            for doc_id, gain in sorted(self.qrels[query_id].items()):
                digest.update(_bytes(f"{query_id}\0{doc_id}\0{gain}\n"))
        return digest.hexdigest()

    def __repr__(self) -> str:
        return f"RetrievalSet({self.name!r}, documents={len(self.docs):,}, queries={len(self.queries):,})"


@dataclass(frozen=True, eq=False)
class PairSet:
    """Pairs of texts: with human similarity scores (STS), or translations of each other (bitext).

    scores : (n,) float64, or None for a bitext, where pair i of `left` belongs to pair i of `right`.
    """

    name: str
    left: Sequence[str]
    right: Sequence[str]
    scores: np.ndarray | None = None

    def __post_init__(self) -> None:
        if len(self.left) != len(self.right) or not self.left:
            raise DataError(
                f"{self.name}: {len(self.left)} left and {len(self.right)} right texts; "
                "both sides must have the same number, at least one"
            )
        if self.scores is not None and len(self.scores) != len(self.left):
            raise DataError(f"{self.name}: {len(self.scores)} scores for {len(self.left)} pairs")

    @property
    def kind(self) -> str:
        """``sts`` or ``bitext``."""
        return "bitext" if self.scores is None else "sts"

    @cached_property
    def content_hash(self) -> str:
        """16 hex digits over all texts and scores."""
        digest = hashlib.blake2b(digest_size=8)
        for left, right in zip(self.left, self.right, strict=True):
            digest.update(_bytes(f"{left}\0{right}\n"))
        if self.scores is not None:
            digest.update(np.asarray(self.scores, dtype=np.float64).tobytes())
        return digest.hexdigest()

    def __repr__(self) -> str:
        return f"PairSet({self.name!r}, pairs={len(self.left):,}, kind={self.kind!r})"
