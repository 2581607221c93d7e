"""One forward pass over a pack: token ids in, unit rows out. Knows nothing of texts or of scheduling.

The last layer is worked out for each text's last token only: nothing reads the other states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Protocol

import torch

from toolkit.embedding.packed.precision import Arithmetic
from toolkit.embedding.packed.reference import Keys, Queries, Rotary
from toolkit.embedding.packed.weights import LayerWeights, Weights

# Tokens of a text from which kernels may take another way; by measurement on an H100.
LONG_TEXT = 1_024


@dataclass(frozen=True, eq=False)
class Batch:
    """A pack on the device.

    tokens, position_ids, segment_starts : (t,) int32, as in `packing.Pack.rows`.
    last_rows : (n,) int32 row of each text's last token; may be followed by repetitions.
    lengths : tokens of each text, for operations that go text by text; empty where kernels do the work.
    long : whether some text has LONG_TEXT tokens or more.
    """

    tokens: torch.Tensor
    position_ids: torch.Tensor
    segment_starts: torch.Tensor
    last_rows: torch.Tensor
    lengths: Sequence[int]
    long: bool


class SmallBatch(Protocol):
    """Does passes of at most `most` tokens in a way of its own."""

    most: int

    def tokens(self, used: int) -> int:
        """Rows that a pass over `used` tokens has, the filler included."""
        ...

    def __call__(
        self, tokens: torch.Tensor, position_ids: torch.Tensor, segment_starts: torch.Tensor
    ) -> torch.Tensor:
        """(most, hidden) float32: first the texts' unit rows, in order. The next call overwrites them."""
        ...


class Decoder:
    """A Qwen3 decoder with its buffers; one pass at a time.

    ops : `reference` or `kernels`.
    small_batch : makes what does small packs in a way of its own, or says None.
    """

    def __init__(
        self,
        weights: Weights,
        arithmetic: Arithmetic,
        ops: ModuleType,
        *,
        small_batch: Callable[[Weights, Rotary], SmallBatch | None] | None = None,
    ) -> None:
        shape = weights.shape
        self.shape = shape
        self._arithmetic = arithmetic
        self._ops = ops
        self._embedding, self._final_norm = weights.embedding, weights.final_norm
        self._layers = tuple(_with_matrices(layer, arithmetic) for layer in weights.layers)
        self._rotary = Rotary.of(
            positions=shape.positions,
            head_dim=shape.head_dim,
            theta=shape.rope_theta,
            device=weights.embedding.device,
        )
        self._small_batch = small_batch(weights, self._rotary) if small_batch else None
        self.reserved = 0

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._embedding.device

    def rows(self, used: int, total: int) -> int:
        """Rows worth passing of a pack of `total`, of which the first `used` are texts."""
        return min(total, self._small_batch.tokens(used)) if self._does_few(used) else total

    def _does_few(self, tokens: int) -> bool:
        return self._small_batch is not None and tokens <= self._small_batch.most

    def reserve(self, tokens: int) -> None:
        """Make the buffers for packs of at most `tokens`; raises torch.OutOfMemoryError."""
        self.reserved = 0
        self._x = self._qkv = self._attended = None
        self._arithmetic.reserve(0)
        shape, stored = self.shape, self._embedding.dtype

        def rows(width: int, dtype: torch.dtype) -> torch.Tensor:
            return torch.empty(tokens, width, device=self._embedding.device, dtype=dtype)

        self._x = rows(shape.hidden, self._arithmetic.residual_dtype)
        self._qkv, self._attended = rows(shape.qkv_width, stored), rows(shape.q_width, stored)
        self._arithmetic.reserve(tokens)
        self.reserved = tokens

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> torch.Tensor:
        """(n, hidden) float32 unit rows of the texts in `batch`, which must fit what is reserved.

        The next pass may overwrite them.
        """
        total = len(batch.tokens)
        if self._does_few(total):
            return self._small_batch(batch.tokens, batch.position_ids, batch.segment_starts)[
                : len(batch.last_rows)
            ]
        x = self._x[:total]
        x.copy_(self._embedding[batch.tokens])
        delta = None
        for layer in self._layers[:-1]:
            delta = self._layer(layer, x, delta, batch)
        x, delta = self._last_layer(self._layers[-1], x, delta, batch)
        if delta is not None:
            x = x + delta
        states = torch.empty_like(x)
        self._ops.rms_norm(x, self._final_norm, self.shape.norm_eps, out=states)
        return torch.nn.functional.normalize(states.float(), dim=-1)

    def _layer(
        self, layer: LayerWeights, x: torch.Tensor, delta: torch.Tensor | None, batch: Batch
    ) -> torch.Tensor | None:
        shape, arithmetic = self.shape, self._arithmetic
        qkv = self._qkv[: len(x)]
        arithmetic.multiply(arithmetic.norm(x, delta, layer.input_norm), layer.qkv, out=qkv)
        keys = Keys(
            qkv,
            shape.q_width,
            shape.q_width + shape.kv_width,
            shape.kv_heads,
            batch.lengths,
            batch.long,
        )
        queries = Queries(qkv[:, : shape.q_width], layer.q_norm, batch.segment_starts)
        attended = self._attend(layer, queries, keys, batch.position_ids, out=self._attended[: len(x)])
        return self._mlp(layer, x, arithmetic.add(arithmetic.rows(attended), layer.out, x))

    def _last_layer(
        self, layer: LayerWeights, x: torch.Tensor, delta: torch.Tensor | None, batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        shape, arithmetic, chosen = self.shape, self._arithmetic, batch.last_rows
        normed = arithmetic.norm(x, delta, layer.input_norm)
        # The buffer of all three is large enough, and free: narrow rows of keys and values lie in it densely.
        kv = self._qkv.view(-1)[: len(x) * 2 * shape.kv_width].view(len(x), 2 * shape.kv_width)
        arithmetic.multiply(normed, layer.qkv[shape.q_width :], out=kv)
        asking = kv.new_empty(len(chosen), shape.q_width)
        arithmetic.multiply(arithmetic.pick(normed, chosen), layer.qkv[: shape.q_width], out=asking)
        keys = Keys(kv, 0, shape.kv_width, shape.kv_heads, batch.lengths, batch.long)
        queries = Queries(asking, layer.q_norm, batch.segment_starts[chosen], chosen)
        attended = self._attend(layer, queries, keys, batch.position_ids, out=torch.empty_like(asking))
        x = x[chosen]
        return x, self._mlp(layer, x, arithmetic.add(arithmetic.rows(attended), layer.out, x))

    def _mlp(self, layer: LayerWeights, x: torch.Tensor, delta: torch.Tensor | None) -> torch.Tensor | None:
        arithmetic = self._arithmetic
        gated = arithmetic.gated(arithmetic.norm(x, delta, layer.mlp_norm), layer.gate_up)
        return arithmetic.add(gated, layer.down, x)

    def _attend(
        self,
        layer: LayerWeights,
        queries: Queries,
        keys: Keys,
        position_ids: torch.Tensor,
        *,
        out: torch.Tensor,
    ) -> torch.Tensor:
        eps, rotary = self.shape.norm_eps, self._rotary
        self._ops.rotate_keys(keys, layer.k_norm, eps, rotary=rotary, position_ids=position_ids)
        return self._ops.attend(queries, keys, eps, rotary=rotary, out=out)


def _with_matrices(layer: LayerWeights, arithmetic: Arithmetic) -> LayerWeights:
    names = ("qkv", "out", "gate_up", "down")
    return replace(layer, **{name: arithmetic.matrix(getattr(layer, name)) for name in names})
