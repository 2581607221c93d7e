"""The cheapest measured setting that keeps the quality asked for, and what stands against the cheaper ones.

What is claimed, and how sure it is: all settings of the sweep beside the reference are one family, whatever the
limits and prices, and settings that rank every query alike are one member of it. Non-inferiority is tested over it
with Holm's correction in two grades, proven and likely (noninferiority.py), so the chance that even one "keeps" is
false is at most 5 %, whichever of them is then picked, and however many limits are tried. The reference is the exact
full-dimension float32 search, of several instructions the best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from toolkit.decide.at_size import Pricing
from toolkit.decide.cost import Prices
from toolkit.decide.queries import Queries, clusters_of, judged_metric, queries_of
from toolkit.decide.recommendation import (
    Candidate,
    ConstraintCost,
    Constraints,
    InstructionQuality,
    Recommendation,
    Undecided,
)
from toolkit.decide.series import exact_rows, main_metric
from toolkit.decide.size_trend import KeptBySize, SizeTrends
from toolkit.errors import PlanError, ResultsError
from toolkit.experiment.results import Results
from toolkit.measure.metrics import described
from toolkit.measure.noninferiority import KEEP, Grade, NonInferiority
from toolkit.measure.statistics import holm, indistinguishable, paired_differences

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

_PROVEN = ("reference", "keeps (proven)")
_NEEDED = (
    "setting",
    "dim",
    "precision",
    "index",
    "rescore",
    "p95_ms",
    "qps",
    "index_bytes",
    "bytes_per_vector",
)


def recommend(
    results: Results,
    *,
    keep: float = KEEP,
    metric: str | None = None,
    max_bytes_per_vector: float | None = None,
    max_p95_ms: float | None = None,
    corpus_size: int | None = None,
    prices: Prices | None = None,
    grade: Grade = "likely",
) -> Recommendation:
    """The cheapest setting of a sweep that meets a demand: the cheapest proven, and the cheapest likely.

    keep : share of the exact full-dimension search's quality that must be kept, above 0 and up to 1.
    metric : the quality; None is the one the sweep is judged by, nDCG@10 unless its plan says otherwise. Of a data
        set without judgements that is agreement with the reference, until queries were judged with ``toolkit judge``.
    max_bytes_per_vector, max_p95_ms : limits, inclusive; None is none.
    corpus_size : documents to plan for; None is the measured corpus.
    prices : what memory, disk and computing cost; documented assumptions if not given.
    grade : the least that counts as keeping the quality: ``likely``, or ``proven``.

    At another corpus size than the measured one, bytes follow from the sizes measured, and latency is
    extrapolated where the sweep timed three sizes or more (`fractions` of its timing plan).

    Raises PlanError for a demand that makes no sense, ResultsError if the sweep timed or stored nothing, or
    found nothing relevant.
    """
    demand = Constraints(
        metric=_metric(results) if metric is None else metric,
        keep=keep,
        max_bytes_per_vector=max_bytes_per_vector,
        max_p95_ms=max_p95_ms,
        corpus_size=corpus_size,
        grade=grade,
    )
    return Evidence.of(results, metric=demand.metric, prices=prices).recommendation(demand)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a sweep says about one metric at one set of prices, read once and asked as often as one likes.

    What takes long is kept from one answer to the next: verdicts by share to keep, prices by corpus size, bounds by
    setting.
    """

    metric: str
    prices: Prices
    values: pd.DataFrame
    queries: Queries
    pricing: Pricing
    subject: str
    instructions: tuple[InstructionQuality, ...]
    notes: tuple[str, ...]
    trends: SizeTrends | None = None
    _found: dict[tuple[object, ...], object] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, results: Results, *, metric: str | None = None, prices: Prices | None = None) -> Evidence:
        """Read a sweep; raises PlanError and ResultsError as `recommend` does."""
        metric = _metric(results) if metric is None else metric
        measured = results.measurements
        missing = [column for column in _NEEDED if column not in measured]
        if missing:
            raise ResultsError(
                f"the sweep has no {missing[0]}, so settings cannot be priced; "
                "recommend needs a sweep over a retrieval set (builtin, beir:<folder>)"
            )
        values = _per_query(results, metric)
        reference = _reference(measured, values)
        exact = measured[measured["setting"] == reference].iloc[0]
        documents = round(float(exact["index_bytes"] / exact["bytes_per_vector"]))
        prices = prices or Prices()
        return cls(
            metric,
            prices,
            values,
            queries_of(results, metric, reference, values),
            Pricing.of(measured, prices, results.scaling, documents, results.plan.k),
            " · ".join(str(exact[name]) for name in ("dataset", "model") if name in measured),
            _instructions(measured, values, reference, clusters_of(results, values.index))
            if len(values)
            else (),
            tuple(results.notes),
            _trends(results, metric, reference),
        )

    @property
    def documents(self) -> int:
        """The measured corpus."""
        return self.pricing.documents

    def recommendation(self, demand: Constraints, *, brief: bool = False) -> Recommendation:
        """Answer a demand on this metric, and the questions around it.

        brief : leave out what takes long: the bounds of each share kept (nan), the queries that would decide (None)
            and the column ``alike`` of the table.
        """
        table, notes = self.priced(demand.corpus_size or self.documents)
        return _Search(self, demand, table, (*notes, *self.notes), brief).recommendation()

    def kept(self, name: str, find: Callable[..., T], *arguments: object) -> T:
        """What `find` gives for these arguments, found once."""
        key = (name, *arguments)
        if key not in self._found:
            self._found[key] = find(*arguments)
        return cast("T", self._found[key])

    def priced(self, size: int) -> tuple[pd.DataFrame, tuple[str, ...]]:
        """Every setting at a corpus size, cheapest first, and what to know about it; see `Pricing.at`."""
        return self.kept("priced", self.pricing.at, size)

    def tested(self, keep: float) -> dict[str, NonInferiority]:
        """What the queries say about every setting but the reference: one family."""
        return self.kept("tested", self.queries.tested, keep)

    def quality(self, key: str) -> float:
        """The metric's mean at a setting; nan where nobody knows it."""
        return self.kept("quality", self.queries.quality, key)

    def falls_short(self, key: str, keep: float, size: int) -> bool:
        """Whether a share kept at a size lies below `keep` with all its interval; never by far extrapolation."""
        if self.trends is None or not self.trends.decide_at(size):
            return False
        at = self.kept("at size", self.trends.at, key, size)
        return at is not None and at.high < keep

    def alike(self, against: str, keys: tuple[str, ...]) -> np.ndarray:
        """(settings,) whether each one's quality cannot be told apart from that of one of them."""
        if not len(self.values):
            return np.zeros(len(keys), dtype=bool)
        return indistinguishable(self.values[list(keys)].to_numpy(), self.values[against].to_numpy())


@dataclass(frozen=True, eq=False)
class _Search:
    """One demand held against the evidence: `table` is ordered from the cheapest setting up."""

    evidence: Evidence
    demand: Constraints
    table: pd.DataFrame
    notes: tuple[str, ...]
    brief: bool

    @property
    def queries(self) -> Queries:
        return self.evidence.queries

    @property
    def reference(self) -> str:
        """The setting that quality is held against."""
        return self.queries.reference

    def recommendation(self) -> Recommendation:
        """Answer the demand, and the questions around it."""
        meeting = self._meeting(self.demand)
        advised, runner_up = ([self._offer(key) for key in meeting[:2]] + [None, None])[:2]
        proven = next((key for key in meeting if self._verdict(key) in _PROVEN), None)
        choice = None if proven is None else self._offer(proven)
        likely = advised if advised is not None and advised.setting != proven else None
        return Recommendation(
            demand=self.demand,
            prices=self.evidence.prices,
            subject=self.evidence.subject or "this sweep",
            documents=self.evidence.documents,
            labelled=self.queries.labelled,
            unlabelled=self.queries.unlabelled,
            judged=self.queries.draws,
            clusters=self.queries.clusters,
            bounded=self.queries.bounded,
            reference=self._offer(self.reference),
            choice=choice,
            likely=likely,
            runner_up=runner_up,
            relaxed=self._costs(advised) if advised else self._nearest(),
            undecided=self._undecided(advised),
            instructions=self.evidence.instructions,
            notes=(*self._fallen_short(), *self.notes),
            table=self._judged(advised.setting if advised else self.reference),
        )

    @cached_property
    def tested(self) -> dict[str, NonInferiority]:
        return self.evidence.tested(self.demand.keep)

    def _verdict(self, key: str) -> str:
        return "reference" if key == self.reference else self.tested[key].verdict

    def _falls_short(self, key: str) -> bool:
        """Whether it keeps too little at the size asked for, whatever it keeps at the measured one."""
        size = self.demand.corpus_size
        return size is not None and self.evidence.falls_short(key, self.demand.keep, size)

    def _fallen_short(self) -> tuple[str, ...]:
        """A note on settings that keep the quality at the measured size alone."""
        keys = [
            key
            for key in self.table["setting"]
            if self._verdict(key) in self.demand.verdicts and self._falls_short(key)
        ]
        if not keys:
            return ()
        return (
            f"left out as too small a share at {self.demand.corpus_size:,} documents, by the trend over corpus sizes "
            f"with all of its 95 % interval: {', '.join(keys[:3])}"
            + (f" and {len(keys) - 3} more" if len(keys) > 3 else ""),
        )

    def _within(self, demand: Constraints) -> np.ndarray:
        within = np.ones(len(self.table), dtype=bool)
        if demand.max_bytes_per_vector is not None:
            within &= self.table["bytes_per_vector"].to_numpy() <= demand.max_bytes_per_vector
        if demand.max_p95_ms is not None:
            within &= self.table["p95_ms"].to_numpy() <= demand.max_p95_ms
        return within

    def _in_question(self, demand: Constraints) -> list[str]:
        """Settings within the limits, cheapest first, up to the reference if it is among them."""
        keys = self.table["setting"].to_numpy()[self._within(demand)].tolist()
        return keys[: keys.index(self.reference) + 1] if self.reference in keys else keys

    def _meeting(self, demand: Constraints, *, any_quality: bool = False) -> list[str]:
        if any_quality:
            return self.table["setting"].to_numpy()[self._within(demand)].tolist()
        return [
            key
            for key in self._in_question(demand)
            if self._verdict(key) in self.demand.verdicts and not self._falls_short(key)
        ]

    def _without(self, constraint: str) -> list[str]:
        if constraint == "keep":
            return self._meeting(self.demand, any_quality=True)
        return self._meeting(replace(self.demand, **{constraint: None}))

    def _costs(self, choice: Candidate) -> tuple[ConstraintCost, ...]:
        """What each constraint adds to the price of the choice."""
        found = []
        for constraint, words in self.demand.constraints.items():
            offer = self._offer(self._without(constraint)[0])
            found.append(ConstraintCost(words, offer, choice.cost.usd - offer.cost.usd))
        return tuple(found)

    def _nearest(self) -> tuple[ConstraintCost, ...]:
        """For each constraint, of the settings that meet all others, the one that misses it least."""
        found = []
        for constraint, words in self.demand.constraints.items():
            keys = self._without(constraint)
            offer, alone = None, False
            if constraint == "keep":
                offer = self._offer(max(keys, key=self._quality)) if keys else None
            else:
                column = {"max_bytes_per_vector": "bytes_per_vector", "max_p95_ms": "p95_ms"}[constraint]
                # A limit that nothing at all meets is the first thing to know.
                alone = bool(self.table[column].min() > getattr(self.demand, constraint))
                rows = self.table if alone else self.table[self.table["setting"].isin(keys)]
                offer = self._offer(rows.loc[rows[column].idxmin(), "setting"]) if len(rows) else None
            found.append(ConstraintCost(words, offer, 0.0, met_by_none=alone))
        if len(found) > 2:
            free = replace(self.demand, max_bytes_per_vector=None, max_p95_ms=None)
            found.append(ConstraintCost("both limits together", self._offer(self._meeting(free)[0]), 0.0))
        return tuple(found)

    def _undecided(self, advised: Candidate | None) -> Undecided:
        """What stands open among the settings that are cheaper than the one advised."""
        cheaper = [key for key in self._in_question(self.demand) if key != self.reference]
        if advised and advised.setting in cheaper:
            cheaper = cheaper[: cheaper.index(advised.setting)]
        open_ones = [key for key in cheaper if self.tested[key].verdict == "undecided"]
        hopeful = [key for key in open_ones if self.tested[key].retained >= self.demand.keep]
        if not hopeful:
            return Undecided(len(open_ones), None, None, None)
        keep = self.demand.keep
        labels = draws = None
        if not self.brief:
            labels = self.evidence.kept("labels", self.queries.labels_needed, hopeful[0], keep)
            draws = self.evidence.kept("draws", self.queries.draws_needed, hopeful[0], keep)
        return Undecided(len(open_ones), self._offer(hopeful[0]), labels, draws)

    def _judged(self, against: str) -> pd.DataFrame:
        keys = self.table["setting"].tolist()
        table = self.table.drop(columns="cost")
        table["within_limits"] = self._within(self.demand)
        table["retained"] = [self.tested[key].retained if key in self.tested else 1.0 for key in keys]
        for p in ("p_proven", "p_likely"):
            table[p] = [getattr(self.tested[key], p) if key in self.tested else np.nan for key in keys]
        table["verdict"] = [self._verdict(key) for key in keys]
        table["falls_short"] = [self._falls_short(key) for key in keys]
        table["quality"] = [self.evidence.quality(key) for key in keys]
        if not self.brief:
            table["alike"] = self.evidence.kept("alike", self.evidence.alike, against, tuple(keys))
        return table

    def _quality(self, key: str) -> float:
        found = self.evidence.quality(key)
        return -1.0 if np.isnan(found) else found

    def _at_least(self, key: str, grade: Grade) -> float:
        return (
            np.nan if self.brief else self.evidence.kept("bound", self.queries.retained_at_least, key, grade)
        )

    def _by_size(self, key: str) -> KeptBySize | None:
        trends = self.evidence.trends
        return (
            None if trends is None else self.evidence.kept("by size", trends.of, key, self.demand.corpus_size)
        )

    def _offer(self, key: str) -> Candidate:
        """A setting as it is offered."""
        row = self.table[self.table["setting"] == key].iloc[0]
        tested = self.tested.get(key)
        return Candidate(
            setting=key,
            instruction=row["instruction"],
            quality=self.evidence.quality(key),
            retained=1.0 if tested is None else tested.retained,
            verdict=self._verdict(key),
            p=tested.p_likely if tested is not None else None,
            at_least=self._at_least(key, "proven"),
            likely_at_least=self._at_least(key, "likely"),
            bytes_per_vector=float(row["bytes_per_vector"]),
            p95_ms=float(row["p95_ms"]),
            latency=row["latency"],
            cost=row["cost"],
            run_as=row["run_as"],
            by_size=None if self.brief else self._by_size(key),
        )


def _trends(results: Results, metric: str, reference: str) -> SizeTrends | None:
    """How the share kept goes with the corpus, if the sweep measured it by this metric and reference."""
    by_size = results.by_size
    if by_size is None or by_size.columns[-1] != metric or reference not in set(by_size["setting"]):
        return None
    return SizeTrends(by_size, reference)


def _metric(results: Results) -> str:
    """The quality that a folder is judged by: what people judged, where the data set has no judgements."""
    measured = main_metric(results.measurements)
    return measured if described(measured).kind == "retrieval" else judged_metric(results) or measured


def _per_query(results: Results, metric: str) -> pd.DataFrame:
    """Quality as (queries, settings), one column per setting; no row if only people judged it."""
    per_query, keys = results.per_query, results.measurements["setting"].tolist()
    usable = [
        column
        for column in per_query.columns
        if column not in ("setting", "query_id") and per_query[column].notna().all()
    ]
    if metric not in usable:
        if metric == judged_metric(results):
            return per_query.iloc[:0].reindex(columns=keys).astype(float)
        near = get_close_matches(metric.lower(), usable, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise PlanError(
            f"metric {metric!r} was not measured for every query; choose from {', '.join(usable)}{hint}"
        )
    # pivot, unlike pivot_table, refuses a query that stands twice.
    wide = per_query.astype({"setting": str}).pivot(  # noqa: PD010
        index="query_id", columns="setting", values=metric
    )
    absent = [key for key in keys if key not in wide.columns]
    if absent:
        raise ResultsError(
            f"setting {absent[0]!r} has no per-query values, so these tables do not belong together; run the "
            "sweep again"
        )
    return wide[keys]


def _exact_full(measurements: pd.DataFrame) -> list[str]:
    """The exact full-dimension search, once per instruction."""
    exact = exact_rows(measurements)
    return exact.loc[exact["dim"] == measurements["dim"].max(), "setting"].tolist()


def _reference(measurements: pd.DataFrame, values: pd.DataFrame) -> str:
    """The exact full-dimension search; of several instructions, the best."""
    exact = _exact_full(measurements)
    if not exact:
        raise ResultsError(
            "the sweep has no exact full-dimension search (float32, Flat), which quality is held against; "
            "every sweep measures it, so these tables are not whole: run the sweep again"
        )
    if not len(values):
        return exact[0]
    key = values[exact].mean().idxmax()
    if not values[key].mean() > 0:
        raise ResultsError(
            f"the exact full-dimension search ({key}) finds nothing relevant, so there is nothing to keep; "
            "check the data set's judgements"
        )
    return key


def _instructions(
    measurements: pd.DataFrame, values: pd.DataFrame, reference: str, clusters: np.ndarray | None
) -> tuple[InstructionQuality, ...]:
    """What each instruction gives at the full dimension, best first; empty for a single one."""
    exact = _exact_full(measurements)
    if len(exact) < 2:
        return ()
    labels = measurements.set_index("setting")["instruction"]
    differences = paired_differences(
        values[exact].to_numpy(), values[reference].to_numpy(), clusters=clusters
    )
    others = [key for key in exact if key != reference]
    tested = [one.p for key, one in zip(exact, differences, strict=True) if key != reference]
    p = dict(zip(others, holm(tested), strict=True))
    found = [
        InstructionQuality(
            labels[key],
            float(values[key].mean()),
            one.difference,
            one.low,
            one.high,
            float(p.get(key, 1.0)),
            None if clusters is None else len(np.unique(clusters)),
        )
        for key, one in zip(exact, differences, strict=True)
    ]
    return tuple(sorted(found, key=lambda one: (-one.quality, one.label != labels[reference])))
