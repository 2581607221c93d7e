"""What a server says of itself: models, health, metrics."""

from __future__ import annotations

from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from toolkit.serve.openapi import document
from toolkit.serve.openapi_page import page
from toolkit.wire.findings import Finding, RequestError, wrong

if TYPE_CHECKING:
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response

    from toolkit.serve.app import Scope, State

_PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"


def models(state: State, scope: Scope) -> tuple[int, Any]:  # noqa: ARG001
    """The list of /v1/models."""
    return 200, state.ready_service().model.listing()


def model(state: State, scope: Scope) -> tuple[int, Any]:
    """One of them."""
    served, name = state.ready_service().model, scope["path_params"]["name"]
    served.alias(name)
    return 200, served.entry(name)


def calibration(state: State, scope: Scope) -> tuple[int, Any]:
    """The ranges that 8- and 4-bit vectors are quantized with."""
    service = state.ready_service()
    full_dim = service.model.space.full_dim
    asked = parse_qs(scope["query_string"].decode("latin-1")).get("dimensions", [str(full_dim)])[0]
    if not (asked.isascii() and asked.isdigit() and len(asked) < 7 and 1 <= int(asked) <= full_dim):
        raise RequestError([wrong("dimensions", asked, f"1..{full_dim}", "choose a number in the range")])
    if service.calibration is None:
        finding = Finding(
            None,
            "there is no calibration",
            "servers started with calibration texts",
            "start the server with some",
        )
        raise RequestError([finding], status=HTTPStatus.NOT_FOUND, code="no_calibration")
    return 200, service.calibration.body(int(asked))


def alive(state: State, scope: Scope) -> tuple[int, Any]:  # noqa: ARG001
    """That the process answers."""
    return 200, _health(state)


def ready(state: State, scope: Scope) -> tuple[int, Any]:  # noqa: ARG001
    """Whether it embeds."""
    return (200 if state.word == "ready" else 503), _health(state)


def metrics(state: State, scope: Scope) -> tuple[int, Any]:  # noqa: ARG001
    """For Prometheus."""
    return 200, state.ready_service().metrics_text()


def openapi(state: State, scope: Scope) -> tuple[int, Any]:  # noqa: ARG001
    """The OpenAPI document."""
    return 200, document(state.settings, state.service, version=_version())


def docs(state: State, scope: Scope) -> tuple[int, Any]:
    """The same for people."""
    return 200, page(openapi(state, scope)[1])


def _version() -> str:
    try:
        return version("embedding-toolkit")
    except PackageNotFoundError:  # a checkout that was never installed
        return "0+unknown"


def _health(state: State) -> dict[str, Any]:
    served = state.service.model if state.service else None
    return {
        "status": state.word,
        "model": served.name if served else None,
        "fingerprint": served.fingerprint if served else None,
    }


def info(state: State, scope: Scope) -> tuple[int, Any]:  # noqa: ARG001
    """What TEI's /info says of a model and its limits."""
    service, settings = state.ready_service(), state.settings
    space = service.model.space
    return 200, {
        "model_id": space.model,
        "model_sha": space.revision,
        "model_dtype": space.dtype,
        "model_type": {"embedding": {"pooling": space.pooling}},
        "max_concurrent_requests": settings.most_waiting,
        "max_input_length": space.max_tokens or settings.most_tokens,
        "max_batch_tokens": settings.most_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": settings.most_inputs,
        "auto_truncate": False,
        "version": _version(),
    }


PAGES = (
    ("/info", info, True, b"application/json"),
    ("/v1/models", models, True, b"application/json"),
    ("/v1/models/{name:path}", model, True, b"application/json"),
    ("/v1/calibration", calibration, True, b"application/json"),
    ("/health", alive, False, b"application/json"),
    ("/health/ready", ready, False, b"application/json"),
    ("/openapi.json", openapi, False, b"application/json"),
    ("/docs", docs, False, b"text/html; charset=utf-8"),
    ("/metrics", metrics, True, _PROMETHEUS),
)


async def not_found(request: Request, error: HTTPException) -> Response:
    """What the router refuses, in the shape of all errors."""
    from starlette.responses import JSONResponse

    where = f"{request.method[:20]} {request.url.path[:80]}"
    known = "POST /v1/embeddings, /v2/embed, /embed; GET /v1/models, /info, /health, /health/ready, /metrics, /docs"
    refused = RequestError(
        [Finding(None, f"{where} does not exist here", known, "correct the address or the method")],
        status=error.status_code,
        code="not_found" if error.status_code == 404 else "method_not_allowed",
    )
    return JSONResponse(refused.body(), status_code=error.status_code, headers=error.headers)
