"""The operations of `reference` as Triton kernels, for CUDA and 16-bit floats; arithmetic in float32.

Attention needs no padding: a tile of queries may span many short texts, each row knows the first key it
may see, and the tile walks only the keys that some row of it sees. So nothing recompiles with the number
or the lengths of texts, and no empty blocks are launched. Compiled kernels are kept on disk by Triton
(TRITON_CACHE_DIR, by default ~/.triton). Knows of no particular card: what only one kind runs stands in a
folder of its own, such as `hopper`, and falls back on these.
"""

# ruff: noqa: ANN001, N803, N806 - kernel arguments have no Python types; constants are upper case

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from toolkit.embedding.packed.reference import FP8_MAX, Keys, Queries, Rotary

LOG2_E = math.log2(math.e)
_FP8_MAX = tl.constexpr(FP8_MAX)
# Attention: queries (positions x heads that share keys) and keys worked on at once, warps, pipeline depth.
# By measurement on an H200.
_Q_TILE, _K_TILE, _WARPS, _STAGES = 64, 64, 4, 3
_MOST_SHARED = 4  # query heads in one tile


def shared_heads(group: int) -> int:
    """How many of the `group` query heads that see the same keys go into one tile."""
    return math.gcd(group, _MOST_SHARED)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, *, out: torch.Tensor) -> torch.Tensor:
    """As `reference.rms_norm`."""
    rows, width = x.shape
    block = triton.next_power_of_2(width)
    _rms_norm[(rows,)](x, weight, out, width, eps, BLOCK=block, num_warps=_row_warps(block))
    return out


def rotate_keys(
    keys: Keys, norm: torch.Tensor, eps: float, *, rotary: Rotary, position_ids: torch.Tensor
) -> None:
    """As `reference.rotate_keys`."""
    group = math.gcd(keys.kv_heads, 8)
    _rotate_keys[(len(keys.buffer), keys.kv_heads // group)](
        keys.buffer,
        norm,
        rotary.cos,
        rotary.sin,
        position_ids,
        keys.buffer.stride(0),
        keys.k_column,
        eps,
        GROUP=group,
        HALF=norm.shape[0] // 2,
        num_warps=2,
    )


def attend(queries: Queries, keys: Keys, eps: float, *, rotary: Rotary, out: torch.Tensor) -> torch.Tensor:
    """As `reference.attend`."""
    rows, head_dim = len(queries.rows), queries.norm.shape[0]
    heads = queries.rows.shape[1] // head_dim
    shared = shared_heads(heads // keys.kv_heads)
    ends = queries.ends
    count = triton.cdiv(rows, _Q_TILE // shared)
    _attend[(count * (heads // shared),)](
        queries.rows,
        queries.norm,
        rotary.cos,
        rotary.sin,
        TensorDescriptor.from_tensor(keys.buffer, [_K_TILE, head_dim]),
        out,
        queries.segment_starts,
        queries.segment_starts if ends is None else ends,
        rows,
        queries.rows.stride(0),
        out.stride(0),
        heads // shared,
        heads // keys.kv_heads // shared,
        keys.k_column,
        keys.v_column,
        eps,
        LOG2_E / math.sqrt(head_dim),
        OWN_ROW=ends is None,
        HEAD_DIM=head_dim,
        SHARED=shared,
        Q_TILE=_Q_TILE,
        K_TILE=_K_TILE,
        num_warps=_WARPS,
        num_stages=_STAGES,
    )
    return out


def gated_product(x: torch.Tensor, weight: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    """As `reference.gated_product`."""
    width = out.shape[1]
    gate_up = torch.mm(x, weight.t())
    _silu_mul[(len(x), triton.cdiv(width, 1024))](gate_up, out, width, BLOCK=1024, num_warps=4)
    return out


def quantize(x: torch.Tensor, *, out: torch.Tensor, scales: torch.Tensor) -> None:
    """As `reference.quantize`."""
    rows, width = x.shape
    _quantize[(rows,)](x, out, scales, width, **_halves(width))


def add_norm_quantize(
    x: torch.Tensor,
    delta: torch.Tensor | None,
    weight: torch.Tensor,
    eps: float,
    *,
    out: torch.Tensor,
    scales: torch.Tensor,
) -> None:
    """As `reference.add_norm_quantize`."""
    rows, width = x.shape
    _add_norm_quantize[(rows,)](
        x,
        x if delta is None else delta,
        weight,
        out,
        scales,
        width,
        eps,
        ADD=delta is not None,
        **_halves(width),
    )


def silu_mul_quantize(gate_up: torch.Tensor, *, out: torch.Tensor, scales: torch.Tensor) -> None:
    """As `reference.silu_mul_quantize`."""
    rows, width = out.shape
    _silu_mul_quantize[(rows,)](gate_up, out, scales, width, **_halves(width))


def _row_warps(block: int) -> int:
    # 16 numbers a thread: two 16-byte loads of 16-bit floats.
    return min(16, max(1, block // 512))


def _halves(width: int) -> dict[str, int]:
    """A row held in two blocks whose sizes are powers of two: fewer idle lanes than one block would have."""
    first = triton.next_power_of_2(width) // 2
    second = triton.next_power_of_2(width - first)
    return {"FIRST": first, "SECOND": second, "num_warps": _row_warps(2 * first)}


@triton.jit
def _rms_norm(x_ptr, weight_ptr, out_ptr, width, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    x = tl.load(x_ptr + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, axis=0) / width + eps)
    tl.store(out_ptr + row * width + columns, (x * scale * weight).to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _rotated(low_ptr, norm_ptr, cos, sin, eps, HALF: tl.constexpr):
    """Both halves of heads, normalized and rotated; `low_ptr` is (heads, HALF)."""
    half = tl.arange(0, HALF)
    low = tl.load(low_ptr).to(tl.float32)
    high = tl.load(low_ptr + HALF).to(tl.float32)
    squares = tl.sum(low * low, axis=1) + tl.sum(high * high, axis=1)
    scale = tl.rsqrt(squares / (2 * HALF) + eps)[:, None]
    low = low * scale * tl.load(norm_ptr + half).to(tl.float32)[None, :]
    high = high * scale * tl.load(norm_ptr + HALF + half).to(tl.float32)[None, :]
    return low * cos - high * sin, high * cos + low * sin


@triton.jit
def _rotate_keys(
    rows_ptr,
    norm_ptr,
    cos_ptr,
    sin_ptr,
    position_ids_ptr,
    stride,
    column,
    eps,
    GROUP: tl.constexpr,
    HALF: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    heads = tl.program_id(1) * GROUP + tl.arange(0, GROUP)
    half = tl.arange(0, HALF)
    position = tl.load(position_ids_ptr + row).to(tl.int64)
    cos = tl.load(cos_ptr + position * HALF + half)[None, :]
    sin = tl.load(sin_ptr + position * HALF + half)[None, :]
    low_ptr = rows_ptr + row * stride + column + heads[:, None] * (2 * HALF) + half[None, :]
    low, high = _rotated(low_ptr, norm_ptr, cos, sin, eps, HALF)
    tl.store(low_ptr, low.to(rows_ptr.dtype.element_ty))
    tl.store(low_ptr + HALF, high.to(rows_ptr.dtype.element_ty))


@triton.jit
def _attend(
    queries_ptr,
    norm_ptr,
    cos_ptr,
    sin_ptr,
    keys,
    out_ptr,
    segment_starts_ptr,
    ends_ptr,
    n_rows,
    q_stride,
    out_stride,
    groups,
    groups_per_key,
    k_column,
    v_column,
    eps,
    scale_log2,
    OWN_ROW: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SHARED: tl.constexpr,
    Q_TILE: tl.constexpr,
    K_TILE: tl.constexpr,
):
    # A group is a GQA group, or SHARED of its query heads; row r of the tile is position r // SHARED.
    # Groups vary fastest, so that the same rows of keys are in use at the same time; late tiles, the
    # heavy ones of a long text, come first.
    program = tl.program_id(0)
    group = program % groups
    tile = tl.num_programs(0) // groups - 1 - program // groups
    k_column += group // groups_per_key * HEAD_DIM
    v_column += group // groups_per_key * HEAD_DIM

    begin_row = tile * (Q_TILE // SHARED)
    count = tl.minimum(n_rows - begin_row, Q_TILE // SHARED)
    offsets = tl.arange(0, Q_TILE)
    inside = offsets // SHARED < count
    rows = begin_row + tl.minimum(offsets // SHARED, count - 1)
    column = (group * SHARED + offsets % SHARED) * HEAD_DIM
    first = tl.load(segment_starts_ptr + rows)
    last = rows if OWN_ROW else tl.load(ends_ptr + rows)

    HALF: tl.constexpr = HEAD_DIM // 2
    half = tl.arange(0, HALF)
    angles = (last - first)[:, None] * HALF + half[None, :]
    low_ptr = queries_ptr + (rows.to(tl.int64) * q_stride + column)[:, None] + half[None, :]
    low, high = _rotated(low_ptr, norm_ptr, tl.load(cos_ptr + angles), tl.load(sin_ptr + angles), eps, HALF)
    q = tl.permute(tl.join(low.to(keys.dtype), high.to(keys.dtype)), (0, 2, 1)).reshape(Q_TILE, HEAD_DIM)

    begin = tl.min(first, axis=0)
    end = tl.max(last, axis=0) + 1
    # Keys that every row of the tile sees need no mask.
    common = tl.maximum(tl.min(last, axis=0) + 1 - begin, 0) // K_TILE * K_TILE
    open_end = tl.where(tl.max(first, axis=0) == begin, begin + common, begin)

    best = tl.full([Q_TILE], -1.0e30, dtype=tl.float32)
    total = tl.zeros([Q_TILE], dtype=tl.float32)
    accumulator = tl.zeros([Q_TILE, HEAD_DIM], dtype=tl.float32)
    for start in tl.range(begin, open_end, K_TILE):
        k = keys.load([start, k_column])
        scores = tl.dot(q, k.T)
        better = tl.maximum(best, tl.max(scores, axis=1) * scale_log2)
        probabilities = tl.exp2(scores * scale_log2 - better[:, None])
        rescale = tl.exp2(best - better)
        total = total * rescale + tl.sum(probabilities, axis=1)
        v = keys.load([start, v_column])
        accumulator = tl.dot(probabilities.to(v.dtype), v, accumulator * rescale[:, None])
        best = better
    for start in tl.range(open_end, end, K_TILE):
        k = keys.load([start, k_column])
        scores = tl.dot(q, k.T)
        key_rows = start + tl.arange(0, K_TILE)
        seen = (key_rows[None, :] >= first[:, None]) & (key_rows[None, :] <= last[:, None])
        scores = tl.where(seen, scores, float("-inf"))
        better = tl.maximum(best, tl.max(scores, axis=1) * scale_log2)
        probabilities = tl.exp2(scores * scale_log2 - better[:, None])
        rescale = tl.exp2(best - better)
        total = total * rescale + tl.sum(probabilities, axis=1)
        v = keys.load([start, v_column])
        accumulator = tl.dot(probabilities.to(v.dtype), v, accumulator * rescale[:, None])
        best = better
    accumulator = accumulator / total[:, None]
    where = out_ptr + (rows.to(tl.int64) * out_stride + column)[:, None] + tl.arange(0, HEAD_DIM)[None, :]
    tl.store(where, accumulator.to(out_ptr.dtype.element_ty), mask=inside[:, None])


@triton.jit
def _silu_mul(gate_up_ptr, out_ptr, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    gate_ptr = gate_up_ptr + row * 2 * width + columns
    gate = tl.load(gate_ptr, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_ptr + width, mask=inside, other=0.0).to(tl.float32)
    tl.store(
        out_ptr + row * width + columns,
        (gate * tl.sigmoid(gate) * up).to(out_ptr.dtype.element_ty),
        mask=inside,
    )


@triton.jit
def _row(ptr, width, FIRST: tl.constexpr, SECOND: tl.constexpr):
    """A row as two float32 blocks; zeros beyond its end."""
    second = FIRST + tl.arange(0, SECOND)
    return (
        tl.load(ptr + tl.arange(0, FIRST)).to(tl.float32),
        tl.load(ptr + second, mask=second < width, other=0.0).to(tl.float32),
    )


@triton.jit
def _store_row(ptr, left, right, width, FIRST: tl.constexpr, SECOND: tl.constexpr):
    second = FIRST + tl.arange(0, SECOND)
    tl.store(ptr + tl.arange(0, FIRST), left.to(ptr.dtype.element_ty))
    tl.store(ptr + second, right.to(ptr.dtype.element_ty), mask=second < width)


@triton.jit
def _store_quantized(left, right, out_ptr, scales_ptr, row, width, FIRST: tl.constexpr, SECOND: tl.constexpr):
    largest = tl.maximum(tl.max(tl.abs(left), axis=0), tl.max(tl.abs(right), axis=0))
    largest = tl.maximum(largest, 1e-12)
    tl.store(scales_ptr + row, largest / _FP8_MAX)
    scale = _FP8_MAX / largest
    _store_row(out_ptr + row * width, left * scale, right * scale, width, FIRST, SECOND)


@triton.jit
def _quantize(x_ptr, out_ptr, scales_ptr, width, FIRST: tl.constexpr, SECOND: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    left, right = _row(x_ptr + row * width, width, FIRST, SECOND)
    _store_quantized(left, right, out_ptr, scales_ptr, row, width, FIRST, SECOND)


@triton.jit
def _add_norm_quantize(
    x_ptr,
    delta_ptr,
    weight_ptr,
    out_ptr,
    scales_ptr,
    width,
    eps,
    ADD: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    left, right = _row(x_ptr + row * width, width, FIRST, SECOND)
    if ADD:
        more_left, more_right = _row(delta_ptr + row * width, width, FIRST, SECOND)
        left += more_left
        right += more_right
        _store_row(x_ptr + row * width, left, right, width, FIRST, SECOND)
    squares = tl.sum(left * left, axis=0) + tl.sum(right * right, axis=0)
    scale = tl.rsqrt(squares / width + eps)
    weight_left, weight_right = _row(weight_ptr, width, FIRST, SECOND)
    left *= scale * weight_left
    right *= scale * weight_right
    _store_quantized(left, right, out_ptr, scales_ptr, row, width, FIRST, SECOND)


@triton.jit
def _silu_mul_quantize(gate_up_ptr, out_ptr, scales_ptr, width, FIRST: tl.constexpr, SECOND: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    left, right = _row(gate_up_ptr + row * 2 * width, width, FIRST, SECOND)
    up_left, up_right = _row(gate_up_ptr + row * 2 * width + width, width, FIRST, SECOND)
    left *= tl.sigmoid(left) * up_left
    right *= tl.sigmoid(right) * up_right
    _store_quantized(left, right, out_ptr, scales_ptr, row, width, FIRST, SECOND)
