"""What people look at: the notebook view of results, the report in the folder, the headline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from toolkit.errors import PlanError, ResultsError
from toolkit.experiment.results import Results
from toolkit.files import write_atomically
from toolkit.measure.metrics import described
from toolkit.report.judgement import judged, recommended, with_recommendation
from toolkit.report.verdict import headline_of, main_metric
from toolkit.report.wording import has, number

if TYPE_CHECKING:
    from toolkit.decide.recommendation import Recommendation
    from toolkit.report.style import Chart

_HALF_WIDTH = ("dimension", "kept")


@dataclass(frozen=True)
class Kind:
    """A kind of chart: how it is drawn, what its caption says, and what must have been measured for it."""

    draw: Callable[[pd.DataFrame], Chart]
    caption: str
    possible: Callable[[pd.DataFrame], bool]


def kinds() -> dict[str, Kind]:
    """Every kind of chart by name, in the order of the report."""
    from toolkit.report import charts, grid_charts

    def several_dims(frame: pd.DataFrame) -> bool:
        return len(frame["dim"].unique()) > 1

    def against(cost: str, metric: str | None = None) -> tuple[Callable, Callable]:
        def possible(frame: pd.DataFrame) -> bool:
            return len(frame) > 1 and has(frame, cost) and (metric is None or has(frame, metric))

        return lambda frame: charts.tradeoff(frame, cost, metric), possible

    def several_precisions(frame: pd.DataFrame) -> bool:
        return len(frame["precision"].unique()) > 1 and has(frame, "bytes_per_vector")

    def has_curves(frame: pd.DataFrame) -> bool:
        return has(frame, "qps") and has(frame, "overlap@10") and bool((frame["search_args"] != "").any())

    front = "The line joins the settings that no other one beats in both."
    return {
        "dimension": Kind(
            charts.quality_by_dimension,
            "Quality of the exact search at each dimension; bands are 95 % intervals of the mean.",
            several_dims,
        ),
        "kept": Kind(
            charts.kept_by_dimension,
            "Share of the full dimension's quality, query by query: the intervals one should decide by.",
            several_dims,
        ),
        "latency": _kind(
            against("p95_ms", "recall@10"), f"Recall against the time of single queries. {front}"
        ),
        "bytes": _kind(
            against("bytes_per_vector", "recall@10"), f"Recall against the size of the index. {front}"
        ),
        "precision": Kind(
            grid_charts.precision_heat_map,
            "Share of the full quality at each dimension and precision, by exhaustive search.",
            several_precisions,
        ),
        "quality-bytes": _kind(
            against("bytes_per_vector"), f"Quality against the size of the index. {front}", grid_only=True
        ),
        "quality-latency": _kind(
            against("p95_ms"), f"Quality against the time of single queries. {front}", grid_only=True
        ),
        "quality-cost": _kind(
            against("usd_per_month"),
            f"Quality against the monthly cost at the stated prices. {front}",
            grid_only=True,
        ),
        "throughput": Kind(
            grid_charts.recall_by_throughput,
            "Throughput of each index against the share of true neighbours found, over its search arguments.",
            has_curves,
        ),
    }


def _kind(pair: tuple[Callable, Callable], caption: str, *, grid_only: bool = False) -> Kind:
    draw, possible = pair
    if not grid_only:
        return Kind(draw, caption, possible)
    return Kind(draw, caption, lambda frame: possible(frame) and _is_grid(frame))


def _is_grid(frame: pd.DataFrame) -> bool:
    return len(frame["precision"].unique()) > 1 or len(frame["index"].unique()) > 1


class ResultsView:
    """Results in a notebook: the view itself, ``.plot()``, ``.frame()``, ``.recommend()``."""

    def __init__(self, results: Results) -> None:
        self.results = results

    def __repr__(self) -> str:
        return f"ResultsView({str(self.results.folder)!r}, settings={len(self.results.measurements)})"

    @property
    def headline(self) -> str:
        """The finding in one sentence."""
        return headline(self.results)

    @property
    def kinds(self) -> list[str]:
        """The kinds of chart that these results can be drawn as."""
        return [name for name, kind in kinds().items() if kind.possible(self._judged)]

    def frame(self) -> pd.DataFrame:
        """The measurements, one row a setting, as a copy."""
        return self.results.frame()

    def recommend(self, **limits: object) -> Recommendation:
        """The cheapest setting within limits; see toolkit.recommend."""
        from toolkit.decide.recommend import recommend

        return recommend(self.results, **limits)

    def plot(self, kind: str = "dimension") -> Chart:
        """A chart as a matplotlib Figure; raises PlanError for a kind that these results cannot give."""
        known = kinds()
        if kind not in known or not known[kind].possible(self._judged):
            why = "is not measured here" if kind in known else "is unknown"
            raise PlanError(f"chart {kind!r} {why}; choose from {', '.join(self.kinds)}")
        return known[kind].draw(self._judged)

    def save(self) -> Path:
        """Write charts and report.html into the results folder; returns the report's path."""
        return write_report(self.results)

    @cached_property
    def _judged(self) -> pd.DataFrame:
        return with_recommendation(judged(self.results), self.results, recommended(self.results))

    def _repr_html_(self) -> str:
        from base64 import b64encode

        from toolkit.report.style import png_bytes

        metric = main_metric(self.results.measurements)
        rows = self.results.measurements.sort_values(metric, ascending=False, kind="stable")
        shown = [c for c in ("setting", metric, f"{metric}_delta", "p95_ms", "bytes_per_vector") if c in rows]
        heads = [c if c == "setting" or c.endswith("_delta") else described(c).label for c in shown]
        heads = [head.replace(f"{metric}_delta", "difference to full") for head in heads]
        cells = "".join(
            "<tr>" + "".join(f"<td>{escape(_shown(row[c]))}</td>" for c in shown) + "</tr>"
            for _, row in rows.head(12).iterrows()
        )
        picture = ""
        if "dimension" in self.kinds:
            data = b64encode(png_bytes(self.plot())).decode()
            picture = f'<img alt="{escape(self.headline)}" width="640" src="data:image/png;base64,{data}">'
        more = f"<p>{len(rows) - 12} more settings: .frame()</p>" if len(rows) > 12 else ""
        return (
            f"<div><p><strong>{escape(self.headline)}</strong></p>{picture}"
            f"<table><thead><tr>{''.join(f'<th>{escape(h)}</th>' for h in heads)}</tr></thead>"
            f"<tbody>{cells}</tbody></table>{more}</div>"
        )


def headline(results: Results) -> str:
    """One sentence: which dimension suffices, how sure that is, what it saves."""
    return headline_of(judged(results))


def write_report(results: Results) -> Path:
    """Draw ``charts/*.png``, ``charts/*.svg`` and ``report.html`` into the results folder.

    Needs neither model nor FAISS. Returns the path of report.html; raises ResultsError if the folder cannot
    be written.
    """
    from toolkit.report.html import Page, Picture, render
    from toolkit.report.style import inline_svg, save_chart

    recommendation = recommended(results)
    frame = with_recommendation(judged(results), results, recommendation)
    told = headline_of(frame)
    folder = results.folder / "charts"
    path = results.folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pictures = []
        for name, kind in kinds().items():
            if not kind.possible(frame):
                continue
            _, svg = save_chart(kind.draw(frame), folder / name)
            inline = inline_svg(svg.read_bytes(), name, kind.caption)
            pictures.append(Picture(name, kind.caption, inline, wide=name not in _HALF_WIDTH))
        page = Page(
            title=f"{results.name}: embedding trade-offs",
            headline=told,
            pictures=pictures,
            frame=frame,
            environment=results.environment,
            plan_toml=results.plan_text,
            recommendation_html="" if recommendation is None else recommendation._repr_html_(),
        )
        write_atomically(path, render(page).encode())
    except OSError as error:
        raise ResultsError(
            f"{results.folder} cannot be written ({error.strerror}); check its permissions"
        ) from error
    return path


def _shown(value: object) -> str:
    return value if isinstance(value, str) else number(float(value))
