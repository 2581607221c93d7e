"""Evaluation sets from whatever a program hands over: a frame, a list of texts, several of them together.

Decides only which of `frames`' functions is meant; how each reads its input is theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.data import frames
from toolkit.data.columns import as_columns
from toolkit.data.sets import PairSet, RetrievalSet
from toolkit.errors import DataError, PlanError

_FORMS = (
    "give a spec such as 'builtin' or 'csv:my.csv', a frame with columns query and document, a list of texts, "
    "(docs, queries), (docs, queries, qrels), or what toolkit.retrieval_set makes"
)


def as_set(data: Any, *, name: str = "data") -> RetrievalSet | PairSet:  # noqa: ANN401 - says what it takes
    """The set that an object stands for.

    data : a set; a pandas or polars frame with columns ``query`` and ``document``, with ``sentence1`` and
        ``sentence2``, or with ``text`` alone; a list of texts; (docs, queries) or (docs, queries, qrels), as a tuple or
        a dictionary of those names. What has no judgements is a set without any: settings are then compared by how
        far their rankings agree.

    Raises PlanError for what is none of these, DataError for content that cannot be used.
    """
    if isinstance(data, RetrievalSet | PairSet):
        return data
    columns = as_columns(data)
    if columns is not None:
        return _of_columns(data, columns, name=name)
    if isinstance(data, Mapping):
        return _of_parts(data, name=name)
    if isinstance(data, tuple) and len(data) in (2, 3) and not all(isinstance(one, str) for one in data):
        return _of_parts(dict(zip(("docs", "queries", "qrels"), data, strict=False)), name=name)
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        return frames.texts(data, name=name)
    raise PlanError(f"data of type {type(data).__name__} is not an evaluation set; {_FORMS}")


def _of_columns(frame: Any, columns: Mapping[str, Sequence[Any]], *, name: str) -> RetrievalSet | PairSet:  # noqa: ANN401
    if "query" in columns and ("document" in columns or "passage" in columns):
        return frames.judged_pairs(columns, name=name)
    if "sentence1" in columns and "sentence2" in columns:
        return frames.pair_set(frame, name=name)
    if "text" in columns:
        return frames.texts(frame, name=name)
    raise DataError(
        f"a frame with columns {', '.join(map(str, columns)) or 'none'} is not an evaluation set; rename them to query "
        "and document, or give (docs, queries, qrels)"
    )


def _of_parts(parts: Mapping[str, Any], *, name: str) -> RetrievalSet:
    unknown = [key for key in parts if key not in ("docs", "queries", "qrels")]
    if unknown or "docs" not in parts:
        raise PlanError(f"data {sorted(map(str, parts))} is not docs, queries and qrels; {_FORMS}")
    if parts.get("qrels") is None:
        return frames.texts(parts["docs"], parts.get("queries"), name=name)
    return frames.retrieval_set(parts["docs"], parts["queries"], parts["qrels"], name=name)
