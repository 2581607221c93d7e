"""The decoder layer's operations in plain torch: any device, any dtype, and the definition of what is right.

`kernels` has the same functions under the same names. Knows nothing of weights' origins or of packs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention, silu

# Largest finite float8_e4m3fn: a row is scaled so that its largest magnitude becomes this.
FP8_MAX = 448.0
FP8 = torch.float8_e4m3fn


@dataclass(frozen=True, eq=False)
class Rotary:
    """Cosines and sines of every position, (positions, head_dim / 2) float32 each."""

    cos: torch.Tensor
    sin: torch.Tensor

    @classmethod
    def of(cls, *, positions: int, head_dim: int, theta: float, device: torch.device) -> Rotary:
        """Su et al. 2021, "RoFormer": angle = position x theta^(-2i / head_dim)."""
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
        angles = torch.outer(
            torch.arange(positions, dtype=torch.float32, device=device), 1.0 / theta**exponents
        )
        return cls(angles.cos(), angles.sin())


@dataclass(frozen=True, eq=False)
class Queries:
    """What looks at keys.

    rows : (n, heads x head_dim), as they come from the product.
    norm : weight of each head's RMS normalization, (head_dim,).
    segment_starts : (n,) row of the first key that a query sees, the first token of its text.
    ends : (n,) row of the last key that it sees, its own; None where query i is row i.
    """

    rows: torch.Tensor
    norm: torch.Tensor
    segment_starts: torch.Tensor
    ends: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Keys:
    """What queries look at: rotated keys and values side by side in one buffer, texts end to end.

    buffer : (t, width); keys start at column `k_column`, values at `v_column`.
    lengths : tokens of each text, filler left out; empty when only kernels look (they need no lengths).
    long : whether some text is long enough for another kernel to pay.
    """

    buffer: torch.Tensor
    k_column: int
    v_column: int
    kv_heads: int
    lengths: Sequence[int]
    long: bool


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, *, out: torch.Tensor) -> torch.Tensor:
    """Zhang & Sennrich 2019, root mean square normalization of each row, times `weight`."""
    return out.copy_(_normed(x, weight, eps))


def rotate_keys(
    keys: Keys, norm: torch.Tensor, eps: float, *, rotary: Rotary, position_ids: torch.Tensor
) -> None:
    """Normalize each key head and rotate it by its token's position in the text, in place."""
    width = keys.kv_heads * norm.shape[0]
    part = keys.buffer[:, keys.k_column : keys.k_column + width].unflatten(1, (keys.kv_heads, -1))
    part.copy_(_rotated(part, norm, eps, rotary, position_ids))


def attend(queries: Queries, keys: Keys, eps: float, *, rotary: Rotary, out: torch.Tensor) -> torch.Tensor:
    """Normalize and rotate the queries; then causal attention of each text to itself.

    With ``queries.ends`` there is one query per text, its last token. Writes (n, heads x head_dim).
    """
    head_dim = queries.norm.shape[0]
    segment_starts, ends = queries.segment_starts, queries.ends
    own = torch.arange(len(segment_starts), device=segment_starts.device) if ends is None else ends
    rows = queries.rows.unflatten(1, (-1, head_dim))
    rotated = _rotated(rows, queries.norm, eps, rotary, own - segment_starts).to(rows.dtype)
    group = rotated.shape[1] // keys.kv_heads
    first = done = 0
    for length, texts in itertools.groupby(keys.lengths):
        count = len(list(texts))
        size = count * length
        block = keys.buffer[first : first + size]
        # Repeated heads, because grouped ones have no memory-saving kernel in float32.
        k, v = (
            block[:, column : column + keys.kv_heads * head_dim]
            .view(count, length, keys.kv_heads, head_dim)
            .transpose(1, 2)
            .repeat_interleave(group, dim=1)
            for column in (keys.k_column, keys.v_column)
        )
        span = slice(first, first + size) if ends is None else slice(done, done + count)
        q = rotated[span].unflatten(0, (count, -1)).transpose(1, 2)
        seen = scaled_dot_product_attention(q, k, v, is_causal=ends is None)
        out[span] = seen.transpose(1, 2).flatten(2).flatten(0, 1)
        first, done = first + size, done + count
    out[first if ends is None else done :] = 0
    return out


def gated_product(x: torch.Tensor, weight: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    """SwiGLU (Shazeer 2020): SiLU of x times the upper half of `weight`, times x times the lower half.

    x : (n, inputs). weight : (2 x width, inputs). out : (n, width).
    """
    gate, up = (x @ weight.t()).float().chunk(2, dim=-1)
    return out.copy_(silu(gate) * up)


def quantize(x: torch.Tensor, *, out: torch.Tensor, scales: torch.Tensor) -> None:
    """Rows to e4m3 with one float32 scale per row: x is about out x scales."""
    wide = x.float()
    largest = wide.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12)
    scales.copy_(largest / FP8_MAX)
    out.copy_((wide * (FP8_MAX / largest)).to(FP8))


def add_norm_quantize(
    x: torch.Tensor,
    delta: torch.Tensor | None,
    weight: torch.Tensor,
    eps: float,
    *,
    out: torch.Tensor,
    scales: torch.Tensor,
) -> None:
    """Add `delta` to `x` in place, then `quantize` its `rms_norm`."""
    if delta is not None:
        x.add_(delta)
    quantize(_normed(x, weight, eps), out=out, scales=scales)


def silu_mul_quantize(gate_up: torch.Tensor, *, out: torch.Tensor, scales: torch.Tensor) -> None:
    """`quantize` SiLU of the left half of each row, times the right half."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    quantize(silu(gate) * up, out=out, scales=scales)


def _normed(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    wide = x.float()
    return wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps) * weight.float()


def _rotated(
    heads: torch.Tensor, norm: torch.Tensor, eps: float, rotary: Rotary, position_ids: torch.Tensor
) -> torch.Tensor:
    cos, sin = rotary.cos[position_ids][:, None, :], rotary.sin[position_ids][:, None, :]
    low, high = _normed(heads, norm, eps).chunk(2, dim=-1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1)
