"""An embedding server as an engine: batches of one or several callers, as they complete.

OpenAI's API, TEI's, Cohere's or Ollama's, by the end of its address. Knows nothing of HTTP or JSON (`endpoint` does).
The full vector is asked for and cut locally, so one encode serves every dimension and nothing depends on a server's own
cutting.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence

import numpy as np

from toolkit.embedding.config import RemoteConfig
from toolkit.embedding.endpoint import EmbeddingsEndpoint, Stopped
from toolkit.embedding.engine import Engine
from toolkit.embedding.model_families import family_of
from toolkit.embedding.request_queue import RequestQueue
from toolkit.embedding.server_identity import PROBES, agree, identify, require_same
from toolkit.errors import ServerError, ServerWarning
from toolkit.space import EmbeddingSpace, Prompts
from toolkit.vectors import normalize


class RemoteEmbedder(Engine):
    """A model behind ``/v1/embeddings``, or behind ``/embed``, ``/v2/embed`` or ``/api/embed``.

    The empty text is never sent and gets the zero vector: OpenAI and TEI refuse a batch that holds one.
    A server does not tell its weights' version, so the space's revision is its address and an id of the vectors
    that it gives to a few probe texts (`server_identity`). When a request of a
    stream fails for good, those under way are still waited for and yielded; then its ServerError is raised.

    What `toolkit check` would find of `dimensions` and of norms changes nothing here: the full vector is asked for, cut
    and normalized on this side. A server that gives a text another vector in a batch than alone gets them singly.
    """

    def __init__(self, config: RemoteConfig) -> None:
        """Ask the server once, for the probe texts' vectors."""
        self._config = config
        self._endpoint = EmbeddingsEndpoint(config)
        self._probes = normalize(self._ask_probes())
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
            batch_size=self._safe_batch_size(),
            threads=config.concurrency,
        )
        super().__init__(queue)
        self._space = EmbeddingSpace(
            model=config.model,
            revision=f"{self._endpoint.url} {identify(self._endpoint.url, config.model, self._probes)}",
            engine=self._endpoint.address.shape.name,
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
        require_same(self._endpoint.url, self._probes, normalize(self._ask_probes(retry=retry)))

    def _safe_batch_size(self) -> int:
        """As configured, unless a text has another vector in a batch than alone: then 1, with a warning."""
        wanted = self._config.batch_size
        if wanted == 1:
            return 1
        # The shortest: it is padded most.
        alone = normalize(self._ask_probes(PROBES[:1]))
        if alone.shape[1] == self._probes.shape[1] and agree(alone, self._probes[:1]):
            return wanted
        cosine = (
            float(alone[0] @ self._probes[0]) if alone.shape[1] == self._probes.shape[1] else float("nan")
        )
        warnings.warn(
            f"{self._endpoint.url} gives a text another vector in a batch than alone (cosine {cosine:.3f}): "
            "it is asked for one text at a time, which is slower; toolkit.check says more",
            ServerWarning,
            stacklevel=4,
        )
        return 1

    def _ask_probes(self, texts: Sequence[str] = PROBES, *, retry: bool = True) -> np.ndarray:
        stop = threading.Event()
        if not retry:
            stop.set()
        try:
            return self._endpoint.embed(texts, stop)
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
