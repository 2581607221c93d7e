"""What a server counts and times, under the names that TEI gives them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from toolkit.errors import require_package

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TOKENS = tuple(float(4**i) for i in range(1, 11))
_COUNTS = tuple(float(2**i) for i in range(13))


class Metrics:
    """One registry per server."""

    def __init__(self) -> None:
        require_package("prometheus_client", needed_for="the server's metrics", extra="serve")
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = registry = CollectorRegistry()
        self._requests = Counter("te_request_count", "Requests for vectors", ["method"], registry=registry)
        self._success = Counter("te_request_success", "Requests that were answered", registry=registry)
        self._failure = Counter(
            "te_request_failure", "Requests refused or failed", ["err"], registry=registry
        )
        self._gone = Counter(
            "te_request_disconnected", "Requests whose client went away before the answer", registry=registry
        )
        self._duration = Histogram(
            "te_request_duration", "Seconds from a request to its answer", buckets=_SECONDS, registry=registry
        )
        self._tokenization = Histogram(
            "te_request_tokenization_duration", "Seconds to count tokens", buckets=_SECONDS, registry=registry
        )
        self._queue = Histogram(
            "te_request_queue_duration",
            "Seconds until work on a request began",
            buckets=_SECONDS,
            registry=registry,
        )
        self._inference = Histogram(
            "te_request_inference_duration",
            "Seconds from then until it had its vectors",
            buckets=_SECONDS,
            registry=registry,
        )
        self._batch_size = Histogram(
            "te_batch_next_size", "Texts that are begun together", buckets=_COUNTS, registry=registry
        )
        self._batch_tokens = Histogram(
            "te_batch_next_tokens",
            "Tokens of texts that are begun together",
            buckets=_TOKENS,
            registry=registry,
        )
        self._inputs = Histogram(
            "te_request_input_count", "Texts of a request", buckets=_COUNTS, registry=registry
        )
        self._tokens = Histogram(
            "te_request_input_tokens", "Tokens of a request", buckets=_TOKENS, registry=registry
        )
        self._waiting = Gauge(
            "te_queue_size",
            "Requests that wait or are at work",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._waiting_tokens = Gauge(
            "te_queue_tokens",
            "Tokens that wait or are at work",
            registry=registry,
            multiprocess_mode="livesum",
        )

    def request(self, method: str) -> None:
        """One has come."""
        self._requests.labels(method).inc()

    def answered(self, duration_s: float) -> None:
        """One has its vectors."""
        self._success.inc()
        self._duration.observe(duration_s)

    def failed(self, code: str) -> None:
        """One was refused."""
        self._failure.labels(code).inc()

    def disconnected(self) -> None:
        """Nobody waits for one any more."""
        self._gone.inc()

    def input(self, texts: int, tokens: int) -> None:
        """What one holds."""
        self._inputs.observe(texts)
        self._tokens.observe(tokens)

    def embedded(self, queue_s: float, inference_s: float) -> None:
        """The engine is done with one."""
        self._queue.observe(queue_s)
        self._inference.observe(inference_s)

    def batch(self, texts: int, tokens: int) -> None:
        """What the engine began together."""
        self._batch_size.observe(texts)
        self._batch_tokens.observe(tokens)

    def queue(self, requests: int, tokens: int) -> None:
        """What waits or is at work."""
        self._waiting.set(requests)
        self._waiting_tokens.set(tokens)

    @contextmanager
    def tokenization(self) -> Iterator[None]:
        """Times what is inside."""
        start = time.perf_counter()
        yield
        self._tokenization.observe(time.perf_counter() - start)

    def text(self) -> bytes:
        """As Prometheus reads it."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)
