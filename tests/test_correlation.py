"""Rank correlation with its paired bootstrap: a column without an order has no value, interval or p."""

import warnings

import numpy as np
import pytest
from scipy.stats import spearmanr

from toolkit.measure.correlation import spearman_intervals


def columns(seed=0, n=50):
    rng = np.random.default_rng(seed)
    scores = rng.random(n)
    return scores, np.column_stack([scores + rng.random(n), scores + 2 * rng.random(n), rng.random(n)])


def test_values_and_differences_are_spearmans():
    scores, found = columns()
    told = spearman_intervals(found, scores, reference=0, resamples=300)
    for column, one in zip(found.T, told, strict=True):
        assert one.value == pytest.approx(spearmanr(column, scores).statistic)
        assert one.low < one.value < one.high
        assert one.difference == pytest.approx(one.value - told[0].value)
    assert (told[0].difference_low, told[0].difference_high, told[0].p) == (0.0, 0.0, 1.0)
    assert told[2].p <= 2 / 301


def test_a_constant_column_has_no_correlation_and_no_p():
    scores, found = columns()
    found[:, 1] = 0.7
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = spearman_intervals(found, scores, reference=0, resamples=300)
    assert np.isnan([vars(told[1])[name] for name in vars(told[1])]).all()
    clean = spearman_intervals(np.delete(found, 1, axis=1), scores, reference=0, resamples=300)
    for one, alone in zip((told[0], told[2]), clean, strict=True):
        assert vars(one) == pytest.approx(vars(alone))


def test_a_constant_reference_leaves_differences_open_but_not_the_values():
    scores, found = columns()
    found[:, 0] = 0.0
    told = spearman_intervals(found, scores, reference=0, resamples=300)
    for one in told[1:]:
        assert np.isfinite([one.value, one.low, one.high]).all()
        assert np.isnan([one.difference, one.difference_low, one.difference_high, one.p]).all()


def test_scores_without_an_order_leave_everything_open():
    _, found = columns()
    told = spearman_intervals(found, np.ones(50), reference=0, resamples=100)
    assert all(np.isnan(list(vars(one).values())).all() for one in told)


def test_a_resample_of_equal_values_only_is_left_out():
    scores, found = columns(n=50)
    found[:, 1] = 0.0
    found[:2, 1] = (1.0, 2.0)  # 13 % of resamples hold neither of the two
    one = spearman_intervals(found, scores, reference=0, resamples=1_000)[1]
    assert np.isfinite([one.low, one.high, one.difference_low, one.p]).all()
    found[:, 1] = 0.0
    with_three_pairs = spearman_intervals(found[:3], scores[:3], reference=0, resamples=200)[1]
    assert np.isnan(with_three_pairs.p)
