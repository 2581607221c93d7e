"""What the queries of a results folder say about its settings: judged ones, drawn ones, and rankings alone.

Three kinds of evidence meet here. Queries that came with judgements are a plain sample. Queries that a person
judged (``toolkit judge``) were drawn more often where settings can lose more, and count for less in return. Of all
others the rankings tell what can be lost at most. Knows no price and no sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from toolkit.errors import ResultsError
from toolkit.experiment.results import Results
from toolkit.judge.design import FOLDER
from toolkit.judge.draw import draw_density
from toolkit.judge.judged import Judged as Round
from toolkit.judge.judged import load_judged
from toolkit.measure.noninferiority import (
    ALPHA,
    Grade,
    Judged,
    NonInferiority,
    Pool,
    PValues,
    Verdict,
    one_family,
    p_values,
    queries_needed,
    retained_at_least,
    verdict_of,
)
from toolkit.measure.statistics import cluster_numbers

if TYPE_CHECKING:
    import pandas as pd

# A setting that no evidence speaks of.
_NOTHING = {"retained": np.nan, "proven": 1.0, "likely": 1.0, "loses": 1.0}


@dataclass(frozen=True, eq=False)
class Queries:
    """The evidence on one metric, against one reference.

    settings : all but the reference. groups : (settings,), alike for settings that rank every query alike.
    plain : the queries that came with judgements (of a set without any: all, judged by the reference's own ranking);
        None if there is none.
    pool : those without a judgement; None if there is none, or if their rankings were not recorded.
    drawn : what a person judged, over the settings at `in_question`, with the plain ones; None for nothing.
    """

    metric: str
    reference: str
    settings: tuple[str, ...]
    groups: np.ndarray
    plain: Judged | None
    pool: Pool | None
    drawn: Judged | None = None
    drawn_pool: Pool | None = None
    in_question: tuple[int, ...] = ()
    draws: int = 0

    @property
    def labelled(self) -> int:
        """How many queries have the metric, those that a person judged not among them."""
        return 0 if self.plain is None else len(self.plain.scores)

    @property
    def unlabelled(self) -> int:
        """How many others the bounds come from."""
        return 0 if self.pool is None else len(self.pool.most_lost)

    @property
    def bounded(self) -> bool:
        """Whether the rankings were recorded, so that something can be likely."""
        return self.pool is not None or (self.plain is not None and self.plain.most_lost is not None)

    @property
    def clusters(self) -> int | None:
        """How many clusters the labelled queries come from; None if each is one of its own."""
        if self.plain is None or self.plain.clusters is None:
            return None
        found = len(np.unique(self.plain.clusters))
        return None if found == self.labelled else found

    def quality(self, setting: str) -> float:
        """The metric's mean over all queries, as far as known; nan if nothing is."""
        judged, _, at = self._about(setting)
        if judged is None:
            return float("nan")
        values = judged.reference if at is None else judged.scores[:, at]
        return float((values * judged.weights).mean())

    def tested(self, keep: float, *, alpha: float = ALPHA) -> dict[str, NonInferiority]:
        """The verdict on every setting, all tested as one family."""
        if not self.settings:
            return {}
        found = {name: np.full(len(self.settings), value) for name, value in _NOTHING.items()}
        if self.plain is not None:
            # Settings that rank every query alike have one answer.
            _, firsts, member = np.unique(self.groups, return_index=True, return_inverse=True)
            pool = self.pool and self.pool.columns(firsts)
            alone = p_values(self.plain.columns(firsts), pool, keep=keep, alpha=alpha)
            _fill(found, np.arange(len(self.settings)), alone, member)
        if self.drawn is not None:
            places = list(self.in_question)
            _fill(found, places, p_values(self.drawn, self.drawn_pool, keep=keep, alpha=alpha))
        family = one_family(PValues(**found), keep=keep, alpha=alpha, groups=self.groups.tolist())
        return dict(zip(self.settings, family, strict=True))

    def alone(self, settings: Sequence[str], keep: float, *, alpha: float = ALPHA) -> dict[str, Verdict]:
        """The verdict of the labelled queries on each of some settings, tested by itself."""
        if self.plain is None or not settings:
            return dict.fromkeys(settings, "undecided")
        judged, pool = self._plain_of(*settings)
        found = p_values(judged, pool, keep=keep, alpha=alpha)
        p_values_of = zip(settings, found.proven, found.likely, found.loses, strict=True)
        return {setting: verdict_of(*ps, alpha) for setting, *ps in p_values_of}

    def retained_at_least(self, setting: str, grade: Grade) -> float:
        """The 95 % lower bound of the share that a setting keeps, taken alone; 1.0 for the reference."""
        if setting == self.reference:
            return 1.0
        judged, pool, at = self._about(setting)
        if judged is None or at is None:
            return 0.0
        return retained_at_least(judged.columns([at]), pool and pool.columns([at]), grade=grade)

    def labels_needed(self, setting: str, keep: float) -> tuple[int, int | None] | None:
        """How many labelled queries would decide on a setting, as a range; None if nothing can be said."""
        if self.plain is None or self.labelled < 2:
            return None
        judged, pool = self._plain_of(setting)
        return queries_needed(judged, pool, keep=keep, alpha=self._first_level)

    def draws_needed(self, setting: str, keep: float) -> tuple[int, int | None] | None:
        """How many queries would, if they are drawn where this setting can lose; planned on the labelled ones."""
        if self.plain is None or self.labelled < 2 or self.pool is None or self.plain.most_lost is None:
            return None
        at = [self._places[setting]]
        own, others = self.plain.most_lost[:, at], self.pool.most_lost[:, at]
        density = draw_density(own, others)
        # A draw of the labelled queries by their density: what judging such queries would have given.
        often = np.random.default_rng(0).choice(len(density), size=len(density), p=density / density.sum())
        sample = Judged(
            self.plain.scores[often][:, at],
            self.plain.reference[often],
            own[often],
            density=density[often],
        )
        pool = Pool(others, density=draw_density(others, others))
        return queries_needed(sample, pool, keep=keep, alpha=self._first_level)

    @property
    def _first_level(self) -> float:
        """As strict as Holm's first step over the family, which a plan must be able to pass."""
        return ALPHA / len(np.unique(self.groups))

    def _plain_of(self, *settings: str) -> tuple[Judged, Pool | None]:
        """The labelled queries' evidence on some settings alone."""
        at = [self._places[setting] for setting in settings]
        return self.plain.columns(at), self.pool and self.pool.columns(at)

    def _about(self, setting: str) -> tuple[Judged | None, Pool | None, int | None]:
        """The evidence on a setting, and its column there; None for the reference's own."""
        if setting == self.reference:
            return (self.plain or self.drawn), None, None
        place = self._places[setting]
        if place in self.in_question:
            return self.drawn, self.drawn_pool, self.in_question.index(place)
        return self.plain, self.pool, place

    @cached_property
    def _places(self) -> dict[str, int]:
        return {setting: place for place, setting in enumerate(self.settings)}


def queries_of(results: Results, metric: str, reference: str, values: pd.DataFrame) -> Queries:
    """The evidence in a results folder.

    values : (queries, settings) of the metric, by query id and setting; empty if no query has it.

    Raises ResultsError for damaged judgements.
    """
    keys = tuple(key for key in results.measurements["setting"] if key != reference)
    groups = results.same_ranking(metric).loc[list(keys)].to_numpy()
    rankings = _Rankings.of(results, metric, reference, keys)
    plain, pool = None, None
    if rankings is None:
        if len(values):
            plain = Judged(values[list(keys)].to_numpy(), values[reference].to_numpy())
        return Queries(metric, reference, keys, groups, plain, pool)
    here = rankings.places(values.index)
    others = np.setdiff1d(np.arange(len(rankings.query_ids)), here)
    if len(values):
        plain = Judged(
            values[list(keys)].to_numpy(),
            values[reference].to_numpy(),
            rankings.most_lost[here],
            None if rankings.clusters is None else rankings.clusters[here],
        )
    if len(others):
        pool = Pool(
            rankings.most_lost[others], None if rankings.clusters is None else rankings.clusters[others]
        )
    found = Queries(metric, reference, keys, groups, plain, pool)
    rounds = [one for one in load_judged(results.folder / FOLDER) if _fits(one, found)]
    if not rounds:
        return found
    return _with_draws(found, max(rounds, key=lambda one: len(one.query_ids)), rankings)


def judged_metric(results: Results) -> str | None:
    """What people judged the queries of a folder by, the latest; None if nobody did."""
    rounds = load_judged(results.folder / FOLDER)
    return rounds[-1].design.metric if rounds else None


def _fill(
    found: dict[str, np.ndarray],
    places: Sequence[int] | np.ndarray,
    these: PValues,
    member: np.ndarray | slice = slice(None),
) -> None:
    for name, values in found.items():
        values[places] = getattr(these, name)[member]


def _fits(one: Round, queries: Queries) -> bool:
    design = one.design
    return (
        design.metric == queries.metric
        and design.reference == queries.reference
        and set(design.settings) <= set(queries.settings)
    )


@dataclass(frozen=True, eq=False)
class _Rankings:
    """What the rankings of all queries tell: (queries, settings) bounds, and (queries,) clusters as numbers."""

    query_ids: pd.Index
    most_lost: np.ndarray
    clusters: np.ndarray | None

    @classmethod
    def of(cls, results: Results, metric: str, reference: str, keys: Sequence[str]) -> _Rankings | None:
        """From the folder's bounds; None if it has none for the metric."""
        table = results.bounds
        column = f"{metric.removeprefix('kept_')}_most_lost"
        if table is None or column not in table:
            return None
        wide = table.astype({"setting": str}).pivot(  # noqa: PD010 - pivot_table would average a query that stands twice
            index="query_id", columns="setting", values=column
        )
        absent = [key for key in keys if key not in wide]
        if absent:
            raise ResultsError(
                f"setting {absent[0]!r} has no bounds, so these tables do not belong together; run the sweep again"
            )
        most_lost = wide[list(keys)].to_numpy(dtype=np.float64, copy=True)
        labels = results.measurements.set_index("setting")["instruction"]
        # Bounds are against the reference of the same instruction; of another one nothing is known.
        other = (labels.loc[list(keys)] != labels[reference]).to_numpy()
        most_lost[:, other] = 1.0
        clusters = table.drop_duplicates("query_id").set_index("query_id")["cluster"].loc[wide.index]
        return cls(wide.index, most_lost, cluster_numbers(clusters.to_numpy()))

    def places(self, query_ids: pd.Index) -> np.ndarray:
        """Where some queries stand; raises ResultsError for one that is not there."""
        found = self.query_ids.get_indexer(query_ids)
        if (found < 0).any():
            raise ResultsError(
                f"query {query_ids[int((found < 0).argmax())]!r} has no bounds, so these tables do not belong "
                "together; run the sweep again"
            )
        return found


def clusters_of(results: Results, query_ids: Sequence[object]) -> np.ndarray | None:
    """(queries,) clusters as numbers, a query of none being one of its own; None if all are, or it is not known."""
    table = results.bounds
    if table is None:
        return None
    named = table.drop_duplicates("query_id").set_index("query_id")["cluster"]
    return cluster_numbers(named.reindex([str(one) for one in query_ids]).fillna("").to_numpy(dtype=object))


def _with_draws(queries: Queries, one: Round, rankings: _Rankings) -> Queries:
    """The plain queries and the drawn ones as one sample, each weighted by how likely either took it.

    The balance heuristic of Veach & Guibas (1995): with n plain queries and d draws, a query counts for
    (n + d) / (n + d x density), where the density is how much more often a draw takes it.
    """
    design = one.design
    places = [queries.settings.index(setting) for setting in design.settings]
    pool_places = rankings.places(_index(design.query_ids))
    drawn_places = rankings.places(_index(one.query_ids))
    pool_bounds = rankings.most_lost[np.ix_(pool_places, places)]
    density = draw_density(rankings.most_lost[:, places], pool_bounds)
    density[pool_places] = len(design.query_ids) * design.probabilities
    plain, draws = queries.plain, len(one.query_ids)
    count = 0 if plain is None else len(plain.scores)
    mixed = (count + draws * density) / (count + draws)
    scores = one.values[list(design.settings)].to_numpy()  # noqa: PD011 - a field, no frame
    reference = one.values[design.reference].to_numpy()  # noqa: PD011
    own = drawn_places
    clusters = None
    if plain is not None:
        others = np.setdiff1d(np.arange(len(rankings.query_ids)), pool_places)
        if len(others) != count:
            return queries  # drawn from other queries than the folder now has beside the judged ones
        scores = np.vstack([plain.scores[:, places], scores])
        reference = np.concatenate([plain.reference, reference])
        own = np.concatenate([others, drawn_places])
        if plain.clusters is not None:
            # Draws are independent, whatever cluster they come from.
            clusters = np.concatenate([plain.clusters, plain.clusters.max() + 1 + np.arange(draws)])
    judged = Judged(scores, reference, rankings.most_lost[np.ix_(own, places)], clusters, mixed[own])
    pool = Pool(rankings.most_lost[:, places], density=mixed)
    return replace(queries, drawn=judged, drawn_pool=pool, in_question=tuple(places), draws=draws)


def _index(query_ids: Sequence[str]) -> pd.Index:
    import pandas as pd

    return pd.Index(list(query_ids))
