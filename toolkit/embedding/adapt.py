"""Any object that has `space` and `encode` or `stream`, as an engine that every thread may use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from toolkit.embedding.engine import Engine
from toolkit.embedding.protocol import Block, Embedder
from toolkit.errors import PlanError
from toolkit.space import EmbeddingSpace


def as_engine(embedder: object) -> Embedder:
    """`embedder` itself where it has the whole protocol, else an engine around it.

    Raises PlanError for an object that lacks `space`, or both `encode` and `stream`.
    """
    if isinstance(embedder, Embedder):
        return embedder
    can = any(callable(getattr(embedder, name, None)) for name in ("stream", "encode"))
    if not can or not isinstance(getattr(embedder, "space", None), EmbeddingSpace):
        raise PlanError(
            f"{type(embedder).__name__} is not an embedder; give a spec such as 'static', a config, or "
            "an object with `space` (an EmbeddingSpace) and `encode(texts)` or `stream(texts)`"
        )
    return _Adapted(embedder)


class _Adapted(Engine):
    """Serializes the calls: what is inside may be called from several threads, but from one after another."""

    def __init__(self, inner: object) -> None:
        super().__init__()
        self._inner = inner

    @property
    def space(self) -> EmbeddingSpace:
        """The object's own."""
        return self._inner.space

    def _blocks(self, texts: Sequence[str]) -> Iterator[Block]:
        if callable(getattr(self._inner, "stream", None)):
            yield from self._inner.stream(list(texts))
        else:
            yield np.arange(len(texts)), self._inner.encode(list(texts))

    def _release(self) -> None:
        if callable(getattr(self._inner, "close", None)):
            self._inner.close()
