"""One-pass exact search at ten dimensions, against FAISS Flat once per dimension and at the longest alone.

The sides take turns within one run, on as many threads, so that drift of the machine hits all of them
alike; figures are ratios of best and of median rounds. FAISS gets the fastest of three ways to use its
threads at each dimension, and is timed on searching only: cutting, normalizing and adding are done before.
The one-pass search computes its prefix norms within its time.

    python benchmarks/all_dims.py [--rows N] [--queries N] [--threads N] [--repeats N] [--save]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
from _host import Rounds
from _record import record
from threadpoolctl import threadpool_limits

from toolkit.search.exact.compute import Compute, available_cores
from toolkit.search.exact.search import exact_search
from toolkit.vectors import normalize, truncate

DIMS = (32, 64, 128, 256, 512, 768, 1024, 1536, 2048, 2560)
K = 100


def decaying_vectors(rows: int, dim: int, seed: int) -> np.ndarray:
    """Unit rows in clusters, whose variance falls along the vector as a Matryoshka model's does."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((1_000, dim), dtype=np.float32)
    scale = ((1.0 + np.arange(dim)) ** -0.35).astype(np.float32)
    vectors = np.empty((rows, dim), dtype=np.float32)
    for start in range(0, rows, 8_192):
        part = vectors[start : start + 8_192]
        part[:] = generator.standard_normal(part.shape, dtype=np.float32)
        part += 0.7 * centres[generator.integers(len(centres), size=len(part))]
        part[:] = normalize(part * scale)
    return vectors


def flat_at(corpus: np.ndarray, dim: int) -> faiss.Index:
    """A FAISS Flat index over the corpus cut to `dim`."""
    index = faiss.IndexFlatIP(dim)
    for start in range(0, len(corpus), 8_192):
        index.add(truncate(corpus[start : start + 8_192], dim))
    return index


def faiss_ways(threads: int) -> dict[str, Callable[[faiss.Index, np.ndarray], tuple]]:
    """Ways to give FAISS `threads` threads; which is fastest depends on the dimension and on FAISS's BLAS."""
    pool = ThreadPoolExecutor(threads)

    def together(index: faiss.Index, queries: np.ndarray) -> tuple:
        faiss.omp_set_num_threads(threads)
        return index.search(queries, K)

    def plain_blas(index: faiss.Index, queries: np.ndarray) -> tuple:
        with threadpool_limits(1, user_api="blas"):
            return together(index, queries)

    def alone(index: faiss.Index, part: np.ndarray) -> tuple:
        faiss.omp_set_num_threads(1)
        return index.search(part, K)

    def shared_out(index: faiss.Index, queries: np.ndarray) -> tuple:
        with threadpool_limits(1, user_api="blas"):
            parts = list(pool.map(alone, [index] * threads, np.array_split(queries, threads)))
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    return {
        "OpenMP and BLAS threads": together,
        "OpenMP threads": plain_blas,
        "queries shared out, one thread each": shared_out,
    }


def fastest(ways: dict[str, Callable], index: faiss.Index, queries: np.ndarray, *, tries: int = 3) -> str:
    """The way whose best try takes least."""
    seconds = dict.fromkeys(ways, float("inf"))
    for _ in range(tries):
        for name, search in ways.items():
            begin = time.perf_counter()
            search(index, queries)
            seconds[name] = min(seconds[name], time.perf_counter() - begin)
    return min(seconds, key=seconds.get)


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()

    corpus = decaying_vectors(options.rows, DIMS[-1], seed=1)
    queries = decaying_vectors(options.queries, DIMS[-1], seed=2)
    cut = {dim: truncate(queries, dim) for dim in DIMS}
    indexes = {dim: flat_at(corpus, dim) for dim in DIMS}
    compute = Compute(backend="numpy", threads=options.threads)

    ways = faiss_ways(options.threads)
    taken = {dim: fastest(ways, indexes[dim], cut[dim]) for dim in DIMS}
    print(f"FAISS's fastest way by dimension: {taken}", flush=True)

    rounds = Rounds()
    for repeat in range(options.repeats + 1):
        with rounds.timed("one pass"):
            found = exact_search(corpus, queries, DIMS, k=K, compute=compute)
        flat = {}
        for dim in DIMS:
            with rounds.timed(f"FAISS {dim}"):
                flat[dim] = ways[taken[dim]](indexes[dim], cut[dim])
        print(
            f"round {repeat}: { {side: round(s[-1], 3) for side, s in rounds.seconds.items()} }", flush=True
        )
        if not repeat:
            rounds.forget()  # it warmed up
    rounds.add_up("FAISS, all dimensions", [f"FAISS {dim}" for dim in DIMS])

    score_gap = max(float(np.abs(found[dim].scores - flat[dim][0]).max()) for dim in DIMS)
    # Where rows differ although scores agree, the order was open: sums were rounded in another order.
    other_rows = max(float((found[dim].rows != flat[dim][1]).mean()) for dim in DIMS)
    figures = {
        "speedup_vs_per_dim": rounds.ratio("FAISS, all dimensions", "one pass"),
        "time_vs_full_dim": rounds.ratio("one pass", f"FAISS {DIMS[-1]}"),
        "faiss_ways": taken,
        "max_score_difference": score_gap,
        "share_of_rows_ordered_otherwise": other_rows,
        "rows": options.rows,
        "queries": options.queries,
        "k": K,
        "dims": DIMS,
        "threads": options.threads,
    }
    record("all_dims", figures, options.save, rounds=rounds)


if __name__ == "__main__":
    main()
