"""The one-pass exact scan on CPU: blocks of products that stay in cache, and few candidates out of them.

Knows nothing of what a prefix means; `search.py` checks arguments and applies the queries' norms.

Ranking ten dimensions of 100,000 rows by partial sorting costs more than the products themselves.
Here a running k-th best score of each query is a threshold: one vectorised compare against it leaves
about k ln(n / k) candidates of n rows, and only those are ever collected. A candidate is one
64-bit key, score above and row number below, so that keeping the best and breaking ties by the
lower row is one partition.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

from toolkit.errors import VectorError
from toolkit.search.exact.compute import TINY_NORM, Compute, available_cores, near_zero_scores
from toolkit.search.exact.products import SegmentProducts

# Long enough that a call costs little beside its work, short enough that its products stay in cache; many
# workers want fewer steps still, as the steps between products take turns at the interpreter's lock.
_BLOCK_ROWS = 1_536
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
    thresholds = {dim: np.full((len(queries), 1), -np.inf, dtype=np.float32) for dim in dims}

    def work(span: tuple[int, int]) -> dict[int, np.ndarray]:
        return _scan_range(corpus, queries, thresholds, span, k=k, block_rows=block_rows, progress=progress)

    def merge(dim: int) -> None:
        keys = np.concatenate([best[dim], *(part[dim] for part in parts)], axis=1)
        if keys.shape[1] >= k:
            best[dim] = np.partition(keys, k - 1, axis=1)[:, :k]
            thresholds[dim] = _threshold_of(best[dim][:, k - 1, None])
        else:
            best[dim] = keys

    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        for lo, hi in _rounds(len(corpus), workers * block_rows):
            # Equal shares, not whole blocks: a worker with one block more would let all others wait for it.
            edges = [lo + (hi - lo) * i // workers for i in range(workers + 1)]
            parts = list(pool.map(work, itertools.pairwise(edges)))
            list(pool.map(merge, dims))
    found = {}
    for dim in dims:
        keys = np.sort(best[dim], axis=1)
        found[dim] = (_rows_of(keys), _scores_of(keys))
    return found


def _rounds(rows: int, first: int) -> Iterator[tuple[int, int]]:
    """Spans of rising length. After each, all workers share the threshold that all rows so far have set:
    left to itself, each of many workers would collect as many candidates as one alone.
    """
    lo = 0
    while lo < rows:
        hi = min(rows, max(first, _ROUND_GROWTH * lo))
        yield lo, hi
        lo = hi


def _scan_range(
    corpus: np.ndarray,
    queries: np.ndarray,
    thresholds: dict[int, np.ndarray],
    span: tuple[int, int],
    *,
    k: int,
    block_rows: int,
    progress: Callable[[int], object] | None,
) -> dict[int, np.ndarray]:
    """Best keys above the thresholds (q, up to k) at each dimension among rows span[0]..span[1]."""
    dims = list(thresholds)
    chunks = [slice(at, at + _QUERY_CHUNK) for at in range(0, len(queries), _QUERY_CHUNK)]
    best = [[_Best(thresholds[dim][chunk], k) for dim in dims] for chunk in chunks]
    room = min(_QUERY_CHUNK, len(queries)) * block_rows
    adders = [SegmentProducts(queries[chunk]) for chunk in chunks]
    sums, addend, above = np.empty(room, np.float32), np.empty(room, np.float32), np.empty(room, bool)
    for start in range(span[0], span[1], block_rows):
        block = np.ascontiguousarray(corpus[start : min(start + block_rows, span[1])], dtype=np.float32)
        norms = _PrefixNorms(block, start)
        for chunk, adder, bests in zip(chunks, adders, best, strict=True):
            some = queries[chunk]
            shape = (len(some), len(block))
            size = shape[0] * shape[1]
            products, scores = sums[:size].reshape(shape), addend[:size].reshape(shape)
            mask = above[:size].reshape(shape)
            previous = 0
            for i, dim in enumerate(dims):
                adder.add(block, slice(previous, dim), products, scratch=scores)
                inverse, near_zero = norms.inverse(i, previous, dim)
                np.multiply(products, inverse, out=scores)
                if near_zero.size:
                    scores[:, near_zero] = near_zero_scores(some[:, :dim], block[near_zero, :dim])
                bests[i].offer(scores, start, mask)
                previous = dim
        if progress is not None:
            progress(len(block))
    return {dim: np.concatenate([bests[i].settled() for bests in best], axis=0) for i, dim in enumerate(dims)}


class _PrefixNorms:
    """1 / norm of each row's prefixes, one dimension after the other, kept for the next chunk of queries.

    A segment's squares are summed up right after its products, which have brought it into the cache.
    """

    def __init__(self, block: np.ndarray, first_row: int) -> None:
        self._block, self._first_row = block, first_row
        self._squares = np.zeros(len(block), dtype=np.float32)
        self._known: list[tuple[np.ndarray, np.ndarray]] = []

    def inverse(self, number: int, start: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows,) inverse norms of the prefix `dim`, 0 for a zero prefix; rows too short for float32 squares.

        number : of the dimension, from 0; start : where the prefix before it ends.
        """
        if number < len(self._known):
            return self._known[number]
        segment = self._block[:, start:dim]
        squares = self._squares = self._squares + np.vecdot(segment, segment)
        if not np.isfinite(squares).all():
            broken = self._first_row + int(np.argmin(np.isfinite(squares)))
            raise VectorError(f"corpus row {broken} holds NaN or infinity; embed it again")
        usable = squares > TINY_NORM**2
        inverse = np.divide(1.0, np.sqrt(squares), out=np.zeros_like(squares), where=usable)
        self._known.append((inverse, np.flatnonzero(~usable)))
        return self._known[number]


class _Best:
    """The best k rows seen so far of some queries at one dimension, with room for newcomers.

    Keys are (q, 2 k) int64, lower is better, and free places hold the worst key; room for k
    newcomers makes a settling due each time the rows seen have about doubled.
    """

    def __init__(self, threshold: np.ndarray, k: int) -> None:
        self._k = k
        self._keys = np.full((len(threshold), 2 * k), _WORST)
        self._filled = np.zeros(len(threshold), dtype=np.int64)
        # What a newcomer must exceed (q, 1): the k-th best score at the last settling.
        self._threshold = threshold.copy()

    def offer(self, scores: np.ndarray, first_row: int, mask: np.ndarray) -> None:
        """Take what lies above the threshold from scores (q, rows); `mask` is scratch of that shape."""
        width = scores.shape[1]
        if width > self._k and np.isneginf(self._threshold[0, 0]):
            # In the very first block everything is above the threshold; its own k-th best is a better one.
            kth = np.partition(scores, width - self._k, axis=1)[:, width - self._k, None]
            np.nextafter(kth, -np.inf, out=self._threshold, dtype=np.float32)
        np.greater(scores, self._threshold, out=mask)
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
            self._take_overflow(query, rank, keys, counts)
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

    def _take_overflow(
        self, query: np.ndarray, rank: np.ndarray, keys: np.ndarray, counts: np.ndarray
    ) -> None:
        """More newcomers than places, as where rows come in rising order: rank them with the best k."""
        overflow = np.full((len(self._keys), int(counts.max())), _WORST)
        overflow[query, rank] = keys
        both = np.concatenate([self._keys[:, : self._k], overflow], axis=1)
        self._keys[:, : self._k] = np.partition(both, self._k - 1, axis=1)[:, : self._k]
        self._filled += counts
        self._forget_rest()

    def _forget_rest(self) -> None:
        self._keys[:, self._k :] = _WORST
        np.minimum(self._filled, self._k, out=self._filled)
        np.maximum(self._threshold, _threshold_of(self._keys[:, self._k - 1, None]), out=self._threshold)


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


def _threshold_of(kth: np.ndarray) -> np.ndarray:
    """The score of each k-th best key; -inf where fewer than k rows were seen."""
    return np.where(kth == _WORST, np.float32(-np.inf), _scores_of(kth))


def _rows_of(keys: np.ndarray) -> np.ndarray:
    return keys & 0xFFFF_FFFF
