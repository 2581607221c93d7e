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

from toolkit.decide.advice import RecommendationText, recommendation_words
from toolkit.decide.recommendation import Recommendation
from toolkit.decide.series import has, main_metric
from toolkit.decide.wording import instruction_text, signed
from toolkit.measure.metrics import COSTS, described
from toolkit.report.compact import share_glyphs
from toolkit.report.table import VERDICTS, qualities, table

_HERE = Path(__file__).parent
_ALPHA = 0.05


@dataclass(frozen=True)
class Picture:
    """A chart ready for a page: its name and title, what it shows in words, and the SVG with ids of its own.

    wide : whether it needs a row of its own.
    """

    name: str
    title: str
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


def render(page: Page) -> str:
    """The report as HTML; every text from users is escaped."""
    template = templates_of(_HERE).get_template("report.html.j2")
    metric = main_metric(page.frame)
    verdicts = set(page.frame["verdict"]) if "verdict" in page.frame else set()
    found = page.recommendation
    words = None if found is None else recommendation_words(found)
    letters, svgs = share_glyphs([picture.svg for picture in page.pictures])
    shown = [*qualities(page.frame), *(cost for name, cost in COSTS.items() if has(page.frame, name))]
    return template.render(
        page=page,
        css=Markup((_HERE / "report.css").read_text(encoding="utf-8")),  # noqa: S704 - files of this package
        letters=Markup(letters),  # noqa: S704
        pictures=[(picture, Markup(svg)) for picture, svg in zip(page.pictures, svgs, strict=True)],  # noqa: S704
        words=words,
        sure=[] if words is None else words.sure,
        headed=False,
        lines=[] if words is None else words.remarks,
        headline=page.headline if words is None else words.headline,
        by_dimension="" if words is None else page.headline,
        instructions=[] if found is None else _instructions(found),
        instruction_clusters=None
        if found is None or not found.instructions
        else found.instructions[0].clusters,
        metric=described(metric).label,
        table=table(page.frame, metric),
        marks=[(key, *shown) for key, shown in VERDICTS.items() if key in verdicts],
        facts=list(flatten(page.environment)),
        command=str(page.environment.get("command", "")),
        date=str(page.environment.get("date_utc", "")),
        glossary=shown,
    )


def recommendation_html(found: Recommendation) -> str:
    """A recommendation as a fragment of a page; every text from users is escaped."""
    words: RecommendationText = recommendation_words(found)
    return (
        templates_of(_HERE)
        .get_template("recommendation.html.j2")
        .render(words=words, headed=True, lines=words.remarks)
    )


def _instructions(found: Recommendation) -> list[tuple[str, str, str]]:
    """(instruction, quality, difference to the best with its interval) at the full dimension, the best first."""
    best = found.instructions[0].label if found.instructions else ""
    return [
        (
            instruction_text(one.label),
            f"{one.quality:.3f}",
            "the best"
            if one.label == best
            else f"{signed(one.difference)} ({signed(one.low)}..{signed(one.high)})"
            + ("" if one.p <= _ALPHA else "; not told apart"),
        )
        for one in found.instructions
    ]


def templates_of(folder: Path) -> Environment:
    """The templates in a folder; all that they are given is escaped, and a name they lack is an error."""
    return Environment(
        loader=FileSystemLoader(folder),
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
