"""The one-pass exact search on a GPU, over a corpus in its memory, against the card's ceilings.

The products alone are 2 x rows x queries x 2560 operations in float32, whatever the number of
dimensions; the corpus is read once for each thousand queries. The rate is given against both.

    python benchmarks/all_dims_cuda.py [--rows N] [--queries N] [--repeats N] [--save]
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import numpy as np
import torch
from _record import record

from toolkit.search.exact.search import exact_search

DIMS = (32, 64, 128, 256, 512, 768, 1024, 1536, 2048, 2560)
K = 100


def seconds_of(work, repeats: int) -> list[float]:  # noqa: ANN001
    """Time each call of `work` until the device has finished."""
    taken = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - begin)
    return taken


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1_024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()

    square = torch.randn(8192, 8192, device="cuda")
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    float32_s = min(seconds_of(partial(torch.mm, square, square), 10))
    copy = torch.empty_like(square, dtype=torch.int64).random_()
    target = torch.empty_like(copy)
    copy_s = min(seconds_of(partial(target.copy_, copy), 20))
    figures: dict[str, object] = {
        "float32_ceiling_tflops": round(2 * 8192**3 / float32_s / 1e12, 2),
        "copy_tb_s": round(2 * copy.nbytes / copy_s / 1e12, 3),
        "rows": options.rows,
        "queries": options.queries,
        "k": K,
        "dims": DIMS,
    }
    generator = torch.Generator("cuda").manual_seed(1)
    queries = np.random.default_rng(2).standard_normal((options.queries, DIMS[-1])).astype(np.float32)
    for dtype in (torch.float32, torch.bfloat16):
        corpus = torch.empty(options.rows, DIMS[-1], device="cuda", dtype=dtype)
        corpus.normal_(generator=generator.manual_seed(1))
        exact_search(corpus[:50_000], queries, DIMS, k=K)
        torch.cuda.reset_peak_memory_stats()
        name = str(dtype).removeprefix("torch.")
        seconds = seconds_of(partial(exact_search, corpus, queries, DIMS, k=K), options.repeats)
        longest = seconds_of(partial(exact_search, corpus, queries, DIMS[-1:], k=K), options.repeats)
        found = exact_search(corpus, queries, DIMS, k=K)
        median = float(np.median(seconds))
        work = 2 * options.rows * options.queries * DIMS[-1] / 1e12
        reads = -(-options.queries // 1_024) * corpus.nbytes / 1e12
        figures[name] = {
            "seconds": [round(s, 4) for s in seconds],
            "only_full_dim_seconds": [round(s, 4) for s in longest],
            "tflops": round(work / median, 2),
            "share_of_float32_ceiling": round(work / median / figures["float32_ceiling_tflops"], 4),
            "corpus_tb_s": round(reads / median, 4),
            "queries_s": round(options.queries / median),
            "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        }
        # The same rows by a plain product in float64 over a part of the queries.
        some = torch.from_numpy(queries[:8]).cuda().double()
        for dim in (32, 2560):
            scores = torch.cat(
                [
                    some[:, :dim] @ torch.nn.functional.normalize(part[:, :dim].double(), dim=1).T
                    for part in corpus.split(50_000)
                ],
                dim=1,
            )
            top = scores.topk(K, dim=1).indices.cpu().numpy()
            same = [
                len(set(a) & set(b)) for a, b in zip(top.tolist(), found[dim].rows[:8].tolist(), strict=True)
            ]
            figures[name][f"same_rows_as_float64_at_{dim}"] = sum(same) / (8 * K)
    record("all_dims_cuda", figures, options.save)


if __name__ == "__main__":
    main()
