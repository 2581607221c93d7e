"""Threads that share one engine: are all rows right, and what does sharing cost or bring?

One caller finds its best batch size. Then 1, 4 and 16 threads take turns with requests of that size, all
over the same texts, and every row is compared with the one that a single thread gets. Beside it requests
of a single text, where sharing should gain: texts of several callers go through the model together.

    python benchmarks/concurrency.py [--device cpu|cuda] [--texts N] [--repeats N] [--save]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import torch
from _host import Rounds
from _record import ROOT, record

from toolkit.embedding.open import open_embedder
from toolkit.embedding.protocol import Embedder
from toolkit.experiment.encode_speed import workload_texts

sys.path.insert(0, str(ROOT))
from tests.models import make_qwen3

THREADS = (1, 4, 16)
SIZES = (16, 64, 256)
SINGLE_TEXTS = 256
_SAME = 0.999  # cosine; a text in another pack differs in the last bits, another text's row by far more


def rows_by_threads(engine: Embedder, texts: list[str], *, threads: int, size: int) -> np.ndarray:
    """Rows of `texts`, in requests of `size` texts that `threads` threads take from a common list."""
    rows = np.zeros((len(texts), engine.space.full_dim), dtype=np.float32)
    starts = iter(range(0, len(texts), size))
    lock = threading.Lock()

    def call() -> None:
        while True:
            with lock:
                start = next(starts, None)
            if start is None:
                return
            rows[start : start + size] = engine.encode(texts[start : start + size])

    callers = [threading.Thread(target=call) for _ in range(threads)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return rows


def measure(name: str, engine: Embedder, texts: list[str], rounds: Rounds, *, repeats: int) -> dict:
    """Wrong rows of all rounds, and rates."""
    expected = engine.encode(texts)
    cases = {f"{name}/1x{size}": (1, size, texts) for size in SIZES}
    for _ in range(repeats):
        for side, (threads, size, chosen) in cases.items():
            with rounds.timed(side):
                rows_by_threads(engine, chosen, threads=threads, size=size)
    best = min(SIZES, key=lambda size: rounds.best(f"{name}/1x{size}"))
    cases = {f"{name}/{threads}x{best}": (threads, best, texts) for threads in THREADS}
    rounds.seconds[f"{name}/1x{best}"].clear()  # timed again, in turns with the others
    cases |= {f"{name}/{threads}x1": (threads, 1, texts[:SINGLE_TEXTS]) for threads in THREADS}
    wrong = 0
    for _ in range(repeats):
        for side, (threads, size, chosen) in cases.items():
            with rounds.timed(side):
                rows = rows_by_threads(engine, chosen, threads=threads, size=size)
            wrong += int(((rows * expected[: len(rows)]).sum(axis=1) < _SAME).sum())
    one = f"{name}/1x{best}"
    return {
        "wrong_rows": wrong,
        "rows_compared": repeats * sum(len(chosen) for _, _, chosen in cases.values()),
        "best_batch": best,
        "texts_s": {
            side.split("/")[1]: round(len(chosen) / rounds.best(side), 1)
            for side, (_, _, chosen) in cases.items()
        },
        "throughput_vs_one": {
            threads: rounds.ratio(one, f"{name}/{threads}x{best}") for threads in THREADS if threads > 1
        },
        "single_texts_vs_one": {
            threads: rounds.ratio(f"{name}/1x1", f"{name}/{threads}x1") for threads in THREADS if threads > 1
        },
    }


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu", help="of the packed engine")
    parser.add_argument("--texts", type=int, default=16_384)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()

    rounds = Rounds()
    written = workload_texts("queries")
    texts = [f"{i} {written[i % len(written)]}" for i in range(options.texts)]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        model = make_qwen3(Path(folder) / "qwen3")
        specs = {"packed": (f"local:{model}", {"device": options.device}), "static": ("static", {})}
        for name, (spec, settings) in specs.items():
            # A decoder on a CPU, even a tiny one, is far slower than a table of token vectors.
            share = texts[: len(texts) // 4] if name == "packed" and options.device == "cpu" else texts
            with open_embedder(spec, **settings) as engine:
                found[name] = measure(name, engine, share, rounds, repeats=options.repeats)
    most = max(THREADS)
    figures = {
        "wrong_rows": sum(engine["wrong_rows"] for engine in found.values()),
        "throughput_vs_one": min(engine["throughput_vs_one"][most]["best"] for engine in found.values()),
        "device": options.device,
        "texts": options.texts,
        "torch_threads": torch.get_num_threads(),
        "engines": found,
    }
    name = "concurrency" if options.device == "cpu" else "concurrency_cuda"
    record(name, figures, options.save, rounds=rounds)


if __name__ == "__main__":
    main()
