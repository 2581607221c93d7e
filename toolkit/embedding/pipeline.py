"""Texts to cached full-dimension vectors: render, drop duplicates, look up, encode the rest.

The one way from texts to vectors. Knows nothing of engines beyond their protocol, and cuts nothing:
every dimension is a prefix of what this returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from toolkit.embedding.cache import SpaceCache, VectorCache, text_keys
from toolkit.embedding.protocol import Embedder
from toolkit.errors import VectorError
from toolkit.progress import progress_bar
from toolkit.space import Instruction, Role
from toolkit.vectors import Vectors

_UNIT_TOLERANCE = 1e-3


def embed_texts(
    embedder: Embedder,
    texts: Sequence[str],
    *,
    role: Role,
    instruction: str | Instruction | None = None,
    cache: VectorCache | None = None,
    out: Path | None = None,
    progress: bool = True,
) -> Vectors:
    """Embed `texts` in a role; returns (n, full_dim) unit rows in input order.

    instruction : for queries; None is the model's default, ``""`` none.
    cache : where vectors are looked up and kept; None encodes everything anew.
    out : a `.npy` file to write the rows to and map, for corpora larger than memory.

    Equal texts are encoded once. If the engine fails or the run is interrupted, what was encoded by
    then is already in the cache. Raises VectorError if the engine returns no embeddings.
    """
    space = embedder.space
    render = space.renderer(role, instruction)
    finished = [render(text) for text in texts]
    keys = text_keys(finished)
    first: dict[bytes, int] = {}
    for position, key in enumerate(keys):
        first.setdefault(key, position)

    shape = (len(texts), space.full_dim)
    if out is None:
        rows = np.empty(shape, dtype=np.float32)
    else:
        rows = np.lib.format.open_memmap(out, mode="w+", dtype=np.float32, shape=shape)
    space_cache = cache.for_space(space) if cache is not None else None
    positions = list(first.values())
    if space_cache is not None:
        lost = space_cache.read(list(first), rows, positions)
        positions = [positions[i] for i in lost]
    if positions:
        _encode_into(
            rows,
            embedder,
            positions=positions,
            texts=finished,
            keys=keys,
            space_cache=space_cache,
            progress=progress,
        )
    if len(first) < len(texts):
        sources = np.fromiter((first[key] for key in keys), dtype=np.int64, count=len(keys))
        copies = np.flatnonzero(sources != np.arange(len(texts)))
        rows[copies] = rows[sources[copies]]
    return Vectors(rows)


def _encode_into(
    rows: np.ndarray,
    embedder: Embedder,
    *,
    positions: list[int],
    texts: list[str],
    keys: list[bytes],
    space_cache: SpaceCache | None,
    progress: bool,
) -> None:
    wanted = np.asarray(positions)
    done = np.zeros(len(wanted), dtype=bool)
    bar = progress_bar(total=len(wanted), label=f"embed {embedder.space.model}", unit="text", show=progress)
    try:
        with bar:
            for places, block in embedder.stream([texts[i] for i in positions]):
                _check_block(embedder, places, block)
                rows[wanted[places]] = block
                done[places] = True
                if space_cache is not None:
                    space_cache.add([keys[i] for i in wanted[places]], block)
                bar.update(len(places))
    finally:
        if space_cache is not None:
            space_cache.flush()
    if not done.all():
        raise VectorError(
            f"{embedder.space.engine} returned no vector for {int((~done).sum())} of {len(done)} texts"
        )


def _check_block(embedder: Embedder, places: np.ndarray, block: np.ndarray) -> None:
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
