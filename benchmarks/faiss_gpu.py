"""FAISS indexes on the CPU and on the first GPU that FAISS sees: queries a second, and whether they agree.

python benchmarks/faiss_gpu.py [--rows N] [--dim N] [--queries N] [--repeats N] [--save]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from _record import record
from all_dims import decaying_vectors

from toolkit.search.exact.compute import available_cores
from toolkit.search.faiss.backend import build_index
from toolkit.search.faiss.index import BuiltIndex, threads
from toolkit.vectors import Vectors

K = 100
SETTINGS = (
    ("Flat", "float32", {}),
    ("Flat", "float16", {}),
    ("IVF1024", "float32", {"nprobe": 32}),
    ("IVF1024", "int8", {"nprobe": 32}),
)


def queries_a_second(
    built: BuiltIndex, queries: np.ndarray, search_args: dict[str, int], repeats: int
) -> float:
    """All queries in one call, after one that warms up; the median of `repeats`."""
    search = built.bare_search(K, search_args)
    seconds = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        search(queries)
        seconds.append(time.perf_counter() - begin)
    return len(queries) / float(np.median(seconds[1:]))


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    vectors = Vectors(decaying_vectors(options.rows, options.dim, seed=1))
    queries = decaying_vectors(options.queries, options.dim, seed=2)
    figures: dict[str, object] = {
        "rows": options.rows,
        "dim": options.dim,
        "queries": options.queries,
        "k": K,
        "cpu_threads": available_cores(),
    }
    with threads(available_cores()):
        for index, precision, search_args in SETTINGS:
            built = build_index(vectors, options.dim, index=index, precision=precision)
            moved = built.to_gpu()
            cpu_qps = queries_a_second(built, queries, search_args, options.repeats)
            gpu_qps = queries_a_second(moved, queries, search_args, options.repeats)
            expected = built.search(queries, K, search_args).rows
            found = moved.search(queries, K, search_args).rows
            name = " ".join(
                [index, precision, *(f"{argument}={value}" for argument, value in search_args.items())]
            )
            figures[name] = {
                "cpu_qps": round(cpu_qps),
                "gpu_qps": round(gpu_qps),
                "speedup": round(gpu_qps / cpu_qps, 2),
                "same_neighbours": float(
                    np.mean([np.isin(a, b).mean() for a, b in zip(found, expected, strict=True)])
                ),
            }
            print(name, figures[name], flush=True)
    record("faiss_gpu", figures, options.save)


if __name__ == "__main__":
    main()
