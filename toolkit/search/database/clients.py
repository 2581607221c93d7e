"""Many queries asked of a server by several clients at once, each of one query after the other.

What a service sees; the rate is its concurrent throughput. Knows no engine.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from toolkit.search.threads import thread_count

# One query as (dim,) float32 to (scores, rows), best first, of any length.
AskOne = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def ask_all(ask: AskOne, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(scores, rows) of (q, dim) queries, each (q, k): -inf and -1 where fewer than k were found."""
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    rows = np.full((len(queries), k), -1, dtype=np.int64)

    def some(which: range) -> None:
        for i in which:
            near, found = ask(queries[i])
            scores[i, : len(near)], rows[i, : len(found)] = near, found

    clients = min(thread_count(), len(queries))
    if clients <= 1:
        some(range(len(queries)))
    else:
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(some, [range(i, len(queries), clients) for i in range(clients)]))
    return scores, rows
