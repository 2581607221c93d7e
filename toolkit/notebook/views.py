"""Results and a recommendation as objects that a notebook shows by themselves.

Decides and draws nothing: findings come from `decide/`, charts and markup from `report/`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from toolkit.decide.cost import Prices
from toolkit.decide.evidence import headline, judged, recommended, with_recommendation
from toolkit.decide.recommend import recommend
from toolkit.decide.recommendation import Recommendation
from toolkit.decide.series import main_metric
from toolkit.decide.wording import cell_text
from toolkit.errors import PlanError
from toolkit.experiment.results import Results
from toolkit.measure.metrics import described
from toolkit.measure.noninferiority import KEEP
from toolkit.report.kinds import draw, possible_kinds
from toolkit.report.write import write_report

if TYPE_CHECKING:
    from toolkit.report.style import Chart

_ROWS_SHOWN = 12


@dataclass(frozen=True, eq=False)
class RecommendationView(Recommendation):
    """A Recommendation that a notebook shows as tables."""

    @classmethod
    def of(cls, found: Recommendation) -> RecommendationView:
        """The same recommendation, with a view of its own."""
        return cls(**{field.name: getattr(found, field.name) for field in fields(found)})

    def _repr_html_(self) -> str:
        from toolkit.report.html import recommendation_html

        return recommendation_html(self)


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
        return possible_kinds(self._judged)

    def frame(self) -> pd.DataFrame:
        """The measurements, one row per setting, as a copy."""
        return self.results.frame()

    def recommend(
        self,
        *,
        keep: float = KEEP,
        metric: str | None = None,
        max_bytes_per_vector: float | None = None,
        max_p95_ms: float | None = None,
        corpus_size: int | None = None,
        prices: Prices | None = None,
    ) -> RecommendationView:
        """The cheapest setting within limits; see toolkit.recommend."""
        return RecommendationView.of(
            recommend(
                self.results,
                keep=keep,
                metric=metric,
                max_bytes_per_vector=max_bytes_per_vector,
                max_p95_ms=max_p95_ms,
                corpus_size=corpus_size,
                prices=prices,
            )
        )

    def plot(self, kind: str = "dimension") -> Chart:
        """A chart as a matplotlib Figure; raises PlanError for a kind that these results cannot give."""
        return draw(self._judged, kind)

    def save(self) -> Path:
        """Write charts and report.html into the results folder; returns the report's path."""
        return write_report(self.results)

    @cached_property
    def _judged(self) -> pd.DataFrame:
        return with_recommendation(judged(self.results), recommended(self.results))

    def _repr_html_(self) -> str:
        from base64 import b64encode

        from toolkit.report.style import png_bytes

        metric = main_metric(self.results.measurements)
        rows = self.results.measurements.sort_values(metric, ascending=False, kind="stable")
        shown = [c for c in ("setting", metric, f"{metric}_delta", "p95_ms", "bytes_per_vector") if c in rows]
        heads = [c if c == "setting" or c.endswith("_delta") else described(c).label for c in shown]
        heads = [head.replace(f"{metric}_delta", "difference to full") for head in heads]
        cells = "".join(
            "<tr>" + "".join(f"<td>{escape(_shown(row[c], c))}</td>" for c in shown) + "</tr>"
            for _, row in rows.head(_ROWS_SHOWN).iterrows()
        )
        picture = ""
        if "dimension" in self.kinds:
            data = b64encode(png_bytes(self.plot())).decode()
            picture = f'<img alt="{escape(self.headline)}" width="640" src="data:image/png;base64,{data}">'
        hidden = len(rows) - _ROWS_SHOWN
        more = f"<p>{hidden} more settings: .frame()</p>" if hidden > 0 else ""
        return (
            f"<div><p><strong>{escape(self.headline)}</strong></p>{picture}"
            f"<table><thead><tr>{''.join(f'<th>{escape(h)}</th>' for h in heads)}</tr></thead>"
            f"<tbody>{cells}</tbody></table>{more}</div>"
        )


def as_view(results: str | Path | Results | ResultsView) -> ResultsView:
    """A view of results that are open, or of a results folder.

    Raises PlanError for anything else, ResultsError if the folder holds no finished sweep.
    """
    if isinstance(results, ResultsView):
        return results
    if isinstance(results, str | Path):
        return ResultsView(Results.load(results))
    if isinstance(results, Results):
        return ResultsView(results)
    raise PlanError(
        f"results of type {type(results).__name__} cannot be read; give a results folder, or what "
        "toolkit.sweep and toolkit.load_results return"
    )


def _shown(value: object, column: str) -> str:
    return value if isinstance(value, str) else cell_text(float(value), described(column))
