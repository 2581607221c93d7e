"""The decoder layer's operations in plain torch: any device, any dtype, and the definition of what is right.

`kernels` has the same functions under the same names. Knows nothing of weights' origins or of packs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
class Keys:
    """What queries look at: keys and values side by side in one buffer, texts end to end.

    buffer : (t, width); keys start at column `k_column`, values at `v_column`.
    lengths : tokens of each text, filler left out; empty when only kernels look (they need no lengths).
    tiles : for the kernels, the size of an attention tile and the (m, 2) runs of query rows; or None.
    """

    buffer: torch.Tensor
    k_column: int
    v_column: int
    kv_heads: int
    lengths: Sequence[int]
    tiles: tuple[Any, torch.Tensor] | None = None


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, *, out: torch.Tensor) -> torch.Tensor:
    """Zhang & Sennrich 2019, root mean square normalisation of each row, times `weight`."""
    return out.copy_(_normed(x, weight, eps))


def rotate(
    rows: torch.Tensor,
    q_norm: torch.Tensor,
    k_norm: torch.Tensor,
    eps: float,
    *,
    heads: tuple[int, int],
    rotary: Rotary,
    places: torch.Tensor,
) -> None:
    """Normalise and rotate, in place, the `heads` = (query, key) heads that each row begins with."""
    head_dim = q_norm.shape[0]
    cos, sin = rotary.cos[places][:, None, :], rotary.sin[places][:, None, :]
    column = 0
    for count, weight in zip(heads, (q_norm, k_norm), strict=True):
        if not count:
            continue
        part = rows[:, column : column + count * head_dim].unflatten(1, (count, head_dim))
        low, high = _normed(part, weight, eps).chunk(2, dim=-1)
        part.copy_(torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1))
        column += count * head_dim


def attend(
    queries: torch.Tensor,
    keys: Keys,
    starts: torch.Tensor,  # noqa: ARG001 - what the kernels use instead of lengths
    *,
    ends: torch.Tensor | None,
    head_dim: int,
    out: torch.Tensor,
) -> torch.Tensor:
    """Causal attention of each text to itself.

    queries : (t, heads x head_dim), or with `ends` only each text's last token, (n, heads x head_dim).
    starts : row of the first key that a query sees.
    ends : row of the last key that a query sees; None for its own row.
    """
    first = done = 0
    for length, group in itertools.groupby(keys.lengths):
        count = len(list(group))
        size = count * length
        block = keys.buffer[first : first + size]
        k, v = (
            block[:, column : column + keys.kv_heads * head_dim]
            .view(count, length, keys.kv_heads, head_dim)
            .transpose(1, 2)
            for column in (keys.k_column, keys.v_column)
        )
        q_rows, q_length = (
            (slice(first, first + size), length) if ends is None else (slice(done, done + count), 1)
        )
        q = queries[q_rows].view(count, q_length, -1, head_dim).transpose(1, 2)
        seen = scaled_dot_product_attention(q, k, v, is_causal=ends is None, enable_gqa=True)
        out[q_rows] = seen.transpose(1, 2).flatten(2).flatten(0, 1)
        first, done = first + size, done + count
    if ends is None:
        out[first:] = 0
    else:
        out[done:] = 0
    return out


def silu_mul(gate_up: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    """SwiGLU (Shazeer 2020): SiLU of the left half of each row, times the right half."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    return out.copy_(silu(gate) * up)


def quantise(x: torch.Tensor, *, out: torch.Tensor, scales: torch.Tensor) -> None:
    """Rows to e4m3 with one float32 scale a row: x is about out x scales."""
    wide = x.float()
    largest = wide.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12)
    scales.copy_(largest / FP8_MAX)
    out.copy_((wide * (FP8_MAX / largest)).to(FP8))


def add_norm_quantise(
    x: torch.Tensor,
    delta: torch.Tensor | None,
    weight: torch.Tensor,
    eps: float,
    *,
    out: torch.Tensor,
    scales: torch.Tensor,
) -> None:
    """Add `delta` to `x` in place, then `quantise` its `rms_norm`."""
    if delta is not None:
        x.add_(delta)
    quantise(_normed(x, weight, eps), out=out, scales=scales)


def silu_mul_quantise(gate_up: torch.Tensor, *, out: torch.Tensor, scales: torch.Tensor) -> None:
    """`quantise` of `silu_mul`."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    quantise(silu(gate) * up, out=out, scales=scales)


def _normed(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    wide = x.float()
    return wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps) * weight.float()
