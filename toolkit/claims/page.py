"""The claims as one page that needs no network, and as a fragment for a notebook. Measures nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

import toolkit.report as report_room
from toolkit.claims.claim import FAILS, HOLDS, OPEN, Outcome
from toolkit.report.html import flatten, templates_of

_HERE = Path(__file__).parent
_REPORT_CSS = Path(report_room.__file__).parent / "report.css"
_MARKS = {HOLDS: "✓", FAILS: "✗", OPEN: "?"}


def fragment(outcomes: Sequence[Outcome]) -> str:
    """One row per claim, for a notebook; every text from users is escaped."""
    return (
        templates_of(_HERE)
        .get_template("fragment.html.j2")
        .render(outcomes=outcomes, marks=_MARKS, range_text=_range)
    )


def page(outcomes: Sequence[Outcome], about: Mapping[str, object]) -> str:
    """The whole page; the same colours and type as a report's."""
    counts = {verdict: sum(one.verdict == verdict for one in outcomes) for verdict in _MARKS}
    return (
        templates_of(_HERE)
        .get_template("claims.html.j2")
        .render(
            outcomes=outcomes,
            about=about,
            marks=_MARKS,
            counts=counts,
            range_text=_range,
            details=[json.dumps(one.measured, indent=1, ensure_ascii=False, default=str) for one in outcomes],
            facts=list(flatten(about)),
            css=Markup(_REPORT_CSS.read_text(encoding="utf-8")),  # noqa: S704 - a file of this package
        )
    )


def _range(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.3g} to {interval[1]:.3g}"
