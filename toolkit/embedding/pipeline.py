"""Texts to cached full-dimension vectors: render, drop duplicates, look up, encode the rest.

The one way from texts to vectors. Knows nothing of engines beyond their protocol, and cuts nothing:
every dimension is a prefix of what this returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolkit.embedding.cache import VectorCache, text_keys
from toolkit.embedding.protocol import Embedder
from toolkit.embedding.row_sink import RowSink
from toolkit.errors import ToolkitError, VectorError
from toolkit.progress import progress_bar
from toolkit.space import Instruction, Role
from toolkit.vectors import Vectors

if TYPE_CHECKING:
    from tqdm import tqdm

_UNIT_TOLERANCE = 1e-3
# Of a stream so much is held at a time: enough to sort by length, little beside a model.
_WINDOW_TEXTS = 65_536
_WINDOW_CHARACTERS = 64 * 2**20


def embed_texts(
    embedder: Embedder,
    texts: Iterable[str],
    *,
    role: Role,
    instruction: str | Instruction | None = None,
    cache: VectorCache | None = None,
    out: Path | None = None,
    progress: bool = True,
) -> Vectors:
    """Embed `texts` in a role; returns (n, full_dim) unit rows in input order.

    texts : a list, or any iterable: of a stream no more than a window of texts is ever held.
    instruction : for queries; None is the model's default, ``""`` none.
    cache : where vectors are looked up and kept; None encodes everything anew.
    out : a `.npy` file to write the rows to and map, for corpora larger than memory.

    Equal texts are encoded once. If the engine fails or the run is interrupted, what was encoded by then is
    already in the cache; of a server that can no longer be asked whether its model is the same, all but the last
    ten seconds. Raises VectorError if the engine returns no embeddings, ServerChangedError if a server's model
    was exchanged on the way; what came since it was asked last is then not kept.
    """
    space = embedder.space
    render = space.renderer(role, instruction)
    total = len(texts) if isinstance(texts, Sized) else None
    bar = progress_bar(total=total, label=f"embed {space.model}", unit="text", show=progress)
    with RowSink(space.full_dim, out=out, count=total) as sink, bar:
        work = _Run(embedder, sink, cache, bar)
        for window in windows(render(text) for text in texts):
            work.take(window)
        return sink.finish()


def windows(texts: Iterable[str]) -> Iterator[list[str]]:
    """Lists of consecutive texts, each long enough that an engine finds texts of like length in it."""
    window: list[str] = []
    characters = 0
    for text in texts:
        window.append(text)
        characters += len(text)
        if len(window) >= _WINDOW_TEXTS or characters >= _WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window


class _Run:
    """One call's way through the windows."""

    def __init__(self, embedder: Embedder, sink: RowSink, cache: VectorCache | None, bar: tqdm) -> None:
        self._embedder, self._sink, self._bar = embedder, sink, bar
        # An engine that only looks vectors up has no use for a copy of them.
        wanted = cache is not None and getattr(embedder, "cached", True)
        self._cache = cache.for_space(embedder.space, confirm=self._check_unchanged) if wanted else None
        # Objects of users that only have the protocol's methods cannot tell.
        self._check = getattr(embedder, "check_unchanged", None)
        self._unchecked = self._leaving = False
        # Without a cache, where each text of an earlier window has its row.
        self._rows_before: dict[bytes, int] = {}

    def take(self, texts: list[str]) -> None:
        """Append the rows of the next texts: looked up, copied from an equal text, or encoded."""
        start, rows = self._sink.grow(len(texts))
        keys = text_keys(texts)
        first: dict[bytes, int] = {}
        for position, key in enumerate(keys):
            first.setdefault(key, position)
        wanted, positions = list(first), list(first.values())
        missing = self._look_up(wanted, rows, positions)
        if missing:
            chosen = [positions[i] for i in missing]
            self._bar.update(len(texts) - len(chosen))
            self._encode(rows, chosen, texts=texts, keys=keys)
        else:
            self._bar.update(len(texts))
        if len(first) < len(texts):
            sources = np.fromiter((first[key] for key in keys), dtype=np.int64, count=len(keys))
            copies = np.flatnonzero(sources != np.arange(len(texts)))
            rows[copies] = rows[sources[copies]]
        if self._cache is None and not self._sink.whole:
            self._rows_before.update((key, start + position) for key, position in first.items())

    def _look_up(self, keys: list[bytes], rows: np.ndarray, positions: list[int]) -> list[int]:
        if self._cache is not None:
            return self._cache.read(keys, rows, positions)
        missing = []
        for i, key in enumerate(keys):
            if key in self._rows_before:
                rows[positions[i]] = self._sink.row(self._rows_before[key])
            else:
                missing.append(i)
        return missing

    def _encode(self, rows: np.ndarray, positions: list[int], *, texts: list[str], keys: list[bytes]) -> None:
        wanted = np.asarray(positions)
        done = np.zeros(len(wanted), dtype=bool)
        failed = True
        try:
            for places, block in self._embedder.stream([texts[i] for i in positions]):
                check_block(self._embedder, places, block)
                rows[wanted[places]] = block
                done[places] = True
                self._unchecked = True
                if self._cache is not None:
                    self._cache.add([keys[i] for i in wanted[places]], block)
                self._bar.update(len(places))
            failed = False
        finally:
            if failed:
                self._keep_what_is_sure()
        if self._cache is not None:
            self._cache.flush()
        self._check_unchanged()
        if not done.all():
            raise VectorError(
                f"{self._embedder.space.engine} returned no vector for {int((~done).sum())} of {len(done)} texts"
            )

    def _check_unchanged(self) -> None:
        """Raise ServerChangedError if the engine is no longer what it was opened as; asks once for all that came."""
        if self._unchecked and self._check is not None:
            self._check(retry=not self._leaving)
            self._unchecked = False

    def _keep_what_is_sure(self) -> None:
        """On the way out of a failure: what the engine still vouches for at once goes into the cache."""
        self._leaving = True
        if self._cache is not None:
            with suppress(ToolkitError):
                self._cache.flush()


def check_block(embedder: Embedder, places: np.ndarray, block: np.ndarray) -> None:
    """Raise VectorError for rows that are no embeddings of so many texts."""
    name, full_dim = embedder.space.model, embedder.space.full_dim
    if block.shape != (len(places), full_dim) or block.dtype != np.float32:
        raise VectorError(
            f"{name} returned {block.dtype} of shape {block.shape} for {len(places)} texts; "
            f"an engine must return float32 of shape ({len(places)}, {full_dim})"
        )
    norms = np.linalg.norm(block, axis=1)
    wrong = ~((np.abs(norms - 1.0) <= _UNIT_TOLERANCE) | (norms == 0.0))
    if wrong.any():
        raise VectorError(
            f"{name} returned a vector of norm {norms[np.argmax(wrong)]:.4g}; an engine must return rows of "
            "norm 1, or 0 for a text without tokens"
        )
