"""Measure which embedding dimension, precision, index and instruction your data needs.

    embedder = toolkit.open_embedder("static")          # or "local:<model>", "http://host:port/v1#<model>"
    rows = toolkit.embed(embedder, ["a text"], dim=128)  # (1, 128) float32, unit rows
    results = toolkit.sweep(embedder="static", data="builtin", out="results/first")
    results.plot()

Importing this loads no model and no heavy package; each function loads what it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import PlanError, ToolkitError, ToolkitWarning
from toolkit.space import EmbeddingSpace, Instruction, Role

if TYPE_CHECKING:
    import numpy as np

    from toolkit.data.sets import PairSet, RetrievalSet
    from toolkit.decide.cost import Prices
    from toolkit.decide.recommendation import Recommendation
    from toolkit.embedding.cache import VectorCache
    from toolkit.embedding.config import LocalConfig, RemoteConfig, StaticConfig
    from toolkit.embedding.protocol import Embedder
    from toolkit.experiment.plan import SweepPlan
    from toolkit.experiment.results import Results
    from toolkit.notebook.views import ResultsView
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
    "embed",
    "load_dataset",
    "load_results",
    "open_embedder",
    "recommend",
    "sweep",
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


def open_embedder(spec: str | StaticConfig | LocalConfig | RemoteConfig | Embedder) -> Embedder:
    """Open an embedder: ``static``, ``local:<id or folder>``, ``http://host:port/v1#<model>``, or a config.

    Raises PlanError for an unknown spec, ModelError or ServerError if it cannot be opened.
    """
    from toolkit.embedding.open import open_embedder as opened

    return opened(spec)


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
    engine = open_embedder(embedder)
    chosen = engine.space.check_dim(dim)
    vectors = embed_texts(
        engine, texts, role=Role(role), instruction=instruction, cache=cache, progress=progress
    )
    return vectors.rows if chosen == vectors.full_dim else vectors.at(chosen)


def load_dataset(spec: str) -> RetrievalSet | PairSet:
    """Open an evaluation set: ``builtin``, ``beir:<folder>[@split]``, ``pairs:<file.tsv>``, ``mteb:<task>``.

    Raises PlanError for an unknown spec, DataError for content that cannot be used.
    """
    from toolkit.data.load import load_dataset as loaded

    return loaded(spec)


def sweep(
    plan: SweepPlan | str | Path | None = None,
    *,
    out: str | Path,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    **fields: Any,  # noqa: ANN401 - the fields of SweepPlan
) -> ResultsView:
    """Measure every setting of a plan from a single encode, and write the results folder and report.

    plan : a SweepPlan or the path of a TOML file; `fields` (``data=``, ``dims=`` ..) override it.
    out : results folder. The same plan continues what was begun there; ``resume=True`` lets a plan add
        settings to it, ``overwrite=True`` replaces it.

    Raises PlanError, DataError, ModelError, ServerError or ResultsError; nothing computed is lost.
    """
    from toolkit.experiment.plan import resolve_plan
    from toolkit.experiment.sweep import run_sweep
    from toolkit.notebook.views import ResultsView
    from toolkit.report.write import write_report

    results = run_sweep(
        resolve_plan(plan, **fields), out=Path(out), resume=resume, overwrite=overwrite, progress=progress
    )
    write_report(results)
    return ResultsView(results)


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
) -> Recommendation:
    """The cheapest setting of a sweep that keeps the quality asked for, with 95 % confidence.

    results : a results folder, or what `sweep` and `load_results` return.
    keep : share of the exact full-dimension search's quality to keep, above 0 and up to 1.
    metric : the quality, ``ndcg@10`` ..; None is the one the sweep is judged by.
    max_bytes_per_vector, max_p95_ms : limits, inclusive; None is none.
    corpus_size : documents to plan for; None is the measured corpus.
    prices : a `toolkit.decide.cost.Prices`; documented assumptions if not given.

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
    )
