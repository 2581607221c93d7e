"""Which documents of a query are judged, and in what order: from the rankings in question alone.

A person sees no setting: within each group the order is one that only the seed decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from toolkit.measure.metrics import metric_named

# Of one query: setting -> its first documents, best first.
Found = Mapping[str, Sequence[str]]


def documents_to_judge(found: Found, *, query_id: str, seed: int) -> tuple[str, ...]:
    """All documents that any of the rankings has; those that all have at the same rank come last.

    A document at the same rank everywhere says nothing of differences between settings, only of the value
    that they share.
    """
    rankings = list(found.values())
    alike = {
        documents[0]
        for documents in zip(*rankings, strict=False)
        if all(other == documents[0] for other in documents)
    }
    union = {doc_id for ranking in rankings for doc_id in ranking}
    return tuple(
        sorted(union, key=lambda doc_id: (doc_id in alike, _shuffled(seed, query_id, doc_id), doc_id))
    )


def next_document(order: Sequence[str], found: Found, gains: Mapping[str, int], *, metric: str) -> str | None:
    """The first document without an answer that the metric still depends on; None if the query is done.

    MRR knows nothing of what stands behind a ranking's first relevant document; of all other metrics the value
    depends on every document, through what the best possible order would give.
    """
    if metric_named(metric).trec != "recip_rank":
        return next((doc_id for doc_id in order if doc_id not in gains), None)
    before_first: set[str] = set()
    for ranking in found.values():
        for doc_id in ranking:
            before_first.add(doc_id)
            if gains.get(doc_id, 0) > 0:
                break
    return next((doc_id for doc_id in order if doc_id not in gains and doc_id in before_first), None)


def _shuffled(seed: int, query_id: str, doc_id: str) -> bytes:
    text = "\0".join((str(seed), query_id, doc_id)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=8).digest()
