"""The two kinds of evaluation set, whatever they were read from. Knows nothing of models."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import overload

import numpy as np

from toolkit.errors import DataError

# Where queries without judgements come from. The last kind is a stand-in, and is called so wherever it counts.
GIVEN = "given"
UNJUDGED = "queries without judgements"
SENTENCES = "sentences of the documents"


def _bytes(text: str) -> bytes:
    """UTF-8; lone surrogates, which broken decoding leaves and UTF-8 cannot hold, are kept distinct."""
    return text.encode("utf-8", "surrogatepass")


class RowNumbers(Sequence[str]):
    """The numbers of rows as ids and texts of what has none: each is made when it is asked for, and none is kept."""

    def __init__(self, count: int) -> None:
        self._numbers = range(count)

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        found = self._numbers[place]
        return [str(number) for number in found] if isinstance(found, range) else str(found)

    def __iter__(self) -> Iterator[str]:
        return map(str, self._numbers)


@dataclass(frozen=True, eq=False)
class RetrievalSet:
    """Queries, a corpus, and which document answers which query, as far as that was judged.

    name : how tables and charts name it.
    doc_ids, docs : corpus ids and texts (title and body joined by a space), in file order.
    query_ids, queries : only queries with at least one judgement; all of them in a set without any.
    qrels : query id -> document id -> gain (0 is judged and not relevant); empty in a set without judgements.
    unlabelled_ids, unlabelled : further queries, without judgements; none in a set that has no judgement at all.
    unlabelled_source : where the queries without judgements come from: ``given``, ``queries without judgements``
        (of the set itself), or ``sentences of the documents``, which only stand in for queries. Empty if there
        are none, ``given`` if nothing else is said. In a set without judgements it speaks of `queries`.
    clusters : query id -> cluster, of unlabelled ones too: queries of one cluster are not independent. A query that
        is not named is a cluster of its own.
    """

    name: str
    doc_ids: Sequence[str]
    docs: Sequence[str]
    query_ids: Sequence[str]
    queries: Sequence[str]
    qrels: Mapping[str, Mapping[str, int]]
    unlabelled_ids: Sequence[str] = ()
    unlabelled: Sequence[str] = ()
    unlabelled_source: str = ""
    clusters: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.docs:
            raise DataError(f"{self.name}: the corpus is empty; it needs at least one document")
        if not self.queries:
            raise DataError(f"{self.name}: no query has a judgement; check the split and the query ids")
        if len(self.unlabelled_ids) != len(self.unlabelled):
            raise DataError(
                f"{self.name}: {len(self.unlabelled_ids)} ids for {len(self.unlabelled)} queries without "
                "judgements; there must be one for each"
            )
        self._check_source()
        for kind, ids in (("document", self.doc_ids), ("query", [*self.query_ids, *self.unlabelled_ids])):
            if not isinstance(ids, RowNumbers) and len(set(ids)) != len(ids):
                twice = next(i for i, times in Counter(ids).items() if times > 1)
                raise DataError(f"{self.name}: {kind} id {twice!r} stands more than once; ids must differ")
        known = set(self.doc_ids) if self.qrels else ()
        for query_id, gains in self.qrels.items():
            for doc_id in gains:
                if doc_id not in known:
                    raise DataError(
                        f"{self.name}: qrels of query {query_id!r} name document {doc_id!r}, "
                        "which is not in the corpus"
                    )

    def _check_source(self) -> None:
        if not self.labelled and self.unlabelled:
            raise DataError(
                f"{self.name}: a set without judgements has its queries in `queries`, and none in `unlabelled`"
            )
        needed = bool(self.unlabelled) or not self.labelled
        if needed and not self.unlabelled_source:
            object.__setattr__(self, "unlabelled_source", GIVEN)
        known = (GIVEN, UNJUDGED, SENTENCES) if needed else ("",)
        if self.unlabelled_source not in known:
            raise DataError(
                f"{self.name}: unlabelled_source {self.unlabelled_source!r} is not one of: "
                f"{', '.join(map(repr, known))}"
            )

    @property
    def labelled(self) -> bool:
        """Whether there are judgements."""
        return bool(self.qrels)

    @cached_property
    def searched_hash(self) -> str:
        """16 hex digits over documents, `queries` and judgements: what is found and timed for `queries` goes by it."""
        digest = hashlib.blake2b(digest_size=8)
        _add_texts(digest, self.doc_ids, self.docs, self.query_ids, self.queries)
        for query_id in self.query_ids:
            for doc_id, gain in sorted(self.qrels.get(query_id, {}).items()):
                digest.update(_bytes(f"{query_id}\0{doc_id}\0{gain}\n"))
        return digest.hexdigest()

    @cached_property
    def unlabelled_hash(self) -> str:
        """16 hex digits over the queries without judgements; what is found for them goes by both hashes."""
        digest = hashlib.blake2b(digest_size=8)
        _add_texts(digest, self.unlabelled_ids, self.unlabelled)
        return digest.hexdigest()

    @cached_property
    def content_hash(self) -> str:
        """16 hex digits over everything; that of a set with judgements alone is its `searched_hash`."""
        grouped = [
            f"{i}\0{self.clusters[i]}\n"
            for i in (*self.query_ids, *self.unlabelled_ids)
            if i in self.clusters
        ]
        if not (self.unlabelled_source or grouped):
            return self.searched_hash
        digest = hashlib.blake2b(digest_size=8)
        _add_texts(digest, [self.searched_hash, self.unlabelled_hash, self.unlabelled_source], grouped)
        return digest.hexdigest()

    def __repr__(self) -> str:
        more = f", unlabelled={len(self.unlabelled):,}" if self.unlabelled else ""
        more += "" if self.labelled else ", judgements=0"
        return (
            f"RetrievalSet({self.name!r}, documents={len(self.docs):,}, queries={len(self.queries):,}{more})"
        )


def _add_texts(digest: hashlib.blake2b, *parts: Sequence[str]) -> None:
    for part in parts:
        # Millions of numbers in a row say no more than how many they are.
        for text in [f"{len(part)} row numbers"] if isinstance(part, RowNumbers) else part:
            encoded = _bytes(text)
            digest.update(len(encoded).to_bytes(8, "little") + encoded)


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
