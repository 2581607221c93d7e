"""A plain function from texts to rows as an engine: ``lambda texts: client.embed(texts)``.

A function says no name and no version of what computes, so it is known by the vectors of the probe texts, as a
server is: another model behind the same function never meets vectors of the former.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from toolkit.embedding.engine import Engine, windows_by_length
from toolkit.embedding.protocol import Block
from toolkit.embedding.server_identity import PROBES
from toolkit.errors import VectorError
from toolkit.space import EmbeddingSpace
from toolkit.vectors import normalize

_BATCH = 64


class FunctionEmbedder(Engine):
    """Calls `function` with at most 64 texts of like length at a time; its rows are normalized here.

    Prompts and instructions are in the texts it is given. Raises VectorError if it returns no 2-D array of floats
    with a row for each text.
    """

    def __init__(self, function: Callable[[list[str]], object]) -> None:
        super().__init__()
        self._function = function
        rows = self._rows(list(PROBES))
        # To six decimals: the same model on another number of threads may differ in the last bits.
        digest = hashlib.blake2b(np.round(rows, 6).astype("<f4").tobytes(), digest_size=8).hexdigest()
        self._space = EmbeddingSpace(
            model=_name(function),
            revision=f"probes-{digest}",
            engine="function",
            dtype="unknown",
            pooling="its own",
            max_tokens=0,
            full_dim=rows.shape[1],
            min_dim=rows.shape[1],
        )

    @property
    def space(self) -> EmbeddingSpace:
        """What decides the vectors' values."""
        return self._space

    def _blocks(self, texts: Sequence[str]) -> Iterator[Block]:
        for places in windows_by_length(texts, _BATCH):
            yield places, self._rows([texts[i] for i in places])

    def _rows(self, texts: list[str]) -> np.ndarray:
        try:
            rows = np.asarray(self._function(texts), dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise VectorError(
                f"embedder {_name(self._function)} failed on {len(texts)} texts: {error}; it must take a list of "
                "strings and return one row of numbers for each"
            ) from error
        if rows.ndim != 2 or len(rows) != len(texts):
            raise VectorError(
                f"embedder {_name(self._function)} returned an array of shape {rows.shape} for {len(texts)} texts; "
                f"it must return ({len(texts)}, dimension)"
            )
        return normalize(rows)


def _name(function: Callable[[list[str]], object]) -> str:
    name = getattr(function, "__name__", "") or type(function).__name__
    return "function" if name == "<lambda>" else name
