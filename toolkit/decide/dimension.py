"""The shortest dimension that keeps the full one's quality, and how sure that is.

A setting *keeps* a share of the full dimension's quality if the per-query test of non-inferiority says so
(evidence.py), or, in a frame without that, if the whole 95 % interval of its paired difference lies above
the loss allowed. Dimensions are tested from the longest down, stopping at the
first that fails: with a fixed order the chance of any false "keeps" stays that of a single test
(fixed-sequence procedure, Maurer, Hothorn and Lehmacher 1995). Writes no sentence: wording.py does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd

from toolkit.decide.series import exact_rows, focus, has, main_metric, other_instructions, reference
from toolkit.decide.wording import dimension_finding, dimension_sentence
from toolkit.measure.noninferiority import KEEP, KEEPS, Grade


@dataclass(frozen=True)
class ShortestDimension:
    """The shortest dimension that keeps `keep` of the full one's quality.

    row : its measurements; full : those of the exact full-dimension search.
    certain : whether the test says so, or the mean alone. grade : of the test, ``proven`` or ``likely``.
    next_shorter : the longest measured dimension below `row`, if there is one.
    other_instructions : (instruction, quality at the full dimension) of those that serve worse.
    """

    metric: str
    keep: float
    row: pd.Series
    full: pd.Series
    certain: bool
    grade: Grade = "proven"
    next_shorter: pd.Series | None = None
    other_instructions: tuple[tuple[str, float], ...] = ()

    @property
    def dim(self) -> int:
        """The shortest dimension that keeps the quality."""
        return int(self.row["dim"])

    @property
    def full_dim(self) -> int:
        """The model's full dimension."""
        return int(self.full["dim"])

    @property
    def nothing_to_keep(self) -> bool:
        """Whether even the full dimension finds nothing relevant, so that no share of it means anything."""
        return not self.full[self.metric] > 0

    @property
    def finding(self) -> str:
        """For a chart's title, without figures."""
        return dimension_finding(self)

    @property
    def sentence(self) -> str:
        """The finding with its figures, its interval and what it saves."""
        return dimension_sentence(self)

    def may_keep(self, row: pd.Series) -> bool:
        """Whether the interval of a row leaves it open."""
        return row.get(f"{self.metric}_delta_hi", -1.0) >= -(1 - self.keep) * self.full[self.metric]


def keeps(rows: pd.DataFrame, full: pd.Series, metric: str, keep: float = KEEP) -> pd.Series:
    """Which rows keep the quality, proven or likely.

    By the ``verdict`` over all settings where the frame has one (evidence.py), else by each one's interval.
    """
    if has(rows, "verdict") and keep == KEEP:
        passed = rows["verdict"].isin([*KEEPS, "reference"])
    else:
        passed = _interval_keeps(rows, full, metric, keep)
    return passed | (rows.index == full.name)


def keeps_alone(rows: pd.DataFrame, full: pd.Series, metric: str, keep: float = KEEP) -> pd.Series:
    """Which rows keep the quality, each tested by itself: for tests in a fixed order."""
    if has(rows, "verdict_alone") and keep == KEEP:
        passed = rows["verdict_alone"].isin(KEEPS)
    else:
        passed = _interval_keeps(rows, full, metric, keep)
    return passed | (rows.index == full.name)


def _interval_keeps(rows: pd.DataFrame, full: pd.Series, metric: str, keep: float) -> pd.Series:
    if f"{metric}_delta_lo" not in rows or not full[metric] > 0:
        return pd.Series(False, index=rows.index)
    return rows[f"{metric}_delta_lo"] >= -(1 - keep) * full[metric]


def smallest_dim(rows: pd.DataFrame, metric: str | None = None, keep: float = KEEP) -> ShortestDimension:
    """The shortest dimension of one series that keeps `keep` of the full dimension's quality.

    Certain if a dimension below the full one passes; else the shortest by the mean alone, said so.
    """
    metric = metric or main_metric(rows)
    full = reference(rows, metric)
    falling = exact_rows(rows).iloc[::-1]
    passed = _unbroken(keeps_alone(falling, full, metric, keep))
    certain = passed > 1
    if not certain and full[metric] > 0:
        passed = _unbroken(falling[metric] >= keep * full[metric])
    shorter = falling.iloc[passed] if passed < len(falling) else None
    return ShortestDimension(
        metric,
        keep,
        falling.iloc[passed - 1],
        full,
        certain=certain or passed == 1,
        grade=_weakest(falling.iloc[1:passed]),
        next_shorter=shorter,
    )


def _weakest(rows: pd.DataFrame) -> Grade:
    """The grade that a chain of tests comes to."""
    return "likely" if has(rows, "verdict_alone") and (rows["verdict_alone"] == KEEPS[1]).any() else "proven"


def best_series_dim(frame: pd.DataFrame, metric: str | None = None) -> ShortestDimension:
    """`smallest_dim` of the frame's best series, with what the other instructions reach."""
    metric = metric or main_metric(frame)
    found = smallest_dim(focus(frame, metric), metric)
    return replace(found, other_instructions=other_instructions(frame, found.full, metric))


def headline_of(frame: pd.DataFrame, metric: str | None = None) -> str:
    """One sentence on the frame's best series: which dimension suffices, how sure that is, what it saves."""
    return best_series_dim(frame, metric).sentence


def _unbroken(passed: pd.Series) -> int:
    """How many rows pass before the first that fails; the first is the full dimension, which passes."""
    return max(1, int(passed.to_numpy(dtype=bool).cumprod().sum()))
