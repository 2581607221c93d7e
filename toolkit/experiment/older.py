"""Folders written before folder.json, read in the terms of today.

They named a rescoring stage by its candidates per neighbour (``384x4`` with k = 100) where 400 candidates are
now named themselves (``384@400``), left ``build:`` out of a setting's name, and called MAP at the depth of k
just MAP. What they measured is the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from toolkit.errors import PlanError
from toolkit.experiment.setting import SETTING_COLUMNS, Setting

if TYPE_CHECKING:
    import pandas as pd

_OLD_STAGE = re.compile(r"(\d+)x(\d+)")
_OLD_MAP = re.compile(r"map(_\w+)?")


def plan_of_today(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A plan's fields with rescoring candidates as numbers of their own."""
    k = fields.get("k", 100)
    if "rescore" not in fields:
        return dict(fields)
    funnels = [funnel if isinstance(funnel, list) else [funnel] for funnel in fields["rescore"]]
    return dict(fields) | {"rescore": [[_stage_of_today(stage, k) for stage in one] for one in funnels]}


def table_of_today(measurements: pd.DataFrame, *, k: int) -> pd.DataFrame:
    """Measurements with today's names of rescoring stages, settings and MAP."""
    frame = measurements.copy()
    if "rescore" in frame:
        frame["rescore"] = [
            _OLD_STAGE.sub(lambda found: f"{found[1]}@{int(found[2]) * k}", text) for text in frame["rescore"]
        ]
    if set(SETTING_COLUMNS) <= set(frame.columns):
        frame["setting"] = [_name(row) for row in frame.to_dict("records")]
    return frame.rename(columns=lambda name: _map_with_depth(name, k))


def rows_of_today(frame: pd.DataFrame, names: Mapping[str, str], *, k: int) -> pd.DataFrame:
    """A table whose rows go by the names of settings, with the `names` of today."""
    renamed = frame.assign(setting=frame["setting"].map(names).astype(frame["setting"].dtype.name))
    return renamed.rename(columns=lambda name: _map_with_depth(name, k))


def _stage_of_today(stage: Mapping[str, Any], k: int) -> dict[str, Any]:
    """A stage that is handed fewer candidates than k neighbours counted them per neighbour."""
    candidates = stage.get("candidates", 4)
    return dict(stage) | {"candidates": candidates * k if candidates < k else candidates}


def _name(row: Mapping[str, Any]) -> str:
    try:
        return Setting.from_columns(row).key
    except PlanError:  # not a name this version can give: the old one says what it was
        return str(row["setting"])


def _map_with_depth(column: str, k: int) -> str:
    found = _OLD_MAP.fullmatch(column)
    return f"map@{k}{found[1] or ''}" if found else column
