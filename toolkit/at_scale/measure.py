"""One setting over one large corpus: its index built, its recall, latency and memory measured.

Knows no texts and no judgements; whether the corpus was padded is its caller's affair.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from toolkit.errors import PlanError, ResultsError
from toolkit.experiment.setting import Setting
from toolkit.measure.timing import Timed, interleaved
from toolkit.search.backend import Index, IndexSpec, backend_of, threads
from toolkit.search.empty_last import CorpusBuilder, load_index
from toolkit.search.exact.compute import available_cores
from toolkit.search.exact.search import exact_search
from toolkit.search.funnel import Funnel, Rescorer, Stage
from toolkit.vectors import Vectors, truncate

K = 10
_HELD_BYTES = 2 << 30  # cut rows that a build keeps in memory; larger ones are read block by block
_ASIDE_BYTES = 1 << 29  # for all else
_TIMED_QUERIES = 200
_ROUNDS = 3


@dataclass(frozen=True)
class AtScale:
    """What a setting comes to at a size.

    recall : share of the exact search's first ten at the same dimension (for rescored settings, at the last stage's)
    that it finds. agreement : the same against the exact search at the full dimension.
    p50_ms, p95_ms, p99_ms : single queries on one thread; qps : batches on one thread.
    index_bytes : the index as stored; peak_bytes : highest resident memory while building, 0 if not known.
    """

    setting: str
    documents: int
    queries: int
    recall: float
    agreement: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    qps: float
    build_s: float
    index_bytes: int
    peak_bytes: int

    def as_dict(self) -> dict[str, object]:
        """Its fields."""
        return asdict(self)


def needed_bytes(setting: Setting, documents: int, full_dim: int, *, index_bytes: float) -> tuple[int, int]:
    """(memory, disk) that building and searching a setting takes at a size; the index is on disk and in memory."""
    rows = min(documents * setting.dim * 4, _HELD_BYTES)
    norms = 4 * documents * len(setting.rescore)
    disk = documents * full_dim * 4 + index_bytes
    return int(1.2 * index_bytes + rows + norms + _ASIDE_BYTES), int(disk)


def check_room(setting: Setting, documents: int, full_dim: int, *, index_bytes: float, folder: Path) -> None:
    """Raise PlanError with the numbers if memory or disk have no room for it."""
    import psutil

    memory, disk = needed_bytes(setting, documents, full_dim, index_bytes=index_bytes)
    free = {
        "memory": psutil.virtual_memory().available,
        f"disk ({folder})": psutil.disk_usage(str(folder)).free,
    }
    for (what, there), needed in zip(free.items(), (memory, disk), strict=True):
        if needed > 0.9 * there:
            fits = int(documents * 0.9 * there / needed)
            raise PlanError(
                f"{setting.key} over {documents:,} documents needs about {needed / 1e9:,.1f} GB of {what}, "
                f"{there / 1e9:,.1f} GB are free; choose up to about {fits:,} documents, or another setting"
            )


def measure(
    vectors: Vectors, queries: np.ndarray, setting: Setting, *, index_file: Path | None = None, seed: int = 0
) -> AtScale:
    """Build a setting's index over vectors and measure it against exact search.

    queries : (q, full_dim) float32 unit rows.
    index_file : where the built index is kept, so that an interrupted measurement need not build it again.
    """
    built = _built(vectors, setting, index_file, seed)
    last = setting.rescore[-1].dim if setting.rescore else setting.dim
    full = vectors.full_dim
    exact = exact_search(vectors.rows, queries, sorted({last, full}), k=K)
    if setting.rescore:
        rescorers = {dim: Rescorer(vectors, dim) for dim, _ in setting.rescore}
        stages = [Stage(rescorers[dim], handed) for dim, handed in setting.rescore]
        funnel = Funnel(built, stages, search_args=dict(setting.search_args))
        prepared = funnel.prepare(queries)
        found = funnel.search(prepared, K)[0]
        search = funnel.bare_search(K)
    else:
        prepared = truncate(queries, setting.dim)
        found = built.search(prepared, K, dict(setting.search_args))
        search = built.bare_search(K, dict(setting.search_args))
    with threads(1, [backend_of(setting.backend, setting.index)]):
        timed = {setting: Timed(search, prepared[:_TIMED_QUERIES])}
        samples = interleaved(timed, rounds=_ROUNDS, seed=seed)[setting]
    return AtScale(
        setting.key,
        len(vectors),
        len(queries),
        _overlap(found.rows, exact[last].rows),
        _overlap(found.rows, exact[full].rows),
        samples.p50_ms,
        samples.p95_ms,
        samples.p99_ms,
        samples.qps,
        built.build_s,
        built.index_bytes,
        built.peak_bytes,
    )


def _built(vectors: Vectors, setting: Setting, index_file: Path | None, seed: int) -> Index:
    backend = backend_of(setting.backend, setting.index)
    if index_file is not None:
        try:
            return load_index(backend, index_file)
        except ResultsError:
            pass  # not there yet, or not whole
    spec = IndexSpec(setting.index, setting.precision, setting.dim, dict(setting.build_args))
    with threads(available_cores(), [backend]):
        built = CorpusBuilder(backend, vectors, setting.dim, seed=seed).build(spec)
    if index_file is not None:
        built.save(index_file)
    return built


def _overlap(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)]))
