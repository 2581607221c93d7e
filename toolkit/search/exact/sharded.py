"""Exact search over a corpus in shards, each searched where it lies, merged into the answer of one search.

Shards may be tensors on several GPUs (a thread for each keeps all at work) or arrays. Knows nothing of processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from toolkit.errors import PlanError
from toolkit.search.exact.compute import Compute, available_cores
from toolkit.search.exact.search import exact_search
from toolkit.search.neighbours import Neighbours

if TYPE_CHECKING:
    import torch

_MERGED_QUERIES = 128


def sharded_search(
    shards: Sequence[np.ndarray | torch.Tensor],
    queries: np.ndarray,
    dims: Sequence[int],
    *,
    k: int,
    compute: Compute | None = None,
) -> dict[int, Neighbours]:
    """The exact k nearest rows over all shards, as {dim: Neighbours}; rows are numbered one shard after another.

    shards : (n_i, full_dim) rows each, of any floating type; a tensor is searched on its own device.
    queries : (q, full_dim) float32 rows. k : 1..all rows together.

    Equal scores come in the order of row numbers, across shards too. A row's product may differ in its last bit
    between a search of the whole and of a shard, where the matrix library rounds blocks of other sizes otherwise.
    Raises PlanError for no shard, an empty one or such a `k`, and what `exact_search` raises.
    """
    sizes = [int(shard.shape[0]) for shard in shards]
    if not sizes or min(sizes) == 0:
        raise PlanError(f"shards of {sizes} rows cannot be searched; give at least one, each with rows")
    if not 1 <= k <= sum(sizes):
        raise PlanError(f"k {k} is outside the corpus of {sum(sizes)} documents; choose 1..{sum(sizes)}")

    def search(shard: np.ndarray | torch.Tensor) -> dict[int, Neighbours]:
        return exact_search(shard, queries, dims, k=min(k, int(shard.shape[0])), compute=compute)

    with ThreadPoolExecutor(len(shards)) as threads:
        found = list(threads.map(search, shards))
    return merged(found, np.cumsum([0, *sizes[:-1]]), k=k)


def merged(
    found: Sequence[Mapping[int, Neighbours]], starts: Sequence[int] | np.ndarray, *, k: int
) -> dict[int, Neighbours]:
    """The `k` best of what was found in each shard, at each dimension.

    starts : each shard's first row in the whole; ascending.
    """
    parts = [
        (dim, slice(first, first + _MERGED_QUERIES))
        for dim, neighbours in found[0].items()
        for first in range(0, len(neighbours.rows), _MERGED_QUERIES)
    ]

    def merge(part: tuple[int, slice]) -> Neighbours:
        dim, queries = part
        return _merged(
            [Neighbours(one[dim].rows[queries], one[dim].scores[queries]) for one in found], starts, k
        )

    # Sorting lets go of the interpreter; by one thread it takes as long as a GPU searches a million rows.
    with ThreadPoolExecutor(available_cores()) as threads:
        blocks = list(threads.map(merge, parts))
    return {
        dim: _joined([block for (of, _), block in zip(parts, blocks, strict=True) if of == dim])
        for dim in found[0]
    }


def _merged(found: Sequence[Neighbours], starts: Sequence[int] | np.ndarray, k: int) -> Neighbours:
    rows = np.concatenate([one.rows + start for one, start in zip(found, starts, strict=True)], axis=1)
    scores = np.concatenate([one.scores for one in found], axis=1)
    # Each shard's part is in order, so a stable sort has runs to merge, and equal scores stay in the order of rows.
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Neighbours(np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1))


def _joined(blocks: Sequence[Neighbours]) -> Neighbours:
    return Neighbours(
        np.concatenate([block.rows for block in blocks]), np.concatenate([block.scores for block in blocks])
    )
