"""What instructions are worth: the same queries with each of several, paired, whole clusters at a time.

One instruction for all queries, or one for each query. Sweeps measure instructions beside dimensions and indexes;
this asks about them alone, with the exact search, also where only a pool of documents was judged for each query.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from toolkit.data.sets import PairSet, RetrievalSet
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.pipeline import embed_texts
from toolkit.embedding.protocol import Embedder
from toolkit.errors import InstructionWarning, PlanError
from toolkit.experiment.pools import pooled_quality
from toolkit.measure.metrics import metric_named
from toolkit.measure.statistics import cluster_numbers, holm, paired_difference
from toolkit.space import Role
from toolkit.vectors import Vectors

if TYPE_CHECKING:
    import pandas as pd

_ALPHA = 0.05
Instructions = Sequence[str] | Mapping[str, str | Mapping[str, str]]


@dataclass(frozen=True, eq=False, repr=False)
class InstructionEffects:
    """The quality of every query with each instruction, at each dimension.

    values : instruction's name -> dimension -> (queries,) of `metric`. The first is what others are held against.
    clusters : (queries,) numbers; queries of one cluster are not independent. None if all are.
    trained : whether the model was trained on instructions; to another one they are noise before its queries.
    """

    model: str
    dataset: str
    metric: str
    query_ids: Sequence[str]
    values: Mapping[str, Mapping[int, np.ndarray]]
    clusters: np.ndarray | None
    trained: bool

    def frame(self) -> pd.DataFrame:
        """One row per instruction and dimension.

        Columns dataset, instruction, dim, quality; ``difference`` to the first instruction at that dimension with its
        95 % interval ``low``, ``high``; ``p``, Holm-adjusted over all rows; ``differs``, whether p is at most 0.05;
        ``queries`` and ``clusters``.
        """
        return self._frame.copy()

    @cached_property
    def _frame(self) -> pd.DataFrame:
        import pandas as pd

        first, *others = self.values
        rows = []
        for name, by_dim in self.values.items():
            for dim, values in by_dim.items():
                found = paired_difference(values, self.values[first][dim], clusters=self.clusters)
                rows.append(
                    (name, dim, float(values.mean()), found.difference, found.low, found.high, found.p)
                )
        frame = pd.DataFrame(
            rows, columns=["instruction", "dim", "quality", "difference", "low", "high", "p"]
        )
        tested = (frame["instruction"] != first).to_numpy()
        frame.loc[~tested, ["difference", "low", "high", "p"]] = np.nan
        if others:
            frame.loc[tested, "p"] = holm(frame.loc[tested, "p"].to_numpy())
        frame["differs"] = frame["p"] <= _ALPHA
        frame.insert(0, "dataset", self.dataset)
        frame["queries"] = len(self.query_ids)
        frame["clusters"] = self._independent
        return frame

    def per_query(self, dim: int | None = None) -> pd.DataFrame:
        """The metric of each query with each instruction at a dimension; None is the full one."""
        import pandas as pd

        at = max(next(iter(self.values.values()))) if dim is None else dim
        return pd.DataFrame(
            {name: by_dim[at] for name, by_dim in self.values.items()},
            index=pd.Index(self.query_ids, name="query_id"),
        )

    @cached_property
    def headline(self) -> str:
        """The finding at the full dimension in one sentence."""
        frame = self.frame()
        first = next(iter(self.values))
        rows = frame[(frame["dim"] == frame["dim"].max()) & (frame["instruction"] != first)]
        if rows.empty:
            return f"{first!r} alone was measured on {self.dataset}"
        best = rows.sort_values("difference", ascending=False, kind="stable").iloc[0]
        helps = bool(best["differs"] and best["difference"] > 0)
        harm = int((rows["differs"] & (rows["difference"] < 0)).sum())
        said = (
            f"{best['instruction']!r} helps {self.model} on {self.dataset}: {best['difference']:+.3f} {self.metric}"
            if helps
            else f"no instruction is shown to help {self.model} on {self.dataset}"
        )
        return said + (f"; {harm} of {len(rows)} harm" if harm else "")

    @property
    def _independent(self) -> int:
        return len(self.query_ids) if self.clusters is None else len(np.unique(self.clusters))

    def __repr__(self) -> str:
        return f"InstructionEffects({self.headline!r}, queries={len(self.query_ids)})"

    def _repr_html_(self) -> str:
        from html import escape

        frame = self.frame().round(4)
        note = "" if self.trained else "<p>The model was not trained on instructions.</p>"
        return f"<div><p><strong>{escape(self.headline)}</strong></p>{note}{frame.to_html(index=False)}</div>"


def measure_instructions(
    embedder: Embedder,
    data: RetrievalSet | PairSet,
    instructions: Instructions,
    *,
    dims: Sequence[int] | None = None,
    metric: str = "ndcg@10",
    pools: Mapping[str, Sequence[str]] | None = None,
    max_queries: int = 0,
    seed: int = 0,
    cache: VectorCache | None = None,
    progress: bool = True,
) -> InstructionEffects:
    """Search the same queries with each instruction; see `toolkit.compare_instructions`."""
    if not isinstance(data, RetrievalSet):
        raise PlanError(
            f"{data.name} is a set of pairs; instructions are of queries, so give a retrieval set"
        )
    if not data.labelled:
        raise PlanError(f"{data.name} has no judgements, so an instruction's worth cannot be measured on it")
    metric_named(metric)
    space = embedder.space
    chosen = [space.check_dim(dim) for dim in dims or ()]
    chosen = sorted({*chosen, space.full_dim})
    kept = _kept(data, max_queries, seed)
    ids, queries = [data.query_ids[i] for i in kept], [data.queries[i] for i in kept]
    places = _places(data, ids, pools)
    named = _named(instructions, ids)
    corpus = embed_texts(embedder, data.docs, role=Role.DOCUMENT, cache=cache, progress=progress)
    values = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InstructionWarning)  # the result says so
        for name, of_query in named.items():
            rows = np.empty((len(ids), space.full_dim), dtype=np.float32)
            for text in dict.fromkeys(of_query):
                here = [i for i, one in enumerate(of_query) if one == text]
                asked = [queries[i] for i in here]
                rows[here] = embed_texts(
                    embedder, asked, role=Role.QUERY, instruction=text, cache=cache, progress=progress
                ).rows
            values[name] = pooled_quality(
                corpus, Vectors(rows), data, ids, dims=chosen, metric=metric, pools=places
            )
    return InstructionEffects(
        space.model,
        data.name,
        metric,
        ids,
        values,
        cluster_numbers(np.array([data.clusters.get(one) or "" for one in ids], dtype=object)),
        space.prompts.instructed is not None,
    )


def _kept(data: RetrievalSet, most: int, seed: int) -> np.ndarray:
    count = len(data.queries)
    if not most or count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def _named(instructions: Instructions, ids: Sequence[str]) -> dict[str, list[str]]:
    """Each instruction's name -> its text for each query."""
    given = instructions if isinstance(instructions, Mapping) else {one: one for one in instructions}
    if isinstance(instructions, str) or not given:
        raise PlanError(
            f"instructions {instructions!r} must be a list of texts, or a dictionary from name to text"
        )
    found = {}
    for name, text in given.items():
        if isinstance(text, str):
            found[name] = [text] * len(ids)
            continue
        lacking = next((one for one in ids if one not in text), None)
        if lacking is not None:
            raise PlanError(
                f"instructions[{name!r}] has no text for query {lacking!r}; give one for each query"
            )
        found[name] = [text[one] for one in ids]
    return found


def _places(
    data: RetrievalSet, ids: Sequence[str], pools: Mapping[str, Sequence[str]] | None
) -> dict[str, list[int]] | None:
    """Rows of the corpus that may be ranked for each query; None for the whole corpus."""
    if pools is None:
        return None
    row = {doc: place for place, doc in enumerate(data.doc_ids)}
    found = {}
    for one in ids:
        unknown = next((doc for doc in pools.get(one, ()) if doc not in row), None)
        if not pools.get(one) or unknown is not None:
            what = "no document" if unknown is None else f"document {unknown!r}, which is not in the corpus"
            raise PlanError(f"pools have {what} for query {one!r}")
        found[one] = [row[doc] for doc in pools[one]]
    return found
