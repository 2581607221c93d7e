"""Texts to token ids to padding-free packs of a token budget. Knows nothing of models or devices.

Texts are taken longest first, so that a pack holds texts of like length, memory trouble shows at once
and the last pack is made of the shortest. Only numbers of characters are known before tokenising, so
the order is by characters; tokenising goes on by windows while earlier packs are already at work.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from toolkit.embedding.endtoken import END_TOKEN, probe_texts, require_end_token
from toolkit.errors import ModelError

# Sizes that a pack's token count is rounded up to: few shapes, and full tiles on the device.
_SMALL_SIZES = (16, 32, 48, 64, 128, 256)
_LARGE_STEP = 128
# Rough lower bound of characters a token, so that a first window holds about a pack.
_CHARACTERS_A_TOKEN = 4


@dataclass(frozen=True, eq=False)
class Pack:
    """Texts laid end to end, followed by filler up to a round number of tokens.

    positions : (n,) where each text stood in the caller's list.
    lengths : (n,) tokens of each text, at least 1.
    tokens : (t,) int32 ids; filler repeats id 0.
    places : (t,) int32 position of each token in its text.
    starts : (t,) int32 row of the first token of each token's text; a filler token is its own text.
    """

    positions: np.ndarray
    lengths: np.ndarray
    tokens: np.ndarray
    places: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, positions: Sequence[int], ids: Sequence[np.ndarray]) -> Pack:
        """Lay texts end to end in the order given."""
        lengths = np.fromiter((len(text) for text in ids), dtype=np.int32, count=len(ids))
        used = int(lengths.sum())
        total = rounded_tokens(used)
        tokens = np.zeros(total, dtype=np.int32)
        np.concatenate(ids, out=tokens[:used])
        starts = np.arange(total, dtype=np.int32)
        starts[:used] = np.repeat(np.cumsum(lengths, dtype=np.int32) - lengths, lengths)
        places = np.arange(total, dtype=np.int32) - starts
        return cls(np.asarray(positions, dtype=np.int64), lengths, tokens, places, starts)

    @property
    def last_rows(self) -> np.ndarray:
        """(n,) int32 row of each text's last token, whose state becomes the vector."""
        return np.cumsum(self.lengths, dtype=np.int32) - 1

    @property
    def used(self) -> int:
        """Tokens that belong to texts."""
        return int(self.lengths.sum())

    def split(self, budget: int) -> list[Pack]:
        """The same texts in packs of at most `budget` tokens (a longer text alone in its own)."""
        ends = np.cumsum(self.lengths)
        ids = [self.tokens[end - length : end] for end, length in zip(ends, self.lengths, strict=True)]
        packer = Packer(budget)
        packs = list(packer.add(self.positions.tolist(), ids))
        return packs + list(packer.rest())


def rounded_tokens(count: int) -> int:
    """The size of the pack that holds `count` tokens."""
    small = next((size for size in _SMALL_SIZES if count <= size), 0)
    return small or -(-count // _LARGE_STEP) * _LARGE_STEP


class Packer:
    """Fills packs in the order texts come."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._positions: list[int] = []
        self._ids: list[np.ndarray] = []
        self._used = 0

    def add(self, positions: Sequence[int], ids: Sequence[np.ndarray]) -> Iterator[Pack]:
        """Take texts; yield the packs that became full."""
        for position, text in zip(positions, ids, strict=True):
            if self._used and self._used + len(text) > self.budget:
                yield from self.rest()
            self._positions.append(position)
            self._ids.append(text)
            self._used += len(text)

    def rest(self) -> Iterator[Pack]:
        """Yield what is left, if anything."""
        if self._used:
            pack = Pack.of(self._positions, self._ids)
            self._positions, self._ids, self._used = [], [], 0
            yield pack


class Encodes(Protocol):
    """What turns texts into arrays of token ids."""

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """One (tokens,) int32 array a text."""
        ...


def packs(texts: Sequence[str], encode: Encodes, packer: Packer) -> Iterator[Pack]:
    """Tokenise and pack all texts, longest first.

    Whoever consumes this may lower ``packer.budget`` on the way.
    """
    sizes = np.fromiter((len(text) for text in texts), dtype=np.int64, count=len(texts))
    order = np.argsort(-sizes, kind="stable")
    ahead = np.cumsum(sizes[order])
    start = 0
    while start < len(order):
        before = int(ahead[start - 1]) if start else 0
        reach = before + packer.budget * _CHARACTERS_A_TOKEN
        end = max(start + 1, int(np.searchsorted(ahead, reach, side="right")))
        window = order[start:end].tolist()
        ids = encode([texts[i] for i in window])
        by_length = sorted(range(len(window)), key=lambda i: -len(ids[i]))
        yield from packer.add([window[i] for i in by_length], [ids[i] for i in by_length])
        start = end
    yield from packer.rest()


class Tokeniser:
    """The model's own ``tokenizer.json``, in parallel, cutting at `max_tokens` with the end token kept.

    Raises ModelError if the file is missing, or does not end every text with the end token.
    """

    def __init__(self, folder: Path, *, model: str, max_tokens: int) -> None:
        from tokenizers import Tokenizer

        file = folder / "tokenizer.json"
        if not file.is_file():
            raise ModelError(
                f"{folder} has no tokenizer.json, which the packed engine reads; fetch it with the model"
            )
        self._tokenizer = Tokenizer.from_file(str(file))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length=max_tokens)
        expected = self._tokenizer.token_to_id(END_TOKEN)
        require_end_token(self(probe_texts(max_tokens)), expected, model=model, max_tokens=max_tokens)

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """One (tokens,) int32 array a text."""
        if len(texts) == 1:  # without waking a pool of threads
            return [np.array(self._tokenizer.encode(texts[0]).ids, dtype=np.int32)]
        lists = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]
        lengths = [len(ids) for ids in lists]
        flat = np.fromiter(itertools.chain.from_iterable(lists), dtype=np.int32, count=sum(lengths))
        return np.split(flat, np.cumsum(lengths)[:-1])
