"""Any OpenAI-compatible embedding server as an engine: batches, threads, vectors as they complete.

Knows nothing of HTTP or JSON (`endpoint` does). The full vector is asked for and cut locally, so one
encode serves every dimension and nothing depends on a server's own cutting.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence

import numpy as np

from toolkit.embedding.config import RemoteConfig
from toolkit.embedding.encodable import encodable
from toolkit.embedding.endpoint import EmbeddingsEndpoint, Stopped
from toolkit.embedding.model_families import family_of
from toolkit.embedding.protocol import Block, StreamingEmbedder
from toolkit.errors import ServerError, ToolkitError
from toolkit.space import EmbeddingSpace, Prompts
from toolkit.vectors import normalize

_QUEUED_BATCHES_PER_THREAD = 2


class RemoteEmbedder(StreamingEmbedder):
    """A model behind ``/v1/embeddings``.

    The empty text is never sent and gets the zero vector: OpenAI and TEI refuse a batch that holds one.
    A server does not tell its weights' version, so the space's revision is its address.
    """

    def __init__(self, config: RemoteConfig) -> None:
        """Ask the server once for the length of a vector, unless the config states it."""
        self._config = config
        self._endpoint = EmbeddingsEndpoint(config)
        full_dim = config.full_dim
        if full_dim is None:
            full_dim = self._endpoint.embed(["length probe"], threading.Event()).shape[1]
        # A name given with --served-model-name hides the family; vLLM lists the model behind it.
        family = family_of(config.model) or family_of(self._endpoint.models().get(config.model, ""))
        self._space = EmbeddingSpace(
            model=config.model,
            revision=self._endpoint.url,
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

    def stream(self, texts: Sequence[str]) -> Iterator[Block]:
        """Yield batches as the server answers.

        When a batch fails for good, requests under way are still awaited and yielded; then its
        ServerError is raised. Leaving the iterator early (Ctrl-C) waits for nothing.
        """
        texts = encodable(texts)
        # Like lengths together: servers that pad waste less, and the longest requests start first.
        order = np.array(sorted(range(len(texts)), key=lambda i: -len(texts[i])), dtype=np.int64)
        sent = order[[bool(texts[i]) for i in order]] if len(order) else order
        if len(sent) < len(order):
            empty = order[len(sent) :]
            yield empty, np.zeros((len(empty), self._space.full_dim), dtype=np.float32)
        size = self._config.batch_size
        batches = (sent[start : start + size] for start in range(0, len(sent), size))
        yield from _Requests(self._embed, texts, threads=self._config.concurrency).run(batches)

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    def _embed(self, texts: list[str], stop: threading.Event) -> np.ndarray:
        rows = self._endpoint.embed(texts, stop)
        if rows.shape[1] != self._space.full_dim:
            raise ServerError(
                f"{self._endpoint.url} returned vectors of length {rows.shape[1]} where the full one has "
                f"{self._space.full_dim}; check full_dim and that the server still runs {self._space.model}"
            )
        return normalize(rows)


class _Requests:
    """A bounded number of requests at once, on daemon threads.

    Not a ThreadPoolExecutor: its threads are joined when the interpreter exits, so a server that hangs
    would hold up Ctrl-C until the request times out.
    """

    def __init__(self, embed, texts: list[str], *, threads: int) -> None:  # noqa: ANN001
        self._embed = embed
        self._texts = texts
        self._threads = threads
        self._stop = threading.Event()
        self._todo: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[np.ndarray, np.ndarray | Exception]] = queue.SimpleQueue()

    def run(self, batches: Iterator[np.ndarray]) -> Iterator[Block]:
        for number in range(self._threads):
            threading.Thread(target=self._work, name=f"embed-{number}", daemon=True).start()
        waiting = 0
        failure: Exception | None = None
        try:
            while True:
                while failure is None and waiting < self._threads * _QUEUED_BATCHES_PER_THREAD:
                    batch = next(batches, None)
                    if batch is None:
                        break
                    self._todo.put(batch)
                    waiting += 1
                if waiting == 0:
                    break
                positions, outcome = self._done.get()
                waiting -= 1
                if not isinstance(outcome, Exception):
                    yield positions, outcome
                elif failure is None:
                    failure = outcome
                    self._stop.set()  # no more tries for the others, but what is under way may finish
                    waiting -= self._withdraw()
        finally:
            self._stop.set()
            self._withdraw()
            for _ in range(self._threads):
                self._todo.put(None)
        if failure is not None:
            raise failure

    def _withdraw(self) -> int:
        """Take back what no thread has begun; returns how many batches that is."""
        count = 0
        while True:
            try:
                self._todo.get_nowait()
            except queue.Empty:
                return count
            count += 1

    def _work(self) -> None:
        while (batch := self._todo.get()) is not None:
            # Stands if the thread ends in a way that is no ToolkitError: whoever waits must hear of it.
            outcome: np.ndarray | Exception = ServerError("a request thread broke; its traceback says why")
            try:
                outcome = self._embed([self._texts[i] for i in batch], self._stop)
            except (ToolkitError, Stopped) as error:
                outcome = error
            finally:
                self._done.put((batch, outcome))
