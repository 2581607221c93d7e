"""The one-pass exact scan with torch: float32 arithmetic without TF32, on CUDA or any other device.

Knows nothing of what a prefix means; `search.py` checks arguments and applies the queries' norms.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from toolkit.errors import PlanError, VectorError
from toolkit.search.exact.compute import TINY_NORM, Compute, near_zero_scores

_QUERY_CHUNK = 1_024
_CPU_BLOCK_ROWS = 2_048
_BLOCK_BYTES = 1 << 30
_ROW_BITS = 0xFFFF_FFFF
_GROUP = 32
_LEAST_GROUPS_OF_K = 4


def scan(
    corpus: np.ndarray | torch.Tensor,
    queries: np.ndarray,
    dims: list[int],
    *,
    k: int,
    compute: Compute,
    device: str,
    progress: Callable[[int], object] | None,
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """{dim: (rows (q, k) int64, scores (q, k) float32)}; scores lack the query's norm."""
    target = _device(device)
    on_cpu = target.type == "cpu"
    block_rows = compute.block_rows or (_CPU_BLOCK_ROWS if on_cpu else _fitting_rows(corpus.shape[1], k))
    asked = torch.from_numpy(queries).to(target)
    chunks = [slice(at, at + _QUERY_CHUNK) for at in range(0, len(queries), _QUERY_CHUNK)]
    best: list[list[torch.Tensor | None]] = [[None] * len(dims) for _ in chunks]
    with _full_float32, torch.inference_mode():
        for start in range(0, corpus.shape[0], block_rows):
            block = _to_device(corpus[start : start + block_rows], target)
            inverses, near_zero = _inverse_norms(block, dims, start)
            rows = torch.arange(start, start + len(block), device=target)
            for i, (chunk, bests) in enumerate(zip(chunks, best, strict=True)):
                part = _Part(asked[chunk], block, rows, dims, inverses, near_zero)
                found, tied = part.best(bests, k, sift=[True] * len(dims))
                # One question to the device for all dimensions: the host waits for the answer.
                ties = torch.stack(tied).tolist()
                if any(ties):
                    found, _ = part.best(bests, k, sift=[not tie for tie in ties])
                best[i] = found
            if progress is not None:
                progress(len(block))
    results = {}
    for i, dim in enumerate(dims):
        keys = torch.cat([bests[i] for bests in best])
        results[dim] = ((_ROW_BITS - (keys & _ROW_BITS)).cpu().numpy(), _scores_of(keys).cpu().numpy())
    return results


@dataclass(frozen=True, eq=False)
class _Part:
    """Some queries and a block of the corpus.

    rows : their numbers in the corpus. inverses : of the rows' norms at each of `dims`.
    near_zero : columns whose prefix is too short for products of float32, at each dimension.
    """

    queries: torch.Tensor
    block: torch.Tensor
    rows: torch.Tensor
    dims: list[int]
    inverses: list[torch.Tensor]
    near_zero: list[torch.Tensor]

    def best(
        self, before: Sequence[torch.Tensor | None], k: int, *, sift: Sequence[bool]
    ) -> tuple[list[torch.Tensor | None], list[torch.Tensor]]:
        """The best keys of before and of this block at each dimension, and whether sifting them was in vain.

        sift : where keys are made of the promising columns only, which a tie can make wrong.
        """
        products = torch.zeros(len(self.queries), len(self.block), device=self.block.device)
        found: list[torch.Tensor | None] = []
        tied = []
        previous = 0
        for i, dim in enumerate(self.dims):
            products.addmm_(self.queries[:, previous:dim], self.block[:, previous:dim].T)
            scores, rows = self._scores(products, i), self.rows
            tie = torch.zeros((), dtype=torch.bool, device=self.block.device)
            if sift[i]:
                scores, rows, tie = _promising(scores, rows, k)
            found.append(_keep_best(before[i], scores, rows, k))
            tied.append(tie)
            previous = dim
        return found, tied

    def _scores(self, products: torch.Tensor, i: int) -> torch.Tensor:
        scores = products * self.inverses[i]
        if self.near_zero[i].numel():
            dim = self.dims[i]
            lifted = self.block[self.near_zero[i], :dim].cpu().numpy()
            apart = near_zero_scores(self.queries[:, :dim].cpu().numpy(), lifted)
            scores[:, self.near_zero[i]] = torch.from_numpy(apart).to(scores.device)
        return scores


def _device(name: str) -> torch.device:
    try:
        target = torch.device(name)
    except RuntimeError:
        raise PlanError(f"unknown device {name!r}; choose auto, cpu, cuda or cuda:<number>") from None
    if target.type == "cuda" and not torch.cuda.is_available():
        raise PlanError(f"device {name!r} is not here: torch sees no CUDA device; choose cpu or auto")
    return target


def _fitting_rows(full_dim: int, k: int) -> int:
    """Rows of a float32 block, its products, scores and 64-bit keys within the block's bytes."""
    return max(k, _BLOCK_BYTES // (4 * full_dim + 16 * _QUERY_CHUNK))


def _to_device(block: np.ndarray | torch.Tensor, target: torch.device) -> torch.Tensor:
    if isinstance(block, np.ndarray):
        # A copy, because torch refuses to wrap a read-only mapped file.
        block = torch.from_numpy(np.array(block))
    return block.to(target).float()


class _FullFloat32:
    """TF32 keeps 10 bits of the mantissa: neighbours would differ from a float32 search.

    The setting is the process's: with a search on each of several devices, the last to leave puts it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = ""

    def __enter__(self) -> None:
        matmul = torch.backends.cuda.matmul
        with self._lock:
            if not self._inside:
                self._before = matmul.fp32_precision
                matmul.fp32_precision = "ieee"
            self._inside += 1

    def __exit__(self, *_exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                torch.backends.cuda.matmul.fp32_precision = self._before


_full_float32 = _FullFloat32()


def _inverse_norms(
    block: torch.Tensor, dims: list[int], first_row: int
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    squares = torch.zeros(len(block), device=block.device)
    prefixes, previous = [], 0
    for dim in dims:
        segment = block[:, previous:dim]
        squares = squares + segment.square().sum(dim=1)
        prefixes.append(squares)
        previous = dim
    stacked = torch.stack(prefixes)
    usable = stacked > TINY_NORM**2
    # One transfer for the whole block: the device waits once, not once for each dimension.
    finite, all_usable = torch.stack([stacked[-1].isfinite().all(), usable.all()]).tolist()
    if not finite:
        broken = first_row + int(stacked[-1].isfinite().logical_not().nonzero()[0])
        raise VectorError(f"corpus row {broken} holds NaN or infinity; embed it again")
    inverses = torch.where(usable, stacked.rsqrt(), 0.0)
    if all_usable:
        nothing = torch.empty(0, dtype=torch.int64, device=block.device)
        return list(inverses), [nothing] * len(dims)
    return list(inverses), [(~row).nonzero()[:, 0] for row in usable]


def _keep_best(best: torch.Tensor | None, scores: torch.Tensor, rows: torch.Tensor, k: int) -> torch.Tensor:
    """Best keys so far, sorted. A key is a score above and the complement of its row below."""
    bits = (scores + 0.0).view(torch.int32)  # -0.0 + 0.0 is 0.0: the two zeros must tie
    ascending = bits ^ ((bits >> 31) & 0x7FFF_FFFF)
    keys = (ascending.to(torch.int64) << 32) | (_ROW_BITS - rows)
    if best is not None:
        keys = torch.cat([best, keys], dim=1)
    return keys.topk(min(k, keys.shape[1]), dim=1).values


def _promising(
    scores: torch.Tensor, rows: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The columns among which the k best of each row are, because sorting keys of all of them is slow.

    Of equal groups of columns, the k whose best score is highest hold the k best scores, unless the
    next group ties with them: ties go by row number. Whether that is so comes last, still on the device.
    """
    groups = scores.shape[1] // _GROUP
    if groups < _LEAST_GROUPS_OF_K * k:
        return scores, rows, torch.zeros((), dtype=torch.bool, device=scores.device)
    even = groups * _GROUP
    heads = scores[:, :even].unflatten(1, (groups, _GROUP)).amax(dim=2).topk(k + 1, dim=1)
    tie = (heads.values[:, k - 1] == heads.values[:, k]).any()
    within = torch.arange(_GROUP, device=scores.device)
    columns = (heads.indices[:, :k, None] * _GROUP + within).flatten(1)
    odd = torch.arange(even, scores.shape[1], device=scores.device).expand(len(scores), -1)
    columns = torch.cat([columns, odd], dim=1)
    return scores.gather(1, columns), rows[columns], tie


def _scores_of(keys: torch.Tensor) -> torch.Tensor:
    ascending = (keys >> 32).to(torch.int32)
    return (ascending ^ ((ascending >> 31) & 0x7FFF_FFFF)).view(torch.float32)
