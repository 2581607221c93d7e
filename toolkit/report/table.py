"""The table of measurements: one row per setting, grouped by what differs, with the columns that decide first.

Lays out texts and sort keys; knows no HTML.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pandas as pd

from toolkit.decide.series import has, reference, series_of
from toolkit.decide.wording import (
    SETTING_COLUMNS,
    cell_text,
    percent,
    setting_label,
    shorten,
    signed,
    varying,
)
from toolkit.measure.metrics import Metric, described

# What each verdict looks like and means; a frame has some of them.
VERDICTS = {
    "reference": ("◆ reference", "the exact search at the full dimension"),
    "keeps (proven)": ("✓ proven", "keeps 99 %, with 95 % confidence"),
    "keeps (likely)": (
        "✓ likely",
        "keeps 99 % unless unjudged queries lose more than their rankings make likely",
    ),
    "loses": ("✗ loses", "keeps less than 99 %, with 95 % confidence"),
    "undecided": ("? undecided", "too few queries to say"),
}
_COSTS = ("p95_ms", "qps", "bytes_per_vector", "usd_per_month")
_MORE_COSTS = ("p50_ms", "p99_ms", "build_s", "gb_per_million")
_GROUPED_BY = ("dataset", "model", "instruction", "index", "precision")
_P_SMALL = 0.001


@dataclass(frozen=True)
class Cell:
    """A table cell: what it shows, what it is sorted by, and a remark for the mouse and screen readers."""

    text: str
    sort: float | str
    note: str = ""

    @property
    def key(self) -> str | None:
        """What the page sorts by, as text; None where the text shown does as well."""
        key = self.sort if isinstance(self.sort, str) else f"{self.sort:.6g}"
        return None if key == self.text or re.fullmatch(r"-?[\d.]+", self.text) else key


@dataclass(frozen=True)
class Head:
    """A column: its head, and whether it is shown from the start."""

    text: str
    more: bool = False


@dataclass(frozen=True)
class Row:
    """A setting: its name within its group, its whole key, its verdict, and a cell for each column."""

    label: str
    setting: str
    verdict: str
    cells: list[Cell]


@dataclass(frozen=True)
class Group:
    """Settings that share what the label says; empty for a table of one group."""

    label: str
    rows: list[Row]


@dataclass(frozen=True)
class Table:
    """Columns after that of the setting, and the groups of rows, best first in each."""

    heads: list[Head]
    groups: list[Group]

    @property
    def count(self) -> int:
        """Settings in all."""
        return sum(len(group.rows) for group in self.groups)


def table(frame: pd.DataFrame, metric: str) -> Table:
    """Every setting, grouped by the first thing that differs but the dimension: set, model, instruction, index."""
    parts = varying(frame, ("dataset", "model", *SETTING_COLUMNS))
    by = next((part for part in _GROUPED_BY if part in parts), None)
    rest = [part for part in parts if part != by]
    full = {key: reference(rows, metric)[metric] for _, rows in series_of(frame) for key in rows.index}
    ordered = frame.sort_values(metric, ascending=False, kind="stable")
    groups = [("", ordered)] if by is None else list(ordered.groupby(by, sort=False, dropna=False))
    others = [one for one in qualities(frame) if one.name != metric]
    costs = [name for name in _COSTS if has(frame, name)]
    more_costs = [name for name in _MORE_COSTS if has(frame, name)]
    judged = has(frame, "verdict")
    heads = [Head(described(metric).label), Head("kept")]
    heads += [Head("verdict")] if judged else []
    heads += [Head(described(name).head) for name in costs]
    heads += [Head(text, more=True) for text in ("95 % interval", "difference to full", "p")]
    heads += [Head(one.label, more=True) for one in others]
    heads += [Head(described(name).head, more=True) for name in more_costs]

    def row_of(row: pd.Series) -> Row:
        verdict = str(row["verdict"]) if judged else ""
        cells = [_quality(row, metric), _kept(row[metric], full[row.name])]
        if judged:
            cells.append(
                Cell(*(VERDICTS.get(verdict, (verdict, ""))[0],) * 2, VERDICTS.get(verdict, ("", ""))[1])
            )
        cells += [_cost(row, name) for name in costs]
        cells += [_range(row, metric), _difference(row, metric), _p(row, metric)]
        cells += [_quality(row, one.name) for one in others] + [_cost(row, name) for name in more_costs]
        return Row(setting_label(row, rest) or str(row["dim"]), str(row["setting"]), verdict, cells)

    return Table(
        heads,
        [
            Group(
                "" if by is None else f"{by}: {shorten(str(name), 90)}",
                [row_of(row) for _, row in rows.iterrows()],
            )
            for name, rows in groups
        ],
    )


def qualities(frame: pd.DataFrame) -> list[Metric]:
    """The measures of quality that a frame has values of."""
    return [known for known in map(described, frame) if known.is_quality and has(frame, known.name)]


def _kept(value: float, full: float) -> Cell:
    if pd.isna(value) or not full > 0:
        return Cell("–", "")
    return Cell(
        percent(value / full), float(value / full), "share of the full dimension's quality, in this sample"
    )


def _cost(row: pd.Series, column: str) -> Cell:
    value = row[column]
    return Cell(cell_text(value, described(column)), "" if pd.isna(value) else float(value))


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
