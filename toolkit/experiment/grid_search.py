"""Build, search and time every index of a plan, saving each result before the next begins.

Indexes of one dimension are built as a family, which makes what they share once. All of them are timed
in turns, round by round; those that do not fit into memory together are read from disk in each round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np

from toolkit.experiment.grid import Build
from toolkit.experiment.index_store import IndexStore
from toolkit.experiment.plan import SweepPlan, TimingPlan
from toolkit.experiment.setting import Setting
from toolkit.experiment.store import RawStore
from toolkit.measure.timing import Timed, interleaved
from toolkit.progress import progress_bar
from toolkit.search.exact.compute import available_cores
from toolkit.search.faiss.index import BuiltIndex, on_gpu, threads
from toolkit.search.faiss.shared_builds import IndexFamily
from toolkit.search.funnel import Funnel, Rescorer, Stage
from toolkit.vectors import Vectors, truncate


@dataclass(frozen=True)
class Searchable:
    """The vectors of a sweep: the corpus, and the queries by instruction label.

    A corpus that is rescored is memory-mapped: later stages read single rows of it from its file.
    """

    corpus: Vectors
    queries: Mapping[str, Vectors]

    @cached_property
    def _rescorers(self) -> dict[int, Rescorer]:
        return {}

    def funnel(self, built: BuiltIndex, setting: Setting) -> Funnel:
        """A setting's first index with its later stages, whose norms are worked out once a dimension."""
        stages = []
        for dim, candidates in setting.rescore:
            if dim not in self._rescorers:
                self._rescorers[dim] = Rescorer(self.corpus, dim)
            stages.append(Stage(self._rescorers[dim], candidates))
        return Funnel(built, stages, search_args=dict(setting.search_args))


def search_grid(
    store: RawStore, builds: Sequence[Build], vectors: Searchable, *, plan: SweepPlan, progress: bool
) -> None:
    """Bring the raw store up to date with `builds`: what it already holds is not done again."""
    todo = [build for build in builds if _unfinished(store, build, plan.timing)]
    index_store = IndexStore(store.index_folder)
    with progress_bar(total=len(todo), label="build and search", unit="index", show=progress) as bar:
        for dim, at_dim in groupby(todo, key=lambda build: build.dim):
            family = IndexFamily(vectors.corpus, dim, seed=plan.seed)
            for build in at_dim:
                _build(store, index_store, family, build)
                _search(store, on_gpu(index_store.get(build.slug)), build, vectors, k=plan.k)
                bar.update()
    _time(store, index_store, todo, vectors, plan=plan, progress=progress)
    index_store.clear()


def time_smaller(
    store: RawStore, builds: Sequence[Build], vectors: Searchable, *, plan: SweepPlan, progress: bool
) -> dict[int, RawStore]:
    """Build and time the grid over random parts of the corpus; returns {documents: its raw store}."""
    stores = {}
    for fraction in plan.timing.fractions:
        documents = max(plan.k, round(len(vectors.corpus) * fraction))
        part = store.part(documents)
        drawn = np.random.default_rng(plan.seed).permutation(len(vectors.corpus))[:documents]
        smaller = Searchable(part.mapped(vectors.corpus.take(np.sort(drawn))), vectors.queries)
        search_grid(part, builds, smaller, plan=plan, progress=progress)
        stores[documents] = part
    return stores


def _unfinished(store: RawStore, build: Build, timing: TimingPlan) -> bool:
    return (
        store.build(build.slug) is None
        or any(store.neighbours(setting) is None for setting in build.settings)
        or any(store.rounds_timed(search) < timing.rounds for search in build.searches)
    )


def _build(store: RawStore, index_store: IndexStore, family: IndexFamily, build: Build) -> None:
    if index_store.has(build.slug) and store.build(build.slug) is not None:
        return
    built = family.build(build.index.factory, build.precision, build.index.build)
    index_store.put(build.slug, built)
    facts = {
        "factory": built.factory,
        "build_s": built.build_s,
        "steps_s": dict(built.steps_s),
        "index_bytes": built.index_bytes,
        "peak_bytes": built.peak_bytes,
        "index_device": on_gpu(built).device,
    }
    store.save_build(build.slug, facts)


def _search(store: RawStore, built: BuiltIndex, build: Build, vectors: Searchable, *, k: int) -> None:
    with threads(available_cores()):
        for setting in build.settings:
            if store.neighbours(setting) is not None:
                continue
            queries = vectors.queries[setting.instruction]
            if setting.rescore:
                funnel = vectors.funnel(built, setting)
                found, _ = funnel.search(funnel.prepare(queries.rows), k)
            else:
                found = built.search(queries.at(build.dim), k, dict(setting.search_args))
            store.save_neighbours(setting, found)


def _time(
    store: RawStore,
    index_store: IndexStore,
    builds: Sequence[Build],
    vectors: Searchable,
    *,
    plan: SweepPlan,
    progress: bool,
) -> None:
    """Add the rounds each search lacks. What is timed does not depend on the instruction."""
    timing = plan.timing
    some = next(iter(vectors.queries.values())).rows[: timing.queries]
    lacking = {build: timing.rounds - _rounds(store, build) for build in builds}
    total = sum(lacking.values())
    with progress_bar(total=total, label="time searches", unit="index", show=progress) as bar:
        for turn in range(max(lacking.values(), default=0)):
            for group in index_store.groups([build.slug for build in builds if lacking[build] > turn]):
                loaded = {
                    build: on_gpu(index_store.get(build.slug)) for build in builds if build.slug in group
                }
                timed = {
                    search: _timed(built, search, vectors, some, k=plan.k)
                    for build, built in loaded.items()
                    for search in build.searches
                }
                _time_one_round(store, timed, timing, seed=plan.seed + turn)
                bar.update(len(loaded))


def _timed(built: BuiltIndex, search: Setting, vectors: Searchable, queries: np.ndarray, *, k: int) -> Timed:
    if not search.rescore:
        return Timed(built.bare_search(k, dict(search.search_args)), truncate(queries, built.dim))
    funnel = vectors.funnel(built, search)
    return Timed(funnel.bare_search(k), funnel.prepare(queries))


def _rounds(store: RawStore, build: Build) -> int:
    return min(store.rounds_timed(search) for search in build.searches)


def _time_one_round(
    store: RawStore, timed: Mapping[Setting, Timed], timing: TimingPlan, *, seed: int
) -> None:
    fresh: dict[Setting, dict[str, np.ndarray]] = {search: {} for search in timed}
    for place, count in enumerate(timing.threads):
        with threads(count or available_cores()):
            for search, samples in interleaved(timed, rounds=1, seed=seed).items():
                fresh[search] |= {
                    f"single_ms_{place}": samples.single_ms,
                    f"batch_s_{place}": samples.batch_s,
                }
            if place == 0:
                for search, one in timed.items():
                    if search.rescore:
                        fresh[search]["stage_ms"] = _stage_ms(one)
    for search, samples in fresh.items():
        store.add_timing(search, samples)


def _stage_ms(timed: Timed) -> np.ndarray:
    """Milliseconds of each stage for each query searched alone: (1, queries, stages)."""
    queries = timed.queries
    return 1e3 * np.array([[timed.search(queries[i : i + 1])[1] for i in range(len(queries))]])
