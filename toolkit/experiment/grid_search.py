"""Build, search and time every index of a plan, saving each result before the next begins.

Indexes of one backend and dimension come from one builder, which makes what they share once. All of them
are timed in turns, round by round; those that do not fit into memory together are read from disk in each
round. Knows of indexes only what their protocol says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np

from toolkit.errors import PlanError, ResultsError
from toolkit.experiment.corpus_parts import CorpusParts
from toolkit.experiment.filtered import FilteredTruth, filtered_samples, sample_names
from toolkit.experiment.grid import Build, smaller_sizes
from toolkit.experiment.index_store import IndexStore
from toolkit.experiment.plan import SweepPlan, TimingPlan
from toolkit.experiment.setting import Setting
from toolkit.experiment.store import RawStore
from toolkit.measure.timing import Timed, interleaved
from toolkit.progress import progress_bar
from toolkit.search.backend import Backend, Index, backend_of, get_backend, threads
from toolkit.search.empty_last import CorpusBuilder
from toolkit.search.exact.compute import available_cores
from toolkit.search.funnel import Funnel, Rescorer, Stage
from toolkit.search.neighbours import Neighbours
from toolkit.vectors import Vectors, truncate

# How parts of the corpus are drawn, in the identity of what is found there: nested, relevant documents first.
DRAWN = "nested, relevant first"
# What the neighbours of the parts' queries go by where not all queries are asked.
SOME_QUERIES = "some"


@dataclass(frozen=True)
class Searchable:
    """The vectors of a sweep: the corpus, and the queries by instruction label.

    A corpus that is rescored is memory-mapped: later stages read single rows of it from its file.

    unlabelled : further queries, which are searched and never timed, by instruction label.
    unlabelled_hash : what their neighbours go by in the raw store.
    """

    corpus: Vectors
    queries: Mapping[str, Vectors]
    unlabelled: Mapping[str, Vectors] = field(default_factory=dict)
    unlabelled_hash: str = ""

    @property
    def asked(self) -> dict[str, Mapping[str, Vectors]]:
        """All that is searched, by what its neighbours go by: the queries themselves by an empty name."""
        return ({"": self.queries} if self.queries else {}) | (
            {self.unlabelled_hash: self.unlabelled} if self.unlabelled else {}
        )

    def lacking(self, store: RawStore, settings: Iterable[Setting]) -> list[tuple[Setting, str]]:
        """The settings whose neighbours a store does not hold, each with what was asked."""
        return [
            (setting, asked)
            for setting in settings
            for asked in self.asked
            if store.neighbours(setting, asked=asked) is None
        ]

    @cached_property
    def _rescorers(self) -> dict[int, Rescorer]:
        return {}

    def funnel(self, built: Index, setting: Setting) -> Funnel:
        """A setting's first index with its later stages, whose norms are computed once per dimension."""
        stages = []
        for dim, candidates in setting.rescore:
            if dim not in self._rescorers:
                self._rescorers[dim] = Rescorer(self.corpus, dim)
            stages.append(Stage(self._rescorers[dim], candidates))
        return Funnel(built, stages, search_args=dict(setting.search_args))


def search_grid(
    store: RawStore,
    builds: Sequence[Build],
    vectors: Searchable,
    *,
    plan: SweepPlan,
    progress: bool,
    timed: bool = True,
) -> None:
    """Bring the raw store up to date with `builds`: what it already holds is not done again."""
    todo = [build for build in builds if _unfinished(store, build, vectors, plan.timing if timed else None)]
    index_store = IndexStore(store.index_folder)
    builders: dict[tuple[str, int], CorpusBuilder] = {}
    with progress_bar(total=len(todo), label="build and search", unit="index", show=progress) as bar:
        # By dimension, so that what a backend's builds share there is let go before the next.
        for build in sorted(todo, key=lambda build: build.dim):
            builders = {key: builder for key, builder in builders.items() if key[1] == build.dim}
            backend, key = backend_of(build.backend, build.spec.index), (build.backend, build.dim)
            if store.build(build.slug) is None or not index_store.has(build.slug, backend):
                if key not in builders:
                    builders[key] = CorpusBuilder(backend, vectors.corpus, build.dim, seed=plan.seed)
                with threads(available_cores(), [backend]):
                    index_store.put(build.slug, builders[key].build(build.spec))
                _save_facts(store, index_store.get(build.slug, backend), build)
            _search(store, index_store, build, vectors, k=plan.k)
            bar.update()
    if timed:
        _time(store, index_store, todo, vectors, plan=plan, progress=progress)
    index_store.clear()


def search_parts(
    store: RawStore,
    builds: Sequence[Build],
    vectors: Searchable,
    parts: CorpusParts,
    *,
    plan: SweepPlan,
    progress: bool,
) -> tuple[dict[int, RawStore], dict[int, RawStore]]:
    """Search parts of the corpus; returns {documents: raw store} of the parts that are timed, and of the others.

    At the plan's fractions the whole grid is built, searched and timed; at the other sizes only what scans every
    document, whose quality there costs little, and only for the parts' queries.
    """
    timed_sizes = list(dict.fromkeys(smaller_sizes(plan, len(vectors.corpus))))
    timed, searched = {}, {}
    for documents in (*timed_sizes, *(size for size in parts.sizes if size not in timed_sizes)):
        part = store.part(documents, drawn=DRAWN)
        corpus = part.mapped(vectors.corpus, parts.rows(documents))
        if documents in timed_sizes:
            smaller = Searchable(corpus, vectors.queries)
            search_grid(part, builds, smaller, plan=plan, progress=progress)
            timed[documents] = part
        else:
            some = {label: queries.take(parts.queries) for label, queries in vectors.queries.items()}
            smaller = Searchable(corpus, {}, some, SOME_QUERIES)
            scans = [build for build in builds if _scans(build, documents, k=plan.k)]
            search_grid(part, scans, smaller, plan=plan, progress=progress, timed=False)
            searched[documents] = part
    return timed, searched


def found_in_part(store: RawStore, setting: Setting, parts: CorpusParts) -> Neighbours | None:
    """What a setting found for the parts' queries in a part of the corpus; None where it was not searched."""
    found = store.neighbours(setting)
    if found is not None:
        return Neighbours(found.rows[parts.queries], found.scores[parts.queries])
    return store.neighbours(setting, asked=SOME_QUERIES)


def _scans(build: Build, documents: int, *, k: int) -> bool:
    """Whether an index can be built over so many documents and compares every one of them, however it is searched."""
    backend = get_backend(build.backend)
    try:
        backend.check(build.spec, documents=documents, k=k)
    except PlanError:
        return False
    searches = {setting.search_args for setting in build.settings}
    counts = [backend.compared(build.spec, dict(one), documents=documents, k=k)[0] for one in searches]
    return min(counts) >= documents and backend.searches(build.spec) == [{}]


def _unfinished(store: RawStore, build: Build, vectors: Searchable, timing: TimingPlan | None) -> bool:
    return (
        store.build(build.slug) is None
        or bool(vectors.lacking(store, build.settings))
        or (timing is not None and _rounds(store, build, timing) < timing.rounds)
    )


def _save_facts(store: RawStore, built: Index, build: Build) -> None:
    facts = {
        "backend": build.backend,
        "factory": built.description,
        "build_s": built.build_s,
        "steps_s": dict(built.steps_s),
        "index_bytes": built.index_bytes,
        "peak_bytes": built.peak_bytes,
    }
    # Where it was searched before it had to be built again stays settled: neighbours do not mix.
    before = store.build(build.slug) or {}
    store.save_build(build.slug, facts | {name: before[name] for name in ("index_device",) if name in before})


def _search(store: RawStore, index_store: IndexStore, build: Build, vectors: Searchable, *, k: int) -> None:
    """Search every setting that lacks its neighbours, and note on which device an index is searched."""
    missing = vectors.lacking(store, build.settings)
    backend = backend_of(build.backend, build.spec.index)
    with _placed(store, index_store, build, backend) as built, threads(available_cores(), [backend]):
        for setting, asked in missing:
            queries = vectors.asked[asked][setting.instruction]
            if setting.rescore:
                funnel = vectors.funnel(built, setting)
                found, _ = funnel.search(funnel.prepare(queries.rows), k)
            else:
                found = built.search(queries.at(build.dim), k, dict(setting.search_args))
            store.save_neighbours(setting, found, asked=asked)


@contextmanager
def _placed(store: RawStore, index_store: IndexStore, build: Build, backend: Backend) -> Iterator[Index]:
    """The index on the device where it is searched, which is settled once, at the first time."""
    index, facts = index_store.get(build.slug, backend), store.build(build.slug)
    settled = facts.get("index_device")
    placed = index if settled == index.device else index.accelerated()
    try:
        if settled is None:
            store.save_build(build.slug, facts | {"index_device": placed.device})
        elif placed.device != settled:
            raise ResultsError(
                f"index {build.spec.index!r} at dimension {build.dim} was searched on the {settled} and now "
                f"only the {placed.device} can take it; free the {settled} and go on with resume=True"
            )
        yield placed
    finally:
        if placed is not index:
            placed.close()


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
    truth = FilteredTruth(vectors.corpus, some)
    lacking = {build: timing.rounds - _rounds(store, build, timing) for build in builds}
    total = sum(lacking.values())
    with progress_bar(total=total, label="time searches", unit="index", show=progress) as bar:
        for turn in range(max(lacking.values(), default=0)):
            due = [build for build in builds if lacking[build] > turn]
            for group in _groups(store, index_store, due):
                with ExitStack() as held:
                    loaded = {
                        build: held.enter_context(
                            _placed(store, index_store, build, backend_of(build.backend, build.spec.index))
                        )
                        for build in group
                    }
                    timed = {
                        search: _timed(built, search, vectors, some, k=plan.k)
                        for build, built in loaded.items()
                        for search in build.searches
                    }
                    backends = [backend_of(build.backend, build.spec.index) for build in group]
                    filtered = {
                        search: partial(
                            filtered_samples,
                            None if search.rescore else built,
                            timed[search].queries,
                            truth,
                            timing.filters,
                            k=plan.k,
                            search_args=dict(search.search_args),
                        )
                        for build, built in loaded.items()
                        for search in build.searches
                    }
                    _time_one_round(store, timed, filtered, timing, backends=backends, seed=plan.seed + turn)
                bar.update(len(group))


def _groups(store: RawStore, index_store: IndexStore, builds: Sequence[Build]) -> Iterator[list[Build]]:
    """Builds that are timed in turns: as many as fit into memory together; on another device, one by one."""
    facts = {build.slug: store.build(build.slug) for build in builds}
    on_cpu = {
        name: int(known["index_bytes"]) for name, known in facts.items() if known["index_device"] == "cpu"
    }
    for group in index_store.groups(on_cpu):
        yield [build for build in builds if build.slug in group]
    yield from ([build] for build in builds if build.slug not in on_cpu)


def _timed(built: Index, search: Setting, vectors: Searchable, queries: np.ndarray, *, k: int) -> Timed:
    if not search.rescore:
        return Timed(built.bare_search(k, dict(search.search_args)), truncate(queries, built.dim))
    funnel = vectors.funnel(built, search)
    return Timed(funnel.bare_search(k), funnel.prepare(queries))


def _rounds(store: RawStore, build: Build, timing: TimingPlan) -> int:
    return min(store.rounds_timed(search, sample_names(timing.filters)) for search in build.searches)


def _time_one_round(
    store: RawStore,
    timed: Mapping[Setting, Timed],
    filtered: Mapping[Setting, Callable[[], dict[str, np.ndarray]]],
    timing: TimingPlan,
    *,
    backends: Sequence[Backend],
    seed: int,
) -> None:
    fresh: dict[Setting, dict[str, np.ndarray]] = {search: {} for search in timed}
    for place, count in enumerate(timing.threads):
        with threads(count or available_cores(), backends):
            for search, samples in interleaved(timed, rounds=1, seed=seed).items():
                fresh[search] |= {
                    f"single_ms_{place}": samples.single_ms,
                    f"batch_s_{place}": samples.batch_s,
                }
            if place == 0:
                for search, one in timed.items():
                    if search.rescore:
                        fresh[search]["stage_ms"] = _stage_ms(one)
                    fresh[search] |= filtered[search]()
    for search, samples in fresh.items():
        store.add_timing(search, samples)


def _stage_ms(timed: Timed) -> np.ndarray:
    """Milliseconds of each stage for each query searched alone: (1, queries, stages)."""
    queries = timed.queries
    return 1e3 * np.array([[timed.search(queries[i : i + 1])[1] for i in range(len(queries))]])
