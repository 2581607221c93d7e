"""Checkpoints with random weights, as a model's makers would publish them: any engine or server opens them by path."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from toolkit.embedding.packed.shape import DecoderShape
from toolkit.embedding.packed.weights import named_tensors, random_weights


def write_qwen3(folder: Path, shape: DecoderShape, *, tokenizer: Path, device: str) -> Path:
    """Write config, bfloat16 weights and the tokenizer's files into `folder`, which must not be there.

    tokenizer : a folder with Qwen3's tokenizer.json, and whatever else a server wants to read of it.
    device : where the weights are drawn; they depend on it.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    for file in tokenizer.iterdir():
        if "token" in file.name or file.name in ("vocab.json", "merges.txt"):
            shutil.copy(file, folder)
    config = {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.norm_eps,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    weights = random_weights(shape, device=torch.device(device), dtype=torch.bfloat16)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in named_tensors(weights)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    del weights
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    return folder
