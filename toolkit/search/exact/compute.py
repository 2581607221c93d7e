"""What both exact scans share: where they run, and the rows that float32 products cannot score.

Knows nothing of blocks, threads or devices' own arrays.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import numpy as np

from toolkit.vectors import normalize

# Squares of a prefix shorter than this lose digits in float32; such rows are cut and normalized apart.
TINY_NORM = 1e-10
# The score of a zero row while scanning: below every cosine, and finite, so that it orders like any other.
LAST = np.float32(-3e38)


@dataclass(frozen=True)
class Compute:
    """Where and how an exact search runs; no choice changes its result by more than float32 rounding.

    backend : ``numpy`` (CPU, one BLAS thread in each worker), ``torch``, or ``auto``: torch for a
        tensor or on CUDA, numpy otherwise.
    device : torch device (``cpu``, ``cuda``, ``cuda:1``) or ``auto``, which takes CUDA where there is one.
    threads : CPU workers; ``None`` takes every core this process may use.
    block_rows : corpus rows worked on at once; ``None`` takes 1,536 or 2,048 on CPU (their products
        stay in cache) and what 1 GiB holds on CUDA.
    """

    backend: Literal["auto", "numpy", "torch"] = "auto"
    device: str = "auto"
    threads: int | None = None
    block_rows: int | None = None


def available_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def near_zero_scores(queries: np.ndarray, prefixes: np.ndarray) -> np.ndarray:
    """(q, n) products of queries with prefixes too short for float32 squares; `LAST` for zero prefixes.

    queries : (q, dim) float32; prefixes : (n, dim) of any length, which are normalized here.
    """
    scores = queries @ normalize(prefixes).T
    scores[:, ~prefixes.any(axis=1)] = LAST
    return scores
