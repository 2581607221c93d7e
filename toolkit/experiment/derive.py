"""From the raw store to tables: one row per setting, and the quality of every query at every setting.

Needs no model and no index, so a new measure needs no new run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolkit.data.sets import RetrievalSet
from toolkit.errors import ResultsError
from toolkit.experiment.bounds import derive_bounds
from toolkit.experiment.filtered import filtered_columns
from toolkit.experiment.setting import SETTING_COLUMNS, Setting
from toolkit.experiment.store import RawStore
from toolkit.measure.agreement import Ranking, kept_ndcg, most_ndcg_lost, overlap, rank_biased_overlap
from toolkit.measure.metrics import Metric, metric_named
from toolkit.measure.quality import evaluate
from toolkit.measure.statistics import mean_intervals, paired_differences
from toolkit.measure.storage import bytes_per_vector, gb_per_million

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Tables:
    """What a sweep comes to: docs/results-format.md lists the columns.

    measurements : one row per setting.
    per_query : the quality of every query, or the value of every pair, at every setting.
    scaling : latency and bytes at each corpus size; None if there is only one.
    bounds : the most that judgements can show at each query and setting; None for sets of pairs.
    by_size : the first metric of some queries at growing parts of the corpus; None for one too small to divide.
    """

    measurements: pd.DataFrame
    per_query: pd.DataFrame
    scaling: pd.DataFrame | None = None
    bounds: pd.DataFrame | None = None
    by_size: pd.DataFrame | None = None

    @property
    def timed(self) -> bool:
        """Whether durations are among the measurements."""
        return "p50_ms" in self.measurements


def derive(
    store: RawStore,
    settings: Sequence[Setting],
    data: RetrievalSet,
    *,
    metrics: Sequence[str],
    full_dim: int,
    seed: int,
) -> Tables:
    """The tables of all `settings`, from what the raw store holds.

    metrics : as `choose_metrics` gives them: none that looks deeper than the neighbours kept.

    Raises ResultsError if the store lacks a setting.
    """
    import pandas as pd

    values = {setting: _quality(store, setting, data, metrics, full_dim) for setting in settings}
    rows = [_facts(store, setting, documents=len(data.docs)) for setting in settings]
    measurements = pd.DataFrame(rows)
    summary = pd.DataFrame(summarise(values, full_dim=full_dim, seed=seed))
    per_query = pd.concat(
        [
            pd.DataFrame({"setting": setting.key, "query_id": list(data.query_ids)} | dict(columns))
            for setting, columns in values.items()
        ],
        ignore_index=True,
    )
    per_query["setting"] = per_query["setting"].astype("category")
    place = len(SETTING_COLUMNS) + 1
    measurements = pd.concat(
        [measurements.iloc[:, :place], summary, measurements.iloc[:, place:]], axis="columns"
    )
    bounds, measurements["same_ranking"] = derive_bounds(
        store, settings, data, metrics=metrics, full_dim=full_dim
    )
    return Tables(measurements, per_query, bounds=bounds)


def derive_scaling(stores: Mapping[int, RawStore], settings: Sequence[Setting]) -> pd.DataFrame:
    """Latency and bytes of each setting at each corpus size, one row each; empty for no stores."""
    import pandas as pd

    rows = [
        {"setting": setting.key, "documents": documents}
        | latency(store.timing(setting.search))
        | {"index_bytes": int(store.build(setting.build.slug)["index_bytes"])}
        for documents, store in stores.items()
        for setting in settings
    ]
    return pd.DataFrame(rows)


def summarise(
    values: Mapping[Setting, Mapping[str, np.ndarray]], *, full_dim: int, seed: int
) -> dict[str, np.ndarray]:
    """Means, 95 % intervals and paired differences to the full dimension of the same instruction.

    The columns of a metric are those of `metrics.PARTS`.
    """
    settings = list(values)
    columns: dict[str, np.ndarray] = {}
    for metric in next(iter(values.values())):
        table = np.stack([values[setting][metric] for setting in settings], axis=1)
        means = mean_intervals(table, seed=seed)
        columns[metric] = np.array([found.mean for found in means])
        columns[f"{metric}_lo"] = np.array([found.low for found in means])
        columns[f"{metric}_hi"] = np.array([found.high for found in means])
        columns |= _differences(metric, table, settings, values, full_dim=full_dim, seed=seed)
    return columns


def _differences(
    metric: str,
    table: np.ndarray,
    settings: list[Setting],
    values: Mapping[Setting, Mapping[str, np.ndarray]],
    *,
    full_dim: int,
    seed: int,
) -> dict[str, np.ndarray]:
    delta, low, high, p = np.empty((4, len(settings)))
    for label in {setting.instruction for setting in settings}:
        chosen = [i for i, setting in enumerate(settings) if setting.instruction == label]
        reference = values[Setting(full_dim, instruction=label)][metric]
        found = paired_differences(table[:, chosen], reference, seed=seed)
        delta[chosen] = [one.difference for one in found]
        low[chosen] = [one.low for one in found]
        high[chosen] = [one.high for one in found]
        p[chosen] = [one.p for one in found]
    names = ("_delta", "_delta_lo", "_delta_hi", "_p")
    return {f"{metric}{name}": column for name, column in zip(names, (delta, low, high, p), strict=True)}


def _quality(
    store: RawStore, setting: Setting, data: RetrievalSet, metrics: Sequence[str], full_dim: int
) -> dict[str, np.ndarray]:
    found = store.neighbours(setting)
    exact = store.neighbours(Setting(full_dim, instruction=setting.instruction))
    if found is None or exact is None:
        raise ResultsError(f"{store.folder} lacks the neighbours of {setting.key}; resume=True measures them")
    wanted = [metric_named(name) for name in metrics]
    judged = [metric.name for metric in wanted if metric.kind == "retrieval"]
    values = evaluate(found, data.doc_ids, data.query_ids, data.qrels, metrics=judged) if judged else {}
    values |= {
        metric.name: agreement_of(metric, found, exact, data.doc_ids)
        for metric in wanted
        if metric.kind == "agreement"
    }
    return {metric.name: values[metric.name] for metric in wanted}


def agreement_of(metric: Metric, found: Ranking, exact: Ranking, doc_ids: Sequence[str]) -> np.ndarray:
    """A measure of how far a ranking agrees with the exact one, per query."""
    family, k = metric.name.partition("@")[0], metric.depth or 0
    if family == "safe_ndcg":
        return 1.0 - most_ndcg_lost(found, exact, doc_ids, k=k)
    if family == "kept_ndcg":
        return kept_ndcg(found, exact, doc_ids, k=k)
    return {"overlap": overlap, "rbo": rank_biased_overlap}[family](found, exact, k=k)


def _facts(store: RawStore, setting: Setting, *, documents: int) -> dict[str, object]:
    build = store.build(setting.build.slug)
    samples = store.timing(setting.search)
    if build is None or samples is None:
        raise ResultsError(f"{store.folder} lacks the timings of {setting.key}; resume=True measures them")
    index_bytes = int(build["index_bytes"])
    return (
        {"setting": setting.key}
        | setting.columns
        | latency(samples)
        | {
            "build_s": build["build_s"],
            "insert_rows_per_s": _insert_rate(build, documents),
            "index_bytes": index_bytes,
            "bytes_per_vector": bytes_per_vector(index_bytes, documents),
            "gb_per_million": gb_per_million(index_bytes, documents),
            "disk_bytes_per_vector": float(max((4 * stage.dim for stage in setting.rescore), default=0)),
            "factory": build["factory"],
            "index_device": build.get("index_device", "cpu"),
        }
    )


def latency(samples: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Single queries in ms at the plan's first thread count, batched queries a second at its last."""
    single_ms = samples["single_ms_0"]
    batches = [name for name in samples if name.startswith("batch_s_")]
    last = max(batches, key=lambda name: int(name.removeprefix("batch_s_")))
    p50, p95, p99 = np.percentile(single_ms, [50, 95, 99])
    stages = np.median(samples["stage_ms"], axis=(0, 1)) if "stage_ms" in samples else np.ones(1)
    batch_queries = single_ms.shape[1]
    return {
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "first_stage_share": float(stages[0] / stages.sum()),
        "qps": batch_queries / float(np.median(samples[last])),
        "qps_1_thread": batch_queries / float(np.median(samples["batch_s_0"])),
    } | filtered_columns(samples)


def _insert_rate(build: Mapping[str, object], documents: int) -> float:
    """Rows per second that an index takes in: all steps but training and, in a database, indexing afterwards."""
    steps_s = build.get("steps_s") or {}
    seconds = sum(one for step, one in steps_s.items() if step not in ("train", "index"))
    return documents / seconds if seconds else np.nan
