"""The exact search at every dimension on Ray workers, of this machine or of a cluster, merged as shards are.

Each worker maps the rows of its part from the corpus's own file, or reads them from its shards, searches them as one
process does and sends their k nearest back; the queries lie once in Ray's store of objects. Parts are merged in the
order of their rows, each as soon as all before it are, so memory stays that of a few answers. A part whose worker is
killed, or whose node is lost, is searched again elsewhere. On several machines, the file lies on storage that all of
them mount.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import ServerError, ToolkitError
from toolkit.scale.corpus_rows import CachedRows, CorpusRows, rows_of
from toolkit.scale.ray_workers import RayWorkers, on_ray, reason
from toolkit.search.exact.compute import Compute
from toolkit.search.exact.search import check_search
from toolkit.search.exact.sharded import merged, search_shard
from toolkit.search.neighbours import Neighbours

# A multiple of every length of block on the CPU: parts have the blocks that one thread would have, and so its scores.
_STEP_ROWS = 6_144
_PARTS_PER_WORKER = 4  # that all may end together
_AHEAD = 2  # parts for each worker that are under way or wait to be merged
_RETRIES = 3

_Found = dict[int, Neighbours]


def search_on_ray(
    corpus: str | Path | np.ndarray | CachedRows,
    queries: np.ndarray,
    dims: Sequence[int],
    /,
    *,
    k: int,
    on: RayWorkers | None = None,
    progress: Callable[[int], object] | None = None,
) -> dict[int, Neighbours]:
    """`exact_search` on Ray workers: the exact k nearest rows by cosine at each of `dims`, as {dim: Neighbours}.

    corpus : (n, full_dim) floating rows: the path of a `.npy` file, which every worker maps; a mapped array likewise,
        by its file; what `corpus_rows.cached_rows` finds in a folder of shards, which every worker reads; or an array
        in memory, of which each part is sent.
    queries : (q, full_dim) float32 rows. k : neighbours of each query, 1..n.
    on : where workers run, all cores or GPUs of this machine by default. Each searches with the cores or GPU it has.
    progress : called with the number of rows just finished.

    Equal scores come in the order of row numbers. Raises what `exact_search` raises, PlanError for a file that cannot
    be read or resources that the cluster lacks, ServerError for an address that does not answer, a file that a worker
    cannot read or a part that fails again and again, and MissingPackageError without Ray.
    """
    on, rows = on or RayWorkers(), rows_of(corpus)
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    compute = _compute(on)
    wanted = check_search(rows.shape, queries, dims, k=k, compute=compute)
    with on_ray(on, needed_for="searching on Ray") as workers:
        best: list[_Found] = []
        work = _Work(rows, queries, wanted, k, compute)
        with closing(_answers(work, _edges(rows, workers), on, ahead=_AHEAD * workers)) as answers:
            for start, stop, found in answers:
                # Even a single one: Ray's arrays lie in memory that is gone when Ray is.
                best = [merged([*best, found], [0, start] if best else [start], k=k)]
                if progress is not None:
                    progress(stop - start)
    return best[0]


def _compute(on: RayWorkers) -> Compute:
    if on.gpus_per_worker:
        return Compute("torch", "cuda")
    return Compute("numpy", "cpu", threads=max(1, int(on.cpus_per_worker)))


def _edges(rows: CorpusRows, workers: int) -> list[int]:
    """Where parts begin, and the last ends."""
    count = rows.shape[0]
    fair = -(-count // (workers * _PARTS_PER_WORKER))
    step = max(1, min(fair, rows.part_bytes // rows.row_bytes) // _STEP_ROWS) * _STEP_ROWS
    return [*range(0, count, step), count]


@dataclass(frozen=True)
class _Work:
    rows: CorpusRows
    queries: np.ndarray
    dims: list[int]
    k: int
    compute: Compute


def _answers(
    work: _Work, edges: Sequence[int], on: RayWorkers, *, ahead: int
) -> Generator[tuple[int, int, _Found]]:
    """Each part's first row, the row behind its last, and what was found there, in the order of rows."""
    import ray

    # A worker of a GPU would be ended after each part, and the next one would wait for CUDA again.
    search = ray.remote(
        num_cpus=0 if on.gpus_per_worker else on.cpus_per_worker,
        num_gpus=on.gpus_per_worker,
        max_calls=0,
        max_retries=_RETRIES,
    )(search_part)
    queries = ray.put(work.queries)
    waiting: dict[Any, int] = {}
    done: dict[int, _Found] = {}
    begun = 0
    try:
        for number, (start, stop) in enumerate(pairwise(edges)):
            while number not in done:
                while begun < len(edges) - 1 and len(waiting) + len(done) < ahead:
                    first = edges[begun]
                    part = work.rows.part(first, edges[begun + 1])
                    waiting[search.remote(part, queries, work.dims, first, work.k, work.compute)] = begun
                    begun += 1
                [ready], _ = ray.wait(list(waiting), num_returns=1)
                found = ray.get(ready)
                if isinstance(found, ToolkitError):
                    raise found
                done[waiting.pop(ready)] = found
            yield start, stop, done.pop(number)
    except ray.exceptions.RayError as error:
        raise ServerError(f"a Ray worker failed: {reason(error)}; search again") from None
    finally:
        for left in waiting:
            ray.cancel(left)


def search_part(
    rows: CorpusRows, queries: np.ndarray, dims: list[int], start: int, k: int, compute: Compute
) -> _Found | ToolkitError:
    """A worker's answer; what is wrong is told to the driver: Ray would print a page for it."""
    try:
        return search_shard(rows.read(), queries, dims, start=start, k=k, compute=compute)
    except ToolkitError as error:
        return error
