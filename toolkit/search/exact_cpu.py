"""The one-pass exact scan on CPU: blocks of products that stay in cache, and few candidates out of them.

Knows nothing of what a prefix means; `exact.py` checks arguments and applies the queries' norms.

Ranking ten dimensions of 100,000 rows by partial sorting costs more than the products themselves.
Here a running k-th best score of each query is a floor: one vectorised compare against it leaves
about k ln(n / k) candidates of n rows, and only those are ever collected. A candidate is one
64-bit key, score above and row number below, so that keeping the best and breaking ties by the
lower row is one partition.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from toolkit.errors import VectorError
from toolkit.vectors import normalise

if TYPE_CHECKING:
    from toolkit.search.exact import Compute

_BLOCK_ROWS = 512
_QUERY_CHUNK = 256
_WORST = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


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
    block_rows = compute.block_rows or _BLOCK_ROWS
    blocks = -(-len(corpus) // block_rows)
    workers = min(compute.threads or available_cores(), blocks)
    # Contiguous ranges: within one, later rows are higher rows, so an equal score never displaces.
    edges = [min(len(corpus), round(blocks * i / workers) * block_rows) for i in range(workers + 1)]

    def work(span: tuple[int, int]) -> dict[int, np.ndarray]:
        return _scan_range(corpus, queries, dims, span, k=k, block_rows=block_rows, progress=progress)

    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(work, zip(edges[:-1], edges[1:], strict=True)))
    found = {}
    for dim in dims:
        keys = np.concatenate([part[dim] for part in parts], axis=1)
        keys = np.sort(np.partition(keys, k - 1, axis=1)[:, :k], axis=1)
        found[dim] = (_rows_of(keys), _scores_of(keys))
    return found


def available_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _scan_range(
    corpus: np.ndarray,
    queries: np.ndarray,
    dims: list[int],
    span: tuple[int, int],
    *,
    k: int,
    block_rows: int,
    progress: Callable[[int], object] | None,
) -> dict[int, np.ndarray]:
    """Best keys (q, k) at each dimension among rows span[0]..span[1]."""
    chunks = [slice(at, at + _QUERY_CHUNK) for at in range(0, len(queries), _QUERY_CHUNK)]
    best = [[_Best.empty(len(queries[chunk]), k) for _ in dims] for chunk in chunks]
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
                    scores[:, faint[i]] = some[:, :dim] @ normalise(block[faint[i], :dim]).T
                bests[i].offer(scores, start, mask)
                previous = dim
        if progress is not None:
            progress(len(block))
    return {
        dim: np.concatenate([bests[i].settled() for bests in best], axis=0) for i, dim in enumerate(dims)
    }


def _inverse_norms(
    block: np.ndarray, dims: list[int], first_row: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """1 / norm of each row's prefixes (0 for a zero prefix), and the rows too short for float32 squares."""
    from toolkit.search.exact import TINY_NORM

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


@dataclass
class _Best:
    """The best k rows seen so far of some queries at one dimension, with room for newcomers.

    keys : (q, 3 k) uint64; lower is better. Free places hold the worst key.
    filled : (q,) places taken.
    floor : (q, 1) k-th best score at the last settling, -inf before k rows were seen. Three times
        k makes a settling due each time the rows seen have about tripled.
    """

    k: int
    keys: np.ndarray
    filled: np.ndarray
    floor: np.ndarray

    @classmethod
    def empty(cls, queries: int, k: int) -> _Best:
        return cls(
            k,
            np.full((queries, 3 * k), _WORST),
            np.zeros(queries, dtype=np.int64),
            np.full((queries, 1), -np.inf, dtype=np.float32),
        )

    def offer(self, scores: np.ndarray, first_row: int, mask: np.ndarray) -> None:
        """Take what lies above the floor from scores (q, rows); `mask` is scratch of that shape."""
        np.greater(scores, self.floor, out=mask)
        flat = np.flatnonzero(mask)
        if not flat.size:
            return
        query, column = np.divmod(flat, scores.shape[1])
        counts = np.bincount(query, minlength=len(self.keys))
        if int((self.filled + counts).max()) > self.keys.shape[1]:
            self._settle()
        keys = _keys_of(scores.reshape(-1)[flat], first_row + column)
        if int((self.filled + counts).max()) > self.keys.shape[1]:
            self._take_crowd(query, counts, keys)
            return
        # Candidates come grouped by query, so a place is the query's fill plus the rank in its group.
        place = np.arange(len(flat)) + np.repeat(self.filled - (np.cumsum(counts) - counts), counts)
        self.keys[query, place] = keys
        self.filled += counts

    def settled(self) -> np.ndarray:
        """The best keys (q, k), in no order; places beyond the rows seen hold the worst key."""
        self._settle()
        return self.keys[:, : self.k]

    def _settle(self) -> None:
        if self.keys.shape[1] > self.k:
            self.keys.partition(self.k - 1, axis=1)
        self._forget_rest()

    def _take_crowd(self, query: np.ndarray, counts: np.ndarray, keys: np.ndarray) -> None:
        """More newcomers than places, as in the first block: rank them beside the best k."""
        crowd = np.full((len(self.keys), int(counts.max())), _WORST)
        crowd[query, np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)] = keys
        both = np.concatenate([self.keys[:, : self.k], crowd], axis=1)
        self.keys[:, : self.k] = np.partition(both, self.k - 1, axis=1)[:, : self.k]
        self.filled += counts
        self._forget_rest()

    def _forget_rest(self) -> None:
        self.keys[:, self.k :] = _WORST
        np.minimum(self.filled, self.k, out=self.filled)
        full = self.filled == self.k
        self.floor[full, 0] = _scores_of(self.keys[full, self.k - 1])


def _keys_of(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """One uint64 for each candidate whose ascending order is: score descending, then row ascending.

    IEEE 754 floats order as integers once the sign bit is flipped, and for negatives all bits.
    """
    bits = (scores + np.float32(0.0)).view(np.uint32)  # -0.0 + 0.0 is 0.0: the two zeros must tie
    ascending = np.where(bits >> 31, ~bits, bits | np.uint32(0x8000_0000))
    return ((~ascending).astype(np.uint64) << np.uint64(32)) | rows.astype(np.uint64)


def _scores_of(keys: np.ndarray) -> np.ndarray:
    ascending = ~(keys >> np.uint64(32)).astype(np.uint32)
    bits = np.where(ascending >> 31, ascending & np.uint32(0x7FFF_FFFF), ~ascending)
    return bits.view(np.float32)


def _rows_of(keys: np.ndarray) -> np.ndarray:
    return (keys & np.uint64(0xFFFF_FFFF)).astype(np.int64)
