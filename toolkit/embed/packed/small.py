"""A forward pass for packs of a few dozen tokens, such as one query: Triton kernels bound by memory alone.

So few tokens leave the arithmetic idle, and time is what it takes to read the weights. Five kernels a
layer (normalisation, activation and residual are done inside the products) leave little between the
reads, and each kernel asks for its first weights before the one ahead of it has finished
(programmatic dependent launch, where the device has it).
"""

# ruff: noqa: ANN001, N803 - kernel arguments have no Python types, and constants are upper case in Triton

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait
from triton.tools.tensor_descriptor import TensorDescriptor

from toolkit.embed.packed.reference import Rotary
from toolkit.embed.packed.shape import DecoderShape
from toolkit.embed.packed.weights import LayerWeights

MAX_TOKENS = 64
_LOG2_E = math.log2(math.e)


@dataclass(frozen=True)
class Tile:
    """How a product is cut: output columns and inner length a step, warps, pipeline depth.

    ahead : inner length asked for before the kernel ahead has finished.
    """

    columns: int
    inner: int
    warps: int
    stages: int
    ahead: int = 1024


# By measurement on an H200.
QKV_TILE = Tile(32, 128, 4, 5)
GATED_TILE = Tile(32, 128, 4, 4)
ADD_TILE = Tile(16, 256, 4, 5)


def layer_pass(
    layer: LayerWeights,
    shape: DecoderShape,
    rotary: Rotary,
    *,
    x: torch.Tensor,
    places: torch.Tensor,
    starts: torch.Tensor,
    early: bool,
) -> None:
    """One decoder layer over `x`, (t, hidden) with t a power of two from 16 to `MAX_TOKENS`, in place.

    early : use programmatic dependent launch.
    """
    qkv = x.new_empty(len(x), shape.qkv_width)
    attended = x.new_empty(len(x), shape.q_width)
    gated = x.new_empty(len(x), shape.intermediate)
    eps = shape.norm_eps
    project(x, layer.qkv, qkv, tile=QKV_TILE, norm=layer.input_norm, eps=eps, early=early)
    _attend_small[(shape.heads,)](
        qkv,
        layer.q_norm,
        layer.k_norm,
        rotary.cos,
        rotary.sin,
        places,
        starts,
        attended,
        eps,
        _LOG2_E / math.sqrt(shape.head_dim),
        HEADS=shape.heads,
        KV_HEADS=shape.kv_heads,
        ROWS=len(x),
        HALF=shape.head_dim // 2,
        EARLY=early,
        num_warps=4,
        launch_pdl=early,
    )
    project(attended, layer.out, x, tile=ADD_TILE, add=True, early=early)
    project(x, layer.gate_up, gated, tile=GATED_TILE, norm=layer.mlp_norm, eps=eps, gated=True, early=early)
    project(gated, layer.down, x, tile=ADD_TILE, add=True, early=early)


def project(
    x: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor,
    *,
    tile: Tile,
    norm: torch.Tensor | None = None,
    eps: float = 0.0,
    gated: bool = False,
    add: bool = False,
    early: bool = False,
) -> None:
    """out = x x weight transposed, with its surroundings.

    norm : first normalise x with this weight. gated : SwiGLU of the two halves of the product.
    add : add to `out` instead of replacing it.
    """
    width = weight.shape[0] // (2 if gated else 1)
    _project[(triton.cdiv(width, tile.columns),)](
        x,
        weight if norm is None else norm,
        TensorDescriptor.from_tensor(weight, [tile.columns, tile.inner]),
        weight,
        out,
        x.shape[1],
        width,
        eps,
        NORM=norm is not None,
        GATED=gated,
        ADD=add,
        EARLY=early,
        AHEAD=tile.ahead,
        ROWS=len(x),
        COLUMNS=tile.columns,
        INNER=tile.inner,
        num_warps=tile.warps,
        num_stages=tile.stages,
        launch_pdl=early,
    )


@triton.jit
def _ask_for(weight_ptr, row, inner, COLUMNS: tl.constexpr, AHEAD: tl.constexpr):
    """Bring the first columns of some rows into the L2 cache."""
    lines = tl.arange(0, AHEAD // 64) * 64
    rows = (row + tl.arange(0, COLUMNS)).to(tl.int64)
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.b32 $0, 0;",
        "=r,l",
        [weight_ptr + rows[:, None] * inner + lines[None, :]],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit
def _project(
    x_ptr,
    norm_ptr,
    weight,
    weight_ptr,
    out_ptr,
    inner,
    width,
    eps,
    NORM: tl.constexpr,
    GATED: tl.constexpr,
    ADD: tl.constexpr,
    EARLY: tl.constexpr,
    AHEAD: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
):
    column = tl.program_id(0) * COLUMNS
    if EARLY:
        gdc_launch_dependents()
        _ask_for(weight_ptr, column, inner, COLUMNS, AHEAD)
        if GATED:
            _ask_for(weight_ptr, width + column, inner, COLUMNS, AHEAD)
        gdc_wait()
    rows = tl.arange(0, ROWS)
    steps = tl.arange(0, INNER)
    total = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    other = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    squares = tl.zeros([ROWS], dtype=tl.float32)
    for start in range(0, inner, INNER):
        inside = start + steps < inner
        x = tl.load(x_ptr + rows[:, None] * inner + start + steps[None, :], mask=inside[None, :], other=0.0)
        if NORM:
            wide = x.to(tl.float32)
            squares += tl.sum(wide * wide, axis=1)
            scale = tl.load(norm_ptr + start + steps, mask=inside, other=0.0).to(tl.float32)
            x = (wide * scale[None, :]).to(x.dtype)
        total = tl.dot(x, weight.load([column, start]).T, total)
        if GATED:
            other = tl.dot(x, weight.load([width + column, start]).T, other)
    if NORM:
        inverse = tl.rsqrt(squares / inner + eps)[:, None]
        total *= inverse
        other *= inverse
    if GATED:
        total = total * tl.sigmoid(total) * other
    columns = column + tl.arange(0, COLUMNS)
    where = out_ptr + rows[:, None] * width + columns[None, :]
    kept = (columns < width)[None, :]
    if ADD:
        total += tl.load(where, mask=kept, other=0.0).to(tl.float32)
    tl.store(where, total.to(out_ptr.dtype.element_ty), mask=kept)


@triton.jit
def _rotated(low_ptr, norm_ptr, cos, sin, eps, HALF: tl.constexpr):
    half = tl.arange(0, HALF)
    low = tl.load(low_ptr).to(tl.float32)
    high = tl.load(low_ptr + HALF).to(tl.float32)
    squares = tl.sum(low * low, axis=1) + tl.sum(high * high, axis=1)
    scale = tl.rsqrt(squares / (2 * HALF) + eps)[:, None]
    low = low * scale * tl.load(norm_ptr + half).to(tl.float32)[None, :]
    high = high * scale * tl.load(norm_ptr + HALF + half).to(tl.float32)[None, :]
    return low * cos - high * sin, high * cos + low * sin


@triton.jit
def _attend_small(
    qkv_ptr,
    q_norm_ptr,
    k_norm_ptr,
    cos_ptr,
    sin_ptr,
    places_ptr,
    starts_ptr,
    out_ptr,
    eps,
    scale_log2,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    ROWS: tl.constexpr,
    HALF: tl.constexpr,
    EARLY: tl.constexpr,
):
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    width: tl.constexpr = (HEADS + 2 * KV_HEADS) * 2 * HALF
    dtype = out_ptr.dtype.element_ty
    head = tl.program_id(0)
    key_head = head // (HEADS // KV_HEADS)
    rows = tl.arange(0, ROWS)
    half = tl.arange(0, HALF)
    whole = tl.arange(0, 2 * HALF)
    places = tl.load(places_ptr + rows).to(tl.int64)[:, None]
    cos = tl.load(cos_ptr + places * HALF + half[None, :])
    sin = tl.load(sin_ptr + places * HALF + half[None, :])
    row_ptr = qkv_ptr + rows[:, None] * width
    q_low, q_high = _rotated(row_ptr + head * 2 * HALF + half[None, :], q_norm_ptr, cos, sin, eps, HALF)
    k_column = (HEADS + key_head) * 2 * HALF
    k_low, k_high = _rotated(row_ptr + k_column + half[None, :], k_norm_ptr, cos, sin, eps, HALF)
    v_column = (HEADS + KV_HEADS + key_head) * 2 * HALF
    v = tl.load(row_ptr + v_column + whole[None, :])
    scores = tl.dot(q_low.to(dtype), tl.trans(k_low.to(dtype)))
    scores = tl.dot(q_high.to(dtype), tl.trans(k_high.to(dtype)), scores) * scale_log2
    first = tl.load(starts_ptr + rows)[:, None]
    seen = (rows[None, :] >= first) & (rows[None, :] <= rows[:, None])
    scores = tl.where(seen, scores, float("-inf"))
    shares = tl.exp2(scores - tl.max(scores, axis=1)[:, None])
    shares = shares / tl.sum(shares, axis=1)[:, None]
    mixed = tl.dot(shares.to(dtype), v)
    where = out_ptr + rows[:, None] * (HEADS * 2 * HALF) + head * 2 * HALF + whole[None, :]
    tl.store(where, mixed.to(dtype))
