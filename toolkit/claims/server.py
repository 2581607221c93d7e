"""Claims about servers: asked of one that is named, over plain HTTP or OpenAI's client."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import numpy as np

from toolkit.claims.bench import Bench
from toolkit.claims.claim import FAILS, HOLDS, OPEN, Claim, Finding
from toolkit.embedding.config import RemoteConfig
from toolkit.embedding.keys import key_for, origin
from toolkit.errors import MissingPackageError, ServerError, require_package
from toolkit.experiment.encode_speed import workload_texts

if TYPE_CHECKING:
    from openai import OpenAI

_CLIENTS = 128
_CLAIMED_P99_MS, _CLAIMED_QPS = 85.0, 200.0
_REQUESTS_EACH = 16
_WAIT_S = 5.0
_NEEDS = "--server http://host:port/v1#<model>"
_NO_SERVER = "no server was named"
_RESAMPLES = 1_000


def embeddings_at(config: RemoteConfig, texts: Sequence[str], dim: int) -> np.ndarray:
    """(n, dim) rows that the server cuts itself; raises ServerError where it does not."""
    from openai import OpenAIError

    try:
        answer = _client(config).embeddings.create(
            model=config.model, input=list(texts), dimensions=dim, encoding_format="float"
        )
    except OpenAIError as error:
        raise ServerError(f"{config.base_url} does not give dimension {dim}: {str(error)[:200]}") from error
    rows = np.array([one.embedding for one in answer.data], dtype=np.float32)
    if rows.shape != (len(texts), dim):
        raise ServerError(f"{config.base_url} returned {rows.shape} where {(len(texts), dim)} was asked for")
    return rows


def sdk_instruction(_: Bench) -> Finding:
    """Call OpenAI's client with the argument; it must fail before it opens a connection."""
    try:
        require_package("openai", needed_for="OpenAI's client", extra="remote")
    except MissingPackageError as error:
        return Finding(OPEN, why=str(error), needs="--only sdk-instruction")
    import openai

    client = openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="none", max_retries=0)
    try:
        client.embeddings.create(model="any", input="a text", instruction="a task")  # type: ignore[call-arg]
    except TypeError as error:
        return Finding(
            FAILS,
            f"TypeError: {error}",
            sample=f"openai {openai.__version__}",
            why="what the client does not know reaches a server through extra_body={'instruction': ..}",
        )
    except openai.OpenAIError:
        pass  # the argument was taken, and there is no server at that port
    return Finding(HOLDS, "the argument is taken", sample=f"openai {openai.__version__}")


def stated_interfaces(bench: Bench) -> Finding:
    """Whether /v1/models has the stated field and /health answers JSON."""
    if bench.server is None:
        return Finding(OPEN, why=_NO_SERVER, needs=_NEEDS)
    models = _get(f"{bench.server.base_url.rstrip('/')}/models")
    health = _get(f"{origin(bench.server.base_url)}/health")
    has_range = "custom_dim_range" in models
    is_json = _is_json(health)
    return Finding(
        HOLDS if has_range and is_json else FAILS,
        f"custom_dim_range in /v1/models: {'yes' if has_range else 'no'}; "
        f"/health in JSON: {'yes' if is_json else 'no'}",
        sample=f"one answer each of {origin(bench.server.base_url)}",
        measured={"models": models[:500], "health": health[:500]},
    )


def p99_under_load(bench: Bench) -> Finding:
    """128 clients, each sending its next text as soon as it has the answer."""
    if bench.server is None:
        return Finding(OPEN, why=_NO_SERVER, needs=_NEEDS)
    texts = workload_texts("queries")
    latencies_ms, seconds = asyncio.run(_closed_loop(bench.server, texts))
    p99 = float(np.percentile(latencies_ms, 99))
    rng = np.random.default_rng(0)
    drawn = np.percentile(rng.choice(latencies_ms, (_RESAMPLES, len(latencies_ms))), 99, axis=1)
    low, high = (float(bound) for bound in np.quantile(drawn, [0.025, 0.975]))
    rate = len(latencies_ms) / seconds
    within = high <= _CLAIMED_P99_MS and rate >= _CLAIMED_QPS
    return Finding(
        HOLDS if within else FAILS if low > _CLAIMED_P99_MS or rate < _CLAIMED_QPS else OPEN,
        f"P99 {p99:.1f} ms at {rate:,.0f} requests/s",
        (low, high),
        sample=f"{len(latencies_ms):,} requests of one query each, {_CLIENTS} clients, {bench.server.base_url}",
        why="the client is one process: where it is the limit, the server is faster than this",
        measured={"p50_ms": float(np.median(latencies_ms)), "p99_ms": p99, "requests_s": rate},
    )


async def _closed_loop(config: RemoteConfig, texts: Sequence[str]) -> tuple[np.ndarray, float]:
    """(requests,) ms after one warm-up request per client, and the seconds that all took together."""
    require_package("openai", needed_for="an embedding server", extra="remote")
    import httpx
    from openai import AsyncOpenAI, OpenAIError

    limits = httpx.Limits(max_connections=_CLIENTS, max_keepalive_connections=_CLIENTS)
    client = AsyncOpenAI(
        base_url=config.base_url,
        api_key=key_for(config) or "none",
        max_retries=0,
        timeout=config.timeout_s,
        http_client=httpx.AsyncClient(limits=limits, timeout=config.timeout_s),
    )
    taken: list[float] = []

    async def one(number: int, kept: list[float] | None) -> None:
        begin = time.perf_counter()
        await client.embeddings.create(model=config.model, input=texts[number % len(texts)])
        if kept is not None:
            kept.append((time.perf_counter() - begin) * 1e3)

    async def client_loop(first: int) -> None:
        for turn in range(_REQUESTS_EACH):
            await one(first + turn * _CLIENTS, taken)

    try:
        await asyncio.gather(*(one(number, None) for number in range(_CLIENTS)))
        begin = time.perf_counter()
        await asyncio.gather(*(client_loop(number) for number in range(_CLIENTS)))
        seconds = time.perf_counter() - begin
    except OpenAIError as error:
        raise ServerError(
            f"{config.base_url} did not answer {_CLIENTS} clients: {str(error)[:200]}; its limits may be lower"
        ) from error
    finally:
        await client.close()
    return np.array(taken), seconds


def _client(config: RemoteConfig) -> OpenAI:
    require_package("openai", needed_for="an embedding server", extra="remote")
    from openai import OpenAI

    return OpenAI(base_url=config.base_url, api_key=key_for(config) or "none", timeout=config.timeout_s)


def _get(url: str) -> str:
    try:
        with urlopen(url, timeout=_WAIT_S) as answer:  # noqa: S310 - http(s), as RemoteConfig checks
            return answer.read(65_536).decode(errors="replace")
    except HTTPError as error:
        return f"HTTP {error.code}"
    except (URLError, OSError) as error:
        raise ServerError(
            f"{url} does not answer ({getattr(error, 'reason', error)}); is it running?"
        ) from error


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


CLAIMS = (
    Claim(
        "p99-at-128",
        "P99 is 85 ms at 128 concurrent requests, with more than 200 requests/s, on one A10.",
        "holds if the interval of P99 ends at 85 ms or below, at 200 requests/s or more, on the server named",
        p99_under_load,
    ),
    Claim(
        "sdk-instruction",
        "OpenAI's SDK takes instruction= as an argument of embeddings.create.",
        "holds if the installed client takes the argument",
        sdk_instruction,
    ),
    Claim(
        "server-interfaces",
        "/v1/models has a custom_dim_range, and /health answers JSON.",
        "holds if the server named does both",
        stated_interfaces,
    ),
)
