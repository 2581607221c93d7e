"""The cheapest measured setting that keeps the quality asked for, and what stands against the cheaper ones.

What is claimed, and how sure it is: all settings of the sweep beside the reference are one family, whatever
the limits and prices. Non-inferiority is tested over it with Holm's correction, so the chance that even one
"keeps" is false is at most 5 %, whichever of them is then picked, and however many limits are tried. The
reference is the exact full-dimension float32 search, of several instructions the best.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from toolkit.decide.at_size import priced
from toolkit.decide.cost import Prices
from toolkit.decide.recommendation import (
    Candidate,
    ConstraintCost,
    Constraints,
    InstructionQuality,
    Recommendation,
    Undecided,
)
from toolkit.decide.series import exact_rows, main_metric
from toolkit.errors import PlanError, ResultsError
from toolkit.experiment.results import Results
from toolkit.measure.noninferiority import (
    ALPHA,
    KEEP,
    NonInferiority,
    non_inferiorities,
    queries_needed,
    retained_at_least,
)
from toolkit.measure.statistics import indistinguishable, paired_differences

if TYPE_CHECKING:
    import pandas as pd

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
) -> Recommendation:
    """The cheapest setting of a sweep that meets a demand, with 95 % confidence in its quality.

    keep : share of the exact full-dimension search's quality that must be kept, above 0 and up to 1.
    metric : the quality; None is the one the sweep is judged by, nDCG@10 unless its plan says otherwise.
    max_bytes_per_vector, max_p95_ms : limits, inclusive; None is none.
    corpus_size : documents to plan for; None is the measured corpus.
    prices : what memory, disk and computing cost; documented assumptions if not given.

    At another corpus size than the measured one, bytes follow from the sizes measured, and latency is
    extrapolated where the sweep timed three sizes or more (`fractions` of its timing plan).

    Raises PlanError for a demand that makes no sense, ResultsError if the sweep timed or stored nothing, or
    found nothing relevant.
    """
    demand = Constraints(
        metric=main_metric(results.measurements) if metric is None else metric,
        keep=keep,
        max_bytes_per_vector=max_bytes_per_vector,
        max_p95_ms=max_p95_ms,
        corpus_size=corpus_size,
    )
    return _Search.of(results, demand, prices or Prices()).recommendation()


@dataclass(frozen=True, eq=False)
class _Search:
    """The measurements ready to be searched: `table` is ordered from the cheapest setting up."""

    demand: Constraints
    prices: Prices
    table: pd.DataFrame
    values: pd.DataFrame
    reference: str
    documents: int
    subject: str
    instructions: tuple[InstructionQuality, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, results: Results, demand: Constraints, prices: Prices) -> _Search:
        """Price every setting of a sweep and lay its per-query quality beside it."""
        measured = results.measurements
        missing = [column for column in _NEEDED if column not in measured]
        if missing:
            raise ResultsError(
                f"the sweep has no {missing[0]}, so settings cannot be priced; "
                "recommend needs a sweep over a retrieval set (builtin, beir:<folder>)"
            )
        values = _per_query(results.per_query, demand.metric, measured)
        reference = _reference(measured, values)
        exact = measured[measured["setting"] == reference].iloc[0]
        documents = round(float(exact["index_bytes"] / exact["bytes_per_vector"]))
        table, notes = priced(measured, demand, prices, results.scaling, documents, results.plan.k)
        subject = " · ".join(str(exact[name]) for name in ("dataset", "model") if name in measured)
        instructions = _instructions(measured, values, reference)
        return cls(
            demand,
            prices,
            table,
            values,
            reference,
            documents,
            subject,
            instructions,
            (*notes, *results.notes),
        )

    def recommendation(self) -> Recommendation:
        """Answer the demand, and the questions around it."""
        meeting = self._meeting(self.demand)
        choice, runner_up = ([self._offer(key) for key in meeting[:2]] + [None, None])[:2]
        relaxed = self._costs(choice) if choice else self._nearest()
        return Recommendation(
            demand=self.demand,
            prices=self.prices,
            subject=self.subject or "this sweep",
            documents=self.documents,
            queries=len(self.values),
            reference=self._offer(self.reference),
            choice=choice,
            runner_up=runner_up,
            relaxed=relaxed,
            undecided=self._undecided(choice),
            instructions=self.instructions,
            notes=self.notes,
            table=self._judged(choice.setting if choice else self.reference),
        )

    @cached_property
    def tested(self) -> dict[str, NonInferiority]:
        """What the queries say about every setting but the reference: one family."""
        family = [key for key in self.table["setting"] if key != self.reference]
        if not family:
            return {}
        found = non_inferiorities(
            self.values[family].to_numpy(), self.values[self.reference].to_numpy(), keep=self.demand.keep
        )
        return dict(zip(family, found, strict=True))

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
            if key == self.reference or self.tested[key].verdict == "keeps"
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
                offer = self._offer(self.values[keys].mean().idxmax()) if keys else None
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

    def _undecided(self, choice: Candidate | None) -> Undecided:
        cheaper = [key for key in self._in_question(self.demand) if key != self.reference]
        if choice and choice.setting in cheaper:
            cheaper = cheaper[: cheaper.index(choice.setting)]
        open_ones = [key for key in cheaper if self.tested[key].verdict == "undecided"]
        full = self.values[self.reference].to_numpy()
        hopeful = [key for key in open_ones if self.values[key].mean() >= self.demand.keep * full.mean()]
        if not hopeful:
            return Undecided(len(open_ones), None, None)
        # As strict as Holm's first step over the family, which the plan must be able to pass.
        needed = queries_needed(
            self.values[hopeful[0]].to_numpy(), full, keep=self.demand.keep, alpha=ALPHA / len(self.tested)
        )
        return Undecided(len(open_ones), self._offer(hopeful[0]), needed)

    def _judged(self, against: str) -> pd.DataFrame:
        keys = self.table["setting"].tolist()
        table = self.table.drop(columns="cost")
        table["within_limits"] = self._within(self.demand)
        table["p_keeps"] = [self.tested[key].p_keeps if key in self.tested else np.nan for key in keys]
        table["verdict"] = [self.tested[key].verdict if key in self.tested else "reference" for key in keys]
        table["alike"] = indistinguishable(self.values[keys].to_numpy(), self.values[against].to_numpy())
        return table

    def _offer(self, key: str) -> Candidate:
        row = self.table[self.table["setting"] == key].iloc[0]
        values, full = self.values[key].to_numpy(), self.values[self.reference].to_numpy()
        same = key == self.reference
        return Candidate(
            setting=key,
            instruction=row["instruction"],
            quality=float(values.mean()),
            retained=1.0 if same else float(values.mean() / full.mean()),
            at_least=1.0 if same else retained_at_least(values, full),
            bytes_per_vector=float(row["bytes_per_vector"]),
            p95_ms=float(row["p95_ms"]),
            latency=row["latency"],
            cost=row["cost"],
        )


def _per_query(per_query: pd.DataFrame, metric: str, measurements: pd.DataFrame) -> pd.DataFrame:
    """Quality as (queries, settings), one column per setting."""
    usable = [
        column
        for column in per_query.columns
        if column not in ("setting", "query_id") and per_query[column].notna().all()
    ]
    if metric not in usable:
        near = get_close_matches(metric.lower(), usable, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise PlanError(
            f"metric {metric!r} was not measured for every query; choose from {', '.join(usable)}{hint}"
        )
    # pivot, unlike pivot_table, refuses a query that stands twice.
    wide = per_query.astype({"setting": str}).pivot(  # noqa: PD010
        index="query_id", columns="setting", values=metric
    )
    absent = [key for key in measurements["setting"] if key not in wide.columns]
    if absent:
        raise ResultsError(
            f"setting {absent[0]!r} has no per-query values, so these tables do not belong together; run the "
            "sweep again"
        )
    return wide[measurements["setting"].tolist()]


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
    key = values[exact].mean().idxmax()
    if not values[key].mean() > 0:
        raise ResultsError(
            f"the exact full-dimension search ({key}) finds nothing relevant, so there is nothing to keep; "
            "check the data set's judgements"
        )
    return key


def _instructions(
    measurements: pd.DataFrame, values: pd.DataFrame, reference: str
) -> tuple[InstructionQuality, ...]:
    """What each instruction gives at the full dimension, best first; empty for a single one."""
    exact = _exact_full(measurements)
    if len(exact) < 2:
        return ()
    labels = measurements.set_index("setting")["instruction"]
    differences = paired_differences(values[exact].to_numpy(), values[reference].to_numpy())
    found = [
        InstructionQuality(labels[key], float(values[key].mean()), one.difference, one.low, one.high)
        for key, one in zip(exact, differences, strict=True)
    ]
    return tuple(sorted(found, key=lambda one: (-one.quality, one.label != labels[reference])))
