"""Exact search over a corpus in shards, each searched where it lies, merged into the answer of one search.

Shards may be tensors on several GPUs (a thread for each keeps all at work) or arrays, also parts of one. Knows nothing
of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from toolkit.errors import PlanError, VectorError
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
    devices: Sequence[str] | None = None,
    progress: Callable[[int], object] | None = None,
) -> dict[int, Neighbours]:
    """The exact k nearest rows over all shards, as {dim: Neighbours}; rows are numbered one shard after another.

    shards : (n_i, full_dim) rows each, of any floating type; a tensor is searched on its own device.
    queries : (q, full_dim) float32 rows. k : 1..all rows together.
    devices : of the shards, one each, where arrays are searched on several; `compute` says the rest.
    progress : called with the number of rows just finished, from several threads.

    Equal scores come in the order of row numbers, across shards too. A row's product may differ in its last bit
    between a search of the whole and of a shard, where the matrix library rounds blocks of other sizes otherwise.
    Raises PlanError for no shard, an empty one or such a `k`, and what `exact_search` raises.
    """
    sizes = [int(shard.shape[0]) for shard in shards]
    if not sizes or min(sizes) == 0:
        raise PlanError(f"shards of {sizes} rows cannot be searched; give at least one, each with rows")
    if not 1 <= k <= sum(sizes):
        raise PlanError(f"k {k} is outside the corpus of {sum(sizes)} documents; choose 1..{sum(sizes)}")

    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    computes = [compute or Compute()] * len(shards)
    if devices is not None:
        computes = [replace(computes[0], device=device) for device in devices]

    def search(shard: np.ndarray | torch.Tensor, start: int, where: Compute) -> dict[int, Neighbours]:
        return search_shard(shard, queries, dims, start=start, k=k, compute=where, progress=progress)

    with ThreadPoolExecutor(len(shards)) as threads:
        found = list(threads.map(search, shards, starts, computes))
    return merged(found, starts, k=k)


def search_on_devices(
    corpus: np.ndarray,
    queries: np.ndarray,
    dims: Sequence[int],
    /,
    *,
    devices: Sequence[str],
    k: int,
    progress: Callable[[int], object] | None = None,
) -> dict[int, Neighbours]:
    """`exact_search` with an equal share of the rows on each of `devices`; raises what `sharded_search` raises."""
    shards = [shard for shard in np.array_split(corpus, len(devices)) if len(shard)]
    return sharded_search(
        shards,
        queries,
        dims,
        k=k,
        compute=Compute("torch"),
        devices=devices[: len(shards)],
        progress=progress,
    )


def search_shard(
    shard: np.ndarray | torch.Tensor,
    queries: np.ndarray,
    dims: Sequence[int],
    *,
    start: int,
    k: int,
    compute: Compute | None = None,
    progress: Callable[[int], object] | None = None,
) -> dict[int, Neighbours]:
    """What `merged` takes of one shard: its k nearest rows, or all, numbered from its own first.

    start : that row's number in the whole, for the error's message.
    """
    rows = int(shard.shape[0])
    try:
        return exact_search(shard, queries, dims, k=min(k, rows), compute=compute, progress=progress)
    except VectorError as error:
        if not start:
            raise
        raise VectorError(
            f"in rows {start}..{start + rows - 1}, counted from the first of them: {error}"
        ) from None


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
