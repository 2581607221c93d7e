"""A pass over few tokens as one kernel, at the pace of reading the weights once; `small_batch.cu` says how.

For Hopper and bfloat16, and decoders like Qwen3-Embedding's: 8 key heads of 128 numbers. Its clusters wait for
each other, so all of them must run at once. Each pass needs nearly all multiprocessors, and two passes that
each held some would wait for the others' for ever. Three things keep them apart:

- Within a process the runner gives all work of a device to one stream, so that passes come in turn.
- Each is a cooperative launch: the driver starts all of its blocks or none, whatever other streams do.
- Processes take turns with the whole device, and a pass that lost its turn goes on where it was. Only under
  MPS do they run side by side; there the pass is not offered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import torch

from toolkit.embedding.packed.hopper import cuda
from toolkit.embedding.packed.reference import Rotary
from toolkit.embedding.packed.shape import DecoderShape
from toolkit.embedding.packed.weights import LayerWeights, Weights

MOST_TOKENS = 64
_FEWEST_TOKENS = 16
_TOKEN_STEP = 8  # what a Hopper product's columns come in
# As the kernel has them.
_RANKS = 8
_WARPS = 20
_CONSUMERS = 16
_HEAD_DIM = 128
_SHARED_BYTES = 227 * 1024
_MOST_CLUSTERS = 16
_PROBE = 'extern "C" __global__ void __cluster_dims__(8, 1, 1) small_batch() {}'


@dataclass(frozen=True, eq=False)
class _Size:
    """The kernel for a number of tokens, and what it works in.

    between : buffers that clusters hand results through.
    """

    kernel: cuda.Kernel
    row_maps: torch.Tensor
    between: tuple[torch.Tensor, ...]


class SmallBatchPass:
    """Passes of at most `most` tokens."""

    most = MOST_TOKENS

    def __init__(self, weights: Weights, rotary: Rotary) -> None:
        """Where `refusal` has nothing against it."""
        clusters = _clusters(weights.embedding.device)
        self._weights, self._rotary, self._clusters = weights, rotary, clusters
        self._sizes: dict[int, _Size] = {}
        maps, norms = [], []
        for layer in weights.layers:
            maps += _maps(layer)
            norms += [layer.input_norm, layer.mlp_norm, layer.q_norm, layer.k_norm]
        norms.append(weights.final_norm)
        self._maps = self._upload(b"".join(maps))
        addresses = torch.tensor([norm.data_ptr() for norm in norms], dtype=torch.int64)
        device = weights.embedding.device
        self._norms = addresses.to(device)
        self._counters = torch.zeros(1 + 2 * (clusters + 1), 32, dtype=torch.int32, device=device)
        self._rows = torch.zeros(MOST_TOKENS, weights.shape.hidden, dtype=torch.float32, device=device)

    def tokens(self, used: int) -> int:
        """Rows that a pass over `used` tokens has, the filler included."""
        return max(_FEWEST_TOKENS, -(-used // _TOKEN_STEP) * _TOKEN_STEP)

    def __call__(
        self, tokens: torch.Tensor, position_ids: torch.Tensor, segment_starts: torch.Tensor
    ) -> torch.Tensor:
        """(most, hidden) float32: first the texts' unit rows, in order. The next call overwrites them.

        tokens, position_ids, segment_starts : (t,) int32 as in `packing.Pack.rows`; t as `tokens` says.
        """
        size = self._sizes.get(len(tokens)) or self._prepare(len(tokens))
        weights = self._weights
        size.kernel.launch(
            self._clusters,
            [
                *(
                    self._maps,
                    size.row_maps,
                    weights.embedding,
                    tokens,
                    position_ids,
                    segment_starts,
                    self._norms,
                ),
                *(self._rotary.cos, self._rotary.sin, *size.between, self._rows, self._counters),
                len(weights.layers),
            ],
        )
        return self._rows

    def _prepare(self, tokens: int) -> _Size:
        shape, device = self._weights.shape, self._weights.embedding.device

        def rows(width: int) -> torch.Tensor:
            return torch.empty(tokens, width, dtype=torch.bfloat16, device=device)

        def squares(count: int) -> torch.Tensor:
            return torch.empty(count, tokens, dtype=torch.float32, device=device)

        scaled, qkv, gated = rows(shape.hidden), rows(shape.qkv_width), rows(shape.intermediate)
        # Boxes of 64 columns, some side by side in one go.
        scaled_boxes, qkv_boxes = (matrix.unflatten(1, (-1, 64)).transpose(0, 1) for matrix in (scaled, qkv))
        row_maps = self._upload(
            cuda.tensor_map(scaled_boxes, (shape.hidden // _RANKS // 64, tokens, 64))
            + cuda.tensor_map(gated, (tokens, 64))
            + cuda.tensor_map(qkv_boxes, (shape.q_width // _RANKS // 64, tokens, 64))
            + cuda.tensor_map(qkv_boxes, (2, tokens, 64))
        )
        self._sizes[tokens] = _Size(
            _kernel(shape, tokens, self._clusters),
            row_maps,
            (scaled, qkv, gated, squares(self._clusters), squares(shape.qkv_width // 16)),
        )
        return self._sizes[tokens]

    def _upload(self, content: bytes) -> torch.Tensor:
        return torch.frombuffer(bytearray(content), dtype=torch.uint8).to(self._weights.embedding.device)


def refusal(weights: Weights) -> str | None:
    """Why the kernel is not offered for these weights on the Hopper card where they are; None if it is."""
    device, shape = weights.embedding.device, weights.shape
    if weights.embedding.dtype != torch.bfloat16:
        return f"it computes in bfloat16, not {str(weights.embedding.dtype).removeprefix('torch.')}"
    if not _fits(shape):
        return f"it is not written for this shape ({shape.kv_heads} key heads of {shape.head_dim} numbers)"
    if not cuda.has_compiler():
        return "NVIDIA's runtime compiler (nvidia-cuda-nvrtc) is not installed"
    with torch.cuda.device(device):
        if cuda.shares_multiprocessors():
            return "MPS is on: another process's pass could run beside, and both would wait for ever"
        clusters = _clusters(device)
        if not _loaded(_PROBE).runs_at_once(clusters):
            return "the driver does not start all clusters of a kernel at once"
    if clusters < _MOST_CLUSTERS // 2 or shape.qkv_width // 32 // clusters * 2 < _CONSUMERS:
        return f"the card runs {clusters} clusters at once, which are too few or do not divide the work"
    return None


@cache
def _clusters(device: torch.device) -> int:
    """How many clusters of eight run at once, which depends on the multiprocessors a card has lost."""
    with torch.cuda.device(device):
        return min(_MOST_CLUSTERS, _loaded(_PROBE).clusters_at_once())


def _maps(layer: LayerWeights) -> list[bytes]:
    """Of each matrix where boxes of four tiles of 16 rows are, and smaller ones for what is left over."""
    # Half a head's numbers turn with the other half, and what gates multiply stands behind all of them.
    # 16 rows of one and of the other are two tiles: (heads, pairs of tiles, 2, 16, width).
    heads = layer.qkv.unflatten(0, (-1, 2, _HEAD_DIM // 32, 16)).transpose(1, 2)
    gates = layer.gate_up.unflatten(0, (1, 2, -1, 16)).transpose(1, 2)
    made = []
    for wide, narrow in ((heads, layer.out), (gates, layer.down)):
        made += [cuda.tensor_map(wide, (1, pairs, 2, 16, 64)) for pairs in (2, 1)]
        made += [cuda.tensor_map(narrow, (16 * tiles, 64)) for tiles in (4, 1)]
    return made


def _fits(shape: DecoderShape) -> bool:
    boxes = 64 * _RANKS
    return (
        shape.kv_heads == _RANKS
        and shape.head_dim == _HEAD_DIM
        and shape.heads in (2 * _RANKS, 4 * _RANKS)
        and shape.hidden % boxes == 0
        and shape.hidden <= 8 * boxes
        and shape.intermediate % boxes == 0
    )


def _kernel(shape: DecoderShape, tokens: int, clusters: int) -> cuda.Kernel:
    return _loaded(_source(shape, tokens, clusters))


def _source(shape: DecoderShape, tokens: int, clusters: int) -> str:
    folder = files(__package__)
    parts = [folder.joinpath(name).read_text("utf-8") for name in ("ptx.cuh", "small_batch.cu")]
    return _prelude(shape, tokens, clusters) + "".join(parts)


def _loaded(source: str) -> cuda.Kernel:
    return cuda.Kernel(
        cuda.compiled(source, "sm_90a"),
        "small_batch",
        threads=32 * _WARPS,
        shared_bytes=_SHARED_BYTES,
        cluster=_RANKS,
    )


def _prelude(shape: DecoderShape, tokens: int, clusters: int) -> str:
    """The numbers the source leaves open, and the operands of its product: one of 4 floats for 8 tokens."""
    sums = tokens // 2
    names = ", ".join(f"%{i}" for i in range(sums))
    constants = {
        "TOKENS": tokens,
        "CLUSTERS": clusters,
        "SHARED_BYTES": _SHARED_BYTES,
        "HIDDEN": shape.hidden,
        "QKV": shape.qkv_width,
        "GROUP": shape.heads // shape.kv_heads,
        "INTER": shape.intermediate,
        "EPS": f"{shape.norm_eps:.9e}f",
        "SCALE_LOG2": f"{math.log2(math.e) / math.sqrt(shape.head_dim):.9e}f",
        "SUM_NAMES": f'"{{{names}}}, %{sums}, %{sums + 1}"',
        "SUM_VALUES(d)": ", ".join(f'"+f"(d[{i // 4}][{i % 4}])' for i in range(sums)),
    }
    return "".join(f"#define {name} {value}\n" for name, value in constants.items())
