"""Which queries are drawn to be judged, and how likely each is."""

from itertools import islice

import numpy as np
import pytest

from toolkit.errors import PlanError
from toolkit.judge.draw import UNIFORM_SHARE, Draws, draw_probabilities


def test_a_fifth_is_uniform_and_the_rest_follows_the_bounds():
    bounds = np.array([[0.0], [0.1], [0.3]])
    assert draw_probabilities(bounds) == pytest.approx([0.2 / 3, 0.2 / 3 + 0.2, 0.2 / 3 + 0.6])


def test_each_setting_has_the_same_say_however_far_it_is_from_the_reference():
    near, far = np.array([0.001, 0.0, 0.0, 0.0]), np.array([0.0, 0.0, 0.0, 0.9])
    p = draw_probabilities(np.stack([near, far], axis=1))
    assert p[0] == pytest.approx(p[3])
    assert p == pytest.approx([0.45, 0.05, 0.05, 0.45])


def test_no_weight_exceeds_five_whatever_the_bounds():
    bounds = np.random.default_rng(3).pareto(0.5, size=(500, 4))
    p = draw_probabilities(bounds)
    assert p.sum() == pytest.approx(1.0)
    assert (1.0 / (len(p) * p)).max() <= 1.0 / UNIFORM_SHARE + 1e-9


def test_settings_that_can_lose_nothing_have_no_say():
    bounds = np.array([[0.0, 0.2], [0.0, 0.6]])
    assert draw_probabilities(bounds) == pytest.approx(draw_probabilities(bounds[:, 1:]))
    assert draw_probabilities(np.zeros((4, 2))) == pytest.approx([0.25] * 4)


@pytest.mark.parametrize(
    "bounds", [np.zeros((0, 2)), np.zeros(3), np.array([[0.1], [np.nan]]), np.array([[0.1], [-0.1]])]
)
def test_bounds_that_cannot_be_drawn_by_are_refused(bounds):
    with pytest.raises(PlanError, match="bounds"):
        draw_probabilities(bounds)


def test_draws_follow_the_probabilities_and_repeat_for_a_seed():
    p = draw_probabilities(np.array([[0.0], [0.1], [0.3], [0.6]]))
    drawn = list(islice(Draws(p, seed=5), 20_000))
    shares = np.bincount(drawn, minlength=4) / len(drawn)
    assert shares == pytest.approx(p, abs=4 * np.sqrt(0.25 / len(drawn)))
    again = Draws(p, seed=5)
    assert [again[i] for i in (7, 19_999, 3)] == [drawn[7], drawn[19_999], drawn[3]]
    assert list(islice(Draws(p, seed=6), 50)) != drawn[:50]


def test_draws_are_the_same_on_any_machine():
    # Written down once: a saved design must go on with the draws it was begun with.
    assert list(islice(Draws(np.full(10, 0.1), seed=0), 12)) == [3, 2, 2, 7, 2, 5, 1, 8, 7, 3, 1, 4]
