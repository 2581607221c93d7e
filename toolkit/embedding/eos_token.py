"""Qwen3-Embedding's end token: the vector is its state, so it must really be there.

The commonest mistake of third-party runtimes is a tokenizer that does not append it; the vectors then
look fine and rank badly. Knows nothing of weights, and of tokenizers only what they return.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolkit.errors import ModelError

END_TOKEN = "<|endoftext|>"  # noqa: S105 - a token of the vocabulary
END_TOKEN_ID = 151643  # in every published Qwen3-Embedding vocabulary


def check_end_token(tokenizer: Any, *, model: str, max_tokens: int) -> None:  # noqa: ANN401
    """Raise ModelError unless texts end with the end token, cut ones too.

    tokenizer : a transformers tokenizer, as it is used for encoding.
    """
    expected = tokenizer.convert_tokens_to_ids(END_TOKEN)
    probes = tokenizer(probe_texts(max_tokens), truncation=True, max_length=max_tokens)["input_ids"]
    require_end_token(probes, expected, model=model, max_tokens=max_tokens)


def probe_texts(max_tokens: int) -> list[str]:
    """A short, an empty and an overlong text: whoever tokenizes them shows how texts end."""
    return ["a", "", "a " * max_tokens]


def require_end_token(
    probes: Sequence[Sequence[int]], expected: int | None, *, model: str, max_tokens: int
) -> None:
    """Raise ModelError unless the token ids of each of `probe_texts` end with `expected`, and are cut.

    expected : the id of `END_TOKEN` in the tokenizer's own vocabulary; None if it has no such token.
    """
    for ids in probes:
        if expected is None or not len(ids) or ids[-1] != expected:
            raise ModelError(
                f"the tokenizer of {model} ends a text with token {ids[-1] if len(ids) else 'none'} instead "
                f"of {END_TOKEN} (token {END_TOKEN_ID}), so every vector would be wrong; take tokenizer.json "
                "from the Qwen/Qwen3-Embedding repository (its post-processor appends the token)"
            )
        if len(ids) > max_tokens:
            raise ModelError(
                f"the tokenizer of {model} keeps {len(ids)} tokens of a text that must be cut at "
                f"{max_tokens}; take tokenizer.json from the Qwen/Qwen3-Embedding repository"
            )
