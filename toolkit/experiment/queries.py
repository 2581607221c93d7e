"""Which queries a sweep asks: a sample of the judged ones, and queries without judgements, wherever they come from.

Says in notes what was drawn and what only stands in for queries. Knows no model and no search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from toolkit.data.beir import read_clusters
from toolkit.data.columns import Texts, queries_of
from toolkit.data.sentences import sentences_of
from toolkit.data.sets import GIVEN, SENTENCES, RetrievalSet
from toolkit.data.tables import read_texts
from toolkit.errors import DataError
from toolkit.experiment.plan import SweepPlan

_PREFIX = "unlabelled-"


def asked_queries(
    data: RetrievalSet, plan: SweepPlan, *, unlabelled: Texts | None = None
) -> tuple[RetrievalSet, list[str]]:
    """The set with the queries that a plan asks, and sentences on what differs from all there are.

    unlabelled : queries without judgements that were handed over, in place of the plan's file.

    Raises DataError for files that cannot be read or do not fit the set.
    """
    if unlabelled is None and plan.unlabelled is not None:
        unlabelled = read_queries(Path(plan.unlabelled))
    if unlabelled is not None:
        data = with_queries(data, unlabelled)
    if plan.clusters is not None:
        data = _with_clusters(data, Path(plan.clusters))
    sampled = sample_queries(data, plan.max_queries, seed=plan.seed)
    notes = _measured(len(sampled.queries), len(data.queries), plan)
    if not data.labelled:
        return sampled, [*notes, *_without_judgements(data)]
    if not data.unlabelled and plan.max_unlabelled:
        sampled = _with_stand_in(sampled, plan)
    else:
        sampled = sample_unlabelled(sampled, plan.max_unlabelled, seed=plan.seed)
    return sampled, [*notes, *_searched_too(sampled, len(data.unlabelled), plan)]


def read_queries(path: Path) -> Texts:
    """Queries of a file: one per line, or a table with ``text`` or ``query``, and ``id`` and ``cluster`` if any."""
    try:
        return given_queries(read_texts(path))
    except DataError as error:
        raise DataError(f"unlabelled {path}: {error}") from None


def given_queries(given: object) -> Texts:
    """Queries without judgements from lists, dictionaries or frames; empty ones are left out."""
    found = queries_of(given, what="unlabelled", numbered=True, prefix=_PREFIX)
    return Texts({i: text for i, text in found.by_id.items() if text.strip()}, found.clusters)


def with_queries(data: RetrievalSet, given: Texts) -> RetrievalSet:
    """The set with these as its queries without judgements; of a set without any judgement, as its queries.

    A judged query that is among them by id and text stays where it is. Raises DataError for none at all, or an id
    that a judged query has with another text.
    """
    if not given.ids:
        raise DataError(f"{data.name}: unlabelled holds no query that is not empty")
    clusters = {**data.clusters, **given.clusters}
    if not data.labelled:
        return replace(
            data, query_ids=given.ids, queries=given.texts, unlabelled_source=GIVEN, clusters=clusters
        )
    judged = dict(zip(data.query_ids, data.queries, strict=True))
    for query_id in given.by_id.keys() & judged.keys():
        if given.by_id[query_id] != judged[query_id]:
            raise DataError(
                f"{data.name}: unlabelled query {query_id!r} has the id of a judged query with another text; "
                "give it an id of its own, or none"
            )
    left = {i: text for i, text in given.by_id.items() if i not in judged}
    return replace(
        data,
        unlabelled_ids=list(left),
        unlabelled=list(left.values()),
        unlabelled_source=GIVEN if left else "",
        clusters=clusters,
    )


def sample_queries(data: RetrievalSet, most: int, *, seed: int) -> RetrievalSet:
    """The set with at most `most` queries (0 for all), drawn with `seed`, in their order; all documents."""
    if most == 0 or len(data.queries) <= most:
        return data
    drawn = _drawn(len(data.queries), most, seed)
    ids = [data.query_ids[i] for i in drawn]
    return replace(
        data,
        query_ids=ids,
        queries=[data.queries[i] for i in drawn],
        qrels={query_id: data.qrels[query_id] for query_id in ids if query_id in data.qrels},
    )


def sample_unlabelled(data: RetrievalSet, most: int, *, seed: int) -> RetrievalSet:
    """The set with at most `most` of its queries without judgements (0 for none), drawn in the same way."""
    if most == 0:
        return replace(data, unlabelled_ids=(), unlabelled=(), unlabelled_source="")
    if len(data.unlabelled) <= most:
        return data
    drawn = _drawn(len(data.unlabelled), most, seed)
    return replace(
        data,
        unlabelled_ids=[data.unlabelled_ids[i] for i in drawn],
        unlabelled=[data.unlabelled[i] for i in drawn],
    )


def _with_stand_in(data: RetrievalSet, plan: SweepPlan) -> RetrievalSet:
    found = sentences_of(data.docs, most=plan.max_unlabelled, seed=plan.seed)
    if not found.ids:
        return data
    return replace(data, unlabelled_ids=found.ids, unlabelled=found.texts, unlabelled_source=SENTENCES)


def _with_clusters(data: RetrievalSet, path: Path) -> RetrievalSet:
    named = read_clusters(path)
    ids: Sequence[str] = [*data.query_ids, *data.unlabelled_ids]
    if named.keys().isdisjoint(ids):
        raise DataError(
            f"clusters {path} names none of the {len(ids):,} queries of {data.name}; its first is "
            f"{next(iter(named), None)!r}, the set's {ids[0]!r}"
        )
    return replace(data, clusters={**data.clusters, **named})


def _drawn(number: int, most: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).choice(number, size=most, replace=False))


def _measured(measured: int, all_there: int, plan: SweepPlan) -> list[str]:
    if measured == all_there:
        return []
    return [
        f"{measured:,} of {all_there:,} queries were measured, drawn at random with seed {plan.seed} "
        "(max_queries; 0 measures all)"
    ]


def _without_judgements(data: RetrievalSet) -> list[str]:
    notes = [
        f"{data.name} has no judgements: every figure says how far rankings agree with the exact full-dimension "
        "search's, not how good they are"
    ]
    if data.unlabelled_source == SENTENCES:
        notes.append(
            f"no queries were given: {SENTENCES} stand in for them, and hold for queries only as far as those are "
            "alike; give queries with unlabelled="
        )
    return notes


def _searched_too(data: RetrievalSet, all_there: int, plan: SweepPlan) -> list[str]:
    searched = len(data.unlabelled)
    if not searched:
        return []
    if data.unlabelled_source == SENTENCES:
        return [
            f"{searched:,} {SENTENCES} stand in for queries without judgements, searched and not timed: what they "
            "tell holds for queries only as far as those are alike; give queries with unlabelled="
        ]
    drawn = f", of {all_there:,}, drawn at random with seed {plan.seed} (max_unlabelled)"
    return [
        f"{searched:,} queries without judgements ({data.unlabelled_source}) were searched too, and not "
        f"timed{drawn if searched < all_there else ''}"
    ]
