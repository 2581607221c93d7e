"""Adds to the measurements what the per-query values can say and means cannot.

keeps_alone     whether a setting of the exact search keeps 99 %, tested by itself (non-inferiority), for the
                fixed order of dimensions in dimension.py
verdict         keeps, loses, undecided or reference: all settings tested together, Holm-corrected
alike           whether its quality cannot be told apart from the recommended setting's
usd_per_month   cost at the recommendation's prices

Knows no chart and no page.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from toolkit.decide.dimension import headline_of
from toolkit.decide.recommend import recommend
from toolkit.decide.recommendation import Recommendation
from toolkit.decide.series import exact_rows, main_metric, reference, series_of
from toolkit.errors import PlanError, ResultsError
from toolkit.experiment.results import PER_QUERY, Results
from toolkit.measure.noninferiority import KEEP, non_inferiority

_FROM_RECOMMENDATION = ("verdict", "alike", "usd_per_month")


def judged(results: Results) -> pd.DataFrame:
    """The measurements with ``keeps_alone``, where the quality is a mean over queries."""
    frame = results.frame().reset_index(drop=True)
    metric = main_metric(frame)
    if not (results.folder / PER_QUERY).is_file() or metric not in results.per_query:
        return frame
    values = _values(results, metric)
    frame["keeps_alone"] = pd.Series(pd.NA, index=frame.index, dtype="boolean")
    for _, rows in series_of(frame):
        full = reference(rows, metric)
        if not full[metric] > 0:
            continue  # nothing relevant was found at all: there is no quality to keep
        for place, key in exact_rows(rows)["setting"].items():
            found = non_inferiority(values[key], values[full["setting"]], keep=KEEP)
            frame.loc[place, "keeps_alone"] = found.verdict == "keeps" or place == full.name
    return frame


def headline(results: Results) -> str:
    """One sentence: which dimension suffices, how sure that is, what it saves."""
    return headline_of(judged(results))


def recommended(results: Results) -> Recommendation | None:
    """The recommendation without limits, or None for results that cannot be priced (pair sets)."""
    try:
        return recommend(results, keep=KEEP)
    except (PlanError, ResultsError):
        return None


def with_recommendation(frame: pd.DataFrame, recommendation: Recommendation | None) -> pd.DataFrame:
    """The frame with what the recommendation found about each setting, all tested as one family."""
    if recommendation is None:
        return frame
    found = recommendation.table.set_index("setting")[list(_FROM_RECOMMENDATION)]
    return frame.join(found, on="setting")


def _values(results: Results, metric: str) -> dict[str, np.ndarray]:
    """Quality of every query, in the same order for each setting."""
    return {
        key: rows.sort_values("query_id", kind="stable")[metric].to_numpy(dtype=float)
        for key, rows in results.per_query.groupby("setting", sort=False, observed=True)
    }
