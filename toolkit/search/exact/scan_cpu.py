"""The one-pass exact scan on CPU: blocks of products that stay in cache, and few candidates out of them.

Knows nothing of what a prefix means; `exact.py` checks arguments and applies the queries' norms.

Ranking ten dimensions of 100,000 rows by partial sorting costs more than the products themselves.
Here a running k-th best score of each query is a floor: one vectorised compare against it leaves
about k ln(n / k) candidates of n rows, and only those are ever collected. A candidate is one
64-bit key, score above and row number below, so that keeping the best and breaking ties by the
lower row is one partition.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from toolkit.errors import VectorError
from toolkit.vectors import normalize

if TYPE_CHECKING:
    from toolkit.search.exact.search import Compute

# Products of 1,024 rows and 200 queries stay in a core's own cache; many workers rather want few steps,
# as the steps between products take turns at the interpreter's lock.
_BLOCK_ROWS = 1_024
_BLOCK_ROWS_OF_MANY = 2_048
_QUERY_CHUNK = 256
_ROUND_GROWTH = 4
_WORST = np.int64(np.iinfo(np.int64).max)


def scan(
    corpus: np.ndarray,
    queries: np.ndarray,
    dims: list[int],
    *,
    k: int,
    compute: Compute,
    device: str,  # noqa: ARG001 - the torch scan takes the same arguments
    progress: Callable[[int], object] | None,
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """{dim: (rows (q, k) int64, scores (q, k) float32)}; scores lack the query's norm."""
    workers = compute.threads or available_cores()
    block_rows = compute.block_rows or (_BLOCK_ROWS if workers <= 2 else _BLOCK_ROWS_OF_MANY)
    workers = min(workers, -(-len(corpus) // block_rows))
    best = {dim: np.empty((len(queries), 0), dtype=np.int64) for dim in dims}
    floors = {dim: np.full((len(queries), 1), -np.inf, dtype=np.float32) for dim in dims}

    def work(span: tuple[int, int]) -> dict[int, np.ndarray]:
        return _scan_range(corpus, queries, floors, span, k=k, block_rows=block_rows, progress=progress)

    def merge(dim: int) -> None:
        keys = np.concatenate([best[dim], *(part[dim] for part in parts)], axis=1)
        if keys.shape[1] >= k:
            best[dim] = np.partition(keys, k - 1, axis=1)[:, :k]
            floors[dim] = _floor_of(best[dim][:, k - 1, None])
        else:
            best[dim] = keys

    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        for lo, hi in _rounds(len(corpus), workers * block_rows):
            blocks = -(-(hi - lo) // block_rows)
            edges = [min(hi, lo + blocks * i // workers * block_rows) for i in range(workers + 1)]
            parts = list(pool.map(work, itertools.pairwise(edges)))
            list(pool.map(merge, dims))
    found = {}
    for dim in dims:
        keys = np.sort(best[dim], axis=1)
        found[dim] = (_rows_of(keys), _scores_of(keys))
    return found


def _rounds(rows: int, first: int) -> Iterator[tuple[int, int]]:
    """Spans of rising length. After each, all workers share the floor that all rows so far have set:
    left to itself, each of many workers would collect as many candidates as one alone.
    """
    lo = 0
    while lo < rows:
        hi = min(rows, max(first, _ROUND_GROWTH * lo))
        yield lo, hi
        lo = hi


def available_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _scan_range(
    corpus: np.ndarray,
    queries: np.ndarray,
    floors: dict[int, np.ndarray],
    span: tuple[int, int],
    *,
    k: int,
    block_rows: int,
    progress: Callable[[int], object] | None,
) -> dict[int, np.ndarray]:
    """Best keys above the floors (q, up to k) at each dimension among rows span[0]..span[1]."""
    dims = list(floors)
    chunks = [slice(at, at + _QUERY_CHUNK) for at in range(0, len(queries), _QUERY_CHUNK)]
    best = [[_Best(floors[dim][chunk], k) for dim in dims] for chunk in chunks]
    room = min(_QUERY_CHUNK, len(queries)) * block_rows
    sums, addend, above = np.empty(room, np.float32), np.empty(room, np.float32), np.empty(room, bool)
    for start in range(span[0], span[1], block_rows):
        block = np.asarray(corpus[start : min(start + block_rows, span[1])], dtype=np.float32)
        inverses, faint = _inverse_norms(block, dims, start)
        for chunk, bests in zip(chunks, best, strict=True):
            some = queries[chunk]
            shape = (len(some), len(block))
            size = shape[0] * shape[1]
            products, scores = sums[:size].reshape(shape), addend[:size].reshape(shape)
            mask = above[:size].reshape(shape)
            previous = 0
            for i, dim in enumerate(dims):
                segment = slice(previous, dim)
                if previous:
                    np.matmul(some[:, segment], block[:, segment].T, out=scores)
                    np.add(products, scores, out=products)
                else:
                    np.matmul(some[:, segment], block[:, segment].T, out=products)
                np.multiply(products, inverses[i], out=scores)
                if faint[i].size:
                    scores[:, faint[i]] = some[:, :dim] @ normalize(block[faint[i], :dim]).T
                bests[i].offer(scores, start, mask)
                previous = dim
        if progress is not None:
            progress(len(block))
    return {dim: np.concatenate([bests[i].settled() for bests in best], axis=0) for i, dim in enumerate(dims)}


def _inverse_norms(
    block: np.ndarray, dims: list[int], first_row: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """1 / norm of each row's prefixes (0 for a zero prefix), and the rows too short for float32 squares."""
    from toolkit.search.exact.search import TINY_NORM

    squares = np.zeros(len(block), dtype=np.float32)
    inverses, faint, previous = [], [], 0
    for dim in dims:
        segment = block[:, previous:dim]
        squares = squares + np.vecdot(segment, segment)
        usable = squares > TINY_NORM**2
        inverses.append(np.divide(1.0, np.sqrt(squares), out=np.zeros_like(squares), where=usable))
        faint.append(np.flatnonzero(~usable))
        previous = dim
    if not np.isfinite(squares).all():
        broken = first_row + int(np.argmin(np.isfinite(squares)))
        raise VectorError(f"corpus row {broken} holds NaN or infinity; embed it again")
    return inverses, faint


class _Best:
    """The best k rows seen so far of some queries at one dimension, with room for newcomers.

    Keys are (q, 2 k) int64, lower is better, and free places hold the worst key; room for k
    newcomers makes a settling due each time the rows seen have about doubled.
    """

    def __init__(self, floor: np.ndarray, k: int) -> None:
        self._k = k
        self._keys = np.full((len(floor), 2 * k), _WORST)
        self._filled = np.zeros(len(floor), dtype=np.int64)
        # What a newcomer must exceed (q, 1): the k-th best score at the last settling.
        self._floor = floor.copy()

    def offer(self, scores: np.ndarray, first_row: int, mask: np.ndarray) -> None:
        """Take what lies above the floor from scores (q, rows); `mask` is scratch of that shape."""
        width = scores.shape[1]
        if width > self._k and np.isneginf(self._floor[0, 0]):
            # In the very first block everything is above the floor; its own k-th best is a better one.
            kth = np.partition(scores, width - self._k, axis=1)[:, width - self._k, None]
            np.nextafter(kth, -np.inf, out=self._floor, dtype=np.float32)
        np.greater(scores, self._floor, out=mask)
        flat = np.flatnonzero(mask)
        if not flat.size:
            return
        query = flat // width
        keys = _keys_of(scores.reshape(-1)[flat], flat - query * width + first_row)
        counts = np.bincount(query, minlength=len(self._keys))
        if int((self._filled + counts).max()) > self._keys.shape[1]:
            self._settle()
        # Candidates come grouped by query, so a place is the query's fill plus the rank in its group.
        rank = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
        if int((self._filled + counts).max()) > self._keys.shape[1]:
            self._take_crowd(query, rank, keys, counts)
            return
        self._keys[query, rank + self._filled[query]] = keys
        self._filled += counts

    def settled(self) -> np.ndarray:
        """The best keys (q, k), in no order; places beyond the rows seen hold the worst key."""
        self._settle()
        return self._keys[:, : self._k]

    def _settle(self) -> None:
        self._keys.partition(self._k - 1, axis=1)
        self._forget_rest()

    def _take_crowd(self, query: np.ndarray, rank: np.ndarray, keys: np.ndarray, counts: np.ndarray) -> None:
        """More newcomers than places, as where rows come in rising order: rank them with the best k."""
        crowd = np.full((len(self._keys), int(counts.max())), _WORST)
        crowd[query, rank] = keys
        both = np.concatenate([self._keys[:, : self._k], crowd], axis=1)
        self._keys[:, : self._k] = np.partition(both, self._k - 1, axis=1)[:, : self._k]
        self._filled += counts
        self._forget_rest()

    def _forget_rest(self) -> None:
        self._keys[:, self._k :] = _WORST
        np.minimum(self._filled, self._k, out=self._filled)
        np.maximum(self._floor, _floor_of(self._keys[:, self._k - 1, None]), out=self._floor)


def _keys_of(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """One int64 for each candidate whose ascending order is: score descending, then row ascending.

    IEEE 754 floats order as signed integers once a negative's lower 31 bits are flipped.
    """
    bits = (scores + np.float32(0.0)).view(np.int32)  # -0.0 + 0.0 is 0.0: the two zeros must tie
    descending = ~(bits ^ ((bits >> 31) & np.int32(0x7FFF_FFFF)))
    return (descending.astype(np.int64) << 32) | rows


def _scores_of(keys: np.ndarray) -> np.ndarray:
    ascending = ~(keys >> 32).astype(np.int32)
    return (ascending ^ ((ascending >> 31) & np.int32(0x7FFF_FFFF))).view(np.float32)


def _floor_of(kth: np.ndarray) -> np.ndarray:
    """The score of each k-th best key; -inf where fewer than k rows were seen."""
    return np.where(kth == _WORST, np.float32(-np.inf), _scores_of(kth))


def _rows_of(keys: np.ndarray) -> np.ndarray:
    return keys & 0xFFFF_FFFF
