"""Adds to the measurements what the per-query values can say and means cannot.

verdict_alone   the verdict on a setting of the exact search, tested by itself, for the fixed order of dimensions in
                dimension.py
verdict         keeps (proven), keeps (likely), loses, undecided or reference: all settings tested together
alike           whether its quality cannot be told apart from the recommended setting's
usd_per_month   cost at the recommendation's prices

Knows no chart and no page.
"""

from __future__ import annotations

import pandas as pd

from toolkit.decide.dimension import headline_of
from toolkit.decide.queries import queries_of
from toolkit.decide.recommend import recommend
from toolkit.decide.recommendation import Recommendation
from toolkit.decide.series import exact_rows, main_metric, reference, series_of
from toolkit.errors import PlanError, ResultsError
from toolkit.experiment.results import PER_QUERY, Results
from toolkit.measure.noninferiority import KEEP

_FROM_RECOMMENDATION = ("verdict", "alike", "usd_per_month")


def judged(results: Results) -> pd.DataFrame:
    """The measurements with ``verdict_alone``, where the quality is a mean over queries."""
    frame = results.frame().reset_index(drop=True)
    metric = main_metric(frame)
    if not (results.folder / PER_QUERY).is_file() or metric not in results.per_query:
        return frame
    values = results.per_query.astype({"setting": str}).pivot(  # noqa: PD010 - refuses a query that stands twice
        index="query_id", columns="setting", values=metric
    )
    frame["verdict_alone"] = pd.Series(pd.NA, index=frame.index, dtype="object")
    for _, rows in series_of(frame):
        full = reference(rows, metric)
        if not full[metric] > 0:
            continue  # nothing relevant was found at all: there is no quality to keep
        exact = exact_rows(rows)["setting"]
        shorter = exact.drop(full.name).tolist()
        found = queries_of(results, metric, full["setting"], values).alone(shorter, KEEP)
        for place, key in exact.items():
            frame.loc[place, "verdict_alone"] = found.get(key, "reference")
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
    table = recommendation.table.set_index("setting")
    found = table[[column for column in _FROM_RECOMMENDATION if column in table]]
    return frame.join(found, on="setting")
