"""Which rows of a table no other row beats in both of two columns."""

from __future__ import annotations

import numpy as np
import pandas as pd

from toolkit.errors import PlanError


def pareto_front(
    frame: pd.DataFrame, x: str, y: str, *, maximise_y: bool = True, minimise_x: bool = True
) -> np.ndarray:
    """Mask (rows,) bool of the settings that no other one equals or beats in both `x` and `y`.

    Equal rows stand or fall together; a row without a finite value in either column is never on the front.
    Raises PlanError for an unknown column.
    """
    for column in (x, y):
        if column not in frame.columns:
            raise PlanError(
                f"no column {column!r} to draw a front with; there are: {', '.join(frame.columns)}"
            )
    cost = frame[x].to_numpy(dtype=float) * (1 if minimise_x else -1)
    gain = frame[y].to_numpy(dtype=float) * (1 if maximise_y else -1)
    front = np.zeros(len(frame), dtype=bool)
    rows = np.flatnonzero(np.isfinite(cost) & np.isfinite(gain))
    best, previous = -np.inf, None
    # By rising cost, and falling gain within a cost: a row is on the front if it gains more than all before.
    for row in rows[np.lexsort((-gain[rows], cost[rows]))]:
        point = (cost[row], gain[row])
        front[row] = gain[row] > best or point == previous
        if gain[row] > best:
            best, previous = gain[row], point
    return front
