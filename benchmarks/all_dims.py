"""One-pass exact search at ten dimensions, against FAISS Flat once a dimension and FAISS Flat at the longest.

The sides take turns within one run, on the same threads, so that drift of the machine hits all of
them alike; figures are ratios of medians. FAISS is timed on searching only: cutting, normalizing and
adding are done before. The one-pass search computes its prefix norms within its time.

    python benchmarks/all_dims.py [--rows N] [--queries N] [--threads N] [--repeats N] [--save]
"""

from __future__ import annotations

import argparse
import time

import faiss
import numpy as np
from _record import record

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
    faiss.omp_set_num_threads(options.threads)
    compute = Compute(backend="numpy", threads=options.threads)

    one_pass_s, per_dim_s, full_dim_s = [], [], []
    for repeat in range(options.repeats + 1):
        begin = time.perf_counter()
        found = exact_search(corpus, queries, DIMS, k=K, compute=compute)
        one_pass = time.perf_counter() - begin
        faiss_s, flat = {}, {}
        for dim in DIMS:
            begin = time.perf_counter()
            flat[dim] = indexes[dim].search(cut[dim], K)
            faiss_s[dim] = time.perf_counter() - begin
        if repeat:  # the first round warms up
            one_pass_s.append(one_pass)
            per_dim_s.append(sum(faiss_s.values()))
            full_dim_s.append(faiss_s[DIMS[-1]])
        print(f"round {repeat}: one pass {one_pass:.3f} s, FAISS {faiss_s}", flush=True)

    score_gap = max(float(np.abs(found[dim].scores - flat[dim][0]).max()) for dim in DIMS)
    # Where rows differ although scores agree, the order was open: sums were rounded in another order.
    other_rows = max(float((found[dim].rows != flat[dim][1]).mean()) for dim in DIMS)
    one_pass, per_dim, full_dim = (float(np.median(s)) for s in (one_pass_s, per_dim_s, full_dim_s))
    figures = {
        "speedup_vs_per_dim": round(per_dim / one_pass, 3),
        "time_vs_full_dim": round(one_pass / full_dim, 3),
        "one_pass_s": one_pass_s,
        "faiss_per_dim_s": per_dim_s,
        "faiss_full_dim_s": full_dim_s,
        "max_score_difference": score_gap,
        "share_of_rows_ordered_otherwise": other_rows,
        "rows": options.rows,
        "queries": options.queries,
        "k": K,
        "dims": DIMS,
        "threads": options.threads,
    }
    record("all_dims", figures, options.save)


if __name__ == "__main__":
    main()
