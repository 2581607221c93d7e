"""Claims about servers: asked of one that is named, over plain HTTP; loads are those of `toolkit.conformance.load`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from toolkit.claims.bench import SUBJECT, SUBJECT_SPEC, Bench
from toolkit.claims.claim import FAILS, HOLDS, OPEN, Claim, Finding
from toolkit.conformance.load import Load, LoadResult, run_load
from toolkit.embedding.keys import key_for
from toolkit.errors import MissingPackageError, ServerError, require_package
from toolkit.experiment.encode_speed import workload_texts
from toolkit.key_hosts import origin

_CLIENTS = 128
_CLAIMED_P99_MS, _CLAIMED_QPS = 85.0, 200.0
_MOST_SECONDS = 20.0
_REQUESTS_EACH = 16
_ROUNDS = 10
_NEEDS = "--server http://host:port/v1#<model>"
_NO_SERVER = "no server was named"
_RESAMPLES = 1_000
_STATED_NAMES = ("SGLANG_ENABLE_CUSTOM_DIM", "custom_dim_range")


def loaded(
    bench: Bench,
    requests: Sequence[Sequence[str]],
    *,
    clients: int = 1,
    most_requests: int,
    dimensions: int | None = None,
) -> LoadResult:
    """Load on the server named; raises ServerError if a request fails, whose latency would be no answer's."""
    config = bench.server
    result = run_load(
        Load(
            config.base_url,
            config.model,
            requests,
            clients=clients,
            seconds=_MOST_SECONDS,
            most_requests=most_requests,
            dimensions=dimensions,
            warm_up=max(3, clients),
            timeout_s=config.timeout_s,
            key=key_for(config),
        )
    )
    if result.failures or not len(result.latencies_ms):
        raise ServerError(
            f"{bench.server_name} did not answer {clients} client(s): "
            f"{', '.join(f'{count} x {kind}' for kind, count in result.failures.items())}; its limits may be lower"
        )
    return result


def in_turns(
    bench: Bench, kinds: Mapping[int, tuple[Sequence[Sequence[str]], int | None]]
) -> dict[int, np.ndarray]:
    """{kind: (rounds,)} median ms of one client's requests, the kinds one after another in every round.

    kinds : kind -> its requests and the dimension that they ask for.
    """
    each = max(1, bench.repeats // _ROUNDS)
    medians: dict[int, list[float]] = {kind: [] for kind in kinds}
    for turn in range(_ROUNDS):
        order = list(kinds) if turn % 2 else list(kinds)[::-1]  # so that drift of the machine is in both
        for kind in order:
            requests, dimensions = kinds[kind]
            result = loaded(bench, requests, most_requests=each, dimensions=dimensions)
            medians[kind].append(float(np.median(result.latencies_ms)))
    return {kind: np.array(taken) for kind, taken in medians.items()}


def p99_under_load(bench: Bench) -> Finding:
    """128 clients, each sending its next text as soon as it has the answer."""
    if bench.server is None:
        return Finding(OPEN, why=_NO_SERVER, needs=_NEEDS)
    texts = [[text] for text in workload_texts("queries")]
    result = loaded(bench, texts, clients=_CLIENTS, most_requests=_CLIENTS * _REQUESTS_EACH)
    p99, rate = result.percentile_ms(99), result.requests_per_s
    low, high = _percentile_interval(result.latencies_ms, 99)
    decided = OPEN
    why = result.client_limit or ""
    if not bench.server_is_subject:
        why = f"the claim is about {SUBJECT} on one A10; measured was {bench.server_name}"
    elif high <= _CLAIMED_P99_MS and rate >= _CLAIMED_QPS:
        decided = HOLDS
    elif result.client_limit is None and (low > _CLAIMED_P99_MS or rate < _CLAIMED_QPS):
        decided = FAILS
    return Finding(
        decided,
        f"P99 {p99:.1f} ms at {rate:,.0f} requests/s",
        (low, high),
        sample=f"{len(result.latencies_ms):,} requests of one query each, {_CLIENTS} clients in a closed loop, "
        f"{result.processes} client process(es), {bench.server_name}; the interval is of P99 in ms",
        why=why,
        measured=result.row(),
        needs="" if bench.server_is_subject else f"--embedder {SUBJECT_SPEC} --serve",
    )


def _percentile_interval(values: np.ndarray, percent: float) -> tuple[float, float]:
    """95 % of the percentile, by bootstrap over the requests."""
    rng = np.random.default_rng(0)
    drawn = np.percentile(rng.choice(values, (_RESAMPLES, len(values))), percent, axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


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


def stated_names(_: Bench) -> Finding:
    """Look for the names in the source of the SGLang that is installed; nothing of it is run."""
    spec = find_spec("sglang")
    places = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    sources = [path for place in places for path in place.rglob("*.py")]
    if not sources:
        return Finding(
            OPEN,
            why="SGLang is not installed; its package without what it depends on, in a folder of PYTHONPATH, is enough",
            needs="--only sglang-names",
        )
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sources]
    files = {name: sum(name in text for text in texts) for name in (*_STATED_NAMES, "is_matryoshka")}
    try:
        release = version("sglang")
    except PackageNotFoundError:
        release = "of an unknown version"
    return Finding(
        HOLDS if all(files[name] for name in _STATED_NAMES) else FAILS,
        "; ".join(f"{name} in {files[name]} files" for name in _STATED_NAMES),
        sample=f"{len(sources):,} source files of sglang {release}",
        why=f"what lets a request choose its dimension there is is_matryoshka (in {files['is_matryoshka']} files)"
        if files["is_matryoshka"]
        else "",
        measured={"files_with_name": files},
    )


def stated_interfaces(bench: Bench) -> Finding:
    """Whether an SGLang server's /v1/models has the stated field and its /health answers JSON."""
    if bench.server is None:
        return Finding(OPEN, why=_NO_SERVER, needs=_NEEDS)
    with bench.asked() as server:
        models = _got(server.get(server.address.models))
        health = _got(server.get(f"{origin(bench.server.base_url)}/health"))
    has_range, is_json = "custom_dim_range" in models, _is_json(health)
    is_sglang = '"owned_by":"sglang"' in models.replace(" ", "")
    return Finding(
        OPEN if not is_sglang else HOLDS if has_range and is_json else FAILS,
        f"custom_dim_range in /v1/models: {'yes' if has_range else 'no'}; "
        f"/health in JSON: {'yes' if is_json else 'no'}",
        sample=f"one answer each of {bench.server_name}",
        why="" if is_sglang else "the claim is about SGLang, and this server says that it is another",
        measured={"models": models[:500], "health": health[:500]},
        needs="" if is_sglang else _NEEDS,
    )


def _got(answer: tuple[int, bytes]) -> str:
    status, body = answer
    if not status:
        raise ServerError("the server does not answer a GET; is it running?")
    return body[:65_536].decode(errors="replace") if status == 200 else f"HTTP {status}"


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


CLAIMS = (
    Claim(
        "p99-at-128",
        "P99 is 85 ms at 128 concurrent requests, with more than 200 requests/s, on one A10.",
        "holds if the interval of P99 ends at 85 ms or below, at 200 requests/s or more, on a server of the model",
        p99_under_load,
        timed=True,
    ),
    Claim(
        "sdk-instruction",
        "OpenAI's SDK takes instruction= as an argument of embeddings.create.",
        "holds if the installed client takes the argument",
        sdk_instruction,
    ),
    Claim(
        "sglang-names",
        "SGLang has a variable SGLANG_ENABLE_CUSTOM_DIM and a field custom_dim_range.",
        "holds if both names stand in the source of SGLang",
        stated_names,
    ),
    Claim(
        "server-interfaces",
        "SGLang's /v1/models has a custom_dim_range, and its /health answers JSON.",
        "holds if the SGLang server named does both",
        stated_interfaces,
    ),
)
