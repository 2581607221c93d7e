"""What rankings alone tell of each setting: the most a judgement can show, query by query, and which rank alike.

Reads neighbours of judged and unjudged queries from the raw store. Knows no judgement and no statistics.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from toolkit.data.sets import RetrievalSet
from toolkit.errors import ResultsError
from toolkit.experiment.plan import FEWEST_NEIGHBOURS
from toolkit.experiment.setting import Setting
from toolkit.experiment.store import RawStore
from toolkit.measure.agreement import BOUNDED, SideBySide, as_evaluated, bounds
from toolkit.measure.metrics import metric_named
from toolkit.search.neighbours import Neighbours

if TYPE_CHECKING:
    import pandas as pd


def bounded_metrics(metrics: Sequence[str]) -> list[str]:
    """Of a plan's metrics those that have bounds; nDCG at the depth of those that stand for it; else nDCG@10."""
    found = []
    for name in metrics:
        family, depth = name.partition("@")[0], metric_named(name).depth
        if family in BOUNDED:
            found.append(name)
        elif family in ("kept_ndcg", "safe_ndcg"):
            found.append(f"ndcg@{depth}")
    return list(dict.fromkeys(found)) or [f"ndcg@{FEWEST_NEIGHBOURS}"]


def derive_bounds(
    store: RawStore,
    settings: Sequence[Setting],
    data: RetrievalSet,
    *,
    metrics: Sequence[str],
    full_dim: int,
) -> tuple[pd.DataFrame, list[int]]:
    """The table of bounds, one row per setting and query, and the group of equal rankings of each setting.

    metrics : of the plan; settings are judged by the first, and rank alike if they do so down to its depth.

    Raises ResultsError if the store lacks a setting.
    """
    import pandas as pd

    names = bounded_metrics(metrics)
    depth = metric_named(metrics[0]).depth or FEWEST_NEIGHBOURS
    sides = [(data.query_ids, "")]
    if data.unlabelled:
        sides.append((data.unlabelled_ids, data.unlabelled_hash))

    @lru_cache(maxsize=len(sides))
    def exact(instruction: str, asked: str) -> np.ndarray:
        return _ranked(store, Setting(full_dim, instruction=instruction), asked, data)

    columns: dict[str, list[np.ndarray]] = {}
    seen = []
    for setting in settings:
        digest = hashlib.blake2b(digest_size=16)
        for _, asked in sides:
            rows = _ranked(store, setting, asked, data)
            digest.update(np.ascontiguousarray(rows[:, :depth]))
            pair = SideBySide.of(rows, exact(setting.instruction, asked))
            for name in names:
                family, k = name.partition("@")[0], metric_named(name).depth or 0
                for part, values in bounds(pair, family, k).items():
                    columns.setdefault(f"{name}_{part}", []).append(values.astype(np.float32))
        seen.append(digest.digest())
    ids = [query_id for asked, _ in sides for query_id in asked]
    labelled = np.arange(len(ids)) < (len(data.query_ids) if data.labelled else 0)
    clusters = np.array([data.clusters.get(query_id, "") for query_id in ids], dtype=object)
    keys = [setting.key for setting in settings]
    table = pd.DataFrame(
        {
            "setting": pd.Categorical.from_codes(np.repeat(np.arange(len(keys)), len(ids)), categories=keys),
            "query_id": np.tile(np.array(ids, dtype=object), len(keys)),
            "labelled": np.tile(labelled, len(keys)),
            "cluster": np.tile(clusters, len(keys)),
        }
        | {name: np.concatenate(values) for name, values in columns.items()}
    )
    return table, _groups(settings, seen, full_dim=full_dim)


def _groups(settings: Sequence[Setting], seen: Sequence[bytes], *, full_dim: int) -> list[int]:
    """Numbers for equal values of `seen`, from 0; the first instruction's exact reference is in group 0."""
    first = seen[settings.index(Setting(full_dim, instruction=settings[0].instruction))]
    numbers = {first: 0}
    return [numbers.setdefault(one, len(numbers)) for one in seen]


def _ranked(store: RawStore, setting: Setting, asked: str, data: RetrievalSet) -> np.ndarray:
    found: Neighbours | None = store.neighbours(setting, asked=asked)
    if found is None:
        raise ResultsError(f"{store.folder} lacks the neighbours of {setting.key}; resume=True measures them")
    return as_evaluated(found, data.doc_ids)
