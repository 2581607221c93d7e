"""Evaluation sets from what a program holds: lists, dictionaries, pandas or polars frames.

Knows nothing of files; `columns.py` says what the columns of a frame are called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from toolkit.data.beir import whole_gain
from toolkit.data.columns import (
    as_columns,
    clusters_of,
    column,
    documents_of,
    found,
    named_clusters,
    optional,
    queries_of,
    strings,
)
from toolkit.data.pairs import numbers
from toolkit.data.sentences import sentences_of
from toolkit.data.sets import GIVEN, SENTENCES, UNJUDGED, PairSet, RetrievalSet, RowNumbers
from toolkit.errors import DataError


def retrieval_set(
    docs: Any,  # noqa: ANN401
    queries: Any,  # noqa: ANN401
    qrels: Any,  # noqa: ANN401
    *,
    clusters: Any = None,  # noqa: ANN401
    name: str = "data",
) -> RetrievalSet:
    """A retrieval set from documents, queries and judgements.

    docs : a list of texts, a dictionary from id to text, or a frame with columns ``id``, ``text`` and, if there
        is one, ``title``. Documents of a list have the ids "0", "1", ..
    queries : the same forms; a frame may have a ``cluster``.
    qrels : a dictionary from query id to document ids (a list, or a dictionary to gains; for lists of texts
        their positions will do), a list of (query id, document id) or (query id, document id, gain), or a frame
        with ``query_id``, ``document_id`` and, if there is one, ``score`` (1 without).
    clusters : a dictionary from query id to cluster, or a frame with ``query_id`` and ``cluster``: queries of one
        cluster are not independent, as those that ask about the same document.
    name : how tables and charts name the set.

    Queries without a judgement are those of the set without labels. Raises DataError naming what is missing or
    does not fit.
    """
    documents, asked = documents_of(docs), queries_of(queries)
    judged = _judgements(qrels)
    for query_id in judged:
        if query_id not in asked.by_id:
            raise DataError(
                f"qrels judge query {query_id!r}, which is not among the {len(asked.ids)} queries"
            )
    kept = [query_id for query_id in asked.ids if query_id in judged]
    others = [query_id for query_id in asked.ids if query_id not in judged]
    return RetrievalSet(
        name,
        documents.ids,
        documents.texts,
        kept,
        [asked.by_id[query_id] for query_id in kept],
        judged,
        unlabelled_ids=others,
        unlabelled=[asked.by_id[query_id] for query_id in others],
        unlabelled_source=UNJUDGED if others else "",
        clusters={**asked.clusters, **_given_clusters(clusters, asked.ids)},
    )


def texts(
    docs: Any,  # noqa: ANN401
    queries: Any = None,  # noqa: ANN401
    *,
    clusters: Any = None,  # noqa: ANN401
    name: str = "texts",
) -> RetrievalSet:
    """A set without judgements: documents and, if there are any, queries. Settings are judged by agreement.

    docs : as `retrieval_set` takes them; a frame needs no ids.
    queries : the same forms; a frame may call them ``query``, and may have a ``cluster``. None lets sentences of the
        documents stand in for queries, which is better than nothing and worse than any query a person wrote.
    clusters, name : as `retrieval_set` takes them.

    Raises DataError naming what is missing or does not fit.
    """
    documents = documents_of(docs, numbered=True)
    asked = (
        sentences_of(documents.texts)
        if queries is None
        else queries_of(queries, numbered=True, prefix="query-")
    )
    if not asked.ids:
        raise DataError(
            f"{name}: there are no queries"
            + (
                ", and no document has any text to take one from"
                if queries is None
                else "; None takes sentences"
            )
        )
    return RetrievalSet(
        name,
        documents.ids,
        documents.texts,
        asked.ids,
        asked.texts,
        {},
        unlabelled_source=SENTENCES if queries is None else GIVEN,
        clusters={**asked.clusters, **_given_clusters(clusters, asked.ids)},
    )


def numbered(documents: int, queries: int, *, name: str = "vectors") -> RetrievalSet:
    """A set without texts and judgements, for vectors that are there: documents and queries go by their row numbers."""
    asked = RowNumbers(queries)
    corpus = RowNumbers(documents)
    return RetrievalSet(name, corpus, corpus, asked, asked, {}, unlabelled_source=GIVEN)


def pair_set(left: Any, right: Any = None, scores: Any = None, *, name: str = "pairs") -> PairSet:  # noqa: ANN401
    """A pair set: texts on two sides, with human similarity scores (STS) or without (translations).

    left, right : lists of texts of one length; or `left` a frame with ``sentence1``, ``sentence2`` and, if there
        is one, ``score``.
    scores : a number for each pair; None for translations.

    Raises DataError for sides of other lengths, texts that are not strings and scores that are not numbers.
    """
    if right is None:
        columns = as_columns(left)
        if columns is None or "sentence1" not in columns or "sentence2" not in columns:
            raise DataError(
                f"a pair set needs two lists, or a frame with {found(columns, 'sentence1', 'sentence2')}"
            )
        left, right, scores = columns["sentence1"], columns["sentence2"], columns.get("score")
    sides = [strings(list(side), what=what) for side, what in ((left, "left"), (right, "right"))]
    values = None
    if scores is not None:
        given = list(scores)
        values = numbers(given, [f"pair {i}" for i in range(len(given))])
    return PairSet(name, sides[0], sides[1], values)


def judged_pairs(columns: Mapping[str, Sequence[Any]], *, name: str) -> RetrievalSet:
    """A retrieval set from one table of judged pairs: ``query``, ``document``, maybe ``score`` and ``cluster``.

    Equal texts are one query or one document. Raises DataError for missing columns.
    """
    asked, answers = (column(columns, kind, needs=("query", "document")) for kind in ("query", "document"))
    gains = optional(columns, "score") or [1] * len(asked)
    query_ids: dict[str, str] = {}
    doc_ids: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    texts = (strings(list(side), what=what) for side, what in ((asked, "query"), (answers, "document")))
    for i, (query, document, gain) in enumerate(zip(*texts, gains, strict=True)):
        query_id = query_ids.setdefault(query, f"q{len(query_ids)}")
        doc_id = doc_ids.setdefault(document, f"d{len(doc_ids)}")
        qrels.setdefault(query_id, {})[doc_id] = _gain(gain, f"{name}, pair {i}")
    return RetrievalSet(
        name,
        list(doc_ids.values()),
        list(doc_ids),
        list(query_ids.values()),
        list(query_ids),
        qrels,
        clusters=named_clusters(
            [query_ids[query] for query in asked], optional(columns, "cluster") or [""] * len(asked)
        ),
    )


def _given_clusters(clusters: Any, ids: Sequence[str]) -> dict[str, str]:  # noqa: ANN401
    named = {} if clusters is None else clusters_of(clusters)
    if named and named.keys().isdisjoint(ids):
        raise DataError(
            f"clusters name none of the {len(ids)} queries; the first are {next(iter(named))!r} there and "
            f"{ids[0]!r} here"
        )
    return named


def _judgements(given: Any) -> dict[str, dict[str, int]]:  # noqa: ANN401
    columns = as_columns(given)
    needs = ("query_id", "document_id")
    if columns is not None:
        pairs = zip(*(column(columns, kind, needs=needs) for kind in needs), strict=True)
        gains = optional(columns, "score")
        rows = [(*pair, 1 if gains is None else gains[i]) for i, pair in enumerate(pairs)]
    elif isinstance(given, Mapping):
        rows = [
            (query_id, doc_id, gain)
            for query_id, answers in given.items()
            for doc_id, gain in _answers(answers)
        ]
    elif isinstance(given, Iterable) and not isinstance(given, str):
        rows = []
        for i, row in enumerate(given):
            if isinstance(row, str) or not isinstance(row, Sequence) or len(row) not in (2, 3):
                raise DataError(f"qrels[{i}] is {row!r}; write (query id, document id) or (.., .., gain)")
            rows.append((row[0], row[1], row[2] if len(row) == 3 else 1))
    else:
        raise DataError(f"qrels must be a dictionary, a list or a frame, not {type(given).__name__}")
    qrels: dict[str, dict[str, int]] = {}
    for query_id, doc_id, gain in rows:
        qrels.setdefault(str(query_id), {})[str(doc_id)] = _gain(gain, f"qrels of query {query_id!r}")
    return qrels


def _answers(answers: Any) -> Iterable[tuple[Any, Any]]:  # noqa: ANN401
    if isinstance(answers, Mapping):
        return answers.items()
    if isinstance(answers, str | int):
        return [(answers, 1)]
    return [(doc_id, 1) for doc_id in answers]


def _gain(value: object, place: str) -> int:
    try:
        return whole_gain(value)
    except (TypeError, ValueError):
        raise DataError(f"{place}: gain {value!r} is not a whole number") from None
