"""One client process of a load: ``python -m toolkit.conformance.load_worker``, a job on stdin, a report on stdout.

HTTP/1.1 over connections that stay open, one for each client, with as little work per request as it takes: a client
library spends more on a request than a fast server does.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import urlsplit

_LAG_EVERY_S = 0.01


class _Connection:
    """Sends a request and reads its answer; connects anew where the server hung up."""

    def __init__(self, url: str, key: str | None) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname
        self._secure = parts.scheme == "https"
        self._port = parts.port or (443 if self._secure else 80)
        head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        if key:
            head += f"Authorization: Bearer {key}\r\n"
        self._head = head.encode()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        if self._writer is None:
            secure = ssl.create_default_context() if self._secure else None
            self._reader, self._writer = await asyncio.open_connection(
                self._host, self._port, ssl=secure, limit=2**20
            )
        self._writer.write(b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body))
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head[9:12])
        length = _header(head, b"content-length")
        if length is not None:
            answer = await self._reader.readexactly(int(length))
        elif b"chunked" in (_header(head, b"transfer-encoding") or b""):
            answer = await self._chunks()
        else:
            answer = await self._reader.read()
            self.close()
        if b"close" in (_header(head, b"connection") or b""):
            self.close()
        return status, answer

    def close(self) -> None:
        """Hang up; the next request connects anew."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def _chunks(self) -> bytes:
        parts = []
        while True:
            size = int((await self._reader.readline()).split(b";")[0], 16)
            parts.append(await self._reader.readexactly(size))
            await self._reader.readline()
            if not size:
                return b"".join(parts)


def _header(head: bytes, name: bytes) -> bytes | None:
    start = head.find(b"\r\n" + name + b":")
    if start < 0:
        return None
    start += len(name) + 3
    return head[start : head.index(b"\r\n", start)].strip()


@dataclass
class _Tally:
    latencies_ms: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    late_ms: list[float] = field(default_factory=list)


class _Client:
    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job
        self._bodies = [body.encode() for body in job["bodies"]]
        self._idle = [_Connection(job["url"], job["key"]) for _ in range(job["clients"])]
        self._numbers = count()
        self.tally = _Tally()

    async def warm_up(self) -> str | None:
        """Send what does not count, over all connections; what it failed with if nothing was answered."""
        before, self.tally = self.tally, _Tally()
        rounds = max(len(self._idle), self._job["warm_up"])
        for first in range(0, rounds, len(self._idle)):
            await asyncio.gather(*map(self._request, list(self._idle)[: rounds - first]))
        failed = None if self.tally.latencies_ms else ", ".join(self.tally.failures)
        self.tally, self._numbers = before, count()
        return failed

    async def closed_loop(self, begin: float) -> None:
        """Each connection sends its next request when it has its answer."""
        end, most = begin + self._job["seconds"], self._job["most_requests"]
        taken = count()

        async def one(connection: _Connection) -> None:
            while time.perf_counter() < end and (most is None or next(taken) < most):
                await self._request(connection)

        await asyncio.gather(*map(one, self._idle))

    async def open_loop(self, begin: float) -> None:
        """Requests are due at random times of the rate asked for; one without a free connection is dropped."""
        end, most = begin + self._job["seconds"], self._job["most_requests"]
        pace = random.Random(self._job["seed"])  # noqa: S311 - arrivals, nothing secret
        under_way: set[asyncio.Task[None]] = set()
        due, sent = begin, 0
        while (due := due + pace.expovariate(self._job["rate"])) < end and (most is None or sent < most):
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            sent += 1
            if not self._idle:
                self.tally.dropped += 1
                continue
            task = asyncio.create_task(self._borrowed(self._idle.pop(), due))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)

    async def watch_lag(self) -> None:
        """How late the event loop is, again and again."""
        while True:
            due = time.perf_counter() + _LAG_EVERY_S
            await asyncio.sleep(_LAG_EVERY_S)
            self.tally.late_ms.append(1000 * max(0.0, time.perf_counter() - due))

    async def _borrowed(self, connection: _Connection, due: float) -> None:
        await self._request(connection, due)
        self._idle.append(connection)

    async def _request(self, connection: _Connection, due: float | None = None) -> None:
        body = self._bodies[next(self._numbers) % len(self._bodies)]
        begun = time.perf_counter() if due is None else due
        try:
            async with asyncio.timeout(self._job["timeout_s"]):
                status, _ = await connection.post(body)
        except TimeoutError:
            connection.close()
            self.tally.failures["time-out"] += 1
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            connection.close()
            self.tally.failures[f"connection ({type(error).__name__})"] += 1
            await asyncio.sleep(0.01)  # a server that is gone is not asked in a tight loop
        else:
            if status == 200:
                self.tally.latencies_ms.append(1000 * (time.perf_counter() - begun))
            else:
                self.tally.failures[f"HTTP {status}"] += 1
                await asyncio.sleep(0.001)


async def _main(job: dict[str, Any]) -> None:
    client = _Client(job)
    failed = await client.warm_up()
    _say({"ready": True} if failed is None else {"error": failed})
    begin = json.loads(sys.stdin.readline())["begin"]
    await asyncio.sleep(max(0.0, begin - time.perf_counter()))
    watch = asyncio.create_task(client.watch_lag())
    cpu_s, began = time.process_time(), time.perf_counter()
    await (client.closed_loop(begin) if job["rate"] is None else client.open_loop(begin))
    ended = time.perf_counter()
    watch.cancel()
    late = sorted(client.tally.late_ms) or [0.0]
    _say(
        {
            "latencies_ms": client.tally.latencies_ms,
            "failures": client.tally.failures,
            "dropped": client.tally.dropped,
            "began": began,
            "ended": ended,
            "cpu_share": (time.process_time() - cpu_s) / max(ended - began, 1e-9),
            "late_ms": late[int(0.99 * (len(late) - 1))],
        }
    )


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    line = sys.stdin.readline()
    if line:
        asyncio.run(_main(json.loads(line)))
