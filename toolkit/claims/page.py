"""The claims as one page that needs no network, and as a fragment for a notebook. Measures nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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


def page(outcomes: Sequence[Outcome], runs: Mapping[str, Mapping[str, object]], again: str) -> str:
    """The whole page; the same colours and type as a report's.

    runs : what each outcome was measured on, by its `measured_at`. again : the command for disturbed ones, or empty.
    """
    counts = {verdict: sum(one.verdict == verdict for one in outcomes) for verdict in _MARKS}
    return (
        templates_of(_HERE)
        .get_template("claims.html.j2")
        .render(
            outcomes=outcomes,
            again=again,
            models={at: _model_of(about) for at, about in runs.items()},
            marks=_MARKS,
            counts=counts,
            range_text=_range,
            details=[json.dumps(one.measured, indent=1, ensure_ascii=False, default=str) for one in outcomes],
            facts={at: list(flatten(about)) for at, about in runs.items()},
            css=Markup(_REPORT_CSS.read_text(encoding="utf-8")),  # noqa: S704 - a file of this package
        )
    )


def _model_of(about: Mapping[str, Any]) -> str:
    hardware = about["hardware"]
    return f"{about['space']['model']} on {', '.join(hardware.get('gpus') or ()) or hardware['cpu']}"


def _range(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.3g} to {interval[1]:.3g}"
