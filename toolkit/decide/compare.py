"""Models side by side: what each reaches on each data set and dimension, and which the queries can tell apart.

Models that answered the same queries are compared pair by pair (paired randomisation tests, whole clusters at a
time), all pairs of a data set adjusted together (Holm). What no test tells apart shares a group; that is no proof
of being equal. Draws nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from toolkit.decide.queries import clusters_of
from toolkit.decide.series import exact_rows, focus, main_metric, reference
from toolkit.errors import ResultsError
from toolkit.experiment.results import Results
from toolkit.measure.metrics import described
from toolkit.measure.statistics import RESAMPLES, holm, paired_differences

if TYPE_CHECKING:
    import pandas as pd

ALPHA = 0.05
ALL_SETS = "mean of all sets"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several finished sweeps, each of one model on one data set.

    missing : what was left out, one sentence each.
    """

    results: Sequence[Results]
    missing: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.results:
            raise ResultsError("there is no finished sweep to compare; run one first")
        contents: dict[str, set[str]] = {}
        for one in self.results:
            contents.setdefault(_dataset(one), set()).add(_content(one))
        other = next((name for name, hashes in contents.items() if len(hashes) > 1), None)
        if other is not None:
            raise ResultsError(
                f"the sweeps over {other!r} measured different queries or documents, so their models cannot be paired; "
                "sweep all with the same data, max_queries and seed"
            )

    def frame(self) -> pd.DataFrame:
        """All measurements of all sweeps: their columns, and before them ``folder``."""
        import pandas as pd

        frames = [one.frame().assign(folder=one.name) for one in self.results]
        together = pd.concat(frames, ignore_index=True)
        return together[["folder", *(name for name in together if name != "folder")]]

    @property
    def notes(self) -> list[str]:
        """What a reader should know."""
        unlabelled = sorted({_dataset(one) for one in self.results if not one.labelled})
        notes = list(self.missing)
        if unlabelled:
            notes.append(
                f"no judgements in {', '.join(unlabelled)}: agreement with a model's own full dimension ranks no models"
            )
        whole = sorted({_dataset(one) for one in self._judged if not _is_paired(one)})
        if whole:
            notes.append(
                f"{', '.join(whole)} are judged by a figure of all pairs together, which no test can pair"
            )
        if len({main_metric(one.measurements) for one in self._judged}) > 1:
            notes.append("data sets are judged by different metrics, so there is no mean over all")
        return notes

    def grid(self) -> pd.DataFrame:
        """The exact search of each model at each dimension: one row per data set, model and dimension.

        Columns dataset, metric, model, dim, quality with ``low`` and ``high`` (95 % interval of the mean), ``kept``
        (share of the model's own full dimension), ``bytes_per_vector``. Of several instructions the best one's.
        """
        import pandas as pd

        rows = []
        for one in self._judged:
            metric = main_metric(one.measurements)
            best = focus(one.measurements, metric)
            full = float(reference(best, metric)[metric])
            exact = exact_rows(best)
            rows.append(
                pd.DataFrame(
                    {
                        "dataset": _dataset(one),
                        "metric": metric,
                        "model": self._labels[id(one)],
                        "dim": exact["dim"],
                        "quality": exact[metric],
                        "low": exact[f"{metric}_lo"],
                        "high": exact[f"{metric}_hi"],
                        "kept": exact[metric] / full if full > 0 else np.nan,
                        "bytes_per_vector": exact["bytes_per_vector"],
                    }
                )
            )
        return (
            pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["dataset", "model", "dim"])
        )

    def means(self) -> pd.DataFrame:
        """Mean quality over all data sets of each model and dimension; columns model, dim, quality, bytes_per_vector.

        Only of models that were measured on every set at that dimension; empty where the sets' metrics differ.
        """
        grid = self.grid()
        sets = grid["dataset"].nunique()
        if len(set(grid.get("metric", ()))) != 1:
            return grid.iloc[:0].reindex(columns=["model", "dim", "quality", "bytes_per_vector"])
        found = grid.groupby(["model", "dim"], sort=False).agg(
            quality=("quality", "mean"),
            bytes_per_vector=("bytes_per_vector", "mean"),
            sets=("dataset", "nunique"),
        )
        return found[found["sets"] == sets].drop(columns="sets").reset_index()

    def ranks(self) -> pd.DataFrame:
        """Models at their full dimension, best first on each data set, then over all sets.

        Columns dataset, metric, model, dim, quality; ``difference`` to the best with its 95 % interval ``low``,
        ``high`` (of one set alone); ``p`` of that difference, Holm-adjusted over all pairs of models; ``groups``:
        models that share a letter cannot be told apart; ``best_rank`` and ``worst_rank`` that the tests allow;
        ``queries``.
        """
        import pandas as pd

        tables = [self._ranked(name, [one]) for name, one in self._values.items()]
        if len(self._values) > 1 and len({one.metric for one in self._values.values()}) == 1:
            tables.append(self._ranked(ALL_SETS, list(self._values.values())))
        tables = [one for one in tables if not one.empty]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["dataset", "model"])

    @cached_property
    def headline(self) -> str:
        """The finding in one sentence."""
        ranks = self.ranks()
        if ranks.empty:
            return "No data set with judgements was measured, so models cannot be ranked"
        over = list(dict.fromkeys(ranks["dataset"]))
        where = ALL_SETS if ALL_SETS in over else over[0]
        first = ranks[ranks["dataset"] == where]
        best = first.iloc[0]
        metric = described(str(best["metric"])).label
        place = "the mean of all data sets" if where == ALL_SETS else where
        said = f"{best['model']} ranks first on {place}, {metric} {best['quality']:.3f}"
        if len(first) == 1:
            return f"{best['model']} alone was measured on {place}: {metric} {best['quality']:.3f}"
        alike = [row.model for row in first.iloc[1:].itertuples() if set(row.groups) & set(best["groups"])]
        if not alike:
            return f"{said}; every other model is told apart from it"
        return f"{said}; these queries cannot tell {', '.join(alike)} apart from it"

    @cached_property
    def _judged(self) -> list[Results]:
        return [one for one in self.results if one.labelled]

    @cached_property
    def _labels(self) -> dict[int, str]:
        """A model's name, with the folder's where two sweeps of one data set have the same."""
        names = [(_dataset(one), str(one.measurements["model"].iloc[0])) for one in self.results]
        return {
            id(one): name[1] if names.count(name) == 1 else f"{name[1]} ({one.name})"
            for one, name in zip(self.results, names, strict=True)
        }

    @cached_property
    def _values(self) -> dict[str, _Values]:
        found: dict[str, list[Results]] = {}
        for one in self._judged:
            if not _is_paired(one):
                continue
            found.setdefault(_dataset(one), []).append(one)
        return {name: _Values.of(several, self._labels) for name, several in found.items()}

    def _ranked(self, name: str, sets: Sequence[_Values]) -> pd.DataFrame:
        import pandas as pd

        models = [model for model in sets[0].scores if all(model in one.scores for one in sets)]
        if not models:
            return pd.DataFrame()
        scores, clusters = _stacked(sets, models)
        order = np.argsort(-scores.mean(axis=0), kind="stable")
        scores, models = scores[:, order], [models[i] for i in order]
        p = _all_pairs(scores, clusters)
        to_best = paired_differences(scores, scores[:, 0], clusters=clusters)
        bounds = [(one.low, one.high) if len(sets) == 1 else (np.nan, np.nan) for one in to_best]
        apart = p <= ALPHA
        better = np.triu(apart, 1).sum(axis=0)  # models above that are told apart
        worse = np.tril(apart, -1).sum(axis=0)
        return pd.DataFrame(
            {
                "dataset": name,
                "metric": sets[0].metric,
                "model": models,
                "dim": [max(one.dims[model] for one in sets) for model in models],
                "quality": scores.mean(axis=0),
                "difference": [one.difference for one in to_best],
                "low": [low for low, _ in bounds],
                "high": [high for _, high in bounds],
                "p": p[0],
                "groups": groups(apart),
                "best_rank": 1 + better,
                "worst_rank": len(models) - worse,
                "queries": len(scores),
            }
        )


@dataclass(frozen=True, eq=False)
class _Values:
    """One data set: each model's (queries,) quality at its full dimension, in one order of queries."""

    metric: str
    scores: dict[str, np.ndarray]
    dims: dict[str, int]
    clusters: np.ndarray | None

    @classmethod
    def of(cls, several: Sequence[Results], labels: dict[int, str]) -> _Values:
        metric = main_metric(several[0].measurements)
        scores, dims, clusters, ids = {}, {}, None, None
        for one in several:
            if metric not in one.measurements:
                raise ResultsError(
                    f"{one.folder} was not measured by {metric}, as others of its data set were"
                )
            full = reference(focus(one.measurements, metric), metric)
            rows = one.per_query[one.per_query["setting"] == full["setting"]]
            values = rows.set_index("query_id")[metric]
            ids = values.index if ids is None else ids
            if set(ids) != set(values.index):
                raise ResultsError(
                    f"{one.folder} measured other queries than {several[0].folder}; use the same plan"
                )
            scores[labels[id(one)]] = values.loc[ids].to_numpy(dtype=np.float64)
            dims[labels[id(one)]] = int(full["dim"])
            clusters = clusters_of(one, ids) if clusters is None else clusters
        return cls(metric, scores, dims, clusters)


def groups(apart: np.ndarray) -> list[str]:
    """Letters of (n, n) models, best first: two that share one are not told apart (Piepho 2004, insert and absorb)."""
    found = [set(range(len(apart)))]
    for i, j in combinations(range(len(apart)), 2):
        if not apart[i, j]:
            continue
        for one in [one for one in found if i in one and j in one]:
            found.remove(one)
            for part in (one - {i}, one - {j}):
                if part and not any(part <= other for other in found):
                    found = [other for other in found if not other < part]
                    found.append(part)
    found.sort(key=sorted)
    names = [_LETTERS[place % 26] * (1 + place // 26) for place in range(len(found))]
    return [
        "".join(name for name, one in zip(names, found, strict=True) if i in one) for i in range(len(apart))
    ]


def _all_pairs(scores: np.ndarray, clusters: np.ndarray | None) -> np.ndarray:
    """(models, models) p of "no difference", Holm-adjusted over all pairs; 1 on the diagonal."""
    count = scores.shape[1]
    pairs = list(combinations(range(count), 2))
    # The smallest p is 1 / (1 + resamples), and Holm multiplies it by the number of pairs.
    resamples = max(RESAMPLES, round(2 * len(pairs) / ALPHA))
    raw = {
        (i, j): one.p
        for i in range(count - 1)
        for j, one in enumerate(
            paired_differences(scores[:, i + 1 :], scores[:, i], clusters=clusters, resamples=resamples),
            i + 1,
        )
    }
    p = np.ones((count, count))
    if pairs:
        for (i, j), adjusted in zip(pairs, holm([raw[pair] for pair in pairs]), strict=True):
            p[i, j] = p[j, i] = adjusted
    return p


def _stacked(sets: Sequence[_Values], models: Sequence[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """(all queries, models), weighted so that each set counts the same in the mean; and clusters as numbers."""
    total = sum(len(next(iter(one.scores.values()))) for one in sets)
    blocks, clusters, first = [], [], 0
    for one in sets:
        block = np.column_stack([one.scores[model] for model in models])
        blocks.append(block * (total / (len(sets) * len(block))))
        own = np.arange(len(block)) if one.clusters is None else one.clusters
        clusters.append(own + first)
        first = int(clusters[-1].max()) + 1
    alone = all(one.clusters is None for one in sets)
    return np.concatenate(blocks), None if alone else np.concatenate(clusters)


def _dataset(results: Results) -> str:
    return str(results.measurements["dataset"].iloc[0])


def _is_paired(results: Results) -> bool:
    """Whether each query has a value of the metric by itself; a correlation has not."""
    return main_metric(results.measurements) in results.per_query


def _content(results: Results) -> str:
    about = results.environment.get("data")
    return str(about.get("hash", "")) if isinstance(about, dict) else ""
