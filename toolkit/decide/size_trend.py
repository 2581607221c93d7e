"""How the kept share of each setting changes with the size of the corpus, and what that says of a larger one.

The share is the metric's mean at a setting over that at the exact full-dimension search, for the same queries in the
same part of the corpus. Its trend is a line over the logarithm of the size. Knows no price and no latency.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from toolkit.measure.statistics import LEVEL

# Beyond this multiple of the largest measured corpus a trend is shown and decides nothing.
MOST_GROWTH = 10.0
_RESAMPLES = 2_000
_LATEST = 3  # sizes of the second line: a loss that sets in late bends the trend


@dataclass(frozen=True)
class KeptAtSize:
    """A kept share at a number of documents, with its 95 % interval.

    measured : whether that size was measured; growth : the size over the largest measured one.
    """

    documents: int
    kept: float
    low: float
    high: float
    measured: bool
    growth: float

    @property
    def decides(self) -> bool:
        """Whether a decision may rest on it: not on an extrapolation beyond ten times the largest corpus."""
        return self.growth <= MOST_GROWTH

    @property
    def source(self) -> str:
        """Where the figure is from, in words."""
        if self.measured:
            return f"measured at {self.documents:,} documents"
        if self.growth <= 1:
            return f"between measured sizes, at {self.documents:,} documents"
        beyond = "" if self.decides else ": an extrapolation that decides nothing"
        return f"trend to {self.growth:,.1f} times the largest measured corpus{beyond}"


@dataclass(frozen=True)
class Slope:
    """Share that a tenfold corpus adds (below 0: takes away), with its 95 % interval."""

    per_tenfold: float
    low: float
    high: float


@dataclass(frozen=True)
class KeptBySize:
    """How one setting's kept share goes with the corpus.

    measured : at every size it was searched at, ascending. slope : None for one size alone.
    asked : at the size one plans for; None where no size was asked for, or nothing can be said.
    """

    measured: tuple[KeptAtSize, ...]
    slope: Slope | None
    asked: KeptAtSize | None


class SizeTrends:
    """The trends of all settings of a sweep, from its by_size table.

    Queries of one cluster are resampled together. Two lines are fitted, through all sizes and through the latest
    three, and the interval covers those of both: the share falls faster than a line where rescoring runs out of
    candidates, slower where it has little left to lose.
    """

    def __init__(self, by_size: pd.DataFrame, reference: str, *, seed: int = 0) -> None:
        self._metric = by_size.columns[-1]
        self._table = by_size.astype({"setting": str})
        self._reference = reference
        self._seed = seed

    @property
    def metric(self) -> str:
        """The metric that was measured at every size."""
        return self._metric

    @property
    def sizes(self) -> list[int]:
        """All sizes measured with the reference, ascending; the last is the whole corpus."""
        return sorted(self._means[self._reference])

    def sizes_of(self, setting: str) -> list[int]:
        """The sizes a setting was measured at; an index that is built for the whole corpus alone has one."""
        return sorted(self._means.get(setting, {}))

    def decide_at(self, documents: int) -> bool:
        """Whether a decision may rest on what `at` gives for so many documents."""
        return documents / self.sizes[-1] <= MOST_GROWTH

    def at(self, setting: str, documents: int) -> KeptAtSize | None:
        """The kept share at a corpus size; None where it was measured at fewer than two sizes and not at that one."""
        sizes = self.sizes_of(setting)
        if documents in sizes:
            shares = self._shares(setting, documents)
            return self._kept(documents, shares[None, 0], shares[None, 1:], measured=True)
        if len(sizes) < 2:
            return None
        shares = np.stack([self._shares(setting, size) for size in sizes])
        predicted = np.stack(
            [_weights(line, documents) @ shares[-len(line) :] for line in _lines(tuple(sizes))]
        )
        return self._kept(documents, predicted[:, 0], predicted[:, 1:], measured=False)

    def slope(self, setting: str) -> Slope | None:
        """Of the line through all sizes, its interval that of all lines; None for fewer than two sizes."""
        sizes = self.sizes_of(setting)
        if len(sizes) < 2:
            return None
        shares = np.stack([self._shares(setting, size) for size in sizes])
        slopes = np.stack([_slopes(line) @ shares[-len(line) :] for line in _lines(tuple(sizes))])
        return Slope(float(slopes[0, 0]), *_interval(slopes[:, 1:]))

    def of(self, setting: str, asked: int | None) -> KeptBySize:
        """All that is known of a setting; `asked` is the number of documents one plans for."""
        measured = tuple(self.at(setting, size) for size in self.sizes_of(setting))
        at = None if asked is None else self.at(setting, asked)
        return KeptBySize(measured, self.slope(setting), at)

    def frame(self) -> pd.DataFrame:
        """Every measured share: columns setting, documents, metric, kept, low, high."""
        rows = []
        for setting in self._means:
            for size in self.sizes_of(setting):
                found = self.at(setting, size)
                rows.append((setting, size, self._metric, found.kept, found.low, found.high))
        return pd.DataFrame(rows, columns=["setting", "documents", "metric", "kept", "low", "high"])

    def _kept(self, documents: int, kept: np.ndarray, resampled: np.ndarray, *, measured: bool) -> KeptAtSize:
        low, high = _interval(resampled)
        share = float(np.clip(kept[0], max(low, 0.0), max(high, 0.0)))
        return KeptAtSize(
            documents, share, max(low, 0.0), max(high, 0.0), measured, documents / self.sizes[-1]
        )

    def _shares(self, setting: str, documents: int) -> np.ndarray:
        """The kept share at a measured size: of all queries, then of each resample."""
        of, full = self._means[setting][documents], self._means[self._reference][documents]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(full > 0, of / full, np.nan)

    @cached_property
    def _means(self) -> dict[str, dict[int, np.ndarray]]:
        """{setting: {documents: sums over all queries, then over those of each resample}}."""
        queries = self._table.drop_duplicates("query_id")[["query_id", "cluster"]]
        names = np.where(queries["cluster"] == "", "q:" + queries["query_id"], "c:" + queries["cluster"])
        _, cluster = np.unique(names, return_inverse=True)
        groups = int(cluster.max()) + 1
        rng = np.random.default_rng(self._seed)
        drawn = rng.multinomial(groups, np.full(groups, 1.0 / groups), size=_RESAMPLES)
        counts = np.concatenate([np.ones((1, len(cluster))), drawn[:, cluster]])
        # pivot, unlike pivot_table, refuses a query that stands twice.
        wide = self._table.pivot(  # noqa: PD010
            index="query_id", columns=["setting", "documents"], values=self._metric
        )
        wide = wide.loc[queries["query_id"]]
        sums = counts @ wide.to_numpy(dtype=np.float64)
        found: dict[str, dict[int, np.ndarray]] = {}
        for (setting, documents), column in zip(wide.columns, sums.T, strict=True):
            found.setdefault(setting, {})[int(documents)] = column
        return found


def _lines(sizes: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The sizes that each line is fitted through, all of them first."""
    return sorted({sizes, sizes[-_LATEST:], sizes[-2:]}, key=len, reverse=True)


def _slopes(sizes: tuple[int, ...]) -> np.ndarray:
    """What each size's value counts in the slope of that line per tenfold."""
    x = np.log10(np.array(sizes, dtype=np.float64))
    centred = x - x.mean()
    return centred / (centred @ centred)


def _weights(sizes: tuple[int, ...], documents: int) -> np.ndarray:
    """What each size's value counts in the prediction of a least-squares line over the logarithm of the size."""
    x = np.log2(np.array(sizes, dtype=np.float64))
    centred = x - x.mean()
    return 1.0 / len(x) + centred * (np.log2(documents) - x.mean()) / (centred @ centred)


def _interval(resampled: np.ndarray) -> tuple[float, float]:
    """What covers the intervals of all rows of (lines, resamples)."""
    tail = (1.0 - LEVEL) / 2.0
    # numpy's way around NaN takes row after row, ten times as long.
    quantile = np.nanquantile if np.isnan(resampled).any() else np.quantile
    low, high = quantile(resampled, (tail, 1.0 - tail), axis=1)
    return float(low.min()), float(high.max())
