"""A decoder's tensors, those that meet the same input side by side in one matrix.

Knows nothing of arithmetic: what is done with them is `decoder`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from toolkit.embedding.packed.shape import DecoderShape
from toolkit.errors import ModelError
from toolkit.files import parse_json

_PLAIN_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# A language model's head, which no vector depends on, and what older checkpoints hold copies of.
_UNREAD = ("lm_head.weight", "rotary_emb.inv_freq")


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """One layer; matrices are (out, in) as torch's linear layers store them.

    qkv : queries, keys and values below each other, (qkv_width, hidden).
    gate_up : the gate's rows above the up projection's, (2 x intermediate, hidden).
    """

    input_norm: torch.Tensor
    qkv: torch.Tensor
    q_norm: torch.Tensor
    k_norm: torch.Tensor
    out: torch.Tensor
    mlp_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


@dataclass(frozen=True, eq=False)
class Weights:
    """A whole decoder without a head."""

    shape: DecoderShape
    embedding: torch.Tensor
    layers: tuple[LayerWeights, ...]
    final_norm: torch.Tensor

    @property
    def bytes(self) -> int:
        """Memory of all tensors."""
        return sum(tensor.nbytes for _, tensor in named_tensors(self))


def load_weights(folder: Path, shape: DecoderShape, *, device: torch.device, dtype: torch.dtype) -> Weights:
    """Read a checkpoint's safetensors files straight into fused matrices on `device`.

    Raises ModelError naming the first tensor that is missing or of another shape, and any it has no place for.
    """
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(parse_json(index.read_bytes())["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{index} cannot be read ({error}); fetch the model again") from error
        files = [folder / name for name in names]
    else:
        files = sorted(folder.glob("*.safetensors"))
    absent = [file.name for file in files if not file.is_file()]
    if absent or not files:
        raise ModelError(
            f"{folder} has no {absent[0] if absent else 'safetensors file'}; fetch the model again, with its "
            "weights as safetensors"
        )
    with ExitStack() as stack:
        where = {}
        for file in files:
            handle = stack.enter_context(safe_open(file, framework="pt"))
            for name in handle.keys():  # noqa: SIM118 - safetensors handles are not mappings
                # Embedding checkpoints leave the prefix out, causal language models have it.
                where[name.removeprefix("model.")] = (handle, name)

        read: set[str] = set()

        def fetch(name: str, into: torch.Tensor) -> None:
            if name not in where:
                raise ModelError(f"{folder} lacks the tensor {name!r}; it is not a complete Qwen3 checkpoint")
            handle, stored = where[name]
            tensor = handle.get_tensor(stored)
            if tensor.dtype not in _PLAIN_DTYPES:
                raise ModelError(
                    f"{folder}: tensor {name!r} is stored as {str(tensor.dtype).removeprefix('torch.')}, which "
                    "means nothing without its scales; give the checkpoint it was quantized from"
                )
            if tensor.shape != into.shape:
                raise ModelError(
                    f"{folder}: tensor {name!r} is {tuple(tensor.shape)}, but config.json asks for "
                    f"{tuple(into.shape)}"
                )
            into.copy_(tensor)
            read.add(name)

        weights = _build(shape, device=device, dtype=dtype, fill=fetch)
        surplus = sorted(name for name in where.keys() - read if not name.endswith(_UNREAD))
        if surplus:
            raise ModelError(
                f"{folder} holds {len(surplus)} tensors that a Qwen3 decoder of its config.json has no place for "
                f"({', '.join(surplus[:3])}); it is another model, or stored in a form that is not understood"
            )
        return weights


def random_weights(
    shape: DecoderShape, *, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> Weights:
    """Weights drawn on the device: matrices N(0, 0.02) as transformers initialises them, norms near 1.

    The same bfloat16 numbers whatever the `dtype`, as a checkpoint's are. For measuring speed and
    arithmetic where no checkpoint can be had.
    """
    generator = torch.Generator(device=device).manual_seed(seed)

    def draw(name: str, into: torch.Tensor) -> None:
        mean, deviation = (1.0, 0.1) if name.endswith("norm.weight") else (0.0, 0.02)
        rounded = torch.empty(into.shape, device=device, dtype=torch.bfloat16)
        into.copy_(rounded.normal_(mean, deviation, generator=generator))

    return _build(shape, device=device, dtype=dtype, fill=draw)


def named_tensors(weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
    """Views of all tensors under the names that transformers' Qwen3Model gives them."""
    yield "embed_tokens.weight", weights.embedding
    for number, layer in enumerate(weights.layers):
        for name, tensor in _layer_views(weights.shape, layer):
            yield f"layers.{number}.{name}", tensor
    yield "norm.weight", weights.final_norm


def _build(
    shape: DecoderShape,
    *,
    device: torch.device,
    dtype: torch.dtype,
    fill: Callable[[str, torch.Tensor], None],
) -> Weights:
    def empty(*size: int) -> torch.Tensor:
        return torch.empty(size, device=device, dtype=dtype)

    weights = Weights(
        shape=shape,
        embedding=empty(shape.vocabulary, shape.hidden),
        layers=tuple(
            LayerWeights(
                input_norm=empty(shape.hidden),
                qkv=empty(shape.qkv_width, shape.hidden),
                q_norm=empty(shape.head_dim),
                k_norm=empty(shape.head_dim),
                out=empty(shape.hidden, shape.q_width),
                mlp_norm=empty(shape.hidden),
                gate_up=empty(2 * shape.intermediate, shape.hidden),
                down=empty(shape.hidden, shape.intermediate),
            )
            for _ in range(shape.layers)
        ),
        final_norm=empty(shape.hidden),
    )
    for name, tensor in named_tensors(weights):
        fill(name, tensor)
    return weights


def _layer_views(shape: DecoderShape, layer: LayerWeights) -> Iterator[tuple[str, torch.Tensor]]:
    q, k, v = layer.qkv.split([shape.q_width, shape.kv_width, shape.kv_width])
    gate, up = layer.gate_up.split([shape.intermediate, shape.intermediate])
    yield from (
        ("input_layernorm.weight", layer.input_norm),
        ("self_attn.q_proj.weight", q),
        ("self_attn.k_proj.weight", k),
        ("self_attn.v_proj.weight", v),
        ("self_attn.q_norm.weight", layer.q_norm),
        ("self_attn.k_norm.weight", layer.k_norm),
        ("self_attn.o_proj.weight", layer.out),
        ("post_attention_layernorm.weight", layer.mlp_norm),
        ("mlp.gate_proj.weight", gate),
        ("mlp.up_proj.weight", up),
        ("mlp.down_proj.weight", layer.down),
    )
