"""Honest timing of a search: warm, undisturbed by the collector, interleaved, every sample kept.

Knows no index and no thread pool: it is given callables and their queries, ready to be searched, and the
caller sets the number of threads around the call.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TypeVar

import numpy as np

from toolkit.errors import DataError

Key = TypeVar("Key", bound=Hashable)
NS_PER_MS = 1e6
NS_PER_S = 1e9


@dataclass(frozen=True, eq=False)
class Timed:
    """What is timed: ``search(queries)`` on (n, d) prepared queries; its result is thrown away."""

    search: Callable[[np.ndarray], object]
    queries: np.ndarray

    def __post_init__(self) -> None:
        if self.queries.ndim != 2 or not len(self.queries):
            raise DataError(f"queries of shape {self.queries.shape} cannot be timed; give (n, d) with n >= 1")


@dataclass(frozen=True, eq=False)
class Samples:
    """Every sample of one search.

    single_ms : (rounds, queries) float64, one query at a time.
    batch_s : (rounds,) float64, all queries in one call.
    """

    single_ms: np.ndarray
    batch_s: np.ndarray

    def percentile_ms(self, percent: float) -> float:
        """Single-query latency that `percent` of all samples do not exceed."""
        return float(np.percentile(self.single_ms, percent))

    @property
    def p50_ms(self) -> float:
        """Median single-query latency."""
        return self.percentile_ms(50)

    @property
    def p95_ms(self) -> float:
        """95th percentile of single-query latency."""
        return self.percentile_ms(95)

    @property
    def p99_ms(self) -> float:
        """99th percentile of single-query latency."""
        return self.percentile_ms(99)

    @property
    def qps(self) -> float:
        """Queries a second in batches: the batch's size over its median time."""
        return self.single_ms.shape[1] / float(np.median(self.batch_s))


def single_query_ms(search: Callable[[np.ndarray], object], queries: np.ndarray) -> np.ndarray:
    """Latency of each of (n, d) queries searched alone; (n,) float64 ms. Warm up first.

    Queries are sliced beforehand and the loop holds nothing but the call and the clock, whose own cost
    (tens of ns) is all a sample contains beside the search.
    """
    alone = [queries[i : i + 1] for i in range(len(queries))]
    elapsed_ns = [0] * len(alone)
    clock = perf_counter_ns
    with _collector_off():
        for i, query in enumerate(alone):
            start = clock()
            search(query)
            elapsed_ns[i] = clock() - start
    return np.array(elapsed_ns, dtype=np.float64) / NS_PER_MS


def batch_seconds(search: Callable[[np.ndarray], object], queries: np.ndarray) -> float:
    """Seconds that one call with all queries takes. Warm up first."""
    with _collector_off():
        start = perf_counter_ns()
        search(queries)
        return (perf_counter_ns() - start) / NS_PER_S


def interleaved(
    timed: Mapping[Key, Timed], *, rounds: int = 3, warmup: int = 10, batched: bool = True, seed: int = 0
) -> dict[Key, Samples]:
    """Time all searches in turns, `rounds` times over, so that drift of the machine hits all alike.

    Each turn warms up with `warmup` queries (caches and clocks after the search before it), then times
    every query alone and all in one batch. The order of turns is drawn anew each round, so that no search
    always follows the same other one.

    batched : False leaves the batch out; `qps` is then nan.
    """
    if rounds < 1:
        raise DataError(f"rounds {rounds} times nothing; choose at least 1")
    keys = list(timed)
    rng = np.random.default_rng(seed)
    single: dict[Key, list[np.ndarray]] = {key: [] for key in keys}
    batches: dict[Key, list[float]] = {key: [] for key in keys}
    for _ in range(rounds):
        for turn in rng.permutation(len(keys)):
            key = keys[turn]
            search, queries = timed[key].search, timed[key].queries
            for i in range(warmup):
                row = i % len(queries)
                search(queries[row : row + 1])
            single[key].append(single_query_ms(search, queries))
            if batched:
                search(queries)  # threads and buffers of the batch path are warm too
                batches[key].append(batch_seconds(search, queries))
            else:
                batches[key].append(np.nan)
    return {key: Samples(np.stack(single[key]), np.array(batches[key])) for key in keys}


@contextmanager
def _collector_off() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
