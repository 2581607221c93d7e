"""The HTML report: one file that needs no network. Knows no matplotlib beyond finished SVGs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from toolkit.decide.recommendation import Recommendation
from toolkit.decide.series import has, main_metric
from toolkit.decide.wording import (
    SETTING_COLUMNS,
    RecommendationText,
    cell_text,
    recommendation_words,
    signed,
    varying,
)
from toolkit.measure.metrics import COSTS, Metric, described
from toolkit.report.compact import share_glyphs

_HERE = Path(__file__).parent
_MARKS = {
    "reference": ("◆", "the reference"),
    "keeps": ("✓", "keeps 99 % with 95 % confidence"),
    "loses": ("✗", "keeps less than 99 %, with 95 % confidence"),
    "undecided": ("?", "too few queries to say"),
}
_SHOWN_COSTS = (
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "qps",
    "build_s",
    "bytes_per_vector",
    "gb_per_million",
    "usd_per_month",
)
_P_SMALL = 0.001


@dataclass(frozen=True)
class Picture:
    """A chart ready for a page: its name, what it shows in words, and the SVG with ids of its own.

    wide : whether it needs a row of its own.
    """

    name: str
    caption: str
    svg: str
    wide: bool


@dataclass(frozen=True)
class Page:
    """All that the report shows; texts are plain and escaped by the template."""

    title: str
    headline: str
    pictures: Sequence[Picture]
    frame: pd.DataFrame
    environment: Mapping[str, object]
    plan_toml: str
    notes: Sequence[str] = ()
    recommendation: Recommendation | None = None


@dataclass(frozen=True)
class Cell:
    """A table cell: what it shows, what it is sorted by, and a remark for the mouse and screen readers."""

    text: str
    sort: float | str
    note: str = ""
    is_text: bool = False

    @property
    def key(self) -> str | None:
        """What the page sorts by, as text; None where the text shown does as well."""
        key = self.sort if isinstance(self.sort, str) else f"{self.sort:.6g}"
        return None if key == self.text or re.fullmatch(r"-?[\d.]+", self.text) else key


def render(page: Page) -> str:
    """The report as HTML; every text from users is escaped."""
    template = _templates().get_template("report.html.j2")
    metric = main_metric(page.frame)
    heads, rows = table(page.frame, metric)
    letters, svgs = share_glyphs([picture.svg for picture in page.pictures])
    shown = [*_qualities(page.frame), *(cost for name, cost in COSTS.items() if has(page.frame, name))]
    return template.render(
        page=page,
        css=Markup((_HERE / "report.css").read_text(encoding="utf-8")),  # noqa: S704 - files of this package
        letters=Markup(letters),  # noqa: S704
        pictures=[(picture, Markup(svg)) for picture, svg in zip(page.pictures, svgs, strict=True)],  # noqa: S704
        words=None if page.recommendation is None else recommendation_words(page.recommendation),
        metric=described(metric).label,
        heads=heads,
        rows=rows,
        marks=[
            mark
            for key, mark in _MARKS.items()
            if "verdict" in page.frame and (page.frame["verdict"] == key).any()
        ],
        facts=list(flatten(page.environment)),
        command=str(page.environment.get("command", "")),
        date=str(page.environment.get("date_utc", "")),
        glossary=shown,
    )


def recommendation_html(found: Recommendation) -> str:
    """A recommendation as a fragment of a page; every text from users is escaped."""
    words: RecommendationText = recommendation_words(found)
    return _templates().get_template("recommendation.html.j2").render(words=words)


def table(frame: pd.DataFrame, metric: str) -> tuple[list[str], list[list[Cell]]]:
    """Column heads and rows of cells: the setting's varying parts, quality with intervals, costs."""
    parts = varying(frame, ("dataset", "model", *SETTING_COLUMNS))
    others = [known for known in _qualities(frame) if known.name != metric]
    costs = [column for column in _SHOWN_COSTS if has(frame, column)]
    judged = has(frame, "verdict")
    heads = [part.replace("_", " ") for part in parts]
    heads += [described(metric).label, "95 % interval", "difference to full", "p"]
    heads += ["verdict"] if judged else []
    heads += [known.label for known in others] + [described(column).head for column in costs]
    rows = []
    for _, row in frame.sort_values(metric, ascending=False, kind="stable").iterrows():
        cells = [_part(row[part]) for part in parts]
        cells += [_quality(row, metric), _range(row, metric), _difference(row, metric), _p(row, metric)]
        if judged:
            mark, meaning = _MARKS.get(row["verdict"], ("", str(row["verdict"])))
            cells.append(Cell(mark, mark, meaning))
        cells += [_quality(row, known.name) for known in others]
        cells += [Cell(cell_text(row[column], described(column)), _key(row[column])) for column in costs]
        rows.append(cells)
    return heads, rows


def _qualities(frame: pd.DataFrame) -> list[Metric]:
    return [known for known in map(described, frame) if known.is_quality and has(frame, known.name)]


def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def flatten(values: Mapping[str, object], above: str = "") -> list[tuple[str, str]]:
    """Nested facts as (dotted name, text), the command apart."""
    facts: list[tuple[str, str]] = []
    for name, value in values.items():
        path = f"{above}{name}"
        if path == "command":
            continue
        if isinstance(value, Mapping):
            facts += flatten(value, f"{path}.")
        elif isinstance(value, str):
            facts.append((path, value))
        else:
            facts.append((path, json.dumps(value, ensure_ascii=False, default=str)))
    return facts


def slug(text: str) -> str:
    """Letters, digits and hyphens only, for an id."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _part(value: object) -> Cell:
    if isinstance(value, str):
        return Cell(value, value, is_text=True)
    return Cell("", "") if pd.isna(value) else Cell(str(value), float(value))


def _key(value: float) -> float | str:
    return "" if pd.isna(value) else float(value)


def _quality(row: pd.Series, metric: str) -> Cell:
    value = row[metric]
    if pd.isna(value):
        return Cell("–", "")
    low, high = row.get(f"{metric}_lo"), row.get(f"{metric}_hi")
    note = "" if low is None or pd.isna(low) else f"95 % interval {low:.3f} to {high:.3f}"
    return Cell(f"{value:.3f}", float(value), note)


def _range(row: pd.Series, metric: str) -> Cell:
    low, high = row.get(f"{metric}_lo"), row.get(f"{metric}_hi")
    return Cell("–", "") if low is None or pd.isna(low) else Cell(f"{low:.3f}..{high:.3f}", float(low))


def _difference(row: pd.Series, metric: str) -> Cell:
    value = row.get(f"{metric}_delta")
    if value is None or pd.isna(value):
        return Cell("–", "")
    low, high = row[f"{metric}_delta_lo"], row[f"{metric}_delta_hi"]
    mark = " *" if low > 0 or high < 0 else ""
    text = f"{signed(value)} ({signed(low)}..{signed(high)}){mark}"
    return Cell(text, float(value), "the 95 % interval leaves out 0" if mark else "")


def _p(row: pd.Series, metric: str) -> Cell:
    value = row.get(f"{metric}_p")
    if value is None or pd.isna(value):
        return Cell("–", "")
    return Cell("< 0.001" if value < _P_SMALL else f"{value:.3f}", float(value))
