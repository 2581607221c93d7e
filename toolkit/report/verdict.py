"""What the measurements say in a sentence, and how sure one can be. Draws nothing.

A setting *keeps* a share of the full dimension's quality if the per-query test of non-inferiority says so
(judgement.py), or, in a frame without that, if the whole 95 % interval of its paired difference lies above
the loss allowed. Dimensions are tested from the longest down, stopping at the
first that fails: with a fixed order the chance of any false "keeps" stays that of a single test
(fixed-sequence procedure, Maurer, Hothorn and Lehmacher 1995).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pandas as pd

from toolkit.errors import ResultsError
from toolkit.measure.metrics import described
from toolkit.report.wording import has, number, shorten, signed

SERIES = ("dataset", "model", "instruction")
KEEP = 0.99


@dataclass(frozen=True)
class Verdict:
    """The shortest dimension that keeps `keep` of the full one's quality.

    row : its measurements; full : those of the exact full-dimension search.
    certain : whether the paired interval says so, or the mean alone.
    next_shorter : the longest measured dimension below `row`, if there is one.
    """

    metric: str
    keep: float
    row: pd.Series
    full: pd.Series
    certain: bool
    next_shorter: pd.Series | None = None

    @property
    def dim(self) -> int:
        """The shortest dimension that keeps the quality."""
        return int(self.row["dim"])

    @property
    def full_dim(self) -> int:
        """The model's full dimension."""
        return int(self.full["dim"])

    @property
    def finding(self) -> str:
        """For a chart's title, without figures."""
        what = f"{self.keep:.0%} of {described(self.metric).label}".replace("%", " %")
        if self.dim == self.full_dim:
            if self.next_shorter is not None and self._may_keep(self.next_shorter):
                return f"No dimension below {self.full_dim} is shown to keep {what}"
            return f"Only the full {self.full_dim} dimensions keep {what}"
        if self.certain:
            return f"{self.dim} of {self.full_dim} dimensions keep {what}"
        return f"{self.dim} of {self.full_dim} dimensions may keep {what}"

    @property
    def sentence(self) -> str:
        """The finding with its figures, its interval and what it saves."""
        if self.dim == self.full_dim:
            if self.next_shorter is None:
                return f"{self.finding} ({self.full[self.metric]:.3f}); no shorter one was measured"
            return f"{self.finding}; {self.next_shorter['dim']} reach {self._figures(self.next_shorter)}"
        unsure = "" if self.certain else "; by the mean alone: more queries are needed to be sure"
        saved = saving(self.dim, self.full_dim)
        return f"{self.finding} ({self._figures(self.row)}) at {saved} the bytes{unsure}"

    def _figures(self, row: pd.Series) -> str:
        values = f"{row[self.metric]:.3f} of {self.full[self.metric]:.3f}"
        if f"{self.metric}_delta_lo" not in row:
            return values
        lo, hi = signed(row[f"{self.metric}_delta_lo"]), signed(row[f"{self.metric}_delta_hi"])
        return f"{values}, 95 % interval of the difference {lo}..{hi}"

    def _may_keep(self, row: pd.Series) -> bool:
        """Whether the interval leaves it open."""
        return row.get(f"{self.metric}_delta_hi", -1.0) >= -(1 - self.keep) * self.full[self.metric]


def main_metric(frame: pd.DataFrame) -> str:
    """The quality a frame is judged by: the first one in it, as the plan named them.

    Raises ResultsError if no quality was measured.
    """
    for column in frame:
        if described(column).is_quality and has(frame, column):
            return column
    raise ResultsError(
        f"no quality was measured, so there is nothing to draw; columns: {', '.join(map(str, frame.columns))}"
    )


def exact_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the exact float32 search without a second stage, by dimension."""
    rows = frame[(frame["precision"] == "float32") & (frame["index"] == "Flat") & (frame["rescore"] == "")]
    return rows.sort_values("dim", kind="stable")


def series_of(frame: pd.DataFrame) -> list[tuple[tuple[str, ...], pd.DataFrame]]:
    """The frame by data set, model and instruction, in order of appearance."""
    columns = [column for column in SERIES if column in frame]
    return [(key, rows) for key, rows in frame.groupby(columns, sort=False, dropna=False)]


def focus(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Of the first data set, the rows of the model and instruction with the best full-dimension quality."""
    frame = frame.reset_index(drop=True)
    if "dataset" in frame:
        frame = frame[frame["dataset"] == frame["dataset"].iloc[0]]
    return max((rows for _, rows in series_of(frame)), key=lambda rows: reference(rows, metric)[metric])


def reference(rows: pd.DataFrame, metric: str) -> pd.Series:
    """The exact full-dimension row of one series; raises ResultsError if it is missing."""
    exact = exact_rows(rows)
    if exact.empty or pd.isna(exact.iloc[-1].get(metric)):
        raise ResultsError(
            f"the exact full-dimension search (float32, Flat) has no {metric}; "
            "run the sweep again with --resume"
        )
    return exact.iloc[-1]


def keeps(rows: pd.DataFrame, full: pd.Series, metric: str, keep: float = KEEP) -> pd.Series:
    """Which rows keep the quality with 95 % confidence.

    By the ``verdict`` over all settings where the frame has one (judgement.py), else by each one's interval.
    """
    if has(rows, "verdict") and keep == KEEP:
        passed = rows["verdict"].isin(["keeps", "reference"])
    else:
        passed = _interval_keeps(rows, full, metric, keep)
    return passed | (rows.index == full.name)


def keeps_alone(rows: pd.DataFrame, full: pd.Series, metric: str, keep: float = KEEP) -> pd.Series:
    """Which rows keep the quality, each tested by itself: for tests in a fixed order."""
    if has(rows, "keeps_alone") and keep == KEEP:
        passed = rows["keeps_alone"].fillna(value=False).astype(bool)
    else:
        passed = _interval_keeps(rows, full, metric, keep)
    return passed | (rows.index == full.name)


def _interval_keeps(rows: pd.DataFrame, full: pd.Series, metric: str, keep: float) -> pd.Series:
    if f"{metric}_delta_lo" not in rows:
        return pd.Series(False, index=rows.index)
    return rows[f"{metric}_delta_lo"] >= -(1 - keep) * full[metric]


def smallest_dim(rows: pd.DataFrame, metric: str | None = None, keep: float = KEEP) -> Verdict:
    """The shortest dimension of one series that keeps `keep` of the full dimension's quality.

    Certain if a dimension below the full one passes; else the shortest by the mean alone, said so.
    """
    metric = metric or main_metric(rows)
    full = reference(rows, metric)
    falling = exact_rows(rows).iloc[::-1]
    passed = _unbroken(keeps_alone(falling, full, metric, keep))
    certain = passed > 1
    if not certain:
        passed = _unbroken(falling[metric] >= keep * full[metric])
    shorter = falling.iloc[passed] if passed < len(falling) else None
    return Verdict(
        metric, keep, falling.iloc[passed - 1], full, certain=certain or passed == 1, next_shorter=shorter
    )


def headline_of(frame: pd.DataFrame, metric: str | None = None) -> str:
    """One sentence on the frame's best series: which dimension suffices, how sure that is, what it saves."""
    metric = metric or main_metric(frame)
    return smallest_dim(focus(frame, metric), metric).sentence


def saving(dim: int, full_dim: int) -> str:
    """``half``, ``a quarter of``, ``38 % of``: how float32 storage shrinks."""
    words = {Fraction(1, 2): "half", Fraction(1, 4): "a quarter of", Fraction(3, 4): "three quarters of"}
    return words.get(Fraction(dim, full_dim), f"{number(100 * dim / full_dim, 2)} % of")


def series_label(frame: pd.DataFrame) -> str:
    """Data set, model and instruction of a frame with one series, for a subtitle."""
    first = frame.iloc[0]
    parts = [shorten(str(first[column])) for column in ("model", "dataset") if column in frame]
    if "instruction" in frame and first["instruction"] not in ("default", "none", "", None):
        parts.append(f"instruction: {shorten(str(first['instruction']))}")
    return " · ".join(parts)


def _unbroken(passed: pd.Series) -> int:
    """How many rows pass before the first that fails; the first is the full dimension, which passes."""
    return max(1, int(passed.to_numpy(dtype=bool).cumprod().sum()))
