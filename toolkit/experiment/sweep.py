"""The main job: one plan, one encode, every setting measured, and a results folder that can be continued.

Order: check the plan, claim the folder, embed, measure what the raw store lacks, derive. The same way for
retrieval sets and sets of pairs; what differs between them is in `retrieval_sweep` and `pair_sweep`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from toolkit.data.columns import Texts
from toolkit.data.load import load_dataset
from toolkit.data.sets import PairSet, RetrievalSet
from toolkit.embedding.adapt import as_engine
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.devices import device_names
from toolkit.embedding.open import open_embedder, stated_full_dim
from toolkit.embedding.protocol import Embedder
from toolkit.errors import MissingPackageError, PlanError
from toolkit.experiment.environment import conditions, environment, search_versions
from toolkit.experiment.folder import ResultsFolder
from toolkit.experiment.identity import Identity
from toolkit.experiment.machine import HostLoad, load_average, usable_cores
from toolkit.experiment.outlook import Outlook
from toolkit.experiment.pair_sweep import PairSweep, sample_pairs
from toolkit.experiment.plan import OBJECT_SPEC, SweepPlan
from toolkit.experiment.queries import asked_queries
from toolkit.experiment.results import Results
from toolkit.experiment.retrieval_sweep import RetrievalSweep
from toolkit.experiment.setting import Setting
from toolkit.experiment.store import RawStore
from toolkit.progress import waiting
from toolkit.search.backend import backend_of
from toolkit.search.exact.search import ExactSearch, exact_search
from toolkit.search.exact.sharded import search_on_devices
from toolkit.search.faiss.factory import load_faiss

# Others' use of this share of the cores makes timings doubtful.
_BUSY_SHARE = 0.1
NOTHING_LACKED = "nothing lacked, so nothing was measured again"


def run_sweep(
    plan: SweepPlan,
    *,
    out: Path,
    embedder: Embedder | None = None,
    data: RetrievalSet | PairSet | None = None,
    unlabelled: Texts | None = None,
    devices: Sequence[str | int] | None = None,
    exactly: ExactSearch | None = None,
    resume: bool = False,
    overwrite: bool = False,
    cache: VectorCache | None = None,
    progress: bool = True,
    before: Callable[[Outlook], None] | None = None,
) -> Results:
    """Measure every setting of `plan` and write the results folder `out`; returns what was written.

    embedder : an open embedder, or any object with `space` and `encode` or `stream`, to use instead of the
        plan's; it stays open. One that the plan names is opened here, and closed when its vectors are made.
    data : a set to use instead of the plan's. The recorded plan names such objects ``object:<name>``.
    unlabelled : queries without judgements to use instead of those of the plan's file, or the set's own.
    devices : of this machine, to encode on all of them, see `open_embedder`; and where several are GPUs, to find the
        true neighbours on them.
    exactly : finds the true neighbours in place of this process.
    resume : continue the sweep that is in `out`, also with a plan that adds settings to it. The plan that
        was begun there is continued without it.
    overwrite : remove the sweep that is in `out` first.
    cache : vector cache; the default folder if not given.
    before : called once, when all is known and before anything long or anything is removed; what it raises stops
        the sweep.

    Raises PlanError before any model is loaded if the plan cannot work, DataError, ModelError,
    ServerError, or ResultsError if `out` cannot be written, is being written by another process or holds
    another sweep.
    """
    if embedder is not None and devices is not None:
        raise PlanError("devices has no effect on an embedder that is already open; open it with devices=")
    embedder = None if embedder is None else as_engine(embedder)
    plan = _recorded(plan, embedder, data, unlabelled)
    if data is None:
        with waiting(f"read {plan.data}", show=progress):
            data = load_dataset(plan.data)
    sweep, notes = _prepared(plan, data, unlabelled)
    if exactly is not None and not isinstance(sweep, RetrievalSweep):
        raise PlanError("a set of pairs has no corpus to search on Ray workers; leave it out (ray=)")
    if isinstance(sweep, RetrievalSweep):
        sweep = replace(sweep, exactly=exactly or _on_gpus(devices))
    plan = sweep.plan
    sweep.check()
    sweep.check_dims(stated_full_dim(plan.embedder) if embedder is None else embedder.space.full_dim)
    load_at_start = load_average()
    with ExitStack() as held:
        folder = held.enter_context(ResultsFolder.opened(out))
        allowed = {"resume": resume, "overwrite": overwrite}
        folder.check(sweep.kind, sweep.identity, plan, **allowed)
        until_embedded = held.enter_context(ExitStack())
        if embedder is None:
            with waiting(f"open {plan.embedder}", show=progress):
                embedder = open_embedder(plan.embedder, devices=devices)
            until_embedded.callback(embedder.close)
        space = embedder.space
        settings = sweep.settings(space)
        shared = {"embedding space": space.fingerprint} | sweep.identity
        cache = cache or VectorCache()
        if before is not None:
            store = RawStore(folder.raw, _identity(plan, shared, settings))
            held_already = [] if overwrite else [one for one in settings if store.holds(one)]
            before(sweep.outlook(embedder, settings, held_already, cache))
        folder = folder.begin(sweep.kind, shared, plan, [one.key for one in settings], **allowed)
        store = RawStore(folder.raw, _identity(plan, shared, settings))
        folder.save_conditions(store.identity)
        if folder.continued:
            notes += _continued(store, settings)
        vectors = sweep.embed(embedder, store, cache=cache, progress=progress)
        until_embedded.close()
        load = HostLoad()
        tables = sweep.measure(store, vectors, space, progress=progress)
        about = environment(space)
        host = {"load_average_start": load_at_start} | load.facts()
        earlier = folder.earlier_host_load()
        if float(earlier.get("cores_used_by_others", 0)) > host["cores_used_by_others"]:
            host = earlier  # samples of that run are among those that count
        notes += sweep.notes
        if folder.continued and not store.saved:
            notes.append(NOTHING_LACKED)
        if tables.timed:
            notes += _busy(host, usable_cores())
        about |= {
            "host_load": host,
            "data": _about(sweep.data),
            "notes": notes,
            "other_conditions": folder.other_conditions(store.identity),
        }
        tables.measurements.insert(0, "dataset", sweep.data.name)
        tables.measurements.insert(1, "model", space.model)
        folder.write(plan, about, tables)
    return Results(out, plan, about, tables.measurements, notes=tuple(notes))


def check_sweep(plan: SweepPlan, data: RetrievalSet | PairSet, *, full_dim: int | None = None) -> None:
    """Raise PlanError if the sweep cannot work, as far as that is known before a model loads.

    full_dim : of an open embedder; the plan's states its own, where it can be known without its weights.
    """
    sweep, _ = _prepared(plan, data, None)
    sweep.check()
    named = sweep.plan.embedder
    if full_dim is None and not (isinstance(named, str) and named.startswith(OBJECT_SPEC)):
        full_dim = stated_full_dim(named)
    sweep.check_dims(full_dim)


def as_measured(plan: SweepPlan, data: RetrievalSet, *, unlabelled: Texts | None = None) -> RetrievalSet:
    """The set as a sweep of this plan measures it: with the queries it samples, and those it takes from elsewhere.

    unlabelled : the queries without judgements that the sweep was handed. Raises PlanError if it was, and they are
        not given.
    """
    if unlabelled is None and plan.unlabelled is not None and plan.unlabelled.startswith(OBJECT_SPEC):
        raise _not_opened_again("unlabelled", plan.unlabelled)
    return _prepared(plan, data, unlabelled)[0].data


def _prepared(
    plan: SweepPlan, data: RetrievalSet | PairSet, unlabelled: Texts | None
) -> tuple[RetrievalSweep | PairSweep, list[str]]:
    """The sweep over what `max_queries` leaves of the data, and notes on what differs from the plan."""
    if isinstance(data, RetrievalSet):
        fitted = plan.for_corpus(len(data.docs))
        notes = []
        if fitted.k < plan.k:
            notes.append(f"k is {fitted.k}, as the corpus holds no more documents (by default {plan.k})")
        asked, more = asked_queries(data, plan, unlabelled=unlabelled)
        return RetrievalSweep(fitted, asked), notes + more
    for field in ("unlabelled", "clusters"):
        if getattr(plan, field) is not None:
            raise PlanError(f"{field} has no effect on a set of pairs; leave it out")
    sampled = sample_pairs(data, plan.max_queries, seed=plan.seed)
    if len(sampled.left) == len(data.left):
        return PairSweep(plan, sampled), []
    note = (
        f"{len(sampled.left):,} of {len(data.left):,} pairs were measured, drawn at random with seed {plan.seed} "
        "(max_queries; 0 measures all)"
    )
    return PairSweep(plan, sampled), [note]


def _on_gpus(devices: Sequence[str | int] | None) -> ExactSearch:
    """An exact search on all of `devices` if they are several GPUs; each named once."""
    gpus = [name for name in dict.fromkeys(device_names(devices or ["cpu"])) if name != "cpu"]
    return partial(search_on_devices, devices=gpus) if len(gpus) > 1 else exact_search


def _identity(plan: SweepPlan, shared: Mapping[str, object], settings: Sequence[Setting]) -> Identity:
    with suppress(MissingPackageError):
        load_faiss()  # its libraries are among the conditions
    timing = {"queries": plan.timing.queries, "threads": plan.timing.threads}
    named = {(setting.backend, setting.index) for setting in settings}
    return Identity(
        sweep=shared,
        versions=search_versions(backend_of(*one) for one in named),
        conditions=conditions(),
        timing=timing,
    )


def _continued(store: RawStore, settings: Sequence[Setting]) -> list[str]:
    """What is taken over from earlier runs, and what cannot be."""
    kept = sum(store.holds(setting) for setting in settings)
    notes = [f"continued: {kept:,} of {len(settings):,} settings had been searched before"]
    searches = {setting.search for setting in settings}
    others = sum(store.timed_otherwise(search) > 0 for search in searches)
    if others:
        notes.append(
            f"{others:,} of {len(searches):,} searches had been timed under other conditions (machine, "
            "threads, versions or number of queries); those samples are kept in raw/ and not used"
        )
    return notes


def _busy(host: Mapping[str, object], cores: int) -> list[str]:
    others = float(host["cores_used_by_others"])
    if others < _BUSY_SHARE * cores:
        return []
    return [
        f"other programs used {others:.1f} of {cores} cores on average while this ran: latency and "
        "throughput may be worse than on an idle machine"
    ]


def _about(data: RetrievalSet | PairSet) -> dict[str, object]:
    """What the folder says of the data."""
    facts: dict[str, object] = {"name": data.name, "hash": data.content_hash, "size": repr(data)}
    if isinstance(data, RetrievalSet):
        ids = (*data.query_ids, *data.unlabelled_ids)
        facts |= {
            "labelled": data.labelled,
            "unlabelled": len(data.unlabelled),
            "unlabelled_source": data.unlabelled_source,
            "clusters": len({data.clusters[i] for i in ids if data.clusters.get(i)}),
        }
    return facts


def _recorded(
    plan: SweepPlan,
    embedder: Embedder | None,
    data: RetrievalSet | PairSet | None,
    unlabelled: Texts | None,
) -> SweepPlan:
    """The plan as it is written down: objects that were handed over are named, not described.

    Raises PlanError for a plan that names such an object and is not given it.
    """
    given = {
        "embedder": None if embedder is None else embedder.space.model,
        "data": None if data is None else data.name,
        "unlabelled": None if unlabelled is None else f"{len(unlabelled.ids)} queries",
    }
    for field, name in given.items():
        spec = getattr(plan, field)
        if name is None and isinstance(spec, str) and spec.startswith(OBJECT_SPEC):
            raise _not_opened_again(field, spec)
    return plan.model_copy(
        update={field: f"{OBJECT_SPEC}{name}" for field, name in given.items() if name is not None}
    )


def _not_opened_again(field: str, spec: str) -> PlanError:
    return PlanError(
        f"{field} {spec!r} was an object of a Python program and cannot be opened again; "
        f"pass it as {field}=, or name another {field} in the plan"
    )
