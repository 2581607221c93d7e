"""The main job: one plan, one encode, every setting measured, and a results folder that can go on.

Order: check the plan, embed, search exactly at all dimensions, build and search each index, time all of
them in turns, derive. Everything measured is in the raw store before the next step needs it.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from toolkit.data.load import load_dataset
from toolkit.data.sets import PairSet, RetrievalSet
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.open import open_embedder, stated_full_dim
from toolkit.embedding.pipeline import embed_texts
from toolkit.embedding.protocol import Embedder
from toolkit.errors import DataError, PlanError, ResultsError
from toolkit.experiment.derive import derive, derive_scaling
from toolkit.experiment.environment import environment
from toolkit.experiment.grid import check_grid, lay_out
from toolkit.experiment.grid_search import Searchable, search_grid, time_smaller
from toolkit.experiment.pair_sweep import sweep_pairs
from toolkit.experiment.plan import OBJECT_SPEC, SweepPlan
from toolkit.experiment.results import ENVIRONMENT, MEASUREMENTS, PER_QUERY, PLAN, SCALING, Results
from toolkit.experiment.setting import Setting
from toolkit.experiment.store import RawStore
from toolkit.files import write_atomically
from toolkit.measure.metrics import ChosenMetrics, choose_metrics
from toolkit.progress import progress_bar
from toolkit.search.exact.search import exact_search
from toolkit.space import EmbeddingSpace, Instruction, Role
from toolkit.vectors import Vectors

# A corpus larger than this share of free memory is written to a file and mapped.
_MEMORY_SHARE = 0.25


def run_sweep(
    plan: SweepPlan,
    *,
    out: Path,
    embedder: Embedder | None = None,
    data: RetrievalSet | PairSet | None = None,
    resume: bool = False,
    overwrite: bool = False,
    cache: VectorCache | None = None,
    progress: bool = True,
) -> Results:
    """Measure every setting of `plan` and write the results folder `out`; returns what was written.

    embedder : an open embedder to use instead of the plan's; it stays open. One that the plan names is
        opened here, and closed when its vectors are made.
    data : a set to use instead of the plan's. The recorded plan names such objects ``object:<name>``.
    resume : go on with the sweep that is in `out`.
    overwrite : replace the sweep that is in `out`.
    cache : vector cache; the default folder if not given.

    Raises PlanError before any model is loaded if the plan cannot work, DataError, ModelError,
    ServerError, or ResultsError if `out` cannot be written or holds another sweep.
    """
    plan = _recorded(plan, embedder, data)
    data = load_dataset(plan.data) if data is None else data
    _check_ahead(plan, data, None if embedder is None else embedder.space.full_dim)
    with ExitStack() as until_embedded:
        if embedder is None:
            embedder = open_embedder(plan.embedder)
            until_embedded.callback(embedder.close)
        cache = cache or VectorCache()
        space = embedder.space
        if isinstance(data, PairSet):
            tables = sweep_pairs(plan, embedder, data, cache=cache, progress=progress)
            return _write(out, plan, space, data, tables)
        data = sample_queries(data, plan.max_queries, seed=plan.seed)
        dims = plan.dims_for(space)
        builds = lay_out(plan, dims, space.full_dim)
        check_grid(builds, documents=len(data.docs), k=plan.k)
        identity = {
            "embedding space": space.fingerprint,
            "data": data.content_hash,
            "k": plan.k,
            "seed": plan.seed,
        }
        store = RawStore.create(out, identity, resume=resume, overwrite=overwrite)
        corpus = _embed_corpus(
            embedder, data, store, rescored=bool(plan.rescore), cache=cache, progress=progress
        )
        queries = {
            label: embed_texts(
                embedder, data.queries, role=Role.QUERY, instruction=label, cache=cache, progress=progress
            )
            for label in dict.fromkeys(Instruction.of(text).label for text in plan.instructions)
        }
    _search_exactly(store, corpus, queries, dims, k=plan.k, progress=progress)
    vectors = Searchable(corpus, queries)
    search_grid(store, builds, vectors, plan=plan, progress=progress)
    smaller = time_smaller(store, builds, vectors, plan=plan, progress=progress)
    settings = [setting for build in builds for setting in build.settings]
    if smaller:
        scaling = derive_scaling(smaller | {len(corpus): store}, settings)
        scaling.to_parquet(out / SCALING, index=False)
    tables = derive(
        store,
        settings,
        data,
        metrics=_metrics(plan, data).names,
        full_dim=space.full_dim,
        seed=plan.seed,
    )
    return _write(out, plan, space, data, tables)


def _metrics(plan: SweepPlan, data: RetrievalSet | PairSet) -> ChosenMetrics:
    kind, documents = ("retrieval", len(data.docs)) if isinstance(data, RetrievalSet) else (data.kind, 0)
    return choose_metrics(plan.metrics, kind=kind, k=plan.k, documents=documents)


def _recorded(plan: SweepPlan, embedder: Embedder | None, data: RetrievalSet | PairSet | None) -> SweepPlan:
    """The plan as it is written down: objects that were handed over are named, not described.

    Raises PlanError for a plan that names such an object and is not given it.
    """
    given = {
        "embedder": None if embedder is None else embedder.space.model,
        "data": None if data is None else data.name,
    }
    for field, name in given.items():
        spec = getattr(plan, field)
        if name is None and isinstance(spec, str) and spec.startswith(OBJECT_SPEC):
            raise PlanError(
                f"{field} {spec!r} was an object of a Python program and cannot be opened again; "
                f"pass it as {field}=, or name a {field} spec in the plan"
            )
    return plan.model_copy(
        update={field: f"{OBJECT_SPEC}{name}" for field, name in given.items() if name is not None}
    )


def _check_ahead(plan: SweepPlan, data: RetrievalSet | PairSet, full_dim: int | None) -> None:
    """All of the plan that can be checked before weights are loaded."""
    _check_measurable(data)
    _metrics(plan, data)
    full_dim = stated_full_dim(plan.embedder) if full_dim is None else full_dim
    if full_dim is None:
        return
    dims = plan.dims_within(full_dim)
    if isinstance(data, RetrievalSet):
        check_grid(lay_out(plan, dims, full_dim), documents=len(data.docs), k=plan.k)


def _check_measurable(data: RetrievalSet | PairSet) -> None:
    """Judgements that tell nothing apart would make every setting look perfect."""
    if isinstance(data, RetrievalSet):
        if not any(gain > 0 for gains in data.qrels.values() for gain in gains.values()):
            raise DataError(
                f"{data.name}: every judgement is 0 or negative, so no document is relevant to any query and "
                "there is nothing to measure; relevant documents need a judgement of 1 or more"
            )
    elif data.scores is not None and len(np.unique(data.scores)) == 1:
        raise DataError(
            f"{data.name}: all {len(data.scores):,} human scores are {data.scores[0]:g}, so there is no "
            "order to agree with and nothing to measure; the scores must differ"
        )


def sample_queries(data: RetrievalSet, most: int, *, seed: int) -> RetrievalSet:
    """The set with at most `most` queries, drawn with `seed`, in their order; the corpus stays whole."""
    if len(data.queries) <= most:
        return data
    drawn = np.sort(np.random.default_rng(seed).choice(len(data.queries), size=most, replace=False))
    ids = [data.query_ids[i] for i in drawn]
    return RetrievalSet(
        data.name,
        data.doc_ids,
        data.docs,
        ids,
        [data.queries[i] for i in drawn],
        {query_id: data.qrels[query_id] for query_id in ids},
    )


def _embed_corpus(
    embedder: Embedder,
    data: RetrievalSet,
    store: RawStore,
    *,
    rescored: bool,
    cache: VectorCache,
    progress: bool,
) -> Vectors:
    """The corpus in memory, or mapped from a file where it is large or later stages read it there."""
    import psutil

    size_bytes = len(data.docs) * embedder.space.full_dim * 4
    mapped = rescored or size_bytes > _MEMORY_SHARE * psutil.virtual_memory().available
    return embed_texts(
        embedder,
        data.docs,
        role=Role.DOCUMENT,
        cache=cache,
        out=store.folder / "corpus.npy" if mapped else None,
        progress=progress,
    )


def _search_exactly(
    store: RawStore,
    corpus: Vectors,
    queries: dict[str, Vectors],
    dims: list[int],
    *,
    k: int,
    progress: bool,
) -> None:
    for label, vectors in queries.items():
        missing = [dim for dim in dims if store.neighbours(Setting(dim, instruction=label)) is None]
        if not missing:
            continue
        bar = progress_bar(
            total=len(corpus), label=f"exact search, {len(missing)} dims", unit="doc", show=progress
        )
        with bar:
            found = exact_search(corpus.rows, vectors.rows, missing, k=k, progress=bar.update)
        for dim, neighbours in found.items():
            store.save_neighbours(Setting(dim, instruction=label), neighbours)


def _write(
    out: Path, plan: SweepPlan, space: EmbeddingSpace, data: RetrievalSet | PairSet, tables: tuple
) -> Results:
    measurements, per_query = tables
    measurements.insert(0, "dataset", data.name)
    measurements.insert(1, "model", space.model)
    about = environment(space) | {
        "data": {"name": data.name, "hash": data.content_hash, "size": repr(data)},
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / PLAN, plan.to_toml().encode())
        write_atomically(out / ENVIRONMENT, json.dumps(about, indent=2, ensure_ascii=False).encode())
        per_query.to_parquet(out / PER_QUERY, index=False)
        measurements.to_csv(out / "measurements.csv", index=False)
        measurements.to_parquet(out / MEASUREMENTS, index=False)
    except OSError as error:
        raise ResultsError(
            f"results folder {out} cannot be written ({error.strerror}); choose another with --out"
        ) from error
    return Results(out, plan, about, measurements)
