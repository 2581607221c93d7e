"""Base of the engines: it gives them `submit`, `stream`, `encode` and `close`, safe from any thread.

An engine writes how texts become rows (`_blocks`) and what to release (`_release`); its queue sees to it
that one thread at a time comes there, and with whose texts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np

from toolkit.embedding.encodable import encodable
from toolkit.embedding.jobs import BlockJob, Started, WholeJob
from toolkit.embedding.owner import OwnerQueue
from toolkit.embedding.protocol import Block
from toolkit.embedding.queue import JobQueue
from toolkit.embedding.tokens import TokenizerFile
from toolkit.space import EmbeddingSpace

# About what a batch of passages has: more together saves no time, and lets each caller wait longer.
_SHARED_CHARACTERS = 65_536
_WARM_TEXTS = ("warm", "the first request should be as fast as the next", "a longer text " * 40)


class Engine(ABC):
    """An embedder with a queue; a context manager that closes it.

    A subclass that has an `__init__` calls this one's.
    """

    def __init__(self, queue: JobQueue | None = None) -> None:
        self._released = False
        if queue is None:
            queue = OwnerQueue(self._begin, shared_characters=self._shared_characters)
        self._queue = queue

    @property
    @abstractmethod
    def space(self) -> EmbeddingSpace:
        """What decides the vectors' values."""

    def warm_up(self) -> None:
        """Make now what is made once, so that no request waits for it. The default embeds a few texts."""
        for texts in (*([text] for text in _WARM_TEXTS), _WARM_TEXTS):
            self.encode(texts)

    def submit(self, texts: Sequence[str], *, timeout_s: float | None = None) -> Future[np.ndarray]:
        """Queue texts; the result is (n, full_dim) float32 rows in input order.

        timeout_s : how long to wait for a place in a full queue; None as long as it takes, 0 not at all.

        Cancel the future to give its place back, also while it is worked on: texts that were not started
        are never computed. Callbacks of the future run on the thread that did the work: keep them short.
        Raises QueueFullError where no place came free in time, EngineClosedError after `close`.
        """
        job = WholeJob(encodable(texts), engine=self, full_dim=self.space.full_dim)
        if not job.texts:
            job.deliver(np.empty(0, dtype=np.int64), np.empty((0, self.space.full_dim), dtype=np.float32))
            job.finish(None)
            return job.future
        self._queue.submit(job, timeout_s)
        return job.future

    def stream(self, texts: Sequence[str]) -> Iterator[Block]:
        """Yield positions and rows, every text once, as they are ready.

        Begins when the first block is asked for, and makes few ahead of the reader. A reader that leaves
        early gives its place back: texts that were not started are never computed.
        """
        chosen = encodable(texts)
        if chosen:
            yield from self._queue.blocks(BlockJob(chosen, engine=self, full_dim=self.space.full_dim))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(n, full_dim) float32 rows in input order; norm 1, or 0 for a text without tokens."""
        chosen = encodable(texts)
        if not chosen:
            return np.empty((0, self.space.full_dim), dtype=np.float32)
        if len(chosen) == 1:
            # What is not a row is for the queue to refuse.
            row = self._queue.encode_one(chosen, self)
            if row is not None and row.shape == (1, self.space.full_dim) and row.dtype == np.float32:
                return row
        return self._queue.encode(WholeJob(chosen, engine=self, full_dim=self.space.full_dim))

    def tokenizer_file(self) -> TokenizerFile | None:
        """What counts its texts' tokens; the default is None, for an engine that cannot tell."""
        return None

    def check_unchanged(self, *, retry: bool = True) -> None:
        """Raise ServerChangedError if what computes is no longer what was opened; the default cannot change.

        retry : False gives up at the first failure (ServerError), for a caller that is on its way out.
        """

    def close(self, *, cancel: bool = False) -> None:
        """Finish what was submitted, or cancel it; then release connections and device memory.

        Open streams end with an EngineClosedError, and so does every later call. Closing twice is fine.
        """
        self._queue.close(cancel=cancel)
        if not self._released:
            self._released = True
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(cancel=kind is not None)

    def _blocks(self, texts: Sequence[str]) -> Iterator[Block]:
        """Yield every position of `texts` once with its row. Comes from one thread at a time."""
        raise NotImplementedError

    def _begin(self, texts: Sequence[str]) -> Iterator[Started]:
        """Start work on `texts`, piece by piece; for an engine that waits for nothing, its blocks."""
        for block in self._blocks(texts):
            yield partial(_same, block)

    def _shared_characters(self) -> int:
        """How many characters, of several callers together, are worked on in one go."""
        return _SHARED_CHARACTERS

    def _release(self) -> None:
        """Release connections or device memory, once; the default has none."""


def windows_by_length(texts: Sequence[str], size: int) -> Iterator[np.ndarray]:
    """Positions of `texts`, `size` at a time: of like length together, the longest first, so memory fails early."""
    order = np.argsort([-len(text) for text in texts], kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _same(block: Block) -> Block:
    return block
