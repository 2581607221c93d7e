"""Pair sets at every dimension: rank correlation with human scores, or finding the translation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolkit.data.sets import PairSet
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.pipeline import embed_texts
from toolkit.embedding.protocol import Embedder
from toolkit.errors import DataError, PlanError, ResultsError
from toolkit.experiment.derive import Tables, summarise
from toolkit.experiment.grid import labels_of
from toolkit.experiment.outlook import Outlook, encode_seconds
from toolkit.experiment.plan import SweepPlan
from toolkit.experiment.setting import Setting
from toolkit.experiment.store import RawStore
from toolkit.measure.correlation import spearman_intervals
from toolkit.measure.metrics import choose_metrics
from toolkit.measure.quality import bitext_hits
from toolkit.progress import progress_bar
from toolkit.search.exact.search import exact_search
from toolkit.search.neighbours import Neighbours
from toolkit.space import EmbeddingSpace, Role
from toolkit.vectors import Vectors

if TYPE_CHECKING:
    pass

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
# Both sides of the pairs, by instruction label.
Sides = Mapping[str, tuple[Vectors, Vectors]]
# A dimension, and what was found at it for every pair.
Found = tuple[int, dict[str, np.ndarray]]


@dataclass(frozen=True)
class PairSweep:
    """The sweep of a plan over a set of pairs that is already sampled.

    An STS set is measured by Spearman's correlation of cosine and score, a bitext by how often a text's
    nearest candidate on the other side is its translation (both directions).
    """

    plan: SweepPlan
    data: PairSet

    kind = "pairs"

    @property
    def identity(self) -> dict[str, object]:
        """What every figure depends on, beside the embedding space."""
        return {"pairs": len(self.data.left), "data": self.data.content_hash, "seed": self.plan.seed}

    @property
    def notes(self) -> list[str]:
        """What a reader should know of how this is measured."""
        return []

    def check(self) -> None:
        """Raise PlanError if the plan asks for an index, DataError for scores that tell nothing apart."""
        plan, data = self.plan, self.data
        flat = all(index.factory == "Flat" for index in plan.indexes)
        if not flat or plan.rescore or plan.precisions != ["float32"]:
            raise PlanError(
                f"{data.name} is a set of pairs and has no corpus to index; leave out indexes=, "
                "precisions= and rescore=, or choose a retrieval set (builtin, beir:<folder>)"
            )
        if data.scores is not None and len(np.unique(data.scores)) == 1:
            raise DataError(
                f"{data.name}: all {len(data.scores):,} human scores are {data.scores[0]:g}, so there is no "
                "order to agree with and nothing to measure; the scores must differ"
            )
        choose_metrics(plan.metrics, kind=data.kind, k=plan.k, documents=0)

    def check_dims(self, full_dim: int | None) -> None:
        """Raise PlanError for a dimension out of range; None for a range not known yet."""
        if full_dim is not None:
            self.plan.dims_within(full_dim)

    def settings(self, space: EmbeddingSpace) -> list[Setting]:
        """Every row to be measured."""
        labels = labels_of(self.plan, space)
        dims = self.plan.dims_for(space)
        return [Setting(dim, instruction=label) for label in labels for dim in dims]

    def outlook(
        self, embedder: Embedder, settings: Sequence[Setting], there: Sequence[Setting], cache: VectorCache
    ) -> Outlook:
        """What is known before anything long begins; scoring pairs is a matter of milliseconds."""
        texts = [embedder.space.render(text, Role.DOCUMENT) for text in (*self.data.left, *self.data.right)]
        return Outlook(0, 0, len(settings), len(there), encode_seconds(embedder, texts, cache), 0.0)

    def embed(
        self,
        embedder: Embedder,
        store: RawStore,  # noqa: ARG002 - a retrieval sweep puts large corpora there
        *,
        cache: VectorCache,
        progress: bool,
    ) -> Sides:
        """Both sides as queries: similarity is symmetric, so both carry the instruction, as in mteb."""
        sides = {}
        for label in labels_of(self.plan, embedder.space):
            left, right = (
                embed_texts(
                    embedder, side, role=Role.QUERY, instruction=label, cache=cache, progress=progress
                )
                for side in (self.data.left, self.data.right)
            )
            sides[label] = (left, right)
        return sides

    def measure(self, store: RawStore, vectors: Sides, space: EmbeddingSpace, *, progress: bool) -> Tables:
        """Fill the store with what it lacks, and derive the tables from it."""
        dims = self.plan.dims_within(space.full_dim)
        settings = [Setting(dim, instruction=label) for label in vectors for dim in dims]
        lacking = [setting for setting in settings if store.pairs(setting) is None]
        bar = progress_bar(total=len(lacking), label="compare pairs", unit="setting", show=progress)
        with bar:
            for label, (left, right) in vectors.items():
                dims = [setting.dim for setting in lacking if setting.instruction == label]
                compare = _cosines if self.data.kind == "sts" else _nearest
                for dim, found in compare(left, right, dims):
                    store.save_pairs(Setting(dim, instruction=label), found)
                    bar.update()
        return derive_pairs(store, settings, self.data, full_dim=space.full_dim, seed=self.plan.seed)


def sample_pairs(data: PairSet, most: int, *, seed: int) -> PairSet:
    """The set with at most `most` pairs (0 for all), drawn with `seed`, in their order."""
    if most == 0 or len(data.left) <= most:
        return data
    drawn = np.sort(np.random.default_rng(seed).choice(len(data.left), size=most, replace=False))
    return PairSet(
        data.name,
        [data.left[i] for i in drawn],
        [data.right[i] for i in drawn],
        None if data.scores is None else np.asarray(data.scores)[drawn],
    )


def derive_pairs(
    store: RawStore, settings: Sequence[Setting], data: PairSet, *, full_dim: int, seed: int
) -> Tables:
    """One row per setting, and the value of every pair at every setting, from what the raw store holds.

    Raises ResultsError if the store lacks a setting.
    """
    import pandas as pd

    values = {setting: _values(store, setting, data) for setting in settings}
    if data.kind == "sts":
        metric = "cosine"
        summary = _correlations(values, settings, data, full_dim=full_dim, seed=seed)
    else:
        metric = ACCURACY
        columns = {setting: {ACCURACY: hits} for setting, hits in values.items()}
        summary = summarise(columns, full_dim=full_dim, seed=seed)
    facts = pd.DataFrame({"setting": setting.key, **setting.columns} for setting in settings)
    facts["bytes_per_vector"] = facts["dim"] * 4.0
    per_pair = pd.concat(
        [
            pd.DataFrame({"setting": setting.key, "query_id": np.arange(len(found)), metric: found})
            for setting, found in values.items()
        ],
        ignore_index=True,
    )
    return Tables(pd.concat([facts, pd.DataFrame(summary)], axis="columns"), per_pair)


def _values(store: RawStore, setting: Setting, data: PairSet) -> np.ndarray:
    """Cosine of each pair, or for a bitext the share of the two directions that find the translation."""
    found = store.pairs(setting)
    if found is None:
        raise ResultsError(f"{store.folder} lacks the pairs of {setting.key}; resume=True measures them")
    if data.kind == "sts":
        return found["cosine"]
    forth, back = (Neighbours(found[f"{way}_rows"], found[f"{way}_scores"]) for way in ("forth", "back"))
    return (bitext_hits(forth) + bitext_hits(back)) / 2


def _cosines(left: Vectors, right: Vectors, dims: Sequence[int]) -> Iterator[Found]:
    for dim in dims:
        yield dim, {"cosine": np.einsum("ij,ij->i", left.at(dim), right.at(dim), dtype=np.float64)}


def _nearest(left: Vectors, right: Vectors, dims: Sequence[int]) -> Iterator[Found]:
    """The nearest text of the other side, for every text of both."""
    if not dims:
        return
    forth = exact_search(right.rows, left.rows, dims, k=1)
    back = exact_search(left.rows, right.rows, dims, k=1)
    for dim in dims:
        yield (
            dim,
            {
                "forth_rows": forth[dim].rows,
                "forth_scores": forth[dim].scores,
                "back_rows": back[dim].rows,
                "back_scores": back[dim].scores,
            },
        )


def _correlations(
    values: Mapping[Setting, np.ndarray],
    settings: Sequence[Setting],
    data: PairSet,
    *,
    full_dim: int,
    seed: int,
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
