"""What a program holds, as plain columns: lists, dictionaries, pandas or polars frames.

Which columns a frame needs stands in one table, `COLUMNS`, and in every error. Knows no file and no set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
    "cluster": ("cluster",),
}


@dataclass(frozen=True)
class Texts:
    """Texts by their ids, in order, and the cluster of those that have one."""

    by_id: Mapping[str, str]
    clusters: Mapping[str, str] = field(default_factory=dict)

    @property
    def ids(self) -> list[str]:
        """The ids, in order."""
        return list(self.by_id)

    @property
    def texts(self) -> list[str]:
        """The texts, in the order of their ids."""
        return list(self.by_id.values())


def documents_of(given: Any, *, numbered: bool = False) -> Texts:  # noqa: ANN401
    """Documents: a list (ids "0", "1", ..), a dictionary by id, or a frame with ``id``, ``text`` and maybe ``title``.

    numbered : a frame need not have ids; no judgement will name them.
    """
    return _texts(given, what="docs", kinds=("text",), numbered=numbered)


def queries_of(given: Any, *, what: str = "queries", numbered: bool = False, prefix: str = "") -> Texts:  # noqa: ANN401
    """Queries: the same forms, with a ``cluster`` if there is one; numbered ones may be called ``query`` too.

    prefix : what stands before the numbers of those that have no ids.
    """
    kinds = ("text", "query") if numbered else ("text",)
    return _texts(given, what=what, kinds=kinds, numbered=numbered, prefix=prefix)


def clusters_of(given: Any) -> dict[str, str]:  # noqa: ANN401
    """Clusters: a dictionary from query id to cluster, or a frame with ``query_id`` and ``cluster``."""
    columns = as_columns(given)
    if columns is not None:
        needs = ("query_id", "cluster")
        ids, names = (column(columns, kind, needs=needs) for kind in needs)
        return named_clusters(ids, names)
    if not isinstance(given, Mapping):
        raise DataError(
            f"clusters must be a dictionary from query id to cluster, or a frame, not {type(given).__name__}"
        )
    return named_clusters(list(given), list(given.values()))


def named_clusters(ids: Sequence[object], names: Sequence[object]) -> dict[str, str]:
    """{query id: cluster} of those that have one; raises DataError for a query in two clusters."""
    found: dict[str, str] = {}
    for query_id, name in zip(map(str, ids), map(_cluster, names), strict=True):
        if name and found.setdefault(query_id, name) != name:
            raise DataError(
                f"query {query_id!r} is in two clusters, {found[query_id]!r} and {name!r}; a query has one"
            )
    return found


def as_columns(frame: object) -> dict[str, list[Any]] | None:
    """A pandas or polars frame as lists by column name; None for anything else."""
    if isinstance(frame, Mapping) or not hasattr(frame, "columns") or not hasattr(frame, "to_dict"):
        return None
    try:
        return dict(frame.to_dict(as_series=False))  # polars
    except TypeError:
        return {str(name): frame[name].tolist() for name in frame.columns}  # pandas


def strings(texts: list[Any], *, what: str) -> list[str]:
    """The texts; raises DataError for one that is none."""
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(
                f"{what}[{i}] is {type(text).__name__} {text!r:.40}, not a text; convert or drop it"
            )
    return texts


def column(columns: Mapping[str, Sequence[Any]], kind: str, *, needs: Sequence[str]) -> list[Any]:
    """The values of a column; raises DataError naming all that are needed if it is missing."""
    values = optional(columns, kind)
    if values is None:
        raise DataError(f"a column is missing: this takes {found(columns, *needs)}")
    return values


def optional(columns: Mapping[str, Sequence[Any]], kind: str) -> list[Any] | None:
    """The values of a column by any of its names; None if there is none."""
    return next((list(columns[name]) for name in COLUMNS[kind] if name in columns), None)


def found(columns: Mapping[str, Sequence[Any]] | None, *needs: str) -> str:
    """The columns needed, and those that are there, in words."""
    there = "" if columns is None else f"; found {', '.join(map(str, columns)) or 'none'}"
    return f"the columns {', '.join(needs)}{there}"


def _texts(
    given: Any,  # noqa: ANN401
    *,
    what: str,
    kinds: Sequence[str],
    numbered: bool,
    prefix: str = "",
) -> Texts:
    columns = as_columns(given)
    if columns is not None:
        needs = [" or ".join(kinds)] if numbered else ["id", *kinds]
        kind = next((kind for kind in kinds if optional(columns, kind) is not None), kinds[0])
        texts = strings(column(columns, kind, needs=needs), what=what)
        titles = optional(columns, "title")
        if titles is not None:
            texts = [f"{title or ''} {text}".strip() for title, text in zip(titles, texts, strict=True)]
        ids = optional(columns, "id")
        if ids is None and not numbered:
            column(columns, "id", needs=needs)
        ids = _numbers(texts, prefix) if ids is None else [str(value) for value in ids]
        if len(set(ids)) < len(ids):
            twice = next(i for i, times in Counter(ids).items() if times > 1)
            raise DataError(f"{what}: id {twice!r} stands more than once; ids must differ")
        return Texts(
            dict(zip(ids, texts, strict=True)),
            named_clusters(ids, optional(columns, "cluster") or [""] * len(ids)),
        )
    if isinstance(given, Mapping):
        return Texts(dict(zip(map(str, given), strings(list(given.values()), what=what), strict=True)))
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise DataError(
            f"{what} must be a list of texts, a dictionary or a frame, not {type(given).__name__}"
        )
    texts = strings(list(given), what=what)
    return Texts(dict(zip(_numbers(texts, prefix), texts, strict=True)))


def _numbers(texts: Sequence[str], prefix: str) -> list[str]:
    return [f"{prefix}{i}" for i in range(len(texts))]


def _cluster(name: object) -> str:
    """A cluster's name; empty for none, as a frame's missing cell is."""
    return "" if name is None or name != name else str(name)
