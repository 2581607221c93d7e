"""Rank correlation of many similarity columns with one list of human scores, with paired bootstrap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolkit.measure.quality import spearman

# Ranking every resample anew costs far more than averaging it; 2,000 put a bound within 0.001 here.
RESAMPLES = 2_000


@dataclass(frozen=True)
class Correlation:
    """Spearman's correlation of a column, its interval, and its difference to the reference column."""

    value: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    p: float


def spearman_intervals(
    similarities: np.ndarray,
    scores: np.ndarray,
    *,
    reference: int,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Correlation]:
    """Correlations of the columns of (n, settings) similarities with (n,) scores.

    Percentile bootstrap over pairs (Efron & Tibshirani 1993, chapter 13); all columns share the
    resamples, so differences to column `reference` are paired. p is two-sided, from how often the
    difference changes sign, and never 0.

    A column without a correlation (all its similarities equal, or all scores) has nan throughout. A resample
    that happens to draw equal values only is left out for the columns it concerns; where less than half of
    the resamples are left, interval and p are nan.
    """
    from scipy.stats import rankdata

    n, settings = similarities.shape
    rng = np.random.default_rng(seed)
    drawn = np.empty((resamples, settings))
    for i in range(resamples):
        rows = rng.integers(0, n, size=n)
        ranks = rankdata(np.column_stack([similarities[rows], scores[rows]]), axis=0)
        ranks -= ranks.mean(axis=0)
        scale = np.sqrt(np.einsum("ij,ij->j", ranks, ranks))
        ranks /= np.where(scale > 0, scale, np.nan)
        drawn[i] = ranks[:, -1] @ ranks[:, :-1]
    values = np.array([spearman(similarities[:, j], scores) for j in range(settings)])
    differences = drawn - drawn[:, [reference]]
    low, high = _bounds(drawn, values, level)
    difference_low, difference_high = _bounds(differences, values - values[reference], level)
    used = np.isfinite(differences).sum(axis=0)
    one_sided = np.minimum((differences <= 0).sum(axis=0), (differences >= 0).sum(axis=0))
    p = np.minimum(1.0, 2.0 * (1.0 + one_sided) / (1.0 + used))
    p[np.isnan(difference_low)] = np.nan
    columns = (values, low, high, values - values[reference], difference_low, difference_high, p)
    return [Correlation(*map(float, found)) for found in zip(*columns, strict=True)]


def _bounds(drawn: np.ndarray, values: np.ndarray, level: float) -> np.ndarray:
    """Percentiles of the resamples that have a value; (2, settings), nan where too few have one."""
    bounds = np.full((2, drawn.shape[1]), np.nan)
    for column in np.flatnonzero(np.isfinite(values)):
        usable = drawn[np.isfinite(drawn[:, column]), column]
        if len(usable) >= len(drawn) / 2:
            bounds[:, column] = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2])
    return bounds
