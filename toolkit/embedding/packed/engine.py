"""The packed embedder: texts in, rows out in the order packs finish, host and device at work together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

from toolkit.embedding.checkpoint import Checkpoint
from toolkit.embedding.config import LocalConfig
from toolkit.embedding.encodable import encodable
from toolkit.embedding.engine import Engine
from toolkit.embedding.jobs import PiecesJob, Started
from toolkit.embedding.owner import OwnerQueue
from toolkit.embedding.packed import reference
from toolkit.embedding.packed.decoder import Decoder
from toolkit.embedding.packed.hopper import wing
from toolkit.embedding.packed.packing import (
    CHARACTERS_PER_TOKEN,
    COARSE_TOKENS,
    Pack,
    Packer,
    Tokenizer,
    packs,
    rehearsals,
)
from toolkit.embedding.packed.precision import Fp8, Plain
from toolkit.embedding.packed.runner import IN_FLIGHT, Runner, current
from toolkit.embedding.packed.shape import DecoderShape
from toolkit.embedding.packed.weights import Weights, load_weights, random_weights
from toolkit.embedding.protocol import Block
from toolkit.embedding.tokens import TokenizerFile
from toolkit.errors import MissingPackageError, PlanError
from toolkit.space import QWEN3_PROMPTS, EmbeddingSpace

# Goes up whenever a change to the arithmetic here (kernels, order of operations, rounding, cutting of texts) moves
# a vector by more than its dtype rounds, so that the cache never hands out rows of the code before.
VERSION = "2"
_MIN_DIM = 32  # Qwen3-Embedding model card
_CPU_BUDGET = 4_096
_GPU_BUDGET = 65_536  # tokens; half as many is 1 % slower on an H200
_FREE_MEMORY_SHARE = 0.5
# The first pack's share of the budget, and how fast packs grow from there. With a light model, by operations
# per token, a device is done with a pack before the host has tokenized one four times as large.
_FIRST_SHARE = 16
_GROWTH, _LIGHT_GROWTH, _LIGHT_FLOPS = 4, 2, 2e9
# About so many tokens go at once, though the device waits until all are tokenized.
_ONE_PACK_TOKENS = 16_384


@dataclass(frozen=True)
class Setting:
    """What a config comes to on this machine.

    stored : dtype of weights and residual stream; `fp8` says whether products are in FP8.
    fused : whether Triton kernels do a layer's work between the products.
    """

    device: torch.device
    stored: torch.dtype
    fp8: bool
    fused: bool

    @classmethod
    def of(cls, config: LocalConfig, shape: DecoderShape) -> Setting:
        """Raises PlanError for what cannot work together here."""
        wanted = config.device
        if wanted == "auto":
            wanted = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(wanted)
        cuda = device.type == "cuda"
        default = torch.bfloat16 if cuda else torch.float32
        stored = default if config.dtype in ("auto", "fp8") else getattr(torch, config.dtype)
        nvidia = cuda and torch.version.hip is None  # AMD's cards are "cuda" to torch as well
        possible = nvidia and stored != torch.float32 and shape.head_dim & (shape.head_dim - 1) == 0
        if config.compile and not possible:
            raise PlanError(
                f"compile needs CUDA and a 16-bit dtype, not {config.dtype} on {device}; leave compile unset"
            )
        if possible and config.compile is not False and find_spec("triton") is None:
            raise MissingPackageError("triton", needed_for="the packed engine on CUDA", extra="gpu")
        return cls(device, stored, config.dtype == "fp8", possible and config.compile is not False)

    @property
    def dtype_name(self) -> str:
        """As `EmbeddingSpace.dtype` names it."""
        return "fp8" if self.fp8 else str(self.stored).removeprefix("torch.")


class PackedEmbedder(Engine):
    """Qwen3-family decoders, pooled at the last token; the weights serve every dimension and instruction."""

    def __init__(
        self,
        weights: Weights,
        tokenizer: Tokenizer,
        space: EmbeddingSpace,
        *,
        setting: Setting,
        budget: int | None,
    ) -> None:
        super().__init__(
            OwnerQueue(self._begin, ahead=IN_FLIGHT, shared_characters=self._shared_characters, name="packed")
        )
        self._space = space
        self._tokenizer = tokenizer
        self._shape = weights.shape
        self._growth = _LIGHT_GROWTH if weights.shape.flops([1]) <= _LIGHT_FLOPS else _GROWTH
        self.setting = setting
        if setting.fused:
            from toolkit.embedding.packed import kernels

            ops = wing.operations(setting.device) or kernels
        else:
            ops = reference
        arithmetic = (Fp8 if setting.fp8 else Plain)(
            weights.shape, ops, device=setting.device, dtype=setting.stored
        )
        small_batch = wing.small_batch if setting.fused and not setting.fp8 else None
        device = weights.embedding.device  # numbered, whatever a thread's current one is
        with current(device):
            decoder = Decoder(weights, arithmetic, ops, small_batch=small_batch)
        budget = budget or _affordable_tokens(weights.shape, setting)
        self._runner = Runner(decoder, device=device, budget=budget, fused=setting.fused)

    @classmethod
    def load(cls, config: LocalConfig, checkpoint: Checkpoint) -> PackedEmbedder:
        """Load a checkpoint; raises ModelError if it is incomplete or would give wrong vectors."""
        shape = DecoderShape.from_config(checkpoint.config)
        setting = Setting.of(config, shape)
        max_tokens = checkpoint.max_tokens(config.max_tokens)
        space = EmbeddingSpace(
            model=checkpoint.name,
            revision=checkpoint.revision,
            engine="packed",
            engine_version=_engine_version(),
            dtype=setting.dtype_name,
            pooling="last",
            max_tokens=max_tokens,
            full_dim=shape.hidden,
            min_dim=checkpoint.min_dim(shape.hidden),
            prompts=checkpoint.prompts,
        )
        tokenizer = Tokenizer(checkpoint.folder, model=checkpoint.name, max_tokens=max_tokens)
        weights = load_weights(checkpoint.folder, shape, device=setting.device, dtype=setting.stored)
        return cls(weights, tokenizer, space, setting=setting, budget=config.batch_tokens)

    @classmethod
    def random(cls, config: LocalConfig, shape: DecoderShape, tokenizer_folder: Path) -> PackedEmbedder:
        """A model of a given shape with random weights, to measure speed where no checkpoint can be had.

        ``config.model`` is only its name; the weights are the same for the same device and shape.
        """
        setting = Setting.of(config, shape)
        max_tokens = config.max_tokens or shape.positions
        space = EmbeddingSpace(
            model=config.model,
            revision="random-0",
            engine="packed",
            engine_version=_engine_version(),
            dtype=setting.dtype_name,
            pooling="last",
            max_tokens=max_tokens,
            full_dim=shape.hidden,
            min_dim=min(_MIN_DIM, shape.hidden),
            prompts=QWEN3_PROMPTS,
        )
        tokenizer = Tokenizer(tokenizer_folder, model=config.model, max_tokens=max_tokens)
        weights = random_weights(shape, device=setting.device, dtype=setting.stored)
        return cls(weights, tokenizer, space, setting=setting, budget=config.batch_tokens)

    @property
    def space(self) -> EmbeddingSpace:
        """What decides the vectors' values."""
        return self._space

    @property
    def device(self) -> str:
        """Where the model runs, such as ``cpu`` or ``cuda``."""
        return str(self.setting.device)

    @property
    def batch_tokens(self) -> int:
        """Tokens in one forward pass; less than asked for after running out of memory."""
        return self._runner.budget

    def packs(self, texts: Sequence[str]) -> Iterator[Pack]:
        """Tokenize and pack, without running anything; follows the budget as it changes.

        The first packs are smaller, so that the device has work while the rest is tokenized.
        """
        first = self._runner.budget // _FIRST_SHARE
        if sum(map(len, texts)) <= _ONE_PACK_TOKENS * CHARACTERS_PER_TOKEN:
            first = min(_ONE_PACK_TOKENS, self._runner.budget)  # one pack has less filler than two
        packer = Packer(max(1, first))
        for pack in packs(texts, self._tokenizer, packer):
            yield pack
            packer.budget = min(self._runner.budget, self._growth * packer.budget)

    def warm_up(self) -> None:
        """Compile and record the passes of small packs; takes a minute the first time on a GPU, seconds later."""
        super().warm_up()
        if self.setting.fused:
            # The first pass of a size compiles, the second records it.
            for _ in self.stream_packs(
                pack for pack in rehearsals(min(COARSE_TOKENS, self._runner.budget)) for _ in range(2)
            ):
                pass

    def stream_packs(self, packs: Iterable[Pack]) -> Iterator[Block]:
        """Run packs that were made before; they take turns with the texts of others."""
        return self._queue.blocks(PiecesJob(self._pieces(packs), engine=self, full_dim=self._shape.hidden))

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, the end token included, after cutting."""
        return self._tokenizer(encodable(texts)).lengths.tolist()

    def tokenizer_file(self) -> TokenizerFile:
        """The checkpoint's."""
        return TokenizerFile(self._tokenizer.to_json())

    def flops(self, lengths: Iterable[int]) -> float:
        """Floating-point operations of the whole model for texts of these token counts."""
        return self._shape.flops(lengths)

    def _pieces(self, packs: Iterable[Pack]) -> Iterator[Started]:
        yield from self._runner.start(packs)  # not before the queue has let the packs in

    def _begin(self, texts: Sequence[str]) -> Iterator[Started]:
        # A pack is tokenized while the device works on the one before; a thread for it would take the
        # interpreter from whoever starts the device's work, which costs more than it hides.
        return self._runner.start(self.packs(texts))

    def _shared_characters(self) -> int:
        return self._runner.budget * CHARACTERS_PER_TOKEN

    def _release(self) -> None:
        del self._runner
        if self.setting.device.type == "cuda":
            torch.cuda.empty_cache()


def _engine_version() -> str:
    # torch's and Triton's versions round differently at most; tokenizers may cut a text into other tokens.
    major, minor, *_ = version("tokenizers").split(".")
    return f"{VERSION}, tokenizers {major}.{minor}"


def _affordable_tokens(shape: DecoderShape, setting: Setting) -> int:
    if setting.device.type != "cuda":
        return _CPU_BUDGET
    # Live at once: residual, its norm and what a product adds; queries, keys, values; what attention
    # mixed; both gates and their product.
    numbers = 3 * shape.hidden + shape.qkv_width + shape.q_width + 3 * shape.intermediate
    free_bytes, _ = torch.cuda.mem_get_info(setting.device)
    affordable = int(free_bytes * _FREE_MEMORY_SHARE / (numbers * setting.stored.itemsize))
    return max(256, min(_GPU_BUDGET, affordable // 128 * 128))
