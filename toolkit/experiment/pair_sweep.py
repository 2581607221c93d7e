"""Pair sets at every dimension: rank correlation with human scores, or finding the translation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from toolkit.data.sets import PairSet
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.pipeline import embed_texts
from toolkit.embedding.protocol import Embedder
from toolkit.errors import PlanError
from toolkit.experiment.derive import SETTING_COLUMNS, summarise
from toolkit.experiment.plan import SweepPlan
from toolkit.experiment.setting import Setting
from toolkit.measure.correlation import spearman_intervals
from toolkit.measure.quality import bitext_hits
from toolkit.search.exact.search import exact_search
from toolkit.space import Instruction, Role
from toolkit.vectors import Vectors

if TYPE_CHECKING:
    import pandas as pd

SPEARMAN = "spearman"
ACCURACY = "accuracy"
_PARTS = {
    "": "value",
    "_lo": "low",
    "_hi": "high",
    "_delta": "difference",
    "_delta_lo": "difference_low",
    "_delta_hi": "difference_high",
    "_p": "p",
}


def sweep_pairs(
    plan: SweepPlan, embedder: Embedder, data: PairSet, *, cache: VectorCache, progress: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(measurements, per-pair values) of a pair set at each dimension and instruction.

    An STS set is measured by Spearman's correlation of cosine and score, a bitext by how often a text's
    nearest candidate on the other side is its translation (both directions).
    Raises PlanError if the plan asks for an index.
    """
    import pandas as pd

    _check(plan, data)
    full_dim = embedder.space.full_dim
    dims = plan.dims_for(embedder.space)
    sides = {
        label: _embed(embedder, data, label, cache=cache, progress=progress)
        for label in dict.fromkeys(Instruction.of(text).label for text in plan.instructions)
    }
    settings = [Setting(dim, instruction=label) for label in sides for dim in dims]
    if data.kind == "sts":
        metric = "cosine"
        values = {
            Setting(dim, instruction=label): _cosines(left, right, dim)
            for label, (left, right) in sides.items()
            for dim in dims
        }
        summary = _correlations(values, settings, data, full_dim=full_dim, seed=plan.seed)
    else:
        metric = ACCURACY
        values = {
            Setting(dim, instruction=label): hits
            for label, (left, right) in sides.items()
            for dim, hits in _translations(left, right, dims).items()
        }
        columns = {setting: {ACCURACY: hits} for setting, hits in values.items()}
        summary = summarise(columns, full_dim=full_dim, seed=plan.seed)
    facts = pd.DataFrame(
        {"setting": setting.key, **{name: getattr(setting, name) for name in SETTING_COLUMNS}}
        for setting in settings
    )
    facts["bytes_per_vector"] = facts["dim"] * 4.0
    per_pair = pd.concat(
        [
            pd.DataFrame({"setting": setting.key, "query_id": np.arange(len(found)), metric: found})
            for setting, found in values.items()
        ],
        ignore_index=True,
    )
    return pd.concat([facts, pd.DataFrame(summary)], axis="columns"), per_pair


def _check(plan: SweepPlan, data: PairSet) -> None:
    flat = all(index.factory == "Flat" for index in plan.indexes)
    if not flat or plan.rescore or plan.precisions != ["float32"]:
        raise PlanError(
            f"{data.name} is a set of pairs and has no corpus to index; leave out --index, --precision and "
            "rescore, or choose a retrieval set (builtin, beir:<folder>)"
        )


def _embed(
    embedder: Embedder, data: PairSet, instruction: str, *, cache: VectorCache, progress: bool
) -> tuple[Vectors, Vectors]:
    """Both sides as queries: similarity is symmetric, so both carry the instruction, as in mteb."""
    left, right = (
        embed_texts(embedder, side, role=Role.QUERY, instruction=instruction, cache=cache, progress=progress)
        for side in (data.left, data.right)
    )
    return left, right


def _cosines(left: Vectors, right: Vectors, dim: int) -> np.ndarray:
    return np.einsum("ij,ij->i", left.at(dim), right.at(dim), dtype=np.float64)


def _correlations(
    values: dict[Setting, np.ndarray], settings: list[Setting], data: PairSet, *, full_dim: int, seed: int
) -> dict[str, np.ndarray]:
    columns = {f"{SPEARMAN}{part}": np.empty(len(settings)) for part in _PARTS}
    for label in {setting.instruction for setting in settings}:
        chosen = [i for i, setting in enumerate(settings) if setting.instruction == label]
        found = spearman_intervals(
            np.column_stack([values[settings[i]] for i in chosen]),
            data.scores,
            reference=[settings[i].dim for i in chosen].index(full_dim),
            seed=seed,
        )
        for i, one in zip(chosen, found, strict=True):
            for part, name in _PARTS.items():
                columns[f"{SPEARMAN}{part}"][i] = getattr(one, name)
    return columns


def _translations(left: Vectors, right: Vectors, dims: list[int]) -> dict[int, np.ndarray]:
    """Per pair, the share of the two directions in which the translation is the nearest; {dim: (n,)}."""
    forth = exact_search(right.rows, left.rows, dims, k=1)
    back = exact_search(left.rows, right.rows, dims, k=1)
    return {dim: (bitext_hits(forth[dim]) + bitext_hits(back[dim])) / 2 for dim in dims}
