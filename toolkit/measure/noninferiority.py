"""Whether a setting keeps a share of the reference's quality: proven, likely, refuted, or too few queries to say.

"Not significantly different" proves nothing: with few queries everything is. Here the burden lies on the
setting: mean(value) >= keep * mean(reference) has to be shown, with at most `alpha` of false claims, and a
rare but total loss (one query in a hundred finds nothing any more) must not slip through because the sample
happens to hold none. Bootstrap, t and permutation tests let it slip: with 150 queries they claim "keeps
99 %" in 3 of 10 samples of such a setting. So the test is the mean bound for bounded data
(bounded_mean.py), in two grades that differ in what the queries may lose of which no judgement is known:

proven : all that their rankings allow (agreement.py), or all there is where the rankings are not known.
likely : LIKELY_SHARE of what their rankings allow, and all of it where hardly anything of the reference's
    ranking is left (a bound of TOTAL_LOSS or more), so that a rare total loss does not slip through either.

A setting loses if the same test shows the opposite and no query gains more than the largest gain seen.

Quality is taken to lie in 0..1 for every query. Knows no metric and no setting: only columns of numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from toolkit.errors import DataError, PlanError
from toolkit.measure.bounded_mean import Unseen, p_not_positive
from toolkit.measure.statistics import as_columns, benjamini_hochberg, holm, same_queries

ALPHA = 0.05
POWER = 0.8
KEEP = 0.99
LIKELY_SHARE = 0.15
TOTAL_LOSS = 0.9
_HALVINGS = 24
_MOST_QUERIES = 10_000_000
_RESAMPLES = 24

Verdict = Literal["keeps (proven)", "keeps (likely)", "loses", "undecided"]
Grade = Literal["proven", "likely"]
GRADES: tuple[Grade, Grade] = ("proven", "likely")
KEEPS: tuple[Verdict, Verdict] = ("keeps (proven)", "keeps (likely)")


@dataclass(frozen=True, eq=False)
class Judged:
    """What judged queries gave: the sample that a test rests on.

    scores : (n, settings) quality; reference : (n,) that of the reference.
    most_lost : (n, settings), what each can have less than the reference by its rankings alone; None if not known.
    clusters : (n,) numbers; queries of one cluster are not independent. None if all are.
    density : (n,) how much more often than in a plain draw this query was taken, 1 on average over all queries; None
        for queries drawn plainly.
    """

    scores: np.ndarray
    reference: np.ndarray
    most_lost: np.ndarray | None = None
    clusters: np.ndarray | None = None
    density: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", as_columns(self.scores))
        object.__setattr__(self, "reference", same_queries(self.scores, self.reference))
        for name, numbers in (("value", self.scores), ("reference", self.reference)):
            if numbers.size and (numbers.min() < 0.0 or numbers.max() > 1.0):
                raise DataError(
                    f"{name}s from {numbers.min():.4g} to {numbers.max():.4g} are not a quality per query; "
                    "the test needs 0..1"
                )

    @property
    def weights(self) -> np.ndarray:
        """(n,) what each query counts for in a mean over all queries."""
        return np.ones(len(self.scores)) if self.density is None else 1.0 / self.density

    def columns(self, which: Sequence[int]) -> Judged:
        """Some settings of them."""
        lost = None if self.most_lost is None else self.most_lost[:, which]
        return replace(self, scores=self.scores[:, which], most_lost=lost)

    def margins(self, keep: float) -> np.ndarray:
        """(units, settings) by how much each unit keeps more than asked for; a unit is a query or a cluster.

        Their mean is that of the queries, each query as often as it stands for others.
        """
        margins = (self.scores - keep * self.reference[:, None]) * self.weights[:, None]
        return margins if self.clusters is None else _by_cluster(margins, self.clusters)

    def retained(self) -> np.ndarray:
        """(settings,) mean(value) / mean(reference); nan if the reference is 0 throughout."""
        weights = self.weights[:, None]
        full = (self.reference * self.weights).mean()
        # Through the differences, so that equal columns give exactly 1.
        return 1.0 + ((self.scores - self.reference[:, None]) * weights).mean(axis=0) / (full or np.nan)


@dataclass(frozen=True, eq=False)
class Pool:
    """Queries of which the rankings are known, judged or not.

    most_lost : (n, settings), what each setting can have less than the reference by its rankings alone.
    clusters : as of `Judged`.
    density : None if none of them is judged; else (n,) as of `Judged`, and they are all from which those judged
        were drawn.
    """

    most_lost: np.ndarray
    clusters: np.ndarray | None = None
    density: np.ndarray | None = None

    def columns(self, which: Sequence[int]) -> Pool:
        """Some settings of them."""
        return replace(self, most_lost=self.most_lost[:, which])


@dataclass(frozen=True)
class NonInferiority:
    """What the queries say about one setting against the reference.

    keep : the share of the reference's mean that is asked for.
    retained : mean(value) / mean(reference) in the sample; nan if the reference is 0 throughout.
    p_proven, p_likely : p-values against "keeps less than `keep`" of the two grades, Holm-adjusted over the
        settings tested together.
    p_loses : p-value against "keeps at least `keep`", adjusted for the share of false ones among those said to lose
        (Benjamini & Hochberg 1995).
    verdict : the strictest that holds at alpha, else ``undecided``.
    """

    keep: float
    retained: float
    p_proven: float
    p_likely: float
    p_loses: float
    verdict: Verdict

    @property
    def keeps(self) -> bool:
        """Whether it keeps the share, proven or likely."""
        return self.verdict in KEEPS


def non_inferiority(
    values: np.ndarray, reference: np.ndarray, *, keep: float = KEEP, alpha: float = ALPHA
) -> NonInferiority:
    """Whether (n,) values keep a share of the (n,) reference of the same queries; see `non_inferiorities`."""
    return non_inferiorities(Judged(np.asarray(values)[:, None], reference), keep=keep, alpha=alpha)[0]


def non_inferiorities(
    judged: Judged,
    pool: Pool | None = None,
    *,
    keep: float = KEEP,
    alpha: float = ALPHA,
    groups: Sequence[int] | None = None,
) -> list[NonInferiority]:
    """Whether each setting keeps a share of the reference's quality, from judged queries and others.

    All settings are one family: the chance that even one of them is called ``keeps (proven)`` wrongly is at most
    `alpha`, and so is the chance for either ``keeps`` as far as the assumption of ``likely`` holds. Whichever is
    picked among them (the cheapest) is therefore right with 1 - alpha, as long as the family itself was not chosen
    by looking at quality.

    groups : (settings,) numbers; settings of one group rank every query alike and are one member of the family.

    Raises PlanError for a `keep` outside 0..1, DataError for values outside 0..1 or of other queries.
    """
    return one_family(p_values(judged, pool, keep=keep, alpha=alpha), keep=keep, alpha=alpha, groups=groups)


@dataclass(frozen=True, eq=False)
class PValues:
    """Of each setting by itself, (settings,): the two grades of ``keeps``, and ``loses``; and the share kept."""

    retained: np.ndarray
    proven: np.ndarray
    likely: np.ndarray
    loses: np.ndarray


def p_values(
    judged: Judged, pool: Pool | None = None, *, keep: float = KEEP, alpha: float = ALPHA
) -> PValues:
    """What the queries say of each setting alone. P-values above `alpha` may come out too small, not below it."""
    _check_keep(keep)
    margins = judged.margins(keep)
    proven, likely = (
        p_not_positive(margins, _unseen(judged, pool, keep, grade), level=alpha) for grade in GRADES
    )
    loses = p_not_positive(-margins, _largest_gain(margins, judged), level=alpha)
    return PValues(judged.retained(), proven, likely, loses)


def one_family(
    found: PValues, *, keep: float, alpha: float = ALPHA, groups: Sequence[int] | None = None
) -> list[NonInferiority]:
    """The verdicts over all settings together; `groups` as of `non_inferiorities`."""
    groups = np.arange(len(found.proven)) if groups is None else np.asarray(groups)
    _, firsts, member = np.unique(groups, return_index=True, return_inverse=True)
    proven, likely = holm(found.proven[firsts])[member], holm(found.likely[firsts])[member]
    loses = benjamini_hochberg(found.loses[firsts])[member]
    return [
        NonInferiority(keep, *(float(one) for one in row), verdict_of(*row[1:], alpha))
        for row in zip(found.retained, proven, likely, loses, strict=True)
    ]


def retained_at_least(
    judged: Judged, pool: Pool | None = None, *, grade: Grade = "proven", alpha: float = ALPHA
) -> float:
    """The largest share of the reference's mean that one setting keeps with confidence 1 - alpha, taken alone.

    The lower bound that belongs to `non_inferiorities` of that one; 0.0 if nothing can be said.
    """
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        keep = (low + high) / 2
        unseen = _unseen(judged, pool, keep, grade)
        shown = p_not_positive(judged.margins(keep), unseen, level=alpha)[0] <= alpha
        low, high = (keep, high) if shown else (low, keep)
    return low


def queries_needed(
    judged: Judged,
    pool: Pool | None = None,
    *,
    keep: float = KEEP,
    alpha: float = ALPHA,
    power: float = POWER,
    grade: Grade = "likely",
    seed: int = 0,
) -> tuple[int, int | None]:
    """How many judged queries like these would decide on one setting with probability `power`: a range.

    Planned on resamples of the queries (a bootstrap): in each, the margin and its spread are taken as true, the
    margin is lowered by what chance takes away with probability `power`, and the test is asked how often the sample
    must be repeated. The range is the middle 80 % of the resamples. Divide `alpha` by the settings tested together.

    The upper end is None where ten million queries would not do, as for a setting that lies on the very line.
    """
    _check_keep(keep)
    rng = np.random.default_rng(seed)
    margins = judged.margins(keep)[:, 0]
    unseen = _unseen(judged, pool, keep, grade)
    found = sorted(
        _queries_needed(sample, unseen, judged, alpha, power)
        for sample in rng.choice(margins, size=(_RESAMPLES, len(margins)))
    )
    low, high = found[_RESAMPLES // 10], found[-1 - _RESAMPLES // 10]
    return min(low, _MOST_QUERIES), None if high > _MOST_QUERIES else high


def strictest_keep(
    labelled: int, unlabelled: int = 0, *, quality: float = 0.5, alpha: float = ALPHA
) -> float:
    """The largest share that so many queries can prove of one setting which ranks all of them as the reference does.

    quality : the reference's mean, taken alike for every query. 0.0 if nothing can be proven.
    """
    if not labelled:
        return 0.0
    sample = Judged(np.full((labelled, 1), quality), np.full(labelled, quality))
    pool = Pool(np.zeros((unlabelled, 1))) if unlabelled else None
    return retained_at_least(sample, pool, alpha=alpha)


def _queries_needed(margins: np.ndarray, unseen: Unseen, judged: Judged, alpha: float, power: float) -> int:
    from scipy.special import ndtri

    keeps = margins.mean() > 0
    towards = margins if keeps else -margins
    if not keeps:
        unseen = _largest_gain(margins[:, None], judged)
    spread, bad_luck, n = towards.std(), float(ndtri(power)), len(towards)

    def decided(queries: int) -> bool:
        unlucky = (towards - bad_luck * spread / np.sqrt(queries))[:, None]
        if unlucky.mean() <= 0:
            return False
        return bool(p_not_positive(unlucky, unseen, weight=queries / n, level=alpha)[0] <= alpha)

    low, high = 1, 2
    while not decided(high):
        low, high = high, high * 2
        if low > _MOST_QUERIES:
            return high
    while high - low > max(1, low // 20):
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high


def _unseen(judged: Judged, pool: Pool | None, keep: float, grade: Grade) -> Unseen:
    """What the share of all queries that no judgement speaks for can lose at most, at a grade."""
    ceiling = keep * float(judged.weights.max()) * _largest_cluster(judged.clusters)
    if grade == "proven" and pool is not None:
        lost, clusters, density = pool.most_lost, pool.clusters, pool.density
    else:
        # Unless drawn from the pool, the judged queries show as well what rankings there are.
        parts = [judged, pool] if pool is None or pool.density is None else [pool]
        bounds = [part.most_lost for part in parts if part is not None]
        if grade == "proven" or any(one is None for one in bounds):
            return Unseen(ceiling)
        lost = np.vstack([one for one in bounds if one is not None])
        clusters = _joined([part.clusters for part in parts if part is not None])
        density = None if pool is None else pool.density
        lost = np.where(lost >= TOTAL_LOSS, lost, LIKELY_SHARE * lost)
    lost = np.minimum(lost, keep)
    if density is None and clusters is not None:
        lost = _by_cluster(lost, clusters)
        ceiling = max(ceiling, keep * _largest_cluster(clusters))
    # A share of the drawn queries is what the bounds are of; of queries drawn plainly there are others.
    outside = len(lost) if density is None and grade == "proven" else None
    return Unseen.from_bounds(lost, worst=ceiling, density=density, outside=outside)


def _largest_gain(margins: np.ndarray, judged: Judged) -> Unseen:
    """What the unseen can speak for a setting at most, if no query gains more than the largest gain seen."""
    most = LIKELY_SHARE * float(judged.weights.max()) * _largest_cluster(judged.clusters)
    return Unseen(np.clip(margins.max(axis=0), 0.0, most))


def _by_cluster(rows: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """(clusters, settings) sums, scaled so that their mean is the mean of the (n, settings) rows."""
    _, member = np.unique(clusters, return_inverse=True)
    sums = np.zeros((member.max() + 1, rows.shape[1]))
    np.add.at(sums, member, rows)
    return sums * (len(sums) / len(rows))


def _largest_cluster(clusters: np.ndarray | None) -> float:
    """By how much the largest cluster is larger than the average one."""
    if clusters is None:
        return 1.0
    sizes = np.unique(clusters, return_counts=True)[1]
    return float(sizes.max() / sizes.mean())


def _joined(clusters: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """The clusters of several sets of queries one after another."""
    known = [one for one in clusters if one is not None]
    return np.concatenate(known) if len(known) == len(clusters) else None


def verdict_of(p_proven: float, p_likely: float, p_loses: float, alpha: float = ALPHA) -> Verdict:
    """The strictest verdict that these p-values allow at `alpha`."""
    if p_proven <= alpha:
        return "keeps (proven)"
    if p_likely <= alpha:
        return "keeps (likely)"
    return "loses" if p_loses <= alpha else "undecided"


def _check_keep(keep: float) -> None:
    if not 0.0 < keep <= 1.0:
        raise PlanError(f"keep {keep} is not a share of the reference's quality; choose above 0 and up to 1")
