"""Opening a vector cache of a million vectors, in a process of its own: seconds, and memory it grows by.

Memory is the growth of the process's resident pages; those mapped from the index file count too.

    python benchmarks/cache_open.py [--vectors N] [--dim N] [--save]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from _host import Rounds
from _record import ROOT, record

from toolkit.embedding.cache import VectorCache
from toolkit.space import EmbeddingSpace

_SHARD_VECTORS = 65_536
_PROBE = """
import sys, time, psutil
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from toolkit.embedding.cache import VectorCache
from toolkit.space import EmbeddingSpace
import numpy, safetensors
space = EmbeddingSpace("cache-open", "1", "none", "float32", "none", 0, int(sys.argv[2]), int(sys.argv[2]))
process = psutil.Process()
before = process.memory_info().rss
begin = time.perf_counter()
cache = VectorCache(Path(sys.argv[1])).for_space(space)
opened = time.perf_counter() - begin
grown = process.memory_info().rss - before
print(opened, grown / 1e6)
"""


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()

    space = EmbeddingSpace("cache-open", "1", "none", "float32", "none", 0, options.dim, options.dim)
    rounds, opened_s, grown_mb = Rounds(), [], []
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        part = VectorCache(Path(folder)).for_space(space)
        for start in range(0, options.vectors, _SHARD_VECTORS):
            count = min(_SHARD_VECTORS, options.vectors - start)
            some = [generator.bytes(16) for _ in range(count)]
            part.add(some, np.full((count, options.dim), 1.0, dtype=np.float32))
            part.flush()
        with rounds.timed("first opening, which writes the index"):
            VectorCache(Path(folder)).for_space(space)
        for _ in range(options.repeats):
            with rounds.timed("a process that opens it"):
                done = subprocess.run(
                    [sys.executable, "-c", _PROBE, folder, str(options.dim), str(ROOT)],
                    capture_output=True,
                    text=True,
                    check=True,
                )
            seconds, megabytes = map(float, done.stdout.split())
            opened_s.append(seconds)
            grown_mb.append(megabytes)
    figures = {
        "open_s": {"best": min(opened_s), "median": float(np.median(opened_s))},
        "open_mb": max(grown_mb),
        "first_open_s": rounds.best("first opening, which writes the index"),
        "vectors": options.vectors,
        "dim": options.dim,
    }
    record("cache_open", figures, options.save, rounds=rounds)


if __name__ == "__main__":
    main()
