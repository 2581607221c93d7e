"""What a server says of itself: models, health, metrics."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

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


def _health(state: State) -> dict[str, Any]:
    served = state.service.model if state.service else None
    return {
        "status": state.word,
        "model": served.name if served else None,
        "fingerprint": served.fingerprint if served else None,
    }


PAGES = (
    ("/v1/models", models, True, b"application/json"),
    ("/v1/models/{name:path}", model, True, b"application/json"),
    ("/v1/calibration", calibration, True, b"application/json"),
    ("/health", alive, False, b"application/json"),
    ("/health/ready", ready, False, b"application/json"),
    ("/metrics", metrics, True, _PROMETHEUS),
)


async def not_found(request: Request, error: HTTPException) -> Response:
    """What the router refuses, in the shape of all errors."""
    from starlette.responses import JSONResponse

    where = f"{request.method[:20]} {request.url.path[:80]}"
    known = "POST /v1/embeddings, GET /v1/models, /health, /health/ready, /metrics"
    refused = RequestError(
        [Finding(None, f"{where} does not exist here", known, "correct the address or the method")],
        status=error.status_code,
        code="not_found" if error.status_code == 404 else "method_not_allowed",
    )
    return JSONResponse(refused.body(), status_code=error.status_code, headers=error.headers)
