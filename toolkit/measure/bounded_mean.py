"""Whether the mean of bounded observations lies above zero, exactly enough for rare and total losses.

The mean bound for bounded data of Gaffke (2005) and of Learned-Miller & Thomas (2019): weight the observations
and one more at the worst value by Dirichlet(1, .., 1), and take as p the probability that the weighted mean is not
above zero. The weight of that one more is the share of the population that lies below everything seen, and here
it need not be the worst imaginable: what each member of the population can lose at most is often known, and a
share u of them loses no more than the u with the largest bounds do together (`Unseen`). docs/statistics.md says
why that is sound and how it was tried.

Knows no metric and no setting: only columns of numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

_BISECTIONS, _NEWTON = 16, 8  # to the last bits of a float64 for every sample tried
_THRESHOLDS = 48
_LOG_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Unseen:
    """What a share of the population can lose at most, for each of (settings,) columns.

    share, lost : (m, settings), both rising from 0: the members with the largest bounds, up to `share` of all of
        them, lose `lost` of the mean at most. None if nothing is known: then all of it at `worst`.
    worst : the largest loss of any member, one for all columns or, where no bound is known, (settings,).
    outside : of how many members drawn from the population the bounds are known; the population may hold others,
        whose loss is `worst`. None if they are known of all.
    """

    worst: float | np.ndarray
    share: np.ndarray | None = None
    lost: np.ndarray | None = None
    outside: int | None = None

    @classmethod
    def from_bounds(
        cls,
        lost: np.ndarray,
        *,
        worst: float,
        density: np.ndarray | None = None,
        outside: int | None = None,
    ) -> Unseen:
        """From the (members, settings) bounds; `density` (members,) is how often a draw takes each, 1 on average."""
        density = np.ones(len(lost)) if density is None else density
        order = np.argsort(-lost / density[:, None], axis=0, kind="stable")
        zero = np.zeros((1, lost.shape[1]))
        share = np.vstack([zero, np.cumsum(density[order], axis=0) / density.sum()])
        total = np.vstack([zero, np.cumsum(np.take_along_axis(lost, order, axis=0), axis=0) / len(lost)])
        return cls(worst, share, total, outside)

    def columns(self, which: np.ndarray) -> Unseen:
        """That of some of the settings."""
        if self.share is None or self.lost is None:
            return self
        return replace(self, share=self.share[:, which], lost=self.lost[:, which])

    def losses(self, share: np.ndarray, column: int) -> tuple[np.ndarray, np.ndarray]:
        """(shares, cases) what a share of the population may lose, and the (cases,) weight of each case."""
        if self.share is None or self.lost is None:
            raise ValueError("no bounds are known, so all of the unseen is at its worst")
        at, total = self.share[:, column], self.lost[:, column]
        if self.outside is None:
            return np.interp(share, at, total)[:, None], np.ones(1)
        beyond, weights = _share_unseen(self.outside, panels=4, nodes=6)
        # Members of no known bound come first: nobody loses more.
        unknown = np.minimum(share[:, None], beyond[None, :])
        rest = np.interp(share[:, None] - unknown, at, total)
        return np.minimum(unknown * self.worst + rest, share[:, None] * self.worst), weights


def p_not_positive(
    values: np.ndarray, unseen: Unseen, *, weight: float = 1.0, level: float = 1.0
) -> np.ndarray:
    """p-value of each column of (n, settings) values against "the population's mean is not above zero".

    weight : each observation stands for that many.
    level : p-values above it are of no interest and may come out too small, though not below it.
    """
    if unseen.share is None:
        # All that is unseen has one value, so it is one more observation, and no share need be integrated over.
        last = np.broadcast_to(-np.asarray(unseen.worst), (1, values.shape[1]))
        count = np.append(np.full(len(values), weight), 1.0)
        return dirichlet_tail(np.vstack([values, last]), count=count)
    weights = np.full(len(values), weight)
    sample = dirichlet_tail(values, count=weights)
    p = np.ones(values.shape[1])
    share, mass = _share_unseen(len(values) * weight, panels=400, nodes=3)
    for column in range(values.shape[1]):
        p[column] = sample[column]
        if sample[column] > level:
            continue
        lost, cases = unseen.losses(share, column)
        needed = lost / (1.0 - share[:, None])
        p[column] = max(p[column], mass @ (_below(values[:, column], needed, weights) @ cases))
    return np.clip(p, 0.0, 1.0)


def _below(values: np.ndarray, thresholds: np.ndarray, count: np.ndarray) -> np.ndarray:
    """P(weighted mean of (n,) values <= threshold) at each of the thresholds."""
    spread = values.std() / np.sqrt(count.sum())
    top = max(values.mean() + 8.0 * spread, 1e-12)
    grid = np.linspace(0.0, top, _THRESHOLDS)
    tails = dirichlet_tail(values[:, None] - grid, count=count)
    tails[-1] = 1.0
    return np.exp(np.interp(thresholds, grid, np.log(np.maximum(tails, _LOG_TINY)), right=0.0))


def _share_unseen(observations: float, *, panels: int, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights that integrate over Beta(1, observations): the share below everything seen."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    edges = 30.0 * np.linspace(0.0, 1.0, panels + 1) ** 1.5
    middle, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    # -log(1 - share) is exponential with rate `observations`. Many panels, since what is integrated may be a step.
    exponent = (middle[:, None] + half[:, None] * points).ravel()
    mass = (half[:, None] * weights).ravel() * np.exp(-exponent)
    return -np.expm1(-exponent / observations), mass


def dirichlet_tail(x: np.ndarray, *, count: np.ndarray) -> np.ndarray:
    """P(sum w_i x_i <= 0) for w ~ Dirichlet(count), of each column of (n, settings); observation i stands for count_i.

    Dirichlet weights are gamma variates over their sum, and the sum does not change the sign: a tail of a
    linear combination of those, whose cumulant function is -sum of count x log(1 - t x). The tail
    by Lugannani & Rice (1980); exact enough that no resampling noise limits Holm's small levels.
    """
    from scipy.special import ndtr

    smallest, largest = x.min(axis=0), x.max(axis=0)
    p = np.where(largest > 0, 0.0, 1.0)
    usable = np.flatnonzero((smallest < 0) & (largest > 0))  # otherwise no weights change the sign
    if not usable.size:
        return p
    x, count = x[:, usable], count[:, None]
    low, high = 1.0 / smallest[usable], 1.0 / largest[usable]
    t = (low + high) / 2
    for step in range(_BISECTIONS + _NEWTON):
        scaled = x / (1.0 - t * x)
        slope = (count * scaled).sum(axis=0)
        low, high = np.where(slope > 0, low, t), np.where(slope > 0, t, high)
        t = (low + high) / 2
        if step >= _BISECTIONS:
            near = np.where(slope > 0, high, low) - slope / (count * scaled**2).sum(axis=0)
            t = np.where((near > low) & (near < high), near, t)
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
