"""What must hold of a model before its vectors are believed; whatever cannot be told is refused, by name.

A library that loads a checkpoint fills a tensor it lacks with random numbers and drops one it does not know,
with a line in a log at most, and the vectors look like any others. Knows nothing of devices or texts.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any

from toolkit.embedding.checkpoint import Checkpoint
from toolkit.errors import ModelError, ModelWarning

_SHOWN = 3
# Worked out anew from the configuration whenever a model is made; older checkpoints hold copies.
_RECOMPUTED = ("position_ids", "inv_freq", "masked_bias", "attn.bias")
# Heads and the pooler read the states of tokens, and nothing reads them where those states are pooled.
_HEADS = ("pooler.", "lm_head.", "cls.", "classifier.", "score.")
# Of a tokenizer's call: how a batch is padded changes no vector, because padding is masked.
_PADDING = {"padding", "pad_to_multiple_of", "return_tensors"}
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class LoadReport:
    """What transformers found in one checkpoint: tensors it lacks, and tensors the model has no place for."""

    model: Any
    missing: frozenset[str]
    surplus: frozenset[str]


def check_settings(checkpoint: Checkpoint) -> None:
    """Raise ModelError for settings that no engine here follows; warn of one that changes what a score means.

    Reads the model's files only, so that it can be called before weights are loaded.
    """
    name = checkpoint.name
    if checkpoint.quantization:
        raise ModelError(
            f"{name} is stored quantized ({checkpoint.quantization}), and whether its scales are applied cannot "
            "be verified here; give the checkpoint it was made from (dtype 'fp8' quantizes a Qwen3 decoder here)"
        )
    if checkpoint.leaves_out_prompt:
        raise ModelError(
            f"{name} leaves its prompt out of the pooling (include_prompt = false in its pooling settings), which "
            "the engines here do not: the vector of every text with a prompt or an instruction would differ from "
            "its makers'; choose another model"
        )
    if checkpoint.routes_by_role:
        raise ModelError(
            f"{name} sends queries and documents through modules of their own (Router in its modules.json), which "
            "the engines here do not tell apart; choose a model with one path, or give the part for both sides"
        )
    if checkpoint.similarity not in ("", "cosine"):
        warnings.warn(
            f"{name} is meant to be compared by {checkpoint.similarity}, and here all vectors are compared by "
            "cosine: its ranking may differ from its makers'",
            ModelWarning,
            stacklevel=3,
        )


def check_text_stage(name: str, stage: Any) -> None:  # noqa: ANN401 - a module of sentence-transformers
    """Raise ModelError for what a model's first module does beside tokenizing and one pass over the tokens.

    stage : the module as loaded, with the settings that its files state or the library infers.

    sentence-transformers' own `encode` follows these settings; the engine here tokenizes by itself.
    """
    ignored = []
    if getattr(stage, "query_expansion", None):
        ignored.append("query_expansion")
    processing = getattr(stage, "processing_kwargs", None) or {}
    for part in ("common", "text"):
        ignored += [
            f"processing_kwargs.{part}.{key}" for key in processing.get(part, {}) if key not in _PADDING
        ]
    if "text" not in getattr(stage, "modality_config", {"text": {}}):
        ignored.append("modality_config (it reads chat messages, not texts)")
    if "task" in signature(stage.model.forward).parameters:
        ignored.append("task (its forward pass depends on a text's role)")
    if ignored:
        raise ModelError(
            f"{name} has settings that the engine here does not follow: {', '.join(ignored)}; its vectors would "
            "differ from its makers'; remove them from sentence_bert_config.json if they may be, or choose another "
            "model"
        )


def reads_token_states(stage: Any) -> bool:  # noqa: ANN401 - a module of sentence-transformers
    """Whether a first module hands on the states of tokens, which no pooler and no head has a part in."""
    modalities = getattr(stage, "modality_config", {})
    return modalities.get("text", {}).get("method_output_name") == "last_hidden_state"


@contextmanager
def load_reports() -> Iterator[list[LoadReport]]:
    """Collect what transformers finds in each checkpoint that is loaded within the block.

    sentence-transformers has no way to ask for it. transformers' own `from_pretrained` has
    (``output_loading_info=True``), so within the block every call asks, whoever makes it.
    """
    from transformers import PreTrainedModel

    found: list[LoadReport] = []
    loads = PreTrainedModel.__dict__["from_pretrained"]

    def asking(kind: type, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - transformers' own
        model, told = loads.__func__(kind, *arguments, **options | {"output_loading_info": True})
        found.append(LoadReport(model, frozenset(told["missing_keys"]), frozenset(told["unexpected_keys"])))
        return (model, told) if options.get("output_loading_info") else model

    with _one_at_a_time:
        PreTrainedModel.from_pretrained = classmethod(asking)
        try:
            yield found
        finally:
            PreTrainedModel.from_pretrained = loads


def check_reports(name: str, reports: Iterable[LoadReport], *, token_states: bool) -> None:
    """Raise ModelError if a tensor that the model reads was missing, or one it should read was left over.

    Left over tensors of parts that the model does not have (a language model's head) change no vector; within
    a part that it has (a scale beside a matrix, a layer beyond the last) they do.

    token_states : whether only the states of tokens are read, as `reads_token_states` says.
    """

    def unread(tensor: str) -> bool:
        return (token_states and tensor.startswith(_HEADS)) or tensor.endswith(_RECOMPUTED)

    for report in reports:
        model = report.model
        prefix = f"{model.base_model_prefix}." if model.base_model_prefix else ""
        parts = {part for part, _ in model.named_children()}
        missing = [tensor for tensor in sorted(report.missing) if not unread(tensor.removeprefix(prefix))]
        if missing:
            raise ModelError(
                f"the checkpoint of {name} lacks {_list(missing)}; random numbers would stand in, so fetch the model "
                "again"
            )
        surplus = [
            tensor
            for tensor in sorted(report.surplus)
            if tensor.removeprefix(prefix).split(".")[0] in parts and not unread(tensor.removeprefix(prefix))
        ]
        if surplus:
            raise ModelError(
                f"the checkpoint of {name} holds {_list(surplus)}, which {type(model).__name__} does not read; "
                "its config.json is that of another model, or it is stored in a form that is not understood"
            )


def _list(tensors: list[str]) -> str:
    more = f" and {len(tensors) - _SHOWN} more" if len(tensors) > _SHOWN else ""
    kind = "the tensor" if len(tensors) == 1 else f"{len(tensors)} tensors:"
    return f"{kind} {', '.join(tensors[:_SHOWN])}{more}"
