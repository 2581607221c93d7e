"""From the event loop to an engine's queue and back: admission, results in few wake-ups, cancellation."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import NamedTuple, Protocol

import numpy as np

from toolkit.embedding.jobs import Begun
from toolkit.embedding.protocol import Embedder
from toolkit.errors import QueueFullError
from toolkit.serve.metrics import Metrics
from toolkit.wire.findings import Finding, RequestError

_RETRY_AFTER_S = (1, 60)
_MOST_BATCHES = 1_024


class EnginePort(Protocol):
    """Where finished strings go in and full-dimension rows come out, for one event loop."""

    @property
    def waiting(self) -> tuple[int, int]:
        """Requests and tokens that wait or are at work."""
        ...

    def submit(self, texts: Sequence[str], tokens: int) -> asyncio.Future[np.ndarray]:
        """Queue texts, or raise RequestError (429) at once. Cancel the future to give its place back."""
        ...


class Admission:
    """How much may wait, and how long it will take. Used by one thread."""

    def __init__(self, *, requests: int, tokens: int) -> None:
        self._most_requests, self._most_tokens = requests, tokens
        self.requests = 0
        self.tokens = 0
        self._done_tokens = 0
        self._busy_since = 0.0

    def enter(self, tokens: int) -> None:
        """Take a place; raises RequestError (429) where there is none."""
        if self.requests >= self._most_requests:
            raise self.refusal(f"{self.requests} requests wait or are at work", f"{self._most_requests}")
        if self.requests and self.tokens + tokens > self._most_tokens:
            waiting = f"{self.tokens:,} tokens wait or are at work, and this request has {tokens:,}"
            raise self.refusal(waiting, f"{self._most_tokens:,} tokens together")
        if not self.requests:
            self._busy_since, self._done_tokens = time.monotonic(), 0
        self.requests += 1
        self.tokens += tokens

    def leave(self, tokens: int) -> None:
        """Give a place back."""
        self.requests -= 1
        self.tokens -= tokens
        self._done_tokens += tokens

    def refusal(self, waiting: str, allowed: str) -> RequestError:
        """What a request that finds no place is told."""
        wait_s = self._wait_s()
        finding = Finding(
            None, f"the server is full: {waiting}", allowed, f"send the request again in {wait_s} s"
        )
        return RequestError(
            [finding],
            status=HTTPStatus.TOO_MANY_REQUESTS,
            code="rate_limit_exceeded",
            retry_after_s=wait_s,
        )

    def _wait_s(self) -> int:
        """Until half of what waits is done, at the pace since the server was last idle."""
        least, most = _RETRY_AFTER_S
        elapsed_s = time.monotonic() - self._busy_since
        if not self._done_tokens:
            return least
        return max(least, min(most, math.ceil(self.tokens / 2 * elapsed_s / self._done_tokens)))


class _Sent(NamedTuple):
    """A request at the engine: who waits for it, its tokens, and when it went there."""

    waiting: asyncio.Future[np.ndarray]
    tokens: int
    at_s: float


@dataclass
class _Batch:
    """What of a batch is done."""

    requests: int = 0
    tokens: int = 0


class LocalPort:
    """An engine of this process. Made on the event loop that uses it."""

    def __init__(self, engine: Embedder, admission: Admission, metrics: Metrics) -> None:
        self._engine = engine
        self._admission = admission
        self._metrics = metrics
        self._batches: dict[Begun, _Batch] = {}
        self._loop = asyncio.get_running_loop()
        self._done: deque[tuple[_Sent, Future[np.ndarray]]] = deque()
        self._woken = False

    @property
    def waiting(self) -> tuple[int, int]:
        """Requests and tokens that wait or are at work."""
        return self._admission.requests, self._admission.tokens

    def submit(self, texts: Sequence[str], tokens: int) -> asyncio.Future[np.ndarray]:
        """Queue texts, or raise RequestError (429) at once."""
        self._admission.enter(tokens)
        waiting: asyncio.Future[np.ndarray] = self._loop.create_future()
        sent = _Sent(waiting, tokens, time.perf_counter())
        job = None
        try:
            job = self._engine.submit(texts, timeout_s=0)
        except QueueFullError as error:
            raise self._admission.refusal(str(error), "what the engine's queue takes") from None
        finally:
            if job is None:
                self._admission.leave(tokens)
        waiting.add_done_callback(partial(self._is_over, job, tokens))
        job.add_done_callback(partial(self._was_done, sent))
        return waiting

    def _is_over(self, job: Future[np.ndarray], tokens: int, waiting: asyncio.Future[np.ndarray]) -> None:
        self._admission.leave(tokens)
        if waiting.cancelled():
            job.cancel()

    def _was_done(self, sent: _Sent, job: Future[np.ndarray]) -> None:
        """On the engine's thread: many results, one wake-up of the loop."""
        self._done.append((sent, job))
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._woken = False
        while self._done:
            sent, job = self._done.popleft()
            waiting = sent.waiting
            self._count(sent, getattr(job, "begun", None))
            if waiting.done():
                continue
            try:
                error = job.exception()
            except CancelledError:
                waiting.cancel()
                continue
            if error is None:
                waiting.set_result(job.result())
            else:
                waiting.set_exception(error)

    def _count(self, sent: _Sent, begun: Begun | None) -> None:
        """Durations of a request that is over, and its batch once all of that is."""
        if begun is None:  # nobody worked on it, or an engine that does not tell when
            return
        self._metrics.embedded(begun.at_s - sent.at_s, time.perf_counter() - begun.at_s)
        batch = self._batches.setdefault(begun, _Batch())
        batch.requests += 1
        batch.tokens += sent.tokens
        if batch.requests == begun.jobs:
            del self._batches[begun]
            self._metrics.batch(begun.texts, batch.tokens)
        elif len(self._batches) > _MOST_BATCHES:
            self._batches.clear()  # of batches that failed, and whose texts were begun again
