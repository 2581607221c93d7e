"""Texts to token ids to padding-free packs of a token budget. Knows nothing of models or devices.

Texts are taken longest first, so that a pack holds texts of like length and memory trouble shows early;
only a first small pack is of the shortest, because those are tokenized in no time and the device waits.
Only numbers of characters are known before tokenizing, so the order is by characters; tokenizing goes on
by windows while earlier packs are already at work. Ids stay in one array per window and no step here takes
Python time for each text, so that the device does not wait for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from toolkit.embedding.eos_token import END_TOKEN, probe_texts, require_end_token
from toolkit.errors import ModelError

# Sizes that a pack's token count is rounded up to: few shapes, and full tiles on the device. None between
# 16 and 64, because cuBLAS takes longer for 24 to 48 rows than for 64 (H100, 4B shape: 3.86 against 3.67 ms).
_SMALL_SIZES = (16, 64, 128, 256)
_LARGE_STEP = 128
# Up to here the step is a sixteenth of the power of two below: at most 6 % filler, and sizes come again.
COARSE_TOKENS = 8_192
# Rough lower bound of characters per token, so that a first window holds about a pack.
CHARACTERS_PER_TOKEN = 4
# A window has at least so many texts, because each is tokenized by one thread.
_WINDOW_TEXTS = 16
# Of a rehearsal's texts where it has several, and its longest text of one.
_REHEARSED_TOKENS, _LONGEST_REHEARSED = 8, 1_024


@dataclass(frozen=True, eq=False)
class TokenizedTexts:
    """Texts as token ids, laid end to end.

    ids : (t,) int32.
    lengths : (n,) int32 tokens of each text.
    """

    ids: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> TokenizedTexts:
        """From one sequence of ids per text."""
        if len(lists) == 1:  # a query waits for every line here
            return cls(np.array(lists[0], dtype=np.int32), np.array([len(lists[0])], dtype=np.int32))
        lengths = np.fromiter((len(ids) for ids in lists), dtype=np.int32, count=len(lists))
        flat = itertools.chain.from_iterable(lists)
        return cls(np.fromiter(flat, dtype=np.int32, count=int(lengths.sum())), lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, chosen: np.ndarray) -> TokenizedTexts:
        """The texts at these positions, in this order."""
        lengths = self.lengths[chosen]
        firsts = (np.cumsum(self.lengths) - self.lengths)[chosen]
        shifts = np.repeat(firsts - (np.cumsum(lengths) - lengths), lengths)
        return TokenizedTexts(self.ids[shifts + np.arange(len(shifts))], lengths)


@dataclass(frozen=True, eq=False)
class Pack:
    """Texts laid end to end, followed by filler up to a round number of tokens.

    positions : (n,) where each text stood in the caller's list.
    lengths : (n,) tokens of each text, at least 1.
    used : tokens that belong to texts.
    rows : (3, t) int32: id of each token; its position in its text; row of the first token of its text.
        Filler repeats id 0, each a text of its own.
    """

    positions: np.ndarray
    lengths: np.ndarray
    used: int
    rows: np.ndarray

    @classmethod
    def of(cls, positions: np.ndarray, texts: TokenizedTexts) -> Pack:
        """The texts in the order given."""
        lengths, used = texts.lengths, len(texts.ids)
        total = rounded_tokens(used)
        rows = np.zeros((3, total), dtype=np.int32)
        tokens, position_ids, segment_starts = rows
        tokens[:used] = texts.ids
        if len(lengths) > 1:
            segment_starts[:used] = np.repeat(np.cumsum(lengths, dtype=np.int32) - lengths, lengths)
        segment_starts[used:] = np.arange(used, total, dtype=np.int32)
        np.subtract(np.arange(used, dtype=np.int32), segment_starts[:used], out=position_ids[:used])
        return cls(positions, lengths, used, rows)

    def __len__(self) -> int:
        """Rows, the filler included."""
        return self.rows.shape[1]

    @property
    def last_rows(self) -> np.ndarray:
        """(n,) int32 row of each text's last token, whose state becomes the vector."""
        return np.cumsum(self.lengths, dtype=np.int32) - 1

    def split(self, budget: int) -> list[Pack]:
        """The same texts in packs of at most `budget` tokens (a longer text alone in its own)."""
        packer = Packer(budget)
        texts = TokenizedTexts(self.rows[0, : self.used], self.lengths)
        return [*packer.add(self.positions, texts), *packer.rest()]


def rounded_tokens(count: int) -> int:
    """The size of the pack that holds `count` tokens."""
    for size in _SMALL_SIZES:
        if count <= size:
            return size
    step = _LARGE_STEP
    if count <= COARSE_TOKENS:
        step = max(step, 1 << ((count - 1).bit_length() - 5))
    return -(-count // step) * step


def rehearsals(most_tokens: int) -> Iterator[Pack]:
    """A pack of one text and one of several for every size up to `most_tokens`, of made-up ids."""
    size = 0
    while size < most_tokens:
        # Some devices have more sizes than these for the fewest tokens.
        size = size + 1 if size < _SMALL_SIZES[1] else rounded_tokens(size + 1)
        for lengths in ([size], [_REHEARSED_TOKENS] * (size // _REHEARSED_TOKENS)):
            if len(lengths) > 1 or size <= _LONGEST_REHEARSED:
                used = sum(lengths)
                texts = TokenizedTexts(np.zeros(used, dtype=np.int32), np.array(lengths, dtype=np.int32))
                yield Pack.of(np.arange(len(lengths)), texts)


class Packer:
    """Fills packs in the order texts come."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._parts: list[tuple[np.ndarray, TokenizedTexts]] = []
        self._used = 0

    def add(self, positions: np.ndarray, texts: TokenizedTexts) -> Iterator[Pack]:
        """Take texts; yield the packs that became full."""
        ends = np.cumsum(texts.lengths)
        start = done = 0
        while start < len(texts):
            room = max(0, self.budget - self._used)
            end = int(np.searchsorted(ends, done + room, side="right"))
            if end == start and not self._used:
                end = start + 1  # longer than the budget alone
            if end > start:
                reached = int(ends[end - 1])
                part = TokenizedTexts(texts.ids[done:reached], texts.lengths[start:end])
                self._parts.append((positions[start:end], part))
                self._used += reached - done
                start, done = end, reached
            if start < len(texts):
                yield from self.rest()

    def rest(self) -> Iterator[Pack]:
        """Yield what is left, if anything."""
        if not self._parts:
            return
        positions, parts = zip(*self._parts, strict=True)
        self._parts, self._used = [], 0
        ids = np.concatenate([part.ids for part in parts])
        lengths = np.concatenate([part.lengths for part in parts])
        yield Pack.of(np.concatenate(positions), TokenizedTexts(ids, lengths))


class Encodes(Protocol):
    """What turns texts into token ids."""

    def __call__(self, texts: Sequence[str]) -> TokenizedTexts:
        """The ids of all of them."""
        ...


def packs(texts: Sequence[str], encode: Encodes, packer: Packer) -> Iterator[Pack]:
    """Tokenize and pack all texts.

    Whoever consumes this may change ``packer.budget`` on the way.
    """
    if len(texts) == 1:
        yield Pack.of(np.zeros(1, dtype=np.int64), encode(texts))
        return
    sizes = np.fromiter((len(text) for text in texts), dtype=np.int64, count=len(texts))
    order = np.argsort(-sizes, kind="stable")
    short = int(np.searchsorted(np.cumsum(sizes[order[::-1]]), packer.budget * CHARACTERS_PER_TOKEN))
    if 0 < short < len(order):
        yield from _packed(order[-short:], texts, encode, packer)
        order = order[:-short]
    ahead = np.cumsum(sizes[order])
    start = 0
    while start < len(order):
        before = int(ahead[start - 1]) if start else 0
        reach = before + packer.budget * CHARACTERS_PER_TOKEN
        end = max(start + _WINDOW_TEXTS, int(np.searchsorted(ahead, reach, side="right")))
        yield from _packed(order[start:end], texts, encode, packer)
        start = end
    yield from packer.rest()


def _packed(window: np.ndarray, texts: Sequence[str], encode: Encodes, packer: Packer) -> Iterator[Pack]:
    tokenized = encode([texts[i] for i in window.tolist()])
    by_length = np.argsort(-tokenized.lengths, kind="stable")
    yield from packer.add(window[by_length], tokenized.take(by_length))


class Tokenizer:
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
        require_end_token(self._lists(probe_texts(max_tokens)), expected, model=model, max_tokens=max_tokens)

    def __call__(self, texts: Sequence[str]) -> TokenizedTexts:
        """The ids of all of them."""
        return TokenizedTexts.of(self._lists(texts))

    def to_json(self) -> str:
        """As the tokenizers library reads it."""
        return self._tokenizer.to_str()

    def _lists(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]
