"""Every kind of chart a results folder can be drawn as: its name, caption, and what it needs measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from toolkit.decide.series import focus, has, main_metric, metric_of, reference
from toolkit.errors import PlanError

if TYPE_CHECKING:
    from toolkit.report.style import Chart


@dataclass(frozen=True)
class Kind:
    """A kind of chart: how it is drawn, its title and caption, and what must have been measured for it."""

    draw: Callable[[pd.DataFrame], Chart]
    title: str
    caption: str
    possible: Callable[[pd.DataFrame], bool]


def kinds() -> dict[str, Kind]:
    """Every kind of chart by name, in the order of the report."""
    from toolkit.report import charts, grid_charts

    def several_dims(frame: pd.DataFrame) -> bool:
        return len(frame["dim"].unique()) > 1

    def share_of_full(frame: pd.DataFrame) -> bool:
        """Whether the full dimension has a quality that others can have a share of."""
        metric = main_metric(frame)
        return bool(reference(focus(frame, metric), metric)[metric] > 0)

    def against(cost: str, family: str | None = None) -> tuple[Callable, Callable]:
        def metric(frame: pd.DataFrame) -> str | None:
            return main_metric(frame) if family is None else metric_of(frame, family)

        def possible(frame: pd.DataFrame) -> bool:
            return len(frame) > 1 and has(frame, cost) and metric(frame) is not None

        return lambda frame: charts.tradeoff(frame, cost, metric(frame)), possible

    def several_precisions(frame: pd.DataFrame) -> bool:
        return len(frame["precision"].unique()) > 1 and has(frame, "bytes_per_vector")

    def has_curves(frame: pd.DataFrame) -> bool:
        return (
            has(frame, "qps")
            and metric_of(frame, "overlap") is not None
            and bool((frame["search_args"] != "").any())
        )

    front = "The line joins the settings that no other one beats in both."
    return {
        "dimension": Kind(
            charts.quality_by_dimension,
            "Quality at each dimension",
            "Quality of the exact search at each dimension; bands are 95 % intervals of the mean.",
            several_dims,
        ),
        "kept": Kind(
            charts.kept_by_dimension,
            "Share of the full quality that each dimension keeps",
            "Share of the full dimension's quality; bars are 95 % intervals of the paired difference.",
            lambda frame: several_dims(frame) and share_of_full(frame),
        ),
        "latency": _kind(
            against("p95_ms", "recall"),
            "Recall and latency",
            f"Recall against the time of single queries. {front}",
        ),
        "bytes": _kind(
            against("bytes_per_vector", "recall"),
            "Recall and size",
            f"Recall against the size of the index. {front}",
        ),
        "precision": Kind(
            grid_charts.precision_heat_map,
            "Dimension and precision",
            "Share of the full quality at each dimension and precision, by exhaustive search.",
            lambda frame: several_precisions(frame) and share_of_full(frame),
        ),
        "quality-bytes": _kind(
            against("bytes_per_vector"),
            "Quality and size",
            f"Quality against the size of the index. {front}",
            grid_only=True,
        ),
        "quality-latency": _kind(
            against("p95_ms"),
            "Quality and latency",
            f"Quality against the time of single queries. {front}",
            grid_only=True,
        ),
        "quality-cost": _kind(
            against("usd_per_month"),
            "Quality and cost",
            f"Quality against the monthly cost at the stated prices. {front}",
            grid_only=True,
        ),
        "throughput": Kind(
            lambda frame: grid_charts.recall_by_throughput(frame, metric_of(frame, "overlap")),
            "Throughput and recall of each index",
            "Throughput of each index against the share of true neighbours found, over its search arguments.",
            has_curves,
        ),
    }


def possible_kinds(frame: pd.DataFrame) -> list[str]:
    """The kinds of chart that a measurements frame can be drawn as."""
    return [name for name, kind in kinds().items() if kind.possible(frame)]


def draw(frame: pd.DataFrame, kind: str) -> Chart:
    """A chart of a kind; raises PlanError for one that the frame cannot give."""
    known = kinds()
    if kind not in known or not known[kind].possible(frame):
        why = "is not measured here" if kind in known else "is unknown"
        raise PlanError(f"chart {kind!r} {why}; choose from {', '.join(possible_kinds(frame))}")
    return known[kind].draw(frame)


def _kind(pair: tuple[Callable, Callable], title: str, caption: str, *, grid_only: bool = False) -> Kind:
    drawn, possible = pair
    if not grid_only:
        return Kind(drawn, title, caption, possible)
    return Kind(drawn, title, caption, lambda frame: possible(frame) and _is_grid(frame))


def _is_grid(frame: pd.DataFrame) -> bool:
    return len(frame["precision"].unique()) > 1 or len(frame["index"].unique()) > 1
