"""Statistics against known answers: coverage, false claims, power, and the formulas they come from."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from toolkit.errors import DataError, PlanError
from toolkit.measure.bounded_mean import Unseen, p_not_positive
from toolkit.measure.noninferiority import (
    Judged,
    non_inferiorities,
    non_inferiority,
    queries_needed,
    retained_at_least,
)
from toolkit.measure.statistics import (
    benjamini_hochberg,
    holm,
    indistinguishable,
    mean_interval,
    mean_intervals,
    paired_difference,
    paired_differences,
)

# nDCG@10 of a query with one relevant document at rank 2, 3, ..
DISCOUNTS = 1 / np.log2(np.arange(3, 12))
DRAWS = 3_000
# A share of DRAWS samples misses its true value by less than this, 999 times in 1,000.
NOISE = 3.3 * np.sqrt(0.05 * 0.95 / DRAWS)


def qualities(rng, shape, *, ones=0.5, zeros=0.15):
    """Quality as real systems have it: many queries solved, some lost, the others in between."""
    u = rng.random(shape)
    return np.where(u < ones, 1.0, np.where(u < ones + zeros, 0.0, rng.choice(DISCOUNTS, shape)))


def mean_quality(*, ones=0.5, zeros=0.15):
    return ones + (1 - ones - zeros) * DISCOUNTS.mean()


@pytest.mark.parametrize("n", [50, 100, 300])
@pytest.mark.parametrize("shares", [{}, {"ones": 0.05, "zeros": 0.6}, {"ones": 0.75, "zeros": 0.05}])
def test_intervals_of_the_mean_hold_the_truth_in_93_to_97_percent(n, shares):
    values = qualities(np.random.default_rng(n), (n, DRAWS), **shares)
    found = mean_intervals(values, resamples=2_000)
    held = np.mean([one.low <= mean_quality(**shares) <= one.high for one in found])
    assert 0.93 <= held <= 0.97


@pytest.mark.parametrize("n", [100, 300])
def test_intervals_of_a_difference_hold_the_truth_in_93_to_97_percent(n):
    rng = np.random.default_rng(n)
    moved = rng.random((n, DRAWS)) < 0.4
    drift = np.where(moved, rng.normal(-0.02, 0.2, (n, DRAWS)), 0.0)
    found = paired_differences(drift, np.zeros(n), resamples=2_000)
    held = np.mean([one.low <= 0.4 * -0.02 <= one.high for one in found])
    assert 0.93 <= held <= 0.97


def test_intervals_of_a_difference_are_too_narrow_where_rare_queries_are_lost():
    """What the report warns of, and why verdicts rest on another test."""
    rng = np.random.default_rng(6)
    lost = np.where(rng.random((100, DRAWS)) < 0.01, 0.0, 1.0)
    found = paired_differences(lost, np.ones(100), resamples=2_000)
    held = np.mean([one.low <= -0.01 <= one.high for one in found])
    assert 0.34 < held < 0.75
    assert np.mean(p_not_positive(lost - 0.99, Unseen(0.99), level=0.05) <= 0.05) <= 0.05 + NOISE / 2


def test_many_settings_share_one_resampling_and_equal_one_alone():
    values = qualities(np.random.default_rng(0), (80, 5))
    together = mean_intervals(values, seed=3)
    for column, interval in zip(values.T, together, strict=True):
        assert vars(mean_interval(column, seed=3)) == pytest.approx(vars(interval))
    pairs = paired_differences(values, values[:, 0], seed=3)
    for column, pair in zip(values.T, pairs, strict=True):
        alone = paired_difference(column, values[:, 0], seed=3)
        assert vars(alone) == pytest.approx(vars(pair))


def test_interval_is_near_the_textbook_one_for_well_behaved_values():
    values = np.random.default_rng(1).normal(0.5, 0.1, 200)
    found = mean_interval(values)
    low, high = stats.t.interval(0.95, 199, values.mean(), stats.sem(values))
    assert found.n == 200
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.1 * (high - low))


def test_a_single_query_has_no_interval():
    found = mean_interval(np.array([0.5]))
    assert found.mean == 0.5
    assert np.isnan(found.low)
    assert np.isnan(found.high)


@given(st.integers(0, 2**32 - 1), st.integers(2, 9))
@settings(max_examples=20, deadline=None)
def test_p_of_a_difference_is_the_randomisation_test(seed, n):
    rng = np.random.default_rng(seed)
    difference = rng.choice([0.0, 0.37, -0.37, 0.63, 1.0, -0.5], n)
    exact = stats.permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    ).pvalue
    found = paired_difference(difference, np.zeros(n)).p
    assert found == pytest.approx(exact, abs=0.025)


def test_equal_settings_differ_significantly_in_5_percent():
    rng = np.random.default_rng(4)
    values = qualities(rng, (60, DRAWS))
    swapped = qualities(rng, (60, DRAWS))
    p = [one.p for one in paired_differences(values - swapped, np.zeros(60), resamples=2_000)]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=NOISE)


def test_an_identical_setting_has_no_difference():
    values = qualities(np.random.default_rng(5), 40)
    found = paired_difference(values, values)
    assert vars(found) == {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}


def test_holm_by_hand():
    # Holm 1979: 0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 lifted to the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_between_the_raw_p_and_bonferroni_and_keeps_the_order(p):
    adjusted = holm(p)
    assert (adjusted >= np.array(p) - 1e-15).all()
    assert (adjusted <= np.minimum(np.array(p) * len(p), 1.0) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def test_settings_that_cannot_be_told_apart():
    rng = np.random.default_rng(6)
    best = qualities(rng, 500)
    close = np.where(rng.random(500) < 0.02, 0.0, best)
    worse = np.where(rng.random(500) < 0.3, 0.0, best)
    assert indistinguishable(np.column_stack([best, close, worse]), best).tolist() == [True, False, False]
    assert indistinguishable(close[:40, None], best[:40]).tolist() == [True]


def test_a_large_grid_can_still_tell_settings_apart():
    rng = np.random.default_rng(5)
    best = qualities(rng, 200)
    grid = np.column_stack([best * 0.5] * 600 + [best])
    assert indistinguishable(grid, best).tolist() == [False] * 600 + [True]


def test_the_false_discovery_rate_is_adjusted_as_scipy_does():
    p = np.random.default_rng(12).uniform(0, 0.2, 37)
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p, method="bh"))


# --- non-inferiority ---------------------------------------------------------------------------------


def at_the_boundary(rng, kind, shape, keep):
    """Reference and values with mean(value) = keep * mean(reference) in truth, nearly."""
    reference = qualities(rng, shape)
    if kind == "rare total loss":
        return reference, np.where(rng.random(shape) < 1 - keep, 0.0, reference)
    if kind == "some answers change":
        moved = np.where(rng.random(shape) < 0.15, qualities(rng, shape), reference)
        return reference, np.where(rng.random(shape) < 1 - keep, 0.0, moved)
    return reference, keep * reference  # every query loses the same share


@pytest.mark.parametrize("kind", ["rare total loss", "some answers change", "all alike"])
@pytest.mark.parametrize(("n", "keep"), [(50, 0.9), (150, 0.99), (300, 0.97), (1_000, 0.99)])
def test_a_setting_on_the_line_is_said_to_keep_in_at_most_5_percent(kind, n, keep):
    rng = np.random.default_rng(n)
    reference, values = at_the_boundary(rng, kind, (n, DRAWS), keep)
    # Each column is a study of its own, with its own reference: the test is asked for its raw p.
    p = p_not_positive(values - keep * reference, Unseen(keep), level=0.05)
    assert np.mean(p <= 0.05) <= 0.05 + NOISE / 2


def test_no_setting_of_a_grid_on_the_line_is_said_to_keep_in_95_percent_of_studies():
    rng = np.random.default_rng(7)
    studies, size, n = 400, 20, 400
    wrong = 0
    for _ in range(studies):
        reference = qualities(rng, n)
        lost = rng.random((n, size)) < 0.05
        sample = Judged(np.where(lost, 0.0, reference[:, None]), reference)
        wrong += any(one.keeps for one in non_inferiorities(sample, keep=0.95))
    assert wrong / studies <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / studies)


def test_p_is_clopper_pearson_for_yes_and_no():
    # 1,000 queries the reference answers all; a setting loses `lost` of them. keep = 0.99.
    for n, lost in [(299, 0), (500, 1), (1_000, 4), (2_000, 30)]:
        values = np.ones(n)
        values[:lost] = 0.0
        found = non_inferiority(values, np.ones(n), keep=0.99)
        assert found.p_proven == pytest.approx(stats.binom.cdf(lost, n, 0.01), rel=0.01)
    assert non_inferiority(np.ones(298), np.ones(298)).verdict == "undecided"
    assert non_inferiority(np.ones(302), np.ones(302)).verdict == "keeps (proven)"


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.1, 0.4]), st.sampled_from([-0.03, 0.0, 0.03]))
@settings(max_examples=15, deadline=None)
def test_p_is_the_tail_of_the_dirichlet_weighted_mean(seed, spread, shift):
    rng = np.random.default_rng(seed)
    margins = np.clip(rng.normal(shift, spread, (60, 1)), -0.99, 1.0)
    weights = rng.exponential(size=(40_000, 61))
    drawn = np.mean(weights[:, :-1] @ margins[:, 0] - 0.99 * weights[:, -1] <= 0)
    assert p_not_positive(margins, Unseen(0.99))[0] == pytest.approx(drawn, abs=0.015)


def test_p_is_smooth_where_the_formula_cancels():
    margins = np.append(np.full(99, 0.01), 0.0)[:, None]
    balance = np.linspace(-1e-5, 1e-5, 41)  # margins and worst value together sum to about zero
    p = np.array([p_not_positive(margins, Unseen(0.99 + by))[0] for by in balance])
    assert np.isfinite(p).all()
    assert np.ptp(p) < 1e-3
    assert (np.diff(p) > -1e-6).all()


def test_clear_cases_are_decided():
    rng = np.random.default_rng(8)
    reference = qualities(rng, 2_000)
    nearly = np.where(rng.random(2_000) < 0.001, 0.0, reference)
    half = np.where(rng.random(2_000) < 0.5, 0.0, reference)
    line = np.where(rng.random(2_000) < 0.01, 0.0, reference)
    found = non_inferiorities(Judged(np.column_stack([reference, nearly, half, line]), reference))
    assert [one.verdict for one in found] == ["keeps (proven)", "keeps (proven)", "loses", "undecided"]
    assert found[0].retained == 1.0
    assert found[2].retained == pytest.approx(0.5, abs=0.05)


def test_few_queries_decide_nothing_even_if_all_are_equal():
    reference = qualities(np.random.default_rng(9), 100)
    assert non_inferiority(reference, reference).verdict == "undecided"
    assert non_inferiority(reference, reference, keep=0.9).verdict == "keeps (proven)"


def test_a_reference_that_finds_nothing_is_undecided():
    found = non_inferiority(np.zeros(500), np.zeros(500))
    assert found.verdict == "undecided"
    assert np.isnan(found.retained)


def test_retained_at_least_is_where_the_verdict_turns():
    rng = np.random.default_rng(10)
    reference = qualities(rng, 400)
    values = np.where(rng.random(400) < 0.02, 0.0, reference)
    bound = retained_at_least(Judged(values[:, None], reference))
    assert 0.9 < bound < values.mean() / reference.mean()
    assert non_inferiority(values, reference, keep=bound - 1e-6).verdict == "keeps (proven)"
    assert non_inferiority(values, reference, keep=bound + 1e-6).verdict == "undecided"


@pytest.mark.parametrize(("lost", "keep"), [(0.0, 0.99), (0.02, 0.95), (0.05, 0.99)])
def test_queries_needed_decide_with_about_the_power_asked_for(lost, keep):
    rng = np.random.default_rng(11)
    reference = qualities(rng, 4_000)
    values = np.where(rng.random(4_000) < lost, 0.0, reference)
    sample = Judged(values[:, None], reference)
    low, high = queries_needed(sample, keep=keep)
    assert high is not None
    drawn = rng.integers(0, 4_000, size=((low + high) // 2, 400))
    studies = [Judged(values[one][:, None], reference[one]) for one in drawn.T]
    decided = np.mean([non_inferiorities(one, keep=keep)[0].verdict != "undecided" for one in studies])
    assert 0.6 <= decided <= 0.98
    assert queries_needed(sample, keep=keep, alpha=0.001)[0] > low


def test_a_setting_on_the_very_line_is_never_decided():
    reference = np.tile([1.0, 0.5], 50)
    _, high = queries_needed(Judged(0.5 * reference[:, None], reference), keep=0.5)
    assert high is None


def test_bad_input():
    with pytest.raises(DataError, match=r"reference of shape \(3,\) does not belong to 4 queries"):
        paired_difference(np.zeros(4), np.zeros(3))
    with pytest.raises(DataError, match="nan or infinite"):
        mean_interval(np.array([0.5, np.nan]))
    with pytest.raises(DataError, match="plural function"):
        mean_interval(np.zeros((4, 2)))
    with pytest.raises(PlanError, match=r"keep 1\.5 is not a share"):
        non_inferiority(np.zeros(4), np.zeros(4), keep=1.5)
    with pytest.raises(DataError, match=r"values from 0 to 2 are not a quality"):
        non_inferiority(np.array([0.0, 2.0]), np.zeros(2))


def test_queries_of_a_cluster_change_together():
    """Forty clusters whose ten queries are the same: the evidence is that of forty queries, not of four hundred."""
    rng = np.random.default_rng(0)
    missed = rejected = 0
    for _ in range(100):
        shared = rng.normal(0.0, 1.0, 40)
        values, clusters = np.repeat(shared, 10), np.repeat(np.arange(40), 10)
        found = paired_difference(values, np.zeros(400), clusters=clusters, resamples=1_000)
        alone = paired_difference(shared, np.zeros(40), resamples=1_000)
        assert found.difference == pytest.approx(alone.difference)
        assert found.high - found.low == pytest.approx(alone.high - alone.low, rel=1e-6)
        missed += not found.low <= 0.0 <= found.high
        rejected += found.p <= 0.05
    assert missed <= 12
    assert rejected <= 12
    ignoring = paired_difference(values, np.zeros(400), resamples=1_000)
    assert ignoring.high - ignoring.low < 0.5 * (found.high - found.low)


def test_clusters_of_unequal_size_weigh_by_their_queries():
    values, clusters = np.array([1.0, 1.0, 1.0, -1.0]), np.array([0, 0, 0, 1])
    assert paired_difference(values, np.zeros(4), clusters=clusters).difference == 0.5
    with pytest.raises(DataError, match="clusters of shape"):
        paired_difference(values, np.zeros(4), clusters=clusters[:3])
