"""Reading a measurements frame: its metric, its series (data set, model, instruction), their reference.

Draws no conclusion; knows only column names.
"""

from __future__ import annotations

import pandas as pd

from toolkit.errors import ResultsError
from toolkit.measure.metrics import described

SERIES = ("dataset", "model", "instruction")


def has(frame: pd.DataFrame, column: str) -> bool:
    """Whether a column is there with at least one value."""
    return column in frame.columns and bool(frame[column].notna().any())


def main_metric(frame: pd.DataFrame) -> str:
    """The quality a frame is judged by: the first one in it, as the plan named them.

    Raises ResultsError if no quality was measured.
    """
    for column in frame:
        if described(column).is_quality and has(frame, column):
            return column
    raise ResultsError(
        "no quality was measured, so there is nothing to judge by; columns: "
        f"{', '.join(map(str, frame.columns))}"
    )


def metric_of(frame: pd.DataFrame, family: str) -> str | None:
    """The metric of a family (``recall``, ``overlap``) to draw: at 10 if measured, else the first, if any."""
    measured = [
        column
        for column in frame
        if described(column).is_quality and column.startswith(f"{family}@") and has(frame, column)
    ]
    usual = f"{family}@10"
    return usual if usual in measured else next(iter(measured), None)


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
    return max(_of_first_set(frame), key=lambda rows: reference(rows, metric)[metric])


def other_instructions(frame: pd.DataFrame, full: pd.Series, metric: str) -> tuple[tuple[str, float], ...]:
    """(instruction, full-dimension quality) of the other series of the same set and model, best first."""
    if "instruction" not in frame:
        return ()
    found = [
        (str(other["instruction"]), float(other[metric]))
        for other in (reference(rows, metric) for rows in _of_first_set(frame))
        if other["instruction"] != full["instruction"] and other.get("model") == full.get("model")
    ]
    return tuple(sorted(found, key=lambda one: -one[1]))


def reference(rows: pd.DataFrame, metric: str) -> pd.Series:
    """The exact full-dimension row of one series; raises ResultsError if it is missing."""
    exact = exact_rows(rows)
    if exact.empty or pd.isna(exact.iloc[-1].get(metric)):
        raise ResultsError(
            f"the exact full-dimension search (float32, Flat) has no {metric}; "
            "every sweep measures it, so these tables are not whole: run the sweep again"
        )
    return exact.iloc[-1]


def _of_first_set(frame: pd.DataFrame) -> list[pd.DataFrame]:
    frame = frame.reset_index(drop=True)
    if "dataset" in frame:
        frame = frame[frame["dataset"] == frame["dataset"].iloc[0]]
    return [rows for _, rows in series_of(frame)]
