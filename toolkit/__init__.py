"""Measure which embedding dimension, precision, index and instruction your data needs.

    embedder = toolkit.open_embedder("static")          # or "local:<model>", "http://host:port/v1#<model>"
    rows = toolkit.embed(embedder, ["a text"], dim=128)  # (1, 128) float32, unit rows
    results = toolkit.sweep(embedder="static", data="builtin", out="results/first")
    results.plot()

Importing this loads no model and no heavy package; each function loads what it needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolkit.errors import PlanError, ToolkitError, ToolkitWarning
from toolkit.space import EmbeddingSpace, Instruction, Role

if TYPE_CHECKING:
    import numpy as np

    from toolkit.at_scale.run import ScaleTest
    from toolkit.conformance.check import Conformance
    from toolkit.data.sets import PairSet, RetrievalSet
    from toolkit.decide.cost import Prices
    from toolkit.decide.recommendation import Recommendation
    from toolkit.embedding.cache import VectorCache
    from toolkit.embedding.config import AnyConfig
    from toolkit.embedding.protocol import Embedder
    from toolkit.experiment.instructions import InstructionEffects
    from toolkit.experiment.plan import SweepPlan
    from toolkit.experiment.results import Results
    from toolkit.measure.noninferiority import Grade
    from toolkit.notebook.comparison import ComparisonView
    from toolkit.notebook.views import ResultsView
    from toolkit.scale.ray_workers import RayWorkers
    from toolkit.vectors import Vectors

try:
    __version__ = version("embedding-toolkit")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

__all__ = [
    "EmbeddingSpace",
    "Instruction",
    "PairSet",
    "RetrievalSet",
    "Role",
    "SweepPlan",
    "ToolkitError",
    "ToolkitWarning",
    "Vectors",
    "__version__",
    "check",
    "compare",
    "compare_instructions",
    "embed",
    "load_dataset",
    "load_results",
    "open_embedder",
    "pair_set",
    "recommend",
    "retrieval_set",
    "scale_test",
    "sweep",
    "sweep_several",
    "texts",
]

_LAZY = {
    "PairSet": "toolkit.data.sets",
    "RetrievalSet": "toolkit.data.sets",
    "SweepPlan": "toolkit.experiment.plan",
    "Vectors": "toolkit.vectors",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'toolkit' has no attribute {name!r}")


def open_embedder(
    spec: str | AnyConfig | Embedder | object, *, devices: Sequence[str | int] | None = None
) -> Embedder:
    """Open an embedder: a spec, a config, a SentenceTransformer, or an object with `space` and `encode(texts)`.

        toolkit.open_embedder("static")  # or "local:<id or folder>", "http://host:port/v1#<model>"

    devices : of this machine, such as ``[0, 1]`` or ``["cuda:0", "cuda:1"]``: an engine in a process for each, one
        queue in front of them. Close the embedder, or use it in ``with``, to end them.

    Raises PlanError for an unknown spec, ModelError, DeviceError or ServerError if it cannot be opened.
    """
    from toolkit.embedding.open import open_embedder as opened

    return opened(spec, devices=devices)


def embed(
    embedder: str | Embedder,
    texts: Sequence[str],
    *,
    dim: int | None = None,
    role: Role | str = Role.DOCUMENT,
    instruction: str | Instruction | None = None,
    cache: VectorCache | None = None,
    progress: bool = True,
) -> np.ndarray:
    """Embed texts at a dimension; returns (n, dim) float32 unit rows in input order.

    dim : 1..full dimension; None is the full one. Shorter vectors are prefixes, normalized again.
    role : ``document`` or ``query``; instructions apply to queries only.
    instruction : None is the model's default, ``""`` none, else the text.
    cache : a VectorCache to look vectors up in and keep them; None computes them anew.

    Raises DimensionError outside the range; warns (DimensionWarning) below the model's stated minimum.
    """
    from toolkit.embedding.pipeline import embed_texts

    if isinstance(texts, str):
        raise PlanError(f"texts must be a list of strings, got one string; write [{texts[:30]!r}]")
    texts = list(texts)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise PlanError(f"texts[{i}] is {text!r:.40}, not a string; convert or drop it")
    if Role(role) is Role.DOCUMENT and instruction is not None:
        raise PlanError(
            f"instruction {str(instruction)[:40]!r} has no effect on documents; instructions apply to queries: "
            "give role='query', or leave the instruction out"
        )
    engine = open_embedder(embedder)
    chosen = engine.space.check_dim(dim)
    vectors = embed_texts(
        engine, texts, role=Role(role), instruction=instruction, cache=cache, progress=progress
    )
    return vectors.rows if chosen == vectors.full_dim else vectors.at(chosen)


def load_dataset(spec: str) -> RetrievalSet | PairSet:
    """Open an evaluation set: ``builtin``, ``beir:<folder>[@split]``, ``csv:<file>``, ``mteb:<task>`` ..

    ``csv:``, ``parquet:`` and ``jsonl:`` take a file of judged pairs with columns ``query``, ``document`` and, if
    there is one, ``score``; or a folder of three tables, documents (id, text), queries (id, text) and qrels
    (query_id, document_id, score). ``texts:<file>`` is a file of documents alone, one per line or a table with a
    column ``text``; a folder without qrels, too, is a set without judgements. ``pairs:<file.tsv>`` is a pair set.
    Raises PlanError for an unknown spec, DataError for content that cannot be used.
    """
    from toolkit.data.load import load_dataset as loaded

    return loaded(spec)


def retrieval_set(
    docs: Any,  # noqa: ANN401
    queries: Any,  # noqa: ANN401
    qrels: Any,  # noqa: ANN401
    *,
    clusters: Any = None,  # noqa: ANN401
    name: str = "data",
) -> RetrievalSet:
    """A retrieval set from lists, dictionaries, or pandas or polars frames.

        toolkit.retrieval_set(
            docs=["a cat", "a dog"], queries=["which one purrs?"], qrels={0: [0]}
        )

    docs, queries : texts; a dictionary from id to text; or a frame with ``id`` and ``text``. Queries without a
        judgement are kept as such: they are searched, for what rankings alone can tell.
    qrels : a dictionary from query id to document ids or gains; (query id, document id[, gain]) triples; or a
        frame with ``query_id``, ``document_id`` and, if there is one, ``score``. Lists are numbered from 0.
    clusters : a dictionary from query id to cluster, or a frame with ``query_id`` and ``cluster``: queries of one
        cluster are not independent. A column ``cluster`` of the queries says the same.

    Raises DataError naming what is missing or does not fit.
    """
    from toolkit.data.frames import retrieval_set as made

    return made(docs, queries, qrels, clusters=clusters, name=name)


def texts(docs: Any, queries: Any = None, *, clusters: Any = None, name: str = "texts") -> RetrievalSet:  # noqa: ANN401
    """A set without any judgement: documents and, if there are any, queries.

        toolkit.texts(docs=["a cat", "a dog", ..], queries=["which one purrs?", ..])

    A sweep of it says how far each setting's rankings agree with the exact full-dimension search's: agreement,
    not quality. `docs`, `queries` and `clusters` are as in `retrieval_set`; a frame needs no ``id``, and may call
    its queries ``query``. Without queries, sentences of the documents stand in for them, and are called that.

    Raises DataError naming what is missing or does not fit.
    """
    from toolkit.data.frames import texts as made

    return made(docs, queries, clusters=clusters, name=name)


def pair_set(left: Any, right: Any = None, scores: Any = None, *, name: str = "pairs") -> PairSet:  # noqa: ANN401
    """A pair set: two lists of texts with a human score per pair, or without scores translations of each other.

        toolkit.pair_set(["a cat", "a dog"], ["a kitten", "a car"], [4.5, 0.3])

    left : a frame with ``sentence1``, ``sentence2`` and ``score`` will do alone. Raises DataError.
    """
    from toolkit.data.frames import pair_set as made

    return made(left, right, scores, name=name)


def sweep(
    plan: SweepPlan | str | Path | None = None,
    *,
    out: str | Path | None = None,
    embedder: str | AnyConfig | Embedder | object | None = None,
    data: str | RetrievalSet | PairSet | Any = None,  # noqa: ANN401
    dims: Sequence[int] | Literal["auto"] | None = None,
    precisions: Sequence[str] | None = None,
    indexes: Sequence[str | Mapping[str, Any]] | None = None,
    instructions: Sequence[str] | None = None,
    rescore: Sequence[Any] | None = None,
    k: int | None = None,
    metrics: Sequence[str] | Literal["auto"] | None = None,
    max_queries: int | None = None,
    unlabelled: Any = None,  # noqa: ANN401
    max_unlabelled: int | None = None,
    clusters: str | Path | None = None,
    timing: Mapping[str, Any] | None = None,
    seed: int | None = None,
    devices: Sequence[str | int] | None = None,
    ray: RayWorkers | None = None,
    resume: bool = False,
    overwrite: bool = False,
    cache: VectorCache | None = None,
    progress: bool = True,
) -> ResultsView:
    """Measure every setting from a single encode, and write the results folder and report.

        results = toolkit.sweep(embedder="static", data="builtin", dims=[64, 256], out="results/first")
        results = toolkit.sweep(embedder=(doc_rows, query_rows), data=(docs, queries, qrels))

    Run again, it goes on where it stopped, or opens what is there and says so.

    plan : a SweepPlan or the path of a TOML file; what is given beside it replaces its fields, and what neither
        gives has the default stated here.
    out : results folder. Without one, ``results/<data>-<embedder>-<hash of the plan>``: the same call finds it again.
    embedder : a spec, a config, a SentenceTransformer, a function from a list of texts to rows, any object with
        `space` and `encode(texts)` (an open one stays open), or vectors that are there: (documents, queries), two
        arrays of shape (n, dimension) in the set's order; documents may be a memory-mapped file of float16 or
        float32, larger than memory, of which no copy is made. Default ``static``.
    data : a spec; a set such as `retrieval_set` makes; a frame with columns ``query`` and ``document``; a list of
        texts; (docs, queries) or (docs, queries, qrels). Default ``builtin``; for vectors that are there, the vectors
        alone: no texts and no judgements, and what the exact search finds is what counts as relevant.
    dims : embedding dimensions, the full one is always among them; ``"auto"`` (default) is 32, 48, 64, 96, ..
    precisions : of stored vectors: ``float32`` (default), ``float16``, ``int8``, ``binary`` ..
    indexes : ``Flat`` (default), ``HNSW32``, ``IVF256`` .., or dictionaries as `IndexPlan` takes them.
    instructions : of queries: ``default`` is the model's own, ``none`` no instruction, else the text.
    rescore : later stages to try beside plain search, for example ``[{"dim": "full", "candidates": 400}]``.
    k : neighbours kept; 100, or all of a smaller corpus.
    metrics : quality measures such as ``ndcg@10``; the first is what settings are judged by.
    max_queries : larger sets are sampled to so many queries (2,000); 0 measures all.
    unlabelled : queries without judgements, searched too for what rankings alone tell, and never timed: texts, a
        frame, or a file, one query per line. Else those of the data that nobody judged; else sentences of the
        documents stand in for them.
    max_unlabelled : at most so many of them (2,000); 0 searches none.
    clusters : a file of query ids and clusters, for data that does not say which queries are not independent.
    timing : fields of `TimingPlan`, for example ``{"queries": 100, "rounds": 2}``.
    seed : of samples, k-means and graphs (0).
    devices : of this machine, such as ``[0, 1]``: texts are encoded on all of them, and the exact search runs on all
        that are GPUs.
    ray : workers that do the exact search, for a corpus too large for one process:
        ``toolkit.scale.ray_workers.RayWorkers(address="auto", gpus_per_worker=1)``.
    resume : lets a plan add settings to the sweep that is in `out`.
    overwrite : removes what is in `out` first.
    cache : a VectorCache; the default folder if not given.

    Raises PlanError before any model loads if the plan cannot work; DataError, ModelError, ServerError or
    ResultsError. Nothing computed is lost.
    """
    from toolkit.notebook.front import swept

    fields = {
        "dims": dims,
        "precisions": precisions,
        "indexes": indexes,
        "instructions": instructions,
        "rescore": rescore,
        "k": k,
        "metrics": metrics,
        "max_queries": max_queries,
        "max_unlabelled": max_unlabelled,
        "clusters": None if clusters is None else str(clusters),
        "timing": timing,
        "seed": seed,
    }
    return swept(
        plan,
        out=out,
        embedder=embedder,
        data=data,
        unlabelled=unlabelled,
        devices=devices,
        ray=ray,
        fields=fields,
        resume=resume,
        overwrite=overwrite,
        cache=cache,
        progress=progress,
    )


def sweep_several(
    plan: SweepPlan | str | Path | None = None,
    *,
    out: str | Path,
    embedders: Sequence[str | AnyConfig | Embedder | object] | None = None,
    data: Sequence[Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    cache: VectorCache | None = None,
    progress: bool = True,
    **fields: Any,  # noqa: ANN401 - those of SweepPlan
) -> ComparisonView:
    """Sweep every embedder over every data set, one results folder for each pair beneath `out`, and compare them.

        toolkit.sweep_several(embedders=["static", "local:my/model"], data=["builtin", "csv:my.csv"], out="results/two")

    Run again, it goes on where it stopped. Writes ``comparison.html`` and ``comparison.csv`` into `out`.

    plan : a SweepPlan or a TOML file, which may say ``embedders = [..]`` and ``data = [..]``; what is given beside it
        replaces its fields.
    out : folder for all results folders.
    embedders : each as `sweep` takes one. data : sets, each as `sweep` takes one.
    resume, overwrite : of each sweep; as in `sweep`.
    cache : a VectorCache; the default folder if not given.
    fields : others of the plan, such as ``dims`` and ``max_queries``, for all sweeps alike.

    Raises PlanError before any model loads if one of the plans cannot work. A sweep that fails later does not stop
    the others; ResultsError at the end names it.
    """
    from toolkit.notebook.comparison import swept_several

    return swept_several(
        plan,
        embedders=embedders,
        data=data,
        out=out,
        fields=fields,
        resume=resume,
        overwrite=overwrite,
        cache=cache,
        progress=progress,
    )


def compare_instructions(
    embedder: str | AnyConfig | Embedder | object,
    data: str | RetrievalSet | Any,  # noqa: ANN401
    instructions: Sequence[str] | Mapping[str, str | Mapping[str, str]],
    *,
    dims: Sequence[int] | None = None,
    metric: str = "ndcg@10",
    pools: Mapping[str, Sequence[str]] | None = None,
    max_queries: int = 2_000,
    seed: int = 0,
    cache: VectorCache | None = None,
    progress: bool = True,
) -> InstructionEffects:
    """What instructions are worth: the same queries with each, paired with the first, whole clusters at a time.

        toolkit.compare_instructions("static", "builtin", ["none", "Find the function that does this"]).frame()

    embedder, data : as `sweep` takes them; the data needs judgements.
    instructions : ``none``, ``default`` or texts; or a dictionary from a name to a text, or to a dictionary from query
        id to text, where each query has its own. Others are held against the first.
    dims : beside the full dimension. metric : of `toolkit.measure.metrics`.
    pools : query id -> document ids that alone are ranked for it, where only a pool was judged.
    max_queries : larger sets are sampled to so many, with `seed`; 0 takes all.
    cache : a VectorCache; the default folder if not given.

    Raises PlanError for instructions or pools that lack a query, and for data without judgements.
    """
    from toolkit.data.given import as_set
    from toolkit.embedding.cache import VectorCache
    from toolkit.embedding.config import AnyConfig
    from toolkit.experiment.instructions import measure_instructions

    found = load_dataset(data) if isinstance(data, str) else as_set(data)
    opened = open_embedder(embedder)
    try:
        return measure_instructions(
            opened,
            found,
            instructions,
            dims=dims,
            metric=metric,
            pools=pools,
            max_queries=max_queries,
            seed=seed,
            cache=VectorCache() if cache is None else cache,
            progress=progress,
        )
    finally:
        if isinstance(embedder, str | AnyConfig):
            opened.close()


def compare(*results: str | Path | Results | ResultsView) -> ComparisonView:
    """Models side by side: the sweeps beneath a folder, or several results folders.

        toolkit.compare("results/two").frame()  # or toolkit.compare("results/a", "results/b")

    results : folders of `sweep_several`, results folders, or what `sweep` and `load_results` return.

    Raises ResultsError if there is nothing finished, or if sweeps over one data set measured different queries.
    """
    from toolkit.notebook.comparison import compared

    return compared(*results)


def load_results(folder: str | Path) -> ResultsView:
    """Open a results folder without model or FAISS; raises ResultsError if it holds no finished sweep."""
    from toolkit.experiment.results import Results
    from toolkit.notebook.views import ResultsView

    return ResultsView(Results.load(folder))


def recommend(
    results: str | Path | Results | ResultsView,
    *,
    keep: float = 0.99,
    metric: str | None = None,
    max_bytes_per_vector: float | None = None,
    max_p95_ms: float | None = None,
    corpus_size: int | None = None,
    prices: Prices | None = None,
    grade: Grade = "likely",
) -> Recommendation:
    """The cheapest setting of a sweep that keeps the quality asked for, with 95 % confidence.

    results : a results folder, or what `sweep` and `load_results` return.
    keep : share of the exact full-dimension search's quality to keep, above 0 and up to 1.
    metric : the quality, ``ndcg@10`` ..; None is the one the sweep is judged by.
    max_bytes_per_vector, max_p95_ms : limits, inclusive; None is none.
    corpus_size : documents to plan for; None is the measured corpus.
    prices : a `toolkit.decide.cost.Prices`; documented assumptions if not given.
    grade : the least that counts as keeping the quality: ``likely``, or ``proven``.

    Raises PlanError for a demand that makes no sense, ResultsError for a folder that cannot be priced.
    """
    from toolkit.notebook.views import as_view

    return as_view(results).recommend(
        keep=keep,
        metric=metric,
        max_bytes_per_vector=max_bytes_per_vector,
        max_p95_ms=max_p95_ms,
        corpus_size=corpus_size,
        prices=prices,
        grade=grade,
    )


def scale_test(
    results: str | Path | Results | ResultsView,
    documents: int,
    *,
    setting: str | None = None,
    distractors: Sequence[str] | None = None,
    data: str | RetrievalSet | None = None,
    embedder: Embedder | None = None,
    cache: VectorCache | None = None,
    progress: bool = True,
) -> ScaleTest:
    """Pad a sweep's corpus to `documents`, build the index one would run there, measure recall, latency and memory.

    results : a results folder, or what `sweep` and `load_results` return; the result is kept in its scale_test.json.
    documents : size to measure at.
    setting : of the sweep, by its key; None is the recommended one at that size.
    distractors : texts of other documents to pad with; vectors are drawn for what they leave.
    data, embedder : where the plan's cannot be opened again.
    cache : a VectorCache; the default folder if not given.

    Raises PlanError, with the numbers, for what has no room in memory or on the disk; ResultsError.
    """
    from toolkit.at_scale.run import scale_test as run
    from toolkit.notebook.views import as_view

    return run(
        as_view(results).results,
        documents,
        setting=setting,
        distractors=distractors,
        data=data,
        embedder=embedder,
        cache=cache,
        progress=progress,
    )


def check(
    url: str,
    *,
    model: str,
    reference: str | Embedder | object | None = None,
    data: str | RetrievalSet | None = None,
    risky: bool = False,
    api_key_env: str | None = None,
    timeout_s: float = 60.0,
    progress: bool = True,
) -> Conformance:
    """Whether an embedding server does what its API promises; each finding with what it means and what mends it.

        toolkit.check("http://127.0.0.1:30000/v1", model="m", reference="local:Qwen/Qwen3-Embedding-4B")

    url : ends in ``/v1`` (OpenAI's API), ``/embed`` (TEI), ``/v2/embed`` (Cohere) or ``/api/embed`` (Ollama).
    reference : the same model on this machine; without it, prompts, end token and pooling cannot be compared.
    data : a retrieval set to measure on what findings cost in nDCG@10.
    risky : also send what could take the server down, last.
    api_key_env : environment variable with the key, which goes to this server only; SECURITY.md has the rules.

    Raises ServerError if it cannot be reached or gives no vectors, PlanError for arguments that cannot work.
    """
    from toolkit.conformance.check import check_server
    from toolkit.data.sets import RetrievalSet
    from toolkit.embedding.config import RemoteConfig, checked_config
    from toolkit.embedding.keys import key_for

    config = checked_config(RemoteConfig, {"base_url": url, "model": model, "api_key_env": api_key_env})
    chosen = load_dataset(data) if isinstance(data, str) else data
    if chosen is not None and not isinstance(chosen, RetrievalSet):
        raise PlanError(f"data {data!r:.40} has no documents to search; give a retrieval set such as builtin")
    return check_server(
        config.base_url,
        config.model,
        reference=None if reference is None else open_embedder(reference),
        data=chosen,
        risky=risky,
        key=key_for(config),
        timeout_s=timeout_s,
        progress=progress,
    )
