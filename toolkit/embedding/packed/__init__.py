"""The packed engine: Qwen3-family decoders without padding, at the speed of the chip.

    shape.py       what a decoder's configuration says: sizes, and the work one token costs
    weights.py     its tensors, fused: from a checkpoint, or random ones made on the device
    packing.py     texts to token ids to padding-free packs; knows nothing of models
    reference.py   the layer's operations in plain torch: runs anywhere, defines what is right
    kernels.py     the same operations as Triton kernels, for any NVIDIA card
    frequency_cache.py  a few things that are expensive to build, kept for the keys that come most often
    precision.py   how a layer multiplies: as it is stored, or in FP8
    decoder.py     one forward pass over a pack
    runner.py      packs on a device: overlapping copies, graphs, what to do when memory runs out
    engine.py      the embedder: texts in, rows out
    hopper/        what only Hopper runs, behind `hopper.wing`, which says what a device gets

Importing this package loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.embedding.packed.shape import DecoderShape, supports

if TYPE_CHECKING:
    from toolkit.embedding.packed.engine import PackedEmbedder

__all__ = ["DecoderShape", "PackedEmbedder", "supports"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the module protocol of PEP 562
    if name == "PackedEmbedder":
        from toolkit.embedding.packed.engine import PackedEmbedder

        return PackedEmbedder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
