"""The operations of `kernels` on Hopper: those that it does better in ways of its own, and the others as they are.

Which way an operation goes depends on its operands only, and either way gives what `reference` defines.
"""

from __future__ import annotations

import torch

from toolkit.embedding.packed import kernels
from toolkit.embedding.packed.hopper import gated_product as gated
from toolkit.embedding.packed.hopper.gluon import attention_refusal
from toolkit.embedding.packed.kernels import (
    add_norm_quantize,
    quantize,
    rms_norm,
    rotate_keys,
    silu_mul_quantize,
)
from toolkit.embedding.packed.reference import Keys, Queries, Rotary

__all__ = [
    "add_norm_quantize",
    "attend",
    "gated_product",
    "quantize",
    "rms_norm",
    "rotate_keys",
    "silu_mul_quantize",
]

# The heads that the attention of long texts is written for.
_HEAD_DIM = 128
# Gluon is Triton's experimental part: a version that it was not written for may not even import it.
if attention_refusal() is None:
    from toolkit.embedding.packed.hopper.attention import attend as _attend_long
else:
    _attend_long = None


def attend(queries: Queries, keys: Keys, eps: float, *, rotary: Rotary, out: torch.Tensor) -> torch.Tensor:
    """As `reference.attend`."""
    suits = keys.long and queries.ends is None and queries.norm.shape[0] == _HEAD_DIM
    chosen = _attend_long if suits and _attend_long is not None else kernels.attend
    return chosen(queries, keys, eps, rotary=rotary, out=out)


def gated_product(x: torch.Tensor, weight: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    """As `reference.gated_product`."""
    chosen = gated if gated.pays(x, out.shape[1]) else kernels
    return chosen.gated_product(x, weight, out=out)
