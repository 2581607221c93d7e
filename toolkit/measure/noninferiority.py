"""Whether a setting keeps a share of the reference's quality: proven, refuted, or too few queries to say.

"Not significantly different" proves nothing: with few queries everything is. Here the burden lies on the
setting: mean(value) >= keep * mean(reference) has to be shown, with at most `alpha` of false claims, and a
rare but total loss (one query in a hundred finds nothing any more) must not slip through because the sample
happens to hold none. Bootstrap, t and permutation tests let it slip: with 150 queries they claim "keeps
99 %" in 3 of 10 samples of such a setting. So the test is the mean bound for bounded data of Gaffke (2005)
and of Learned-Miller & Thomas (2019): add one observation at the worst value a query can have, weight all
by Dirichlet(1, .., 1), and take as p the probability that the weighted mean is below zero. For yes/no data
it is the exact Clopper-Pearson bound, for many queries the usual normal one. It is the Bayesian bootstrap
(Rubin 1981) of the sample and that one observation.

Quality is taken to lie in 0..1 for every query. Knows no metric and no setting: only columns of numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from toolkit.errors import DataError, PlanError
from toolkit.measure.statistics import as_columns, holm, same_queries

ALPHA = 0.05
POWER = 0.8
KEEP = 0.99
_STEPS = 60  # halvings of the saddlepoint's bracket: to the last bits of a float64
_MOST_QUERIES = 10_000_000

Verdict = Literal["keeps", "loses", "undecided"]


@dataclass(frozen=True)
class NonInferiority:
    """What the queries say about one setting against the reference.

    keep : the share of the reference's mean that is asked for.
    retained : mean(value) / mean(reference) in the sample; nan if the reference is 0 throughout.
    p_keeps : p-value against "keeps less than `keep`", Holm-adjusted over the settings tested together.
    p_loses : p-value against "keeps at least `keep`", adjusted likewise.
    verdict : ``keeps`` or ``loses`` where the p-value is at most alpha, else ``undecided``.
    """

    keep: float
    retained: float
    p_keeps: float
    p_loses: float
    verdict: Verdict


def non_inferiority(
    values: np.ndarray, reference: np.ndarray, *, keep: float = KEEP, alpha: float = ALPHA
) -> NonInferiority:
    """Whether (n,) values keep a share of the (n,) reference of the same queries; see `non_inferiorities`."""
    return non_inferiorities(np.asarray(values)[:, None], reference, keep=keep, alpha=alpha)[0]


def non_inferiorities(
    values: np.ndarray, reference: np.ndarray, *, keep: float = KEEP, alpha: float = ALPHA
) -> list[NonInferiority]:
    """Whether each column of (n, settings) values keeps a share of the (n,) reference of the same queries.

    All columns are one family: the chance that even one of them is called ``keeps`` wrongly is at most
    `alpha`, and so is the chance for ``loses``. Whichever is picked among the ``keeps`` (the cheapest) is
    therefore right with 1 - alpha, as long as the family itself was not chosen by looking at quality.

    Raises PlanError for a `keep` outside 0..1, DataError for values outside 0..1 or of other queries.
    """
    values, reference = _checked(values, reference, keep)
    margins = values - keep * reference[:, None]
    p_keeps = holm(_p_not_positive(margins, worst=-keep))
    p_loses = holm(_p_not_positive(-margins, worst=-1.0))
    full = reference.mean()
    # Through the differences, so that equal columns give exactly 1.
    retained = 1.0 + (values - reference[:, None]).mean(axis=0) / (full or np.nan)
    return [
        NonInferiority(keep, float(share), float(yes), float(no), _verdict(yes, no, alpha))
        for share, yes, no in zip(retained, p_keeps, p_loses, strict=True)
    ]


def retained_at_least(values: np.ndarray, reference: np.ndarray, *, alpha: float = ALPHA) -> float:
    """The largest share of the reference's mean that (n,) values keep with confidence 1 - alpha.

    The lower bound that belongs to `non_inferiority` of one setting; 0.0 if nothing can be said.
    """
    values, reference = _checked(np.asarray(values)[:, None], reference, 1.0)
    low, high = 0.0, 1.0
    for _ in range(30):
        keep = (low + high) / 2
        shown = _p_not_positive(values - keep * reference[:, None], worst=-keep)[0] <= alpha
        low, high = (keep, high) if shown else (low, keep)
    return low


def queries_needed(
    values: np.ndarray,
    reference: np.ndarray,
    *,
    keep: float = KEEP,
    alpha: float = ALPHA,
    power: float = POWER,
) -> int | None:
    """How many queries like these would decide between ``keeps`` and ``loses`` with probability `power`.

    Planned on the sample as it is: the margin mean(value) - keep * mean(reference) and its spread are taken
    as true, the margin is lowered by what chance takes away with probability `power`, and the test is
    asked how often the sample must be repeated. Divide `alpha` by the settings tested together.

    None if ten million would not do: the setting lies on the very line.
    """
    from scipy.special import ndtri

    values, reference = _checked(np.asarray(values)[:, None], reference, keep)
    margins = values - keep * reference[:, None]
    worst = -keep
    if margins.mean() < 0:
        margins, worst = -margins, -1.0
    n = len(margins)
    spread, bad_luck = margins.std(), ndtri(power)

    def decided(queries: int) -> bool:
        unlucky = margins - bad_luck * spread / np.sqrt(queries)
        return unlucky.mean() > 0 and _p_not_positive(unlucky, worst=worst, weight=queries / n)[0] <= alpha

    low, high = 1, 2
    while not decided(high):
        low, high = high, high * 2
        if low > _MOST_QUERIES:
            return None
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high


def _p_not_positive(margins: np.ndarray, *, worst: float, weight: float = 1.0) -> np.ndarray:
    """P(sum w_i margin_i + w_0 worst <= 0) for w ~ Dirichlet(1, .., 1), of each column of (n, settings).

    Dirichlet weights are exponential variates over their sum, and the sum does not change the sign: a
    tail of a linear combination of exponentials, whose cumulant function is -sum log(1 - t x). The tail
    by Lugannani & Rice (1980); exact enough that no resampling noise limits Holm's small levels.

    weight : each observation stands for that many.
    """
    from scipy.special import ndtr

    p = np.ones(margins.shape[1])
    usable = np.flatnonzero(margins.max(axis=0) > 0)  # otherwise no weights lift the mean above zero
    x = np.vstack([margins[:, usable], np.full((1, usable.size), worst)])
    count = np.full((len(x), 1), weight)
    count[-1] = 1.0
    low, high = 1.0 / x.min(axis=0), 1.0 / x.max(axis=0)
    for _ in range(_STEPS):
        t = (low + high) / 2
        rising = (count * x / (1.0 - t * x)).sum(axis=0) > 0
        low, high = np.where(rising, low, t), np.where(rising, t, high)
    t = (low + high) / 2
    scaled = x / (1.0 - t * x)
    second, third = (count * scaled**2).sum(axis=0), (2.0 * count * scaled**3).sum(axis=0)
    cumulant = -(count * np.log1p(-t * x)).sum(axis=0)
    w = np.sign(t) * np.sqrt(np.maximum(-2.0 * cumulant, 0.0))
    u = t * np.sqrt(second)
    central = np.abs(w) < 1e-4  # the two terms cancel there; their limit at the mean
    with np.errstate(divide="ignore", invalid="ignore"):
        density = np.exp(-(w**2) / 2) / np.sqrt(2 * np.pi)
        tail = ndtr(w) + density * (1.0 / w - 1.0 / u)
    at_mean = 0.5 + third / (6.0 * np.sqrt(2 * np.pi) * second**1.5)
    p[usable] = np.clip(np.where(central, at_mean, tail), 0.0, 1.0)
    return p


def _verdict(p_keeps: float, p_loses: float, alpha: float) -> Verdict:
    if p_keeps <= alpha:
        return "keeps"
    return "loses" if p_loses <= alpha else "undecided"


def _checked(values: np.ndarray, reference: np.ndarray, keep: float) -> tuple[np.ndarray, np.ndarray]:
    if not 0.0 < keep <= 1.0:
        raise PlanError(f"keep {keep} is not a share of the reference's quality; choose above 0 and up to 1")
    values = as_columns(values)
    reference = same_queries(values, reference)
    for name, numbers in (("value", values), ("reference", reference)):
        if numbers.min() < 0.0 or numbers.max() > 1.0:
            raise DataError(
                f"{name}s from {numbers.min():.4g} to {numbers.max():.4g} are not a quality per query; "
                "the test needs 0..1"
            )
    return values, reference
