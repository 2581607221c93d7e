"""Load on an embedding server from several client processes, and whether the clients were its limit.

Closed loop: so many clients, each sends its next request when it has its answer. Open loop: requests begin at a
rate, whatever the server does; a latency counts from when the request was due, so a server that falls behind
cannot hide it. Both are bounded in time. Clients are processes of their own (`load_worker`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from toolkit.errors import PlanError, ServerError
from toolkit.wire.client_shapes import Address, Ask

_BUSY_SHARE = 0.85  # of a core: above it a client process has no time left for answers
_LATE_SHARE = 0.2  # of the median latency: an event loop that lags more than this adds to it
_LATE_MS = 5.0


@dataclass(frozen=True)
class Load:
    """What to send.

    requests : each a list of texts; taken in turn, again and again.
    clients : requests under way at once (closed loop), or at most (open loop).
    seconds : how long new requests begin, after `warm_up` requests that do not count.
    rate : requests per second of an open loop; None is a closed loop.
    most_requests : stop after so many; None for no limit but time.
    dimensions, more : fields of each request.
    processes : of the client; None takes one for each 32 clients, and at most the cores of this machine.
    key : API key; only ever sent to the address.
    """

    url: str
    model: str
    requests: Sequence[Sequence[str]]
    clients: int = 8
    seconds: float = 10.0
    rate: float | None = None
    most_requests: int | None = None
    dimensions: int | None = None
    more: dict[str, Any] = field(default_factory=dict)
    processes: int | None = None
    warm_up: int = 16
    timeout_s: float = 60.0
    key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("clients", "seconds", "timeout_s"):
            if getattr(self, name) <= 0:
                raise PlanError(f"{name} {getattr(self, name)!r} must be above 0")
        if self.rate is not None and self.rate <= 0:
            raise PlanError(f"rate {self.rate!r} must be above 0 requests per second")
        if not self.requests or not all(self.requests):
            raise PlanError("a load needs at least one request, and each at least one text")


@dataclass(frozen=True)
class LoadResult:
    """What came back.

    latencies_ms : of each answered request, (requests,) float64; counted from when it was due in an open loop.
    failures : by kind: ``HTTP 429``, ``time-out``, ``connection``.
    dropped : due in an open loop when all `clients` places were taken, so never sent.
    client_cpu_share : of a core, of the busiest client process. client_late_ms : p99 of how late its event loop was.
    client_limit : why the client was the limit and not the server; None if it was not.
    """

    clients: int
    rate: float | None
    processes: int
    dimensions: int | None
    texts_per_request: float
    duration_s: float
    latencies_ms: np.ndarray
    failures: dict[str, int]
    dropped: int
    client_cpu_share: float
    client_late_ms: float
    client_limit: str | None

    @property
    def requests_per_s(self) -> float:
        """Answered requests."""
        return len(self.latencies_ms) / self.duration_s

    @property
    def texts_per_s(self) -> float:
        """Texts of answered requests."""
        return self.requests_per_s * self.texts_per_request

    def percentile_ms(self, percent: float) -> float:
        """Latency that so many per cent of the requests do not exceed; NaN if none was answered."""
        return float(np.percentile(self.latencies_ms, percent)) if len(self.latencies_ms) else float("nan")

    def row(self) -> dict[str, Any]:
        """One line of a table or a JSON file, without the samples."""
        shown = {name: value for name, value in asdict(self).items() if name != "latencies_ms"}
        measured = {
            "requests": len(self.latencies_ms),
            "requests_per_s": round(self.requests_per_s, 2),
            "texts_per_s": round(self.texts_per_s, 2),
        }
        for percent in (50, 95, 99):
            value = self.percentile_ms(percent)
            measured[f"p{percent}_ms"] = None if np.isnan(value) else round(value, 3)
        for name in ("duration_s", "client_cpu_share", "client_late_ms", "texts_per_request"):
            shown[name] = round(shown[name], 3)
        return shown | measured


def run_load(load: Load) -> LoadResult:
    """Send it, and wait; raises ServerError if a client process breaks or no request of the warm-up is answered."""
    processes = load.processes or min(os.cpu_count() or 1, -(-load.clients // 32))
    processes = min(processes, load.clients)
    with _workers(processes) as workers:
        jobs = [_job(load, number, processes) for number in range(processes)]
        for worker, job in zip(workers, jobs, strict=True):
            _send(worker, job)
        for worker in workers:
            ready = _read(worker, "it is not ready")
            if "error" in ready:
                raise ServerError(f"{load.url} answers no request of the warm-up: {ready['error']}")
        begin = time.perf_counter() + 0.05  # CLOCK_MONOTONIC, the same in every process
        for worker in workers:
            _send(worker, {"begin": begin})
        reports = [_read(worker, "it reported nothing") for worker in workers]
    return _result(load, reports)


def _job(load: Load, number: int, processes: int) -> dict[str, Any]:
    address = Address.of(load.url)
    bodies = [
        json.dumps(
            address.shape.body(
                Ask(list(texts), load.model, load.dimensions, _encoding(address), dict(load.more))
            )
        )
        for texts in load.requests[number % len(load.requests) :: processes] or load.requests
    ]

    def share(total: int) -> int:
        return total // processes + (number < total % processes)

    return {
        "url": address.requests,
        "key": load.key,
        "bodies": bodies,
        "clients": share(load.clients),
        "seconds": load.seconds,
        "rate": None if load.rate is None else load.rate / processes,
        "most_requests": None if load.most_requests is None else share(load.most_requests),
        "warm_up": share(load.warm_up),
        "timeout_s": load.timeout_s,
        "seed": number,
    }


def _encoding(address: Address) -> str | None:
    return "base64" if address.shape.encodes_base64 else None


def _result(load: Load, reports: Sequence[dict[str, Any]]) -> LoadResult:
    latencies = np.concatenate([np.asarray(report["latencies_ms"], dtype=np.float64) for report in reports])
    failures: Counter[str] = Counter()
    for report in reports:
        failures.update(report["failures"])
    cpu_share = max(report["cpu_share"] for report in reports)
    late_ms = max(report["late_ms"] for report in reports)
    return LoadResult(
        clients=load.clients,
        rate=load.rate,
        processes=len(reports),
        dimensions=load.dimensions,
        texts_per_request=float(np.mean([len(texts) for texts in load.requests])),
        duration_s=max(report["ended"] for report in reports) - min(report["began"] for report in reports),
        latencies_ms=latencies,
        failures=dict(failures),
        dropped=sum(report["dropped"] for report in reports),
        client_cpu_share=cpu_share,
        client_late_ms=late_ms,
        client_limit=_client_limit(cpu_share, late_ms, latencies, len(reports)),
    )


def _client_limit(cpu_share: float, late_ms: float, latencies: np.ndarray, processes: int) -> str | None:
    more = f"give more than {processes} client processes, or another machine"
    if cpu_share > _BUSY_SHARE:
        return f"a client process used {cpu_share:.0%} of a core; {more}"
    if len(latencies) and late_ms > max(_LATE_MS, _LATE_SHARE * float(np.median(latencies))):
        return f"a client's event loop was {late_ms:.0f} ms late at p99: it waits for the processor; {more}"
    return None


@contextmanager
def _workers(count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Client processes; whatever happens, none stays behind."""
    command = [sys.executable, "-m", "toolkit.conformance.load_worker"]
    workers: list[subprocess.Popen[str]] = []
    try:
        for _ in range(count):
            pipe = subprocess.PIPE
            workers.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True))  # noqa: S603
        yield workers
    finally:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.wait()
            for stream in (worker.stdin, worker.stdout):
                with suppress(OSError):
                    stream.close()


def _send(worker: subprocess.Popen[str], message: dict[str, Any]) -> None:
    worker.stdin.write(json.dumps(message) + "\n")
    worker.stdin.flush()


def _read(worker: subprocess.Popen[str], what: str) -> dict[str, Any]:
    line = worker.stdout.readline()
    if not line:
        raise ServerError(f"a client process ended ({what}); its message stands above")
    return json.loads(line)
