"""A retrieval set at every setting: exact search at all dimensions, then each index of the grid.

Everything measured is in the raw store before the next step needs it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from toolkit.data.sets import RetrievalSet
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.given import GivenVectors
from toolkit.embedding.pipeline import embed_texts
from toolkit.embedding.protocol import Embedder
from toolkit.errors import DataError, ToolkitWarning
from toolkit.experiment.by_size import derive_by_size
from toolkit.experiment.corpus_parts import corpus_parts
from toolkit.experiment.derive import Tables, derive, derive_scaling
from toolkit.experiment.grid import Build, check_grid, labels_of, lay_out, same_instructions
from toolkit.experiment.grid_search import Searchable, search_grid, search_parts
from toolkit.experiment.outlook import Outlook, encode_seconds, search_seconds
from toolkit.experiment.plan import SweepPlan
from toolkit.experiment.setting import Setting
from toolkit.experiment.store import RawStore
from toolkit.measure.metrics import ChosenMetrics, choose_metrics
from toolkit.progress import progress_bar
from toolkit.search.exact.search import ExactSearch, exact_search
from toolkit.space import EmbeddingSpace, Role
from toolkit.vectors import Vectors

# A corpus larger than this share of free memory is written to a file and mapped.
_MEMORY_SHARE = 0.25


@dataclass(frozen=True)
class RetrievalSweep:
    """The sweep of a plan over a retrieval set with the queries to ask; see `queries.asked_queries`.

    exactly : finds the true neighbours that all else is compared with.
    """

    plan: SweepPlan
    data: RetrievalSet
    exactly: ExactSearch = exact_search

    kind = "retrieval"

    @property
    def identity(self) -> dict[str, object]:
        """What every figure depends on, beside the embedding space."""
        return {
            "queries": len(self.data.queries),
            "data": self.data.searched_hash,
            "k": self.plan.k,
            "seed": self.plan.seed,
        }

    @cached_property
    def metrics(self) -> ChosenMetrics:
        """What is derived; raises PlanError for what k cannot give."""
        return choose_metrics(
            self.plan.metrics,
            kind="retrieval",
            k=self.plan.k,
            documents=len(self.data.docs),
            labelled=self.data.labelled,
        )

    @property
    def notes(self) -> list[str]:
        """What a reader should know of how this is measured."""
        return list(self.metrics.notes)

    def check(self) -> None:
        """Raise PlanError or DataError for what cannot work with any embedder."""
        if self.data.labelled and not any(
            gain > 0 for gains in self.data.qrels.values() for gain in gains.values()
        ):
            raise DataError(
                f"{self.data.name}: every judgement is 0 or negative, so no document is relevant to any "
                "query and there is nothing to measure; relevant documents need a judgement of 1 or more"
            )
        _ = self.metrics
        known = self.plan.least_full_dim
        self._check_grid(self._lay_out(self.plan.dims_within(known), known))

    def check_dims(self, full_dim: int | None) -> None:
        """Raise PlanError for a grid that cannot be built; None for a dimension not known yet."""
        if full_dim is not None:
            self._check_grid(self._lay_out(self.plan.dims_within(full_dim), full_dim))

    def settings(self, space: EmbeddingSpace) -> list[Setting]:
        """Every row to be measured."""
        for sentence in same_instructions(self.plan, space):
            warnings.warn(sentence, ToolkitWarning, stacklevel=2)
        builds = self._laid_out(self.plan.dims_for(space), space)
        self._check_grid(builds)
        return [setting for build in builds for setting in build.settings]

    def outlook(
        self, embedder: Embedder, settings: Sequence[Setting], there: Sequence[Setting], cache: VectorCache
    ) -> Outlook:
        """What is known before anything long begins. there : settings that an earlier run searched."""
        plan, data, space = self.plan, self.data, embedder.space
        if self._in_order(embedder) is not None:
            return self._outlook(settings, there, space, encode_s=0.0)
        texts = [space.render(text, Role.DOCUMENT) for text in data.docs]
        for label in labels_of(plan, space):
            texts += [space.render(text, Role.QUERY, label) for text in (*data.queries, *data.unlabelled)]
        return self._outlook(settings, there, space, encode_s=encode_seconds(embedder, texts, cache))

    def _outlook(
        self, settings: Sequence[Setting], there: Sequence[Setting], space: EmbeddingSpace, *, encode_s: float
    ) -> Outlook:
        plan, data, done = self.plan, self.data, set(there)
        search_s = search_seconds(
            [one for one in settings if one not in done],
            plan,
            documents=len(data.docs),
            queries=len(data.queries) + len(data.unlabelled),
            full_dim=space.full_dim,
        )
        labelled = len(data.queries) if data.labelled else 0
        others = len(data.unlabelled) + len(data.queries) - labelled
        return Outlook(labelled, others, len(settings), len(done), encode_s, search_s)

    def embed(self, embedder: Embedder, store: RawStore, *, cache: VectorCache, progress: bool) -> Searchable:
        """The corpus, in memory or mapped where it is large or later stages read it there; the queries."""
        data = self.data
        corpus = self._in_order(embedder)
        if corpus is None:
            corpus = self._embed_corpus(embedder, store, cache=cache, progress=progress)
        queries, unlabelled = (
            {
                label: embed_texts(
                    embedder, texts, role=Role.QUERY, instruction=label, cache=cache, progress=progress
                )
                for label in labels_of(self.plan, embedder.space)
                if texts
            }
            for texts in (data.queries, data.unlabelled)
        )
        return Searchable(corpus, queries, unlabelled, data.unlabelled_hash)

    def _in_order(self, embedder: Embedder) -> Vectors | None:
        """The corpus's vectors where the embedder has them in a file, which is then read where it lies."""
        return embedder.in_order(self.data.docs) if isinstance(embedder, GivenVectors) else None

    def _embed_corpus(
        self, embedder: Embedder, store: RawStore, *, cache: VectorCache, progress: bool
    ) -> Vectors:
        import psutil

        size_bytes = len(self.data.docs) * embedder.space.full_dim * 4
        mapped = bool(self.plan.rescore) or size_bytes > _MEMORY_SHARE * psutil.virtual_memory().available
        return embed_texts(
            embedder,
            self.data.docs,
            role=Role.DOCUMENT,
            cache=cache,
            out=store.corpus_file(size_bytes) if mapped else None,
            progress=progress,
        )

    def measure(
        self, store: RawStore, vectors: Searchable, space: EmbeddingSpace, *, progress: bool
    ) -> Tables:
        """Fill the store with what it lacks, and derive the tables from it."""
        plan = self.plan
        dims = plan.dims_within(space.full_dim)
        builds = self._laid_out(dims, space)
        _search_exactly(store, vectors, dims, exactly=self.exactly, k=plan.k, progress=progress)
        search_grid(store, builds, vectors, plan=plan, progress=progress)
        nearest = store.neighbours(Setting(space.full_dim, instruction=next(iter(vectors.queries))))
        parts = corpus_parts(self.data, nearest, seed=plan.seed)
        smaller, searched = search_parts(store, builds, vectors, parts, plan=plan, progress=progress)
        settings = [setting for build in builds for setting in build.settings]
        tables = derive(
            store,
            settings,
            self.data,
            metrics=self.metrics.names,
            full_dim=space.full_dim,
            seed=plan.seed,
        )
        scaling = derive_scaling(smaller | {len(vectors.corpus): store}, settings) if smaller else None
        by_size = derive_by_size(
            {**smaller, **searched},
            settings,
            self.data,
            parts,
            metric=self.metrics.names[0],
            full_dim=space.full_dim,
            per_query=tables.per_query,
        )
        for one in (store, *smaller.values(), *searched.values()):
            one.drop_corpus()
        return replace(tables, scaling=scaling, by_size=by_size)

    def _laid_out(self, dims: Sequence[int], space: EmbeddingSpace) -> list[Build]:
        return self._lay_out(dims, space.full_dim, labels=labels_of(self.plan, space))

    def _lay_out(
        self, dims: Sequence[int], full_dim: int, *, labels: Sequence[str] | None = None
    ) -> list[Build]:
        return lay_out(self.plan, dims, full_dim, labels=labels, documents=len(self.data.docs))

    def _check_grid(self, builds: Sequence[Build]) -> None:
        check_grid(self.plan, builds, documents=len(self.data.docs))


def _search_exactly(
    store: RawStore,
    vectors: Searchable,
    dims: Sequence[int],
    *,
    exactly: ExactSearch,
    k: int,
    progress: bool,
) -> None:
    corpus: Vectors = vectors.corpus
    for asked, by_label in vectors.asked.items():
        for label, queries in by_label.items():
            missing = [
                dim for dim in dims if store.neighbours(Setting(dim, instruction=label), asked=asked) is None
            ]
            if not missing:
                continue
            bar = progress_bar(
                total=len(corpus), label=f"exact search, {len(missing)} dims", unit="doc", show=progress
            )
            with bar:
                found = exactly(corpus.rows, queries.rows, missing, k=k, progress=bar.update)
            for dim, neighbours in found.items():
                store.save_neighbours(Setting(dim, instruction=label), neighbours, asked=asked)
