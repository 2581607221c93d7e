"""Any OpenAI-compatible embedding server as an engine: batches of one or several callers, as they complete.

Knows nothing of HTTP or JSON (`endpoint` does). The full vector is asked for and cut locally, so one
encode serves every dimension and nothing depends on a server's own cutting.
"""

from __future__ import annotations

import threading

import numpy as np

from toolkit.embedding.config import RemoteConfig
from toolkit.embedding.endpoint import EmbeddingsEndpoint, Stopped
from toolkit.embedding.engine import Engine
from toolkit.embedding.model_families import family_of
from toolkit.embedding.request_queue import RequestQueue
from toolkit.embedding.server_identity import PROBES, identify, require_same
from toolkit.errors import ServerError
from toolkit.space import EmbeddingSpace, Prompts
from toolkit.vectors import normalize


class RemoteEmbedder(Engine):
    """A model behind ``/v1/embeddings``.

    The empty text is never sent and gets the zero vector: OpenAI and TEI refuse a batch that holds one.
    A server does not tell its weights' version, so the space's revision is its address and an id of the vectors
    that it gives to a few probe texts (`server_identity`). When a request of a
    stream fails for good, those under way are still waited for and yielded; then its ServerError is raised.
    """

    def __init__(self, config: RemoteConfig) -> None:
        """Ask the server once, for the probe texts' vectors."""
        self._config = config
        self._endpoint = EmbeddingsEndpoint(config)
        self._probes = self._ask_probes()
        full_dim = self._probes.shape[1]
        if config.full_dim not in (None, full_dim):
            raise ServerError(
                f"{self._endpoint.url} returned vectors of length {full_dim} where full_dim says "
                f"{config.full_dim}; correct full_dim, or leave it out"
            )
        # A name given with --served-model-name hides the family; vLLM lists the model behind it.
        family = family_of(config.model) or family_of(self._endpoint.models().get(config.model, ""))
        queue = RequestQueue(
            self._embed,
            order=_asking_order,
            full_dim=full_dim,
            batch_size=config.batch_size,
            threads=config.concurrency,
        )
        super().__init__(queue)
        self._space = EmbeddingSpace(
            model=config.model,
            revision=f"{self._endpoint.url} {identify(self._endpoint.url, config.model, self._probes)}",
            engine="openai",
            dtype="server",
            pooling="server",
            max_tokens=0,
            full_dim=full_dim,
            min_dim=min((family and family.min_dim) or full_dim, full_dim),
            prompts=(family and family.prompts) or Prompts(),
        )

    @property
    def space(self) -> EmbeddingSpace:
        """What decides the vectors' values, as far as a server lets one know."""
        return self._space

    def check_unchanged(self, *, retry: bool = True) -> None:
        """Ask for the probe texts again; raises ServerChangedError if their vectors are others now.

        retry : False raises ServerError at the first failure.
        """
        require_same(self._endpoint.url, self._probes, self._ask_probes(retry=retry))

    def _ask_probes(self, *, retry: bool = True) -> np.ndarray:
        stop = threading.Event()
        if not retry:
            stop.set()
        try:
            return normalize(self._endpoint.embed(PROBES, stop))
        except Stopped:
            raise ServerError(f"{self._endpoint.url} does not answer the probe texts any more") from None

    def _release(self) -> None:
        self._endpoint.close()

    def _embed(self, texts: list[str], stop: threading.Event) -> np.ndarray:
        rows = self._endpoint.embed(texts, stop)
        if rows.shape[1] != self._space.full_dim:
            raise ServerError(
                f"{self._endpoint.url} returned vectors of length {rows.shape[1]} where the full one has "
                f"{self._space.full_dim}; check full_dim and that the server still runs {self._space.model}"
            )
        return normalize(rows)


def _asking_order(texts: list[str]) -> np.ndarray:
    """Like lengths together: servers that pad waste less, and the longest start first. No empty texts."""
    order = np.array(sorted(range(len(texts)), key=lambda i: -len(texts[i])), dtype=np.int64)
    return order[: sum(map(bool, texts))]
