"""How many tokens a text has before anything is cut, for whoever must know without running the model.

A counter is made of an engine's own tokenizer, so that both agree; it can be written as text and read in another
process, which then needs no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class TokenizerFile:
    """An engine's tokenizer as the tokenizers library writes it.

    json : its ``tokenizer.json``. special_tokens : whether texts are framed by the model's special tokens.
    """

    json: str
    special_tokens: bool = True

    def as_dict(self) -> dict[str, object]:
        """For sending to another process."""
        return asdict(self)


class TokenCounter:
    """Counts, decodes and finds token ids. Safe to use from several threads."""

    def __init__(self, file: TokenizerFile) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(file.json)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        keep_no_texts(self._tokenizer)
        self._special = file.special_tokens
        self.vocabulary = self._tokenizer.get_vocab_size(with_added_tokens=True)
        with_special = self._tokenizer.encode("a", add_special_tokens=self._special).tokens
        without = self._tokenizer.encode("a", add_special_tokens=False).tokens
        # What the tokenizer puts after every text; None where it puts nothing.
        self.end_token = with_special[-1] if with_special[-1:] != without[-1:] else None

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special tokens included, before any cut."""
        if len(texts) == 1:  # at once, where a batch would let other threads have the interpreter first
            return [len(self._tokenizer.encode(texts[0], add_special_tokens=self._special))]
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=self._special)
        return [len(one) for one in encoded]

    def ids_of(self, text: str) -> list[int]:
        """The token ids of a text, special tokens included, before any cut."""
        return self._tokenizer.encode(text, add_special_tokens=self._special).ids

    def texts_of(self, ids: Sequence[Sequence[int]]) -> list[str | None]:
        """For each list of ids, with or without special tokens, a text that has exactly these; None where none has.

        Ids of another tokenizer hardly ever come back as they were.
        """
        texts = self._tokenizer.decode_batch([list(one) for one in ids], skip_special_tokens=True)
        bare = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        framed = self._tokenizer.encode_batch_fast(texts, add_special_tokens=True)
        return [
            text if list(one) in (without.ids, with_special.ids) else None
            for text, one, without, with_special in zip(texts, ids, bare, framed, strict=True)
        ]


def keep_no_texts(tokenizer: Tokenizer) -> None:
    """Turn off the tokenizers library's cache of words where a word is a whole text.

    The cache keeps the first 10,000 words of up to 256 bytes for good. Words recur; but where nothing splits a text
    into words, as with Llama's BPE, these are whole texts, some kilobytes each, and hardly ever come again.
    """
    forget = getattr(tokenizer.model, "_resize_cache", None)  # of BPE and Unigram only
    if tokenizer.pre_tokenizer is None and forget is not None:
        forget(0)


def token_counter(embedder: object) -> TokenCounter | None:
    """A counter of an open embedder's tokens; None where its tokenizer is not known, as of a server."""
    tokenizer = getattr(embedder, "tokenizer_file", None)
    file = tokenizer() if callable(tokenizer) else None
    return None if file is None else TokenCounter(file)
