"""Exact nearest neighbours at every dimension from one pass over the full vectors.

Knows nothing of indexes, files or measures: arrays in, `Neighbours` out.

A Matryoshka prefix of length d has the inner product p(d) = sum of q[i] c[i] over i < d, so the
products of a longer prefix are those of the shorter one plus the next segment. Adding segments up
and dividing by the prefix norms gives the cosine at every dimension for the arithmetic of the
longest alone. The norm of the query's prefix does not change the order and is applied last.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from toolkit.errors import DimensionError, PlanError, VectorError
from toolkit.search.exact.compute import LAST, TINY_NORM, Compute
from toolkit.search.neighbours import Neighbours
from toolkit.vectors import normalize

if TYPE_CHECKING:
    import torch


class ExactSearch(Protocol):
    """`exact_search`, or the same answer found elsewhere: on several devices, on the workers of a cluster."""

    def __call__(
        self,
        corpus: np.ndarray,
        queries: np.ndarray,
        dims: Sequence[int],
        /,
        *,
        k: int,
        progress: Callable[[int], object] | None = None,
    ) -> dict[int, Neighbours]:
        """{dim: Neighbours}; see `exact_search`."""


def exact_search(
    corpus: np.ndarray | torch.Tensor,
    queries: np.ndarray,
    dims: Sequence[int],
    *,
    k: int,
    compute: Compute | None = None,
    progress: Callable[[int], object] | None = None,
) -> dict[int, Neighbours]:
    """The exact k nearest rows by cosine at each of `dims`, as {dim: Neighbours} in ascending order.

    corpus : (n, full_dim) floating rows: an array, a memory-mapped one of any size (each row is read
        once), or a tensor of any floating type on any device.
    queries : (q, full_dim) float32 rows.
    k : neighbours of each query, 1..n.
    progress : called with the number of rows just finished (a tqdm bar's ``update``).

    Equal scores come in the order of row numbers. Which rows are the nearest is decided before the
    query's norm divides the products and rounds them once more: a row left out may tie with the last
    one within float32 rounding. A zero row, or one whose prefix is zero (an empty text), has no
    direction: it comes after all others, with score -inf. A zero query scores 0 everywhere else.

    Raises DimensionError, PlanError for a `k` or backend that cannot work, VectorError for shapes
    that do not fit or for NaN and infinity.
    """
    compute = compute or Compute()
    wanted = check_search(tuple(corpus.shape), queries, dims, k=k, compute=compute)
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    norms = _prefix_norms(queries, wanted)
    backend, device = _resolve(corpus, compute)
    if backend == "torch":
        from toolkit.search.exact.scan_torch import scan
    else:
        from toolkit.search.exact.scan_cpu import scan
    found = scan(corpus, queries, wanted, k=k, compute=compute, device=device, progress=progress)

    results = {}
    for (dim, (rows, scores)), norm in zip(found.items(), norms, strict=True):
        inverse = np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0)
        scaled = np.where(scores == LAST, -np.inf, scores.astype(np.float64) * inverse[:, None])
        scaled = scaled.astype(np.float32)
        _put_in_order(rows, scaled)
        near_zero = np.flatnonzero((norm > 0) & (norm < TINY_NORM))
        if near_zero.size:
            _search_near_zero(corpus, queries, dim, near_zero, k, compute, rows, scaled)
        results[dim] = Neighbours(rows, scaled)
    return results


def _put_in_order(rows: np.ndarray, scores: np.ndarray) -> None:
    """Order neighbours that come best first by row where their scores are equal, in place.

    Products that differ in their last digit can become one score when the query's norm divides them.
    """
    unordered = np.flatnonzero(((scores[:, :-1] == scores[:, 1:]) & (rows[:, :-1] > rows[:, 1:])).any(axis=1))
    for i in unordered:
        order = np.lexsort((rows[i], -scores[i]))
        rows[i], scores[i] = rows[i][order], scores[i][order]


def _search_near_zero(corpus, queries, dim, which, k, compute, rows, scores) -> None:  # noqa: ANN001
    """Redo queries whose prefix is too short for float32 products, with the prefix at norm 1."""
    lifted = np.zeros((len(which), queries.shape[1]), dtype=np.float32)
    lifted[:, :dim] = normalize(queries[which, :dim])
    again = exact_search(corpus, lifted, [dim], k=k, compute=compute)[dim]
    rows[which], scores[which] = again.rows, again.scores


def check_search(
    corpus: tuple[int, ...], queries: np.ndarray, dims: Sequence[int], *, k: int, compute: Compute
) -> list[int]:
    """The dimensions in ascending order, once each; raises what `exact_search` raises before it reads a row.

    corpus : its shape.
    """
    if len(corpus) != 2 or queries.ndim != 2 or corpus[1] != queries.shape[1]:
        raise VectorError(
            f"corpus {corpus} and queries {queries.shape} must be 2-D with rows of equal length"
        )
    if not len(queries):
        raise VectorError(f"queries {queries.shape} hold no row; give at least one")
    if not np.isfinite(queries).all():
        broken = int(np.argmin(np.isfinite(queries).all(axis=1)))
        raise VectorError(f"query row {broken} holds NaN or infinity; embed it again")
    n, full_dim = corpus
    wanted = sorted({int(dim) for dim in dims})
    if not wanted:
        raise DimensionError(f"no dimension given; choose from 1..{full_dim}")
    for dim in wanted:
        if not 1 <= dim <= full_dim:
            raise DimensionError(f"dimension {dim} is outside the vectors' range; choose 1..{full_dim}")
    if not 1 <= k <= n:
        raise PlanError(f"k {k} is outside the corpus of {n} documents; choose 1..{n}")
    if compute.backend not in ("auto", "numpy", "torch"):
        raise PlanError(f"unknown backend {compute.backend!r}; choose auto, numpy or torch")
    if any(number is not None and number < 1 for number in (compute.threads, compute.block_rows)):
        raise PlanError(
            f"threads {compute.threads} and block_rows {compute.block_rows} must be at least 1, or None"
        )
    return wanted


def _prefix_norms(queries: np.ndarray, dims: list[int]) -> list[np.ndarray]:
    """Norms of each query's prefixes in float64: one (q,) array for each dimension."""
    norms, squares, start = [], np.zeros(len(queries)), 0
    for dim in dims:
        segment = queries[:, start:dim].astype(np.float64)
        squares = squares + np.einsum("ij,ij->i", segment, segment)
        norms.append(np.sqrt(squares))
        start = dim
    return norms


def _resolve(corpus: np.ndarray | torch.Tensor, compute: Compute) -> tuple[str, str]:
    """The backend and device that ``auto`` stands for here."""
    is_tensor = not isinstance(corpus, np.ndarray)
    backend, device = compute.backend, compute.device
    if backend == "numpy":
        if is_tensor or device not in ("auto", "cpu"):
            raise PlanError(
                f"backend 'numpy' searches arrays on the CPU, not {type(corpus).__name__} on {device!r}; "
                "choose backend 'torch'"
            )
        return "numpy", "cpu"
    if device == "auto":
        device = str(corpus.device) if is_tensor else _default_device()
    if backend == "auto":
        backend = "torch" if is_tensor or device != "cpu" else "numpy"
    return backend, device


def _default_device() -> str:
    # Looked up before torch is imported, which takes seconds that a CPU search need not spend.
    if find_spec("torch") is None or (os.name == "posix" and not Path("/dev/nvidiactl").exists()):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
