"""Attention for packs of long texts on Hopper, in Gluon, the level below Triton.

The arithmetic is that of `kernels.attend`. There, two blocks of 64 query rows share a multiprocessor and
each fetches its own keys, which asks more of the second-level cache than it gives. Here one block has 128
rows: one warp fetches keys and values ahead, and two groups of four warps, 64 rows each, use them, adding up
the values of one tile while they score the next (the design of FlashAttention 3, Shah et al. 2024).
"""

# ruff: noqa: ANN001, N803, N806 - kernel arguments have no Python types; constants are upper case

from __future__ import annotations

import math

import torch
import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from toolkit.embedding.packed.kernels import LOG2_E, shared_heads
from toolkit.embedding.packed.reference import Keys, Queries, Rotary

# Rows of each group of warps, keys of a tile, tiles fetched ahead. By measurement on an H100.
_ROWS, _K_TILE, _STAGES = 64, 128, 2
_GROUP_REGISTERS, _FETCH_REGISTERS = 240, 24
_barrier = getattr(gl, "barrier", None) or gl.thread_barrier  # renamed after Triton 3.6


def attend(queries: Queries, keys: Keys, eps: float, *, rotary: Rotary, out: torch.Tensor) -> torch.Tensor:
    """As `reference.attend`, for a query of every row."""
    rows, head_dim = len(queries.rows), queries.norm.shape[0]
    heads = queries.rows.shape[1] // head_dim
    shared = shared_heads(heads // keys.kv_heads)
    dtype = gl.bfloat16 if keys.buffer.dtype == torch.bfloat16 else gl.float16
    tile = [_K_TILE, head_dim]
    layout = gl.NVMMASharedLayout.get_default_for(tile, dtype)
    _attend[(triton.cdiv(rows * shared, 2 * _ROWS) * (heads // shared),)](
        queries.rows,
        queries.norm,
        rotary.cos,
        rotary.sin,
        TensorDescriptor.from_tensor(keys.buffer, tile, layout),
        out,
        queries.segment_starts,
        rows,
        queries.rows.stride(0),
        out.stride(0),
        heads // shared,
        heads // keys.kv_heads // shared,
        keys.k_column,
        keys.v_column,
        eps,
        LOG2_E / math.sqrt(head_dim),
        HEAD_DIM=head_dim,
        SHARED=shared,
        ROWS=_ROWS,
        K_TILE=_K_TILE,
        STAGES=_STAGES,
        GROUP_REGISTERS=_GROUP_REGISTERS,
        FETCH_REGISTERS=_FETCH_REGISTERS,
        num_warps=4,
    )
    return out


@gluon.jit
def _fetch(keys, fetched, begin, steps, k_column, v_column, K_TILE: gl.constexpr, STAGES: gl.constexpr):
    k_tiles, v_tiles, k_full, k_free, v_full, v_free = fetched
    for step in range(steps):
        stage = step % STAGES
        phase = (step // STAGES & 1) ^ 1
        row = begin + step * K_TILE
        mbarrier.wait(k_free.index(stage), phase)
        mbarrier.expect(k_full.index(stage), keys.block_type.nbytes)
        tma.async_copy_global_to_shared(keys, [row, k_column], k_full.index(stage), k_tiles.index(stage))
        mbarrier.wait(v_free.index(stage), phase)
        mbarrier.expect(v_full.index(stage), keys.block_type.nbytes)
        tma.async_copy_global_to_shared(keys, [row, v_column], v_full.index(stage), v_tiles.index(stage))


@gluon.jit
def _rotate_queries(
    into, where, span, group_row, eps, HEAD_DIM: gl.constexpr, SHARED: gl.constexpr, ROWS: gl.constexpr
):
    """Normalized and rotated query heads of a group of warps, into shared memory."""
    queries_ptr, norm_ptr, cos_ptr, sin_ptr, _, segment_starts_ptr = where
    _, n_rows, first_column, stride, _, _, _, _ = span
    HALF: gl.constexpr = HEAD_DIM // 2
    LAYOUT: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0])
    offsets = gl.arange(0, ROWS, layout=gl.SliceLayout(1, LAYOUT))
    half = gl.arange(0, HALF, layout=gl.SliceLayout(0, LAYOUT))
    rows = gl.minimum(group_row + offsets // SHARED, n_rows - 1)
    columns = first_column + offsets % SHARED * HEAD_DIM
    addresses = (rows.to(gl.int64) * stride + columns)[:, None] + half[None, :]
    low = gl.load(queries_ptr + addresses).to(gl.float32)
    high = gl.load(queries_ptr + HALF + addresses).to(gl.float32)
    angles = (rows - gl.load(segment_starts_ptr + rows))[:, None] * HALF + half[None, :]
    cos = gl.load(cos_ptr + angles)
    sin = gl.load(sin_ptr + angles)
    squares = gl.sum(low * low, axis=1) + gl.sum(high * high, axis=1)
    scale = gl.rsqrt(squares / HEAD_DIM + eps)[:, None]
    low = low * scale * gl.load(norm_ptr + half).to(gl.float32)[None, :]
    high = high * scale * gl.load(norm_ptr + HALF + half).to(gl.float32)[None, :]
    into.slice(0, HALF, 1).store((low * cos - high * sin).to(into.dtype))
    into.slice(HALF, HALF, 1).store((high * cos + low * sin).to(into.dtype))
    fence_async_shared()
    _barrier()


@gluon.jit
def _softmax_step(
    scores, best, total, first, last, key_row, masked, scale_log2, K_TILE: gl.constexpr, LAYOUT: gl.constexpr
):
    if masked:
        rows = key_row + gl.arange(0, K_TILE, layout=gl.SliceLayout(0, LAYOUT))
        seen = (rows[None, :] >= first[:, None]) & (rows[None, :] <= last[:, None])
        scores = gl.where(seen, scores, float("-inf"))
    better = gl.maximum(best, gl.max(scores, axis=1) * scale_log2)
    probabilities = gl.exp2(scores * scale_log2 - better[:, None])
    rescale = gl.exp2(best - better)
    return probabilities, better, rescale, total * rescale + gl.sum(probabilities, axis=1)


@gluon.jit
def _attend_group(
    group: gl.constexpr,
    q_tiles,
    fetched,
    where,
    span,
    scales,
    HEAD_DIM: gl.constexpr,
    SHARED: gl.constexpr,
    ROWS: gl.constexpr,
    K_TILE: gl.constexpr,
    STAGES: gl.constexpr,
):
    k_tiles, v_tiles, k_full, k_free, v_full, v_free = fetched
    _, _, _, _, out_ptr, segment_starts_ptr = where
    tile_row, n_rows, first_column, _, out_stride, begin, steps, open_steps = span
    eps, scale_log2 = scales
    SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, K_TILE, 16])
    ACCUMULATOR: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HEAD_DIM, 16])
    PROBABILITIES: gl.constexpr = gl.DotOperandLayout(operand_index=0, parent=ACCUMULATOR, k_width=2)
    OUT: gl.constexpr = gl.BlockedLayout([1, 8], [2, 16], [4, 1], [1, 0])
    dtype: gl.constexpr = k_tiles.dtype

    group_row = tile_row + group * (ROWS // SHARED)
    q = q_tiles.index(group)
    _rotate_queries(q, where, span, group_row, eps, HEAD_DIM, SHARED, ROWS)

    last = gl.minimum(group_row + gl.arange(0, ROWS, layout=gl.SliceLayout(1, SCORES)) // SHARED, n_rows - 1)
    first = gl.load(segment_starts_ptr + last)
    best = gl.full([ROWS], -1.0e30, gl.float32, layout=gl.SliceLayout(1, SCORES))
    total = gl.full([ROWS], 0.0, gl.float32, layout=gl.SliceLayout(1, SCORES))
    nothing = gl.full([ROWS, K_TILE], 0.0, gl.float32, layout=SCORES)
    accumulator = gl.full([ROWS, HEAD_DIM], 0.0, gl.float32, layout=ACCUMULATOR)

    mbarrier.wait(k_full.index(0), 0)
    scores = warpgroup_mma(q, k_tiles.index(0).permute((1, 0)), nothing, use_acc=False, is_async=True)
    scores = warpgroup_mma_wait(0, [scores])
    mbarrier.arrive(k_free.index(0), count=1)
    probabilities, best, rescale, total = _softmax_step(
        scores, best, total, first, last, begin, open_steps == 0, scale_log2, K_TILE, SCORES
    )
    weights = gl.convert_layout(probabilities.to(dtype), PROBABILITIES)
    for step in range(1, steps):
        # The values of the tile before are accumulated while this one's scores go through the softmax.
        stage = step % STAGES
        before = (step - 1) % STAGES
        mbarrier.wait(k_full.index(stage), step // STAGES & 1)
        scores = warpgroup_mma(q, k_tiles.index(stage).permute((1, 0)), nothing, use_acc=False, is_async=True)
        mbarrier.wait(v_full.index(before), (step - 1) // STAGES & 1)
        accumulating = warpgroup_mma(weights, v_tiles.index(before), accumulator, is_async=True)
        scores = warpgroup_mma_wait(1, [scores])
        mbarrier.arrive(k_free.index(stage), count=1)
        key_row = begin + step * K_TILE
        probabilities, best, rescale, total = _softmax_step(
            scores, best, total, first, last, key_row, step >= open_steps, scale_log2, K_TILE, SCORES
        )
        accumulator, weights = warpgroup_mma_wait(0, [accumulating, weights])
        mbarrier.arrive(v_free.index(before), count=1)
        accumulator = accumulator * gl.convert_layout(rescale, gl.SliceLayout(1, ACCUMULATOR))[:, None]
        weights = gl.convert_layout(probabilities.to(dtype), PROBABILITIES)
    final = steps - 1
    mbarrier.wait(v_full.index(final % STAGES), final // STAGES & 1)
    accumulator = warpgroup_mma(weights, v_tiles.index(final % STAGES), accumulator)
    accumulator = accumulator / gl.convert_layout(total, gl.SliceLayout(1, ACCUMULATOR))[:, None]

    result = gl.convert_layout(accumulator.to(dtype), OUT)
    offsets = gl.arange(0, ROWS, layout=gl.SliceLayout(1, OUT))
    rows = group_row + offsets // SHARED
    columns = first_column + offsets % SHARED * HEAD_DIM
    width = gl.arange(0, HEAD_DIM, layout=gl.SliceLayout(0, OUT))
    addresses = (rows.to(gl.int64) * out_stride + columns)[:, None] + width[None, :]
    gl.store(out_ptr + addresses, result, mask=(rows < n_rows)[:, None])


@gluon.jit
def _attend(
    queries_ptr,
    norm_ptr,
    cos_ptr,
    sin_ptr,
    keys,
    out_ptr,
    segment_starts_ptr,
    n_rows,
    q_stride,
    out_stride,
    head_groups,
    groups_per_key,
    k_column,
    v_column,
    eps,
    scale_log2,
    HEAD_DIM: gl.constexpr,
    SHARED: gl.constexpr,
    ROWS: gl.constexpr,
    K_TILE: gl.constexpr,
    STAGES: gl.constexpr,
    GROUP_REGISTERS: gl.constexpr,
    FETCH_REGISTERS: gl.constexpr,
):
    # Groups of SHARED query heads and the order of tiles are as in `kernels._attend`.
    program = gl.program_id(0)
    head_group = program % head_groups
    tile = gl.num_programs(0) // head_groups - 1 - program // head_groups
    k_column += head_group // groups_per_key * HEAD_DIM
    v_column += head_group // groups_per_key * HEAD_DIM
    first_column = head_group * SHARED * HEAD_DIM
    tile_row = tile * (2 * ROWS // SHARED)

    offsets = gl.arange(0, 2 * ROWS, layout=gl.BlockedLayout([1], [32], [4], [0]))
    last = gl.minimum(tile_row + offsets // SHARED, n_rows - 1)
    first = gl.load(segment_starts_ptr + last)
    begin = gl.min(first, axis=0)
    steps = (gl.max(last, axis=0) - begin + K_TILE) // K_TILE
    # Tiles of keys that every row sees need no mask.
    open_steps = gl.maximum(gl.min(last, axis=0) + 1 - begin, 0) // K_TILE
    open_steps = gl.where(gl.max(first, axis=0) == begin, open_steps, 0)

    dtype: gl.constexpr = keys.dtype
    Q_LAYOUT: gl.constexpr = gl.NVMMASharedLayout.get_default_for([ROWS, HEAD_DIM], dtype)
    q_tiles = gl.allocate_shared_memory(dtype, [2, ROWS, HEAD_DIM], Q_LAYOUT)
    k_tiles = gl.allocate_shared_memory(dtype, [STAGES, K_TILE, HEAD_DIM], keys.layout)
    v_tiles = gl.allocate_shared_memory(dtype, [STAGES, K_TILE, HEAD_DIM], keys.layout)
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(k_full.index(stage), count=1)
        mbarrier.init(v_full.index(stage), count=1)
        mbarrier.init(k_free.index(stage), count=2)
        mbarrier.init(v_free.index(stage), count=2)
    fence_async_shared()
    _barrier()
    fetched = (k_tiles, v_tiles, k_full, k_free, v_full, v_free)
    where = (queries_ptr, norm_ptr, cos_ptr, sin_ptr, out_ptr, segment_starts_ptr)
    span = (tile_row, n_rows, first_column, q_stride, out_stride, begin, steps, open_steps)
    scales = (eps, scale_log2)
    gl.warp_specialize(
        [
            (
                _attend_group,
                (0, q_tiles, fetched, where, span, scales, HEAD_DIM, SHARED, ROWS, K_TILE, STAGES),
            ),
            (
                _attend_group,
                (1, q_tiles, fetched, where, span, scales, HEAD_DIM, SHARED, ROWS, K_TILE, STAGES),
            ),
            (_fetch, (keys, fetched, begin, steps, k_column, v_column, K_TILE, STAGES)),
        ],
        [4, 1],
        [GROUP_REGISTERS, FETCH_REGISTERS],
    )
