"""Labels, rankings and draws together: coverage, power, and that more evidence never makes a bound wider."""

import numpy as np
import pytest

from toolkit.judge.draw import draw_density
from toolkit.measure.noninferiority import (
    Judged,
    Pool,
    non_inferiorities,
    p_values,
    retained_at_least,
    strictest_keep,
)

KEEP = 0.99
STUDIES = 300
NOISE = 3.3 * np.sqrt(0.05 * 0.95 / STUDIES)


def population(rng, size, *, allowed, keep=KEEP):
    """Reference, a setting exactly on the line by rare total losses, and what its rankings allow it to lose.

    allowed : share of the queries whose rankings allow a total loss; the lost ones are among them.
    """
    reference = np.where(rng.random(size) < 0.3, 0.0, rng.uniform(0.3, 1.0, size))
    order = rng.permutation(size)
    enough = np.searchsorted(np.cumsum(reference[order]), (1 - keep) * reference.sum()) + 1
    values = reference.copy()
    values[order[:enough]] = 0.0
    bounds = rng.beta(1, 12, size)
    bounds[order[: max(enough, int(allowed * size))]] = 1.0
    return reference, values, bounds


@pytest.mark.parametrize("n", [50, 300])
@pytest.mark.parametrize("allowed", [0.0, 0.05])
def test_rare_total_losses_are_neither_proven_nor_likely(n, allowed):
    rng = np.random.default_rng(n)
    reference, values, bounds = population(rng, 4_000, allowed=allowed)
    wrong = np.zeros(2)
    for _ in range(STUDIES):
        some = rng.permutation(4_000)
        judged, others = some[:n], some[n : n + 1_500]
        found = p_values(
            Judged(values[judged][:, None], reference[judged], bounds[judged][:, None]),
            Pool(bounds[others][:, None]),
            keep=KEEP,
        )
        wrong += [found.proven[0] <= 0.05, found.likely[0] <= 0.05]
    assert (wrong / STUDIES <= 0.05 + NOISE).all()


def test_draws_by_the_bound_are_weighted_rightly_and_prove_sooner():
    rng = np.random.default_rng(1)
    size, n = 3_000, 100
    bounds = np.where(rng.random(size) < 0.8, 0.0, rng.beta(1, 8, size))
    reference = rng.uniform(0.2, 1.0, size)
    # On the line: a share of what can be lost is.
    loss = np.minimum(bounds, reference)
    on_line = reference - loss * ((1 - KEEP) * reference.sum() / loss.sum())
    good = reference - loss * (0.2 * (1 - KEEP) * reference.sum() / loss.sum())
    density = draw_density(bounds[:, None], bounds[:, None])
    pool = Pool(np.column_stack([bounds, bounds]), density=density)
    values = np.column_stack([on_line, good])
    wrong = proven = plainly = 0
    means = []
    for _ in range(STUDIES):
        drawn = rng.choice(size, n, p=density / density.sum())
        sample = Judged(values[drawn], reference[drawn], pool.most_lost[drawn], density=density[drawn])
        found = p_values(sample, pool, keep=KEEP)
        wrong += found.proven[0] <= 0.05
        proven += found.proven[1] <= 0.05
        means.append((sample.scores[:, 1] * sample.weights).mean())
        even = rng.choice(size, n)
        sample = Judged(values[even], reference[even], pool.most_lost[even])
        plainly += p_values(sample, keep=KEEP).proven[1] <= 0.05
    assert wrong / STUDIES <= 0.05 + NOISE
    assert proven / STUDIES > 0.9
    assert plainly / STUDIES < 0.1
    assert np.mean(means) == pytest.approx(good.mean(), abs=4 * np.std(means) / np.sqrt(STUDIES))


def test_bounds_never_make_what_is_proven_weaker():
    rng = np.random.default_rng(2)
    for _ in range(20):
        n = int(rng.integers(20, 400))
        reference = rng.uniform(0, 1, n)
        bounds = rng.beta(1, 10, n)
        values = np.clip(reference - bounds * rng.uniform(-0.3, 0.5, n), 0, 1)
        sample = Judged(values[:, None], reference, bounds[:, None])
        alone = retained_at_least(sample)
        assert retained_at_least(sample, Pool(rng.beta(1, 10, (2_000, 1)))) >= alone - 1e-6
        # Nothing is known of rankings that share nothing: they are worth no more than no ranking.
        assert retained_at_least(sample, Pool(np.ones((2_000, 1)))) == pytest.approx(alone, abs=1e-3)


def test_equal_rankings_are_proven_by_queries_that_nobody_judged():
    reference = np.random.default_rng(3).uniform(0, 1, 300)
    sample = Judged(reference[:, None], reference, np.zeros((300, 1)))
    assert non_inferiorities(sample)[0].verdict == "keeps (likely)"
    assert non_inferiorities(sample, Pool(np.zeros((2_000, 1))))[0].verdict == "keeps (proven)"


def test_without_recorded_rankings_nothing_is_likely():
    reference = np.random.default_rng(4).uniform(0, 1, 200)
    assert non_inferiorities(Judged(reference[:, None], reference))[0].verdict == "undecided"


def test_settings_that_rank_alike_are_one_member_of_the_family():
    rng = np.random.default_rng(5)
    reference = rng.uniform(0.5, 1, 900)
    values = np.repeat(np.where(rng.random(900) < 0.003, 0.5, 1.0)[:, None] * reference[:, None], 200, axis=1)
    sample = Judged(values, reference)
    apart = non_inferiorities(sample, keep=0.98)
    together = non_inferiorities(sample, keep=0.98, groups=[7] * 200)
    assert apart[0].p_proven == pytest.approx(min(1.0, 200 * together[0].p_proven))
    assert {one.verdict for one in together} == {"keeps (proven)"}


def test_ignoring_clusters_claims_too_much():
    """Whole clusters lose together, as questions about one policy do."""
    rng = np.random.default_rng(6)
    studies, clusters, size, keep = 300, 25, 40, 0.9
    wrong = np.zeros(2)
    for _ in range(studies):
        reference = rng.uniform(0.5, 1.0, clusters * size)
        member = np.repeat(np.arange(clusters), size)
        values = np.where((rng.random(clusters) < 1 - keep)[member], 0.0, reference)
        for at, known in enumerate((None, member)):
            sample = Judged(values[:, None], reference, clusters=known)
            wrong[at] += p_values(sample, keep=keep).proven[0] <= 0.05
    ignored, respected = wrong / studies
    assert ignored > 0.2
    assert respected <= 0.05 + NOISE


@pytest.mark.parametrize(("labelled", "unlabelled"), [(300, 0), (300, 2_000), (50, 2_000)])
def test_the_strictest_keep_is_where_equal_rankings_turn(labelled, unlabelled):
    keep = strictest_keep(labelled, unlabelled, quality=0.5)
    sample = Judged(np.full((labelled, 1), 0.5), np.full(labelled, 0.5))
    pool = Pool(np.zeros((unlabelled, 1))) if unlabelled else None
    assert non_inferiorities(sample, pool, keep=keep - 1e-4)[0].verdict == "keeps (proven)"
    assert non_inferiorities(sample, pool, keep=keep + 1e-4)[0].p_proven > 0.05
    assert strictest_keep(0) == 0.0
