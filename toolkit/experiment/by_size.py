"""Quality of the same queries at growing parts of the corpus, from what was found in them.

Knows no trend: what follows for a larger corpus is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, overload

import numpy as np

from toolkit.data.sets import RetrievalSet
from toolkit.experiment.corpus_parts import CorpusParts
from toolkit.experiment.derive import agreement_of
from toolkit.experiment.grid_search import found_in_part
from toolkit.experiment.setting import Setting
from toolkit.experiment.store import RawStore
from toolkit.measure.metrics import metric_named
from toolkit.measure.quality import evaluate

if TYPE_CHECKING:
    import pandas as pd


def derive_by_size(
    stores: Mapping[int, RawStore],
    settings: Sequence[Setting],
    data: RetrievalSet,
    parts: CorpusParts,
    *,
    metric: str,
    full_dim: int,
    per_query: pd.DataFrame,
) -> pd.DataFrame | None:
    """One row per setting, size and query of `parts`: columns setting, documents, query_id, cluster and the metric.

    stores : raw stores of parts, by documents. Settings that a part was not searched with are left out there.
    per_query : values at the whole corpus. None if no part says anything of quality.
    """
    import pandas as pd

    stores = {size: store for size, store in sorted(stores.items()) if parts.sizes and parts.measures(size)}
    if not stores:
        return None
    ids = [data.query_ids[row] for row in parts.queries]
    keys = [setting.key for setting in settings]
    code_of = {key: code for code, key in enumerate(keys)}
    codes, sizes, values = [], [], []
    for size, store in stores.items():
        doc_ids = _PartIds(data.doc_ids, parts.rows(size))
        for setting in settings:
            found = found_in_part(store, setting, parts)
            exact = found_in_part(store, Setting(full_dim, instruction=setting.instruction), parts)
            if found is None or exact is None:
                continue
            named = metric_named(metric)
            if named.kind == "agreement":
                column = agreement_of(named, found, exact, doc_ids)
            else:
                column = evaluate(found, doc_ids, ids, data.qrels, metrics=[metric])[metric]
            codes.append(code_of[setting.key])
            sizes.append(size)
            values.append(column)
    whole = per_query[per_query["query_id"].isin(set(ids))].astype({"setting": str})
    wide = whole.pivot(  # noqa: PD010 - refuses a query that stands twice
        index="query_id", columns="setting", values=metric
    ).loc[ids, keys]
    for key in keys:
        codes.append(code_of[key])
        sizes.append(len(data.docs))
        values.append(wide[key].to_numpy())
    return pd.DataFrame(
        {
            "setting": pd.Categorical.from_codes(np.repeat(codes, len(ids)), categories=keys),
            "documents": np.repeat(sizes, len(ids)),
            "query_id": np.tile(np.array(ids, dtype=object), len(codes)),
            "cluster": np.tile(np.array([data.clusters.get(i, "") for i in ids], dtype=object), len(codes)),
            metric: np.concatenate(values).astype(np.float32),
        }
    )


class _PartIds(Sequence[str]):
    """Ids of a part's documents, looked up one by one: those that are found are few among millions."""

    def __init__(self, doc_ids: Sequence[str], rows: np.ndarray) -> None:
        self._doc_ids, self._rows = doc_ids, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self._doc_ids[row] for row in self._rows[place]]
        return self._doc_ids[self._rows[place]]
