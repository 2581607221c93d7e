"""A decoder's sizes, read from a transformers configuration. Knows nothing of torch or files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.errors import ModelError


@dataclass(frozen=True)
class DecoderShape:
    """Everything about a Qwen3 decoder except its weights.

    hidden : width of the residual stream, which is the vectors' full dimension.
    heads, kv_heads, head_dim : grouped-query attention; `heads` is a multiple of `kv_heads`.
    positions : the longest text the model was made for, in tokens.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    positions: int = 32_768
    rope_theta: float = 1_000_000.0
    norm_eps: float = 1e-6

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> DecoderShape:
        """Read a transformers ``config.json``; raises ModelError if `supports` says no."""
        reason = _unsupported(config)
        if reason:
            raise ModelError(
                f"the packed engine cannot run this model: {reason}; use engine sentence-transformers"
            )
        heads = config["num_attention_heads"]
        return cls(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            intermediate=config["intermediate_size"],
            vocabulary=config["vocab_size"],
            positions=config.get("max_position_embeddings", 32_768),
            rope_theta=_rope(config)["rope_theta"],
            norm_eps=config.get("rms_norm_eps", 1e-6),
        )

    @property
    def q_width(self) -> int:
        """Columns of all query heads together."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Columns of all key heads together (values have as many)."""
        return self.kv_heads * self.head_dim

    @property
    def qkv_width(self) -> int:
        """Columns of queries, keys and values side by side."""
        return self.q_width + 2 * self.kv_width

    @property
    def layer_parameters(self) -> int:
        """Numbers in the matrices of one layer (norms left out)."""
        return self.hidden * (self.qkv_width + self.q_width + 3 * self.intermediate)

    def flops(self, lengths: Iterable[int]) -> float:
        """Floating-point operations to embed texts of these token counts.

        2 a matrix parameter and token, and causal attention (2 products of 2 operations a query head,
        head dimension and visible pair). The whole model is counted for every token, also what an
        engine may leave out, so that rates compare.
        """
        tokens = pairs = 0
        for length in lengths:
            tokens += length
            pairs += length * (length + 1) // 2
        return 2.0 * self.layers * (self.layer_parameters * tokens + 2 * self.q_width * pairs)


# Qwen3-Embedding model cards and config.json of each size.
QWEN3_SHAPES = {
    "0.6b": DecoderShape(28, 1024, 16, 8, 128, 3072, 151_669),
    "4b": DecoderShape(36, 2560, 32, 8, 128, 9728, 151_665),
    "8b": DecoderShape(36, 4096, 32, 8, 128, 12_288, 151_665),
}


def supports(model_config: Mapping[str, Any]) -> bool:
    """Whether the packed engine can run the model of this transformers ``config.json``."""
    return _unsupported(model_config) is None


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    # transformers 5 writes `rope_parameters`; earlier versions `rope_theta` beside `rope_scaling`.
    stated = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return {
        "rope_theta": stated.get("rope_theta", config.get("rope_theta", 10_000.0)),
        "rope_type": stated.get("rope_type", stated.get("type", "default")),
    }


def _unsupported(config: Mapping[str, Any]) -> str | None:
    """Why not, or None."""
    if config.get("model_type") != "qwen3":
        return f"model_type is {config.get('model_type')!r}, not 'qwen3'"
    if config.get("use_sliding_window"):
        return "it uses sliding-window attention"
    if config.get("hidden_act", "silu") != "silu":
        return f"its activation is {config['hidden_act']!r}, not 'silu'"
    if config.get("attention_bias"):
        return "its attention has biases"
    if _rope(config)["rope_type"] != "default":
        return f"its rotary embedding is of type {_rope(config)['rope_type']!r}"
    return None
