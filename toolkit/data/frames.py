"""Evaluation sets from what a program holds: lists, dictionaries, pandas or polars frames.

Knows nothing of files. Which columns a frame needs stands in one table, `COLUMNS`, and in every error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from toolkit.data.beir import whole_gain
from toolkit.data.pairs import numbers
from toolkit.data.sets import PairSet, RetrievalSet
from toolkit.errors import DataError

# What a column may be called; the first name is the one to use.
COLUMNS = {
    "id": ("id", "_id"),
    "text": ("text",),
    "title": ("title",),
    "query_id": ("query_id", "query-id", "qid"),
    "document_id": ("document_id", "corpus-id", "doc_id", "docid"),
    "score": ("score", "gain", "relevance", "label"),
    "query": ("query",),
    "document": ("document", "passage"),
}


def retrieval_set(docs: Any, queries: Any, qrels: Any, *, name: str = "data") -> RetrievalSet:  # noqa: ANN401
    """A retrieval set from documents, queries and judgements.

    docs : a list of texts, a dictionary from id to text, or a frame with columns ``id``, ``text`` and, if there
        is one, ``title``. Documents of a list have the ids "0", "1", ..
    queries : the same forms.
    qrels : a dictionary from query id to document ids (a list, or a dictionary to gains; for lists of texts
        their positions will do), a list of (query id, document id) or (query id, document id, gain), or a frame
        with ``query_id``, ``document_id`` and, if there is one, ``score`` (1 without).
    name : how tables and charts name the set.

    Queries without a judgement are left out. Raises DataError naming what is missing or does not fit.
    """
    documents, asked = _texts(docs, what="docs"), _texts(queries, what="queries")
    judged = _judgements(qrels)
    for query_id in judged:
        if query_id not in asked:
            raise DataError(f"qrels judge query {query_id!r}, which is not among the {len(asked)} queries")
    kept = [query_id for query_id in asked if query_id in judged]
    return RetrievalSet(
        name,
        list(documents),
        list(documents.values()),
        kept,
        [asked[query_id] for query_id in kept],
        judged,
    )


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
                f"a pair set needs two lists, or a frame with {_found(columns, 'sentence1', 'sentence2')}"
            )
        left, right, scores = columns["sentence1"], columns["sentence2"], columns.get("score")
    sides = [_strings(list(side), what=what) for side, what in ((left, "left"), (right, "right"))]
    values = None
    if scores is not None:
        given = list(scores)
        values = numbers(given, [f"pair {i}" for i in range(len(given))])
    return PairSet(name, sides[0], sides[1], values)


def judged_pairs(columns: Mapping[str, Sequence[Any]], *, name: str) -> RetrievalSet:
    """A retrieval set from one table of judged pairs: ``query``, ``document`` and, if there is one, ``score``.

    Equal texts are one query or one document. Raises DataError for missing columns.
    """
    asked, found = (_column(columns, kind, needs=("query", "document")) for kind in ("query", "document"))
    gains = _optional(columns, "score") or [1] * len(asked)
    query_ids: dict[str, str] = {}
    doc_ids: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    texts = (_strings(list(side), what=what) for side, what in ((asked, "query"), (found, "document")))
    for i, (query, document, gain) in enumerate(zip(*texts, gains, strict=True)):
        query_id = query_ids.setdefault(query, f"q{len(query_ids)}")
        doc_id = doc_ids.setdefault(document, f"d{len(doc_ids)}")
        qrels.setdefault(query_id, {})[doc_id] = _gain(gain, f"{name}, pair {i}")
    return RetrievalSet(
        name, list(doc_ids.values()), list(doc_ids), list(query_ids.values()), list(query_ids), qrels
    )


def as_columns(frame: object) -> dict[str, list[Any]] | None:
    """A pandas or polars frame as lists by column name; None for anything else."""
    if isinstance(frame, Mapping) or not hasattr(frame, "columns") or not hasattr(frame, "to_dict"):
        return None
    try:
        return dict(frame.to_dict(as_series=False))  # polars
    except TypeError:
        return {str(name): frame[name].tolist() for name in frame.columns}  # pandas


def _texts(given: Any, *, what: str) -> dict[str, str]:  # noqa: ANN401
    columns = as_columns(given)
    if columns is not None:
        texts = _strings(_column(columns, "text", needs=("id", "text")), what=what)
        titles = _optional(columns, "title")
        if titles is not None:
            texts = [f"{title or ''} {text}".strip() for title, text in zip(titles, texts, strict=True)]
        ids = [str(value) for value in _column(columns, "id", needs=("id", "text"))]
        if len(set(ids)) < len(ids):
            twice = next(i for i, times in Counter(ids).items() if times > 1)
            raise DataError(f"{what}: id {twice!r} stands more than once; ids must differ")
        return dict(zip(ids, texts, strict=True))
    if isinstance(given, Mapping):
        return dict(zip(map(str, given), _strings(list(given.values()), what=what), strict=True))
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise DataError(
            f"{what} must be a list of texts, a dictionary or a frame, not {type(given).__name__}"
        )
    return {str(i): text for i, text in enumerate(_strings(list(given), what=what))}


def _judgements(given: Any) -> dict[str, dict[str, int]]:  # noqa: ANN401
    columns = as_columns(given)
    needs = ("query_id", "document_id")
    if columns is not None:
        pairs = zip(*(_column(columns, kind, needs=needs) for kind in needs), strict=True)
        gains = _optional(columns, "score")
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


def _strings(texts: list[Any], *, what: str) -> list[str]:
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(
                f"{what}[{i}] is {type(text).__name__} {text!r:.40}, not a text; convert or drop it"
            )
    return texts


def _column(columns: Mapping[str, Sequence[Any]], kind: str, *, needs: tuple[str, ...]) -> list[Any]:
    values = _optional(columns, kind)
    if values is None:
        raise DataError(f"a column is missing: this takes {_found(columns, *needs)}")
    return values


def _optional(columns: Mapping[str, Sequence[Any]], kind: str) -> list[Any] | None:
    return next((list(columns[name]) for name in COLUMNS[kind] if name in columns), None)


def _found(columns: Mapping[str, Sequence[Any]] | None, *needs: str) -> str:
    there = "" if columns is None else f"; found {', '.join(map(str, columns)) or 'none'}"
    return f"the columns {', '.join(needs)}{there}"
