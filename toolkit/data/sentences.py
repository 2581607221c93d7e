"""Sentences of documents, to stand in for queries where there are none. Knows no model and no judgement."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from toolkit.data.columns import Texts

# So many are drawn where nothing else is said.
MOST = 2_000
# Four or five English words, or eight Chinese characters: what is shorter is a heading or an abbreviation.
_FEWEST_BYTES = 24
# About as long as a long question; what is longer is cut at a blank.
_MOST_CHARACTERS = 200
_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？؟।])\s*|\n+")
_PREFIX = "sentence-"


def sentences_of(docs: Sequence[str], *, most: int = MOST, seed: int = 0) -> Texts:
    """At most `most` different sentences: of documents in random order one each, then another of each, and so on.

    The same for the same documents and seed. A document without a sentence of usual length gives its beginning;
    one without any text, nothing.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(docs)).tolist()
    left: dict[int, list[str]] = {}
    seen: dict[str, None] = {}
    while order and len(seen) < most:
        again = []
        for place in order:
            if place not in left:
                sentences = _sentences(docs[place])
                left[place] = [sentences[i] for i in rng.permutation(len(sentences))]
            if not left[place]:
                continue
            seen.setdefault(left[place].pop())
            again.append(place)
            if len(seen) == most:
                break
        order = again
    return Texts({f"{_PREFIX}{i}": text for i, text in enumerate(seen)})


def _sentences(text: str) -> list[str]:
    parts = [_cut(" ".join(part.split())) for part in _END.split(text)]
    usual = [part for part in parts if len(part.encode("utf-8", "surrogatepass")) >= _FEWEST_BYTES]
    beginning = _cut(" ".join(text.split()))
    return list(dict.fromkeys(usual)) or [beginning] * bool(beginning)


def _cut(sentence: str) -> str:
    if len(sentence) <= _MOST_CHARACTERS:
        return sentence
    whole, blank, _ = sentence[: _MOST_CHARACTERS + 1].rpartition(" ")
    return whole if blank else sentence[:_MOST_CHARACTERS]
