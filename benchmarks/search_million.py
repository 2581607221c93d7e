"""Build and search indexes over 1,000,000 x 1024 vectors that stay in a mapped file; peak memory stated.

The peak is the process's resident memory as Linux counts it: it holds the index itself, and pages of
the mapped file that the kernel would take back under pressure, so it is an upper bound.

    python benchmarks/search_million.py [--rows N] [--dim N] [--folder DIR] [--save]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from _host import Rounds
from _record import record
from all_dims import decaying_vectors

from toolkit.search.exact.compute import available_cores
from toolkit.search.exact.search import exact_search
from toolkit.search.faiss.backend import build_index
from toolkit.search.faiss.index import threads
from toolkit.search.funnel import Funnel, Rescorer, Stage
from toolkit.vectors import Vectors, truncate

K = 10
SETTINGS = (("Flat", "int8", {}), ("Flat", "binary", {}), ("IVF1024", "int8", {"nprobe": 32}))
GIB = 2**30


def write_vectors(path: Path, rows: int, dim: int) -> None:
    """A float32 .npy file of clustered rows with falling variance, written block by block."""
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, dim))
    for seed, start in enumerate(range(0, rows, 65_536)):
        part = mapped[start : start + 65_536]
        part[:] = decaying_vectors(len(part), dim, seed=seed + 10)
    mapped.flush()


def resident_peak_gib(*, reset: bool = False) -> float:
    """Highest resident memory of this process since the last reset; Linux only."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024 / GIB


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--folder", type=Path, help="where the vectors' file is written and removed again")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()

    builds, rounds = [], Rounds()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "rows.npy"
        write_vectors(path, options.rows, options.dim)
        resident_peak_gib(reset=True)
        vectors = Vectors.open(path)
        queries = decaying_vectors(100, options.dim, seed=2)
        with rounds.timed("exact search"):
            exact = exact_search(vectors.rows, queries, [options.dim], k=K)[options.dim]
        exact_s, peak_gib = rounds.best("exact search"), resident_peak_gib()
        print(f"exact search of the mapped file: {exact_s:.1f} s, peak {peak_gib:.2f} GiB", flush=True)
        rescorer = Rescorer(vectors, options.dim)
        for index, precision, arguments in SETTINGS:
            with threads(available_cores()):
                with rounds.timed(f"{index} {precision}"):
                    built = build_index(vectors, options.dim, index=index, precision=precision)
                found = built.search(truncate(queries, options.dim), K, arguments)
                funnel = Funnel(built, [Stage(rescorer, 10 * K)], search_args=arguments)
                rescored, _ = funnel.search(funnel.prepare(queries), K)
            builds.append(
                {
                    "index": index,
                    "precision": precision,
                    "search_args": arguments,
                    "wall_s": round(rounds.best(f"{index} {precision}"), 1),
                    "build_s": round(built.build_s, 1),
                    "index_gib": round(built.index_bytes / GIB, 3),
                    "peak_gib": round(built.peak_bytes / GIB, 2),
                    "overlap@10": _overlap(found.rows, exact.rows),
                    "overlap@10_rescored": _overlap(rescored.rows, exact.rows),
                }
            )
            print(builds[-1], flush=True)
            peak_gib = max(peak_gib, builds[-1]["peak_gib"], resident_peak_gib())
    figures = {
        "peak_gib_1m": round(peak_gib, 2),
        "exact_search_s": round(exact_s, 1),
        "builds": builds,
        "rows": options.rows,
        "dim": options.dim,
    }
    record("search_million", figures, options.save, rounds=rounds)


def _overlap(found: np.ndarray, exact: np.ndarray) -> float:
    return round(float(np.mean([np.isin(a, b).mean() for a, b in zip(found, exact, strict=True)])), 4)


if __name__ == "__main__":
    main()
