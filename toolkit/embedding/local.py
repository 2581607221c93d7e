"""Models on this machine: which engine runs one, and the sentence-transformers engine.

The packed engine for Qwen3 decoders is in `packed`; this module only chooses it. Tokenizing happens
here and not in sentence-transformers' `encode`, which groups texts by characters, pads to a number of
texts and takes a text that is a picture's address for a picture.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.embedding.batches import cheapest_batches
from toolkit.embedding.checkpoint import Checkpoint, find_checkpoint
from toolkit.embedding.config import LocalConfig
from toolkit.embedding.cpu import cpu_instructions
from toolkit.embedding.engine import Engine, windows_by_length
from toolkit.embedding.eos_token import check_end_token
from toolkit.embedding.packed.packing import CHARACTERS_PER_TOKEN
from toolkit.embedding.protocol import Block
from toolkit.embedding.tokens import TokenizerFile
from toolkit.embedding.verify import (
    check_reports,
    check_settings,
    check_text_stage,
    load_reports,
    reads_token_states,
)
from toolkit.errors import ModelError, ModelWarning, PlanError
from toolkit.space import EmbeddingSpace
from toolkit.vectors import normalize

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

_WINDOW_TEXTS = 8_192  # tokenized at a time: bounds memory, and leaves enough texts to batch by length
_CPU_BATCH_TOKENS = 4_096  # activations of small models stay in the processor's cache
# What a forward pass costs besides its tokens, in tokens: measured with MiniLM on a CPU, where 32 to 128 do alike.
_CPU_PASS_COSTS_TOKENS = 64
_GPU_BATCH_TOKENS = (2_048, 65_536)  # below the card is idle, above nothing is gained
_FREE_MEMORY_SHARE = 0.5


def open_local(config: LocalConfig) -> Engine:
    """Load a model with the engine that suits it; ``space.engine`` says which.

    Raises PlanError for settings that cannot work together, ModelError for a model that cannot be
    found, cannot be loaded or would give wrong vectors.
    """
    _check_engine(config, engine=config.engine)  # before anything is downloaded
    device = _device(config.device)
    checkpoint = find_checkpoint(config)
    check_settings(checkpoint)
    _warn_of_slow_dtype(config.dtype, device)
    engine = _choose_engine(config, checkpoint)
    if engine == "packed":
        from toolkit.embedding.packed import PackedEmbedder

        return PackedEmbedder.load(config, checkpoint)
    _check_engine(config, engine=engine)
    run = _Run(
        device=device,
        dtype=_dtype(config.dtype, device),
        max_tokens=checkpoint.max_tokens(config.max_tokens),
    )
    return SentenceTransformersEmbedder(config, checkpoint, run)


@dataclass(frozen=True)
class _Run:
    """A config's settings with every ``auto`` decided."""

    device: str
    dtype: str
    max_tokens: int


class SentenceTransformersEmbedder(Engine):
    """Any sentence-transformers or transformers model, in batches of a token budget.

    A text without a single token gets the zero vector; where the tokenizer frames texts with special
    tokens, the empty text has a vector like any other.
    """

    def __init__(self, config: LocalConfig, checkpoint: Checkpoint, run: _Run) -> None:
        super().__init__()
        self._model = _load(config, checkpoint, run)
        self._tokenizer = _text_tokenizer(self._model)
        self._max_tokens = run.max_tokens
        if self._tokenizer and checkpoint.is_qwen3:
            check_end_token(self._tokenizer, model=checkpoint.name, max_tokens=run.max_tokens)
        self._batch_tokens = config.batch_tokens or self._affordable_tokens(checkpoint)
        full_dim = self._forward(self._features(["probe"])).shape[1]
        self._space = EmbeddingSpace(
            model=checkpoint.name,
            revision=checkpoint.revision,
            engine="sentence-transformers",
            engine_version=library_versions(),
            dtype=run.dtype,
            pooling=checkpoint.pooling,
            max_tokens=run.max_tokens,
            full_dim=full_dim,
            min_dim=checkpoint.min_dim(full_dim),
            prompts=checkpoint.prompts,
        )

    @property
    def space(self) -> EmbeddingSpace:
        """What decides the vectors' values."""
        return self._space

    @property
    def device(self) -> str:
        """Where the model runs, such as ``cpu`` or ``cuda:0``."""
        return str(self._model.device)

    @property
    def batch_tokens(self) -> int:
        """Tokens, padding included, in one forward pass; less than asked for after running out of memory."""
        return self._batch_tokens

    def tokenizer_file(self) -> TokenizerFile | None:
        """The checkpoint's; None for a model without a transformers tokenizer in Rust."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        return None if backend is None else TokenizerFile(backend.to_str())

    def _shared_characters(self) -> int:
        """No more than a forward pass has, or a short text would wait for another caller's several passes."""
        return min(super()._shared_characters(), self._batch_tokens * CHARACTERS_PER_TOKEN)

    def _blocks(self, texts: Sequence[str]) -> Iterator[Block]:
        for window in windows_by_length(texts, _WINDOW_TEXTS):
            chosen = [texts[i] for i in window]
            if self._tokenizer is None:
                yield window, normalize(self._forward(self._features(chosen)))
            else:
                for places, rows in self._encode_window(chosen):
                    yield window[places], rows

    def _release(self) -> None:
        del self._model, self._tokenizer
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @property
    def _pass_costs_tokens(self) -> int:
        return _GPU_BATCH_TOKENS[0] if self._model.device.type == "cuda" else _CPU_PASS_COSTS_TOKENS

    def _encode_window(self, texts: list[str]) -> Iterator[Block]:
        encoded = self._tokenize(texts)
        lengths = np.array([len(ids) for ids in encoded["input_ids"]])
        order = np.argsort(-lengths, kind="stable")
        left, without = np.split(order, [np.count_nonzero(lengths)])
        while len(left):
            budget = self._batch_tokens
            for size in cheapest_batches(
                lengths[left], most_tokens=budget, pass_costs_tokens=self._pass_costs_tokens
            ):
                places, left = np.split(left, [size])
                yield places, normalize(self._forward_within_memory(encoded, places))
                if self._batch_tokens != budget:  # there was less memory than was thought
                    break
        if len(without):
            yield without, np.zeros((len(without), self._space.full_dim), dtype=np.float32)

    def _forward_within_memory(self, encoded: dict[str, list], places: np.ndarray) -> np.ndarray:
        """One batch; out of memory halves it, and every later one, until it fits."""
        import torch

        try:
            return self._forward(self._pad(encoded, places))
        except torch.OutOfMemoryError as error:
            longest = max(len(encoded["input_ids"][i]) for i in places)
            if len(places) == 1:
                raise ModelError(
                    f"a text of {longest} tokens alone exceeds the memory of {self.device}; "
                    f"give max_tokens below {longest}, a smaller dtype or a larger device"
                ) from error
        torch.cuda.empty_cache()
        half = len(places) // 2
        self._batch_tokens = min(self._batch_tokens, (len(places) - half) * longest)
        return np.concatenate(
            [self._forward_within_memory(encoded, part) for part in (places[:half], places[half:])]
        )

    def _features(self, texts: list[str]) -> dict[str, Any]:
        if self._tokenizer is None:
            return self._model.preprocess(texts)
        encoded = self._tokenize(texts)
        return self._pad(encoded, np.arange(len(texts)))

    def _tokenize(self, texts: list[str]) -> dict[str, list]:
        return dict(self._tokenizer(texts, truncation=True, max_length=self._max_tokens))

    def _pad(self, encoded: dict[str, list], places: np.ndarray) -> dict[str, torch.Tensor]:
        batch = {name: [values[i] for i in places] for name, values in encoded.items()}
        return dict(self._tokenizer.pad(batch, padding=True, return_tensors="pt"))

    def _forward(self, features: dict[str, Any]) -> np.ndarray:
        import torch

        device = self._model.device
        moved = {
            name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for name, value in features.items()
        }
        with torch.inference_mode():
            return self._model(moved)["sentence_embedding"].float().cpu().numpy()

    def _affordable_tokens(self, checkpoint: Checkpoint) -> int:
        import torch

        if self._model.device.type != "cuda":
            return _CPU_BATCH_TOKENS
        hidden = checkpoint.config.get("hidden_size") or 4_096
        inner = checkpoint.config.get("intermediate_size") or 4 * hidden
        itemsize = next(self._model.parameters()).element_size()
        # Live at once in one layer: residual, norm, queries, keys, values, output, and both gates.
        bytes_per_token = (8 * hidden + 3 * inner) * itemsize
        free_bytes, _ = torch.cuda.mem_get_info(self._model.device)
        least, most = _GPU_BATCH_TOKENS
        return int(min(most, max(least, free_bytes * _FREE_MEMORY_SHARE / bytes_per_token)))


def library_versions() -> str:
    """Major and minor versions of what runs the model: a patch release mends, and moves no vector."""
    names = ("sentence-transformers", "transformers", "tokenizers")
    return ", ".join(f"{name} {'.'.join(version(name).split('.')[:2])}" for name in names)


def _load(config: LocalConfig, checkpoint: Checkpoint, run: _Run) -> SentenceTransformer:
    import torch
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers.utils import logging as transformers_logging

    folder = str(checkpoint.folder)
    model_options = {"dtype": getattr(torch, run.dtype), "trust_remote_code": config.trust_remote_code}
    options = {"trust_remote_code": config.trust_remote_code}
    bar_was_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # it draws one over each tensor, also when piped
    try:
        with load_reports() as reports:
            if checkpoint.is_sentence_transformer:
                model = SentenceTransformer(
                    folder,
                    device=run.device,
                    model_kwargs=model_options,
                    trust_remote_code=config.trust_remote_code,
                    local_files_only=True,
                )
            else:
                transformer = Transformer(
                    folder, model_kwargs=model_options, processor_kwargs=options, config_kwargs=options
                )
                mode = "lasttoken" if checkpoint.pooling == "last" else checkpoint.pooling
                pooling = Pooling(transformer.get_embedding_dimension(), mode)
                model = SentenceTransformer(modules=[transformer, pooling], device=run.device)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"model {checkpoint.name} in {folder} cannot be loaded: {reason}") from error
    finally:
        if bar_was_on:
            transformers_logging.enable_progress_bar()
    first = model[0]
    is_transformer = isinstance(first, Transformer)
    check_reports(checkpoint.name, reports, token_states=is_transformer and reads_token_states(first))
    if is_transformer:
        check_text_stage(checkpoint.name, first)
    model.truncate_dim = None  # the full vector, whatever cut the folder's settings prefer
    return model.eval()


def _text_tokenizer(model: SentenceTransformer) -> Any:  # noqa: ANN401 - a transformers tokenizer
    from sentence_transformers.base.modules import Transformer
    from transformers import PreTrainedTokenizerBase

    first = model[0]
    if not isinstance(first, Transformer) or not isinstance(first.tokenizer, PreTrainedTokenizerBase):
        return None
    tokenizer = first.tokenizer
    if tokenizer.pad_token is None:
        # Padding is masked: which token stands there changes nothing.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    # Encoding first and padding later is on purpose: a batch is chosen by its lengths.
    tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True
    return tokenizer


def _choose_engine(config: LocalConfig, checkpoint: Checkpoint) -> str:
    if config.engine == "sentence-transformers":
        return config.engine
    from toolkit.embedding.packed import supports

    packed_can = checkpoint.is_bare and checkpoint.pooling == "last" and supports(checkpoint.config)
    if config.engine == "packed" and not packed_can:
        raise PlanError(
            f"engine 'packed' cannot run {checkpoint.name} ({checkpoint.model_type or 'unknown'}, "
            f"{checkpoint.pooling} pooling); choose engine 'auto' or 'sentence-transformers'"
        )
    return "packed" if packed_can else "sentence-transformers"


def _check_engine(config: LocalConfig, *, engine: str) -> None:
    if engine != "sentence-transformers":
        return
    for setting, needs_packed in (("dtype 'fp8'", config.dtype == "fp8"), ("compile", config.compile)):
        if needs_packed:
            raise PlanError(
                f"{setting} needs the packed engine, which runs Qwen3 decoders only; {config.model} runs on "
                "sentence-transformers: choose dtype auto, float32, bfloat16 or float16, and no compile"
            )


def _device(wanted: str) -> str:
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise PlanError(f"unknown device {wanted!r}; choose auto, cpu, cuda or cuda:<number>") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise PlanError(
            f"device {wanted!r} is not there ({torch.cuda.device_count()} CUDA devices); choose auto or cpu"
        )
    return wanted


def _warn_of_slow_dtype(dtype: str, device: str) -> None:
    """16-bit products pay on a processor that has instructions for them; elsewhere each is emulated."""
    if device != "cpu" or dtype not in ("bfloat16", "float16"):
        return
    has = cpu_instructions()
    needed = (
        ("avx512_bf16", "amx_bf16", "bf16") if dtype == "bfloat16" else ("amx_fp16", "avx512_fp16", "fphp")
    )
    if has and not has & set(needed):
        warnings.warn(
            f"dtype {dtype} on a processor without instructions for it ({', '.join(needed)}) is slower than "
            "float32; leave dtype at auto",
            ModelWarning,
            stacklevel=3,
        )


def _dtype(wanted: str, device: str) -> str:
    if wanted != "auto":
        return wanted
    return "bfloat16" if device.startswith("cuda") else "float32"
