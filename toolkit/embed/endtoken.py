"""Qwen3-Embedding's end token: the vector is its state, so it must really be there.

The commonest mistake of third-party runtimes is a tokenizer that does not append it; the vectors then
look fine and rank badly. Knows nothing of weights.
"""

from __future__ import annotations

from typing import Any

from toolkit.errors import ModelError

END_TOKEN = "<|endoftext|>"  # noqa: S105 - a token of the vocabulary
END_TOKEN_ID = 151643  # in every published Qwen3-Embedding vocabulary


def check_end_token(tokenizer: Any, *, model: str, max_tokens: int) -> None:  # noqa: ANN401
    """Raise ModelError unless texts end with the end token, cut ones too.

    tokenizer : a transformers tokenizer, as it is used for encoding.
    """
    expected = tokenizer.convert_tokens_to_ids(END_TOKEN)
    short, cut = tokenizer(["a", "a " * max_tokens], truncation=True, max_length=max_tokens)["input_ids"]
    if expected is not None and short and short[-1] == expected and cut[-1] == expected:
        return
    last = tokenizer.convert_ids_to_tokens(short[-1]) if short else None
    raise ModelError(
        f"the tokenizer of {model} ends a text with {last!r} instead of {END_TOKEN} (token {END_TOKEN_ID}), "
        "so every vector would be wrong; take tokenizer.json from the Qwen/Qwen3-Embedding repository "
        "(its post-processor appends the token)"
    )
