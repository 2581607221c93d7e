"""The HTTP side: routes, keys, limits, and a client that goes away. Knows no engine and no model.

The endpoints for vectors are plain ASGI: what a framework does for each request would take longer than a
short text takes on a fast device.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any

from toolkit.errors import require_package
from toolkit.serve.service import Service
from toolkit.serve.settings import ServeSettings
from toolkit.wire.answers import Answer, write_openai
from toolkit.wire.cohere import cohere_error, parse_cohere, write_cohere
from toolkit.wire.findings import Finding, RequestError
from toolkit.wire.requests import EmbeddingRequest, Limits, parse_json_object, parse_openai
from toolkit.wire.tei import parse_tei, tei_error, write_tei

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_LOG = logging.getLogger("toolkit.serve")
_PATROL_S = 0.05
SPACE_HEADER = b"x-embedding-space"
_JSON = (b"content-type", b"application/json")

# Where vectors are asked for, in whose way; all the same to the service.
VECTOR_APIS = (
    ("/v1/embeddings", "openai", parse_openai, write_openai, RequestError.body),
    ("/v2/embed", "cohere", parse_cohere, write_cohere, cohere_error),
    ("/embed", "tei", parse_tei, write_tei, tei_error),
)


class State:
    """Where the server stands: ``loading``, ``ready``, ``stopping``; and the service once there is one."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.service: Service | None = None
        self.stopping = False
        self.watch = _Watch()

    @property
    def word(self) -> str:
        """For people and probes."""
        if self.stopping:
            return "stopping"
        return "ready" if self.service else "loading"

    def ready_service(self) -> Service:
        """Raises RequestError (503) while there is none."""
        if self.service is None:
            finding = Finding(
                None, f"the server is {self.word}", "requests while /health/ready is 200", "try again soon"
            )
            raise RequestError(
                [finding], status=HTTPStatus.SERVICE_UNAVAILABLE, code=self.word, retry_after_s=5
            )
        return self.service


class _Watch:
    """Finds clients that have gone away, of requests that take a while; the quick ones cost nothing."""

    def __init__(self) -> None:
        self._young: dict[asyncio.Task[Any], Receive] = {}
        self._old: dict[asyncio.Task[Any], Receive] = {}
        self._guards: dict[asyncio.Task[Any], asyncio.Task[None]] = {}
        self._reading: dict[asyncio.Task[Any], float] = {}
        self._patrol: asyncio.TimerHandle | None = None
        self.gone: set[asyncio.Task[Any]] = set()
        self.late: set[asyncio.Task[Any]] = set()

    def reads(self, task: asyncio.Task[Any], timeout_s: float) -> None:
        """A body is being read; cancelled, and in `late`, if it has not come whole in time."""
        self._reading[task] = asyncio.get_running_loop().time() + timeout_s
        self._go_on()

    def has_read(self, task: asyncio.Task[Any]) -> None:
        """It has come whole, or never will."""
        self._reading.pop(task, None)

    def enter(self, task: asyncio.Task[Any], receive: Receive) -> None:
        self._young[task] = receive
        self._go_on()

    def leave(self, task: asyncio.Task[Any]) -> None:
        self._young.pop(task, None)
        self._old.pop(task, None)
        guard = self._guards.pop(task, None)
        if guard is not None:
            guard.cancel()

    def _look(self) -> None:
        for task, receive in self._old.items():
            self._guards[task] = asyncio.ensure_future(self._guard(task, receive))
        self._old, self._young = self._young, {}
        now_s = asyncio.get_running_loop().time()
        for task in [task for task, until_s in self._reading.items() if until_s < now_s]:
            del self._reading[task]
            self.late.add(task)
            task.cancel()
        self._patrol = None
        if self._old or self._reading:
            self._go_on()

    def _go_on(self) -> None:
        # One timer for all: a timer of its own for each request would be a good part of a short one's cost.
        if self._patrol is None:
            self._patrol = asyncio.get_running_loop().call_later(_PATROL_S, self._look)

    async def _guard(self, task: asyncio.Task[Any], receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone.add(task)
        task.cancel()


class VectorEndpoint:
    """One API's way to ask for vectors: a parser of its requests and a writer of its answers."""

    def __init__(
        self,
        state: State,
        method: str,
        parse: Callable[[Mapping[str, Any], Limits], EmbeddingRequest],
        write: Callable[[Answer], bytes],
        error_body: Callable[[RequestError], Any],
    ) -> None:
        self._state = state
        self._method = method
        self._parse = parse
        self._write = write
        self._error_body = error_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or say what is wrong; a client that has gone away gets nothing, and gives its place back."""
        service = self._state.service
        start = time.perf_counter()
        if service:
            service.metrics.request(self._method)
        task = asyncio.current_task()
        watch = self._state.watch
        try:
            headers = dict(scope["headers"])
            service = self._state.ready_service()
            check_key(headers, self._state.settings.keys)
            _check_space(headers, service.model.fingerprint)
            _check_head(headers, self._state.settings)
            watch.reads(task, self._state.settings.body_timeout_s)
            try:
                body = await _body(receive, self._state.settings)
            finally:
                watch.has_read(task)
            watch.enter(task, receive)
            try:
                request = self._parse(parse_json_object(body), service.limits)
                content = self._write(await service.embed(request))
            finally:
                watch.leave(task)
            await _send(send, 200, content, _JSON, (SPACE_HEADER, service.model.fingerprint.encode()))
            service.metrics.answered(time.perf_counter() - start)
        except RequestError as error:
            if service:
                service.metrics.failed(error.code)
            if error.status >= 500:
                _LOG.error("%s", error, exc_info=error.__cause__)
            await send_error(send, error, self._error_body)
        except _Disconnected:
            if service:
                service.metrics.disconnected()
        except asyncio.CancelledError:
            if task in watch.late:
                watch.late.discard(task)
                task.uncancel()
                error = _too_slow(self._state.settings.body_timeout_s)
                if service:
                    service.metrics.failed(error.code)
                await send_error(send, error, self._error_body)
                return
            if task not in watch.gone:
                raise
            watch.gone.discard(task)
            if service:
                service.metrics.disconnected()


class _Disconnected(Exception):  # noqa: N818 - no error of ours
    """The client went away before its request had come whole."""


def _check_head(headers: Mapping[bytes, bytes], settings: ServeSettings) -> None:
    kind = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        finding = Finding(
            None,
            f"content-type is {kind[:80].decode('latin-1')!r}",
            "application/json",
            "send JSON, and say so",
        )
        raise RequestError([finding], status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE, code="unsupported_media_type")
    most = settings.most_body_bytes
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > most:
        raise _too_large(most)


async def _body(receive: Receive, settings: ServeSettings) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Disconnected
        part = message.get("body", b"")
        size += len(part)
        if size > settings.most_body_bytes:
            raise _too_large(settings.most_body_bytes)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_slow(timeout_s: float) -> RequestError:
    finding = Finding(
        None,
        f"the body had not come whole after {timeout_s:g} s",
        f"{timeout_s:g} s",
        "send it faster, or in smaller requests",
    )
    return RequestError([finding], status=HTTPStatus.REQUEST_TIMEOUT, code="body_timeout")


def _too_large(most: int) -> RequestError:
    finding = Finding(
        None,
        "the body is too large",
        f"up to {most:,} bytes",
        "send several requests, or let the server take larger ones",
    )
    return RequestError([finding], status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE, code="body_too_large")


def check_key(headers: Mapping[bytes, bytes], keys: tuple[str, ...]) -> None:
    """Raise RequestError (401) unless one of the keys was given; in the same time whichever and however wrong."""
    if not keys:
        return
    given = headers.get(b"authorization", b"")
    scheme, _, key = given.partition(b" ")
    matches = [hmac.compare_digest(key.strip(), right.encode()) for right in keys]
    if scheme.lower() != b"bearer" or not any(matches):
        finding = Finding(
            None, "the API key is missing or wrong", "Authorization: Bearer <key>", "send the server's key"
        )
        raise RequestError([finding], status=HTTPStatus.UNAUTHORIZED, code="invalid_api_key")


def _check_space(headers: Mapping[bytes, bytes], fingerprint: str) -> None:
    expected = headers.get(b"x-expect-space")
    if expected is not None and expected.strip() != fingerprint.encode():
        finding = Finding(
            "X-Expect-Space",
            f"vectors of space {expected[:80].decode('latin-1')} are expected",
            fingerprint,
            "embed your texts anew with this model, or ask the server that has the other",
        )
        raise RequestError([finding], status=HTTPStatus.CONFLICT, code="space_changed")


async def _send(send: Send, status: int, content: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", b"%d" % len(content))
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": content})


async def send_error(
    send: Send, error: RequestError, body: Callable[[RequestError], Any] = RequestError.body
) -> None:
    """An error in the shape of the API that was called."""
    import orjson

    headers = [_JSON]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after_s))
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    await _send(send, error.status, orjson.dumps(body(error)), *headers)


class JsonEndpoint:
    """A page of JSON, or of plain text, made from the state.

    guarded : whether it needs the key.
    """

    def __init__(
        self,
        state: State,
        make: Callable[[State, Scope], tuple[int, Any]],
        *,
        guarded: bool = True,
        content_type: bytes = b"application/json",
    ) -> None:
        self._state, self._make, self._guarded, self._type = state, make, guarded, content_type

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer."""
        import orjson

        try:
            if self._guarded:
                check_key(dict(scope["headers"]), self._state.settings.keys)
            status, value = self._make(self._state, scope)
        except RequestError as error:
            await send_error(send, error)
            return
        content = (
            value if isinstance(value, bytes) else orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
        )
        await _send(send, status, content, (b"content-type", self._type))


def make_app(
    state: State, *, lifespan: Callable[[Any], Any]
) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The ASGI application: requests for vectors go straight to their endpoint.

    lifespan : an async context manager of the application, in which `state` gets its service.
    """
    require_package("starlette", needed_for="the server", extra="serve")
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.routing import Route

    from toolkit.serve import pages

    vectors = {path: VectorEndpoint(state, name, *shape) for path, name, *shape in VECTOR_APIS}
    routes = [
        *(Route(path, endpoint, methods=["POST"]) for path, endpoint in vectors.items()),
        *(
            Route(path, JsonEndpoint(state, make, guarded=guarded, content_type=kind), methods=["GET"])
            for path, make, guarded, kind in pages.PAGES
        ),
    ]
    rest = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: pages.not_found})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # The framework's own way to a route takes longer than parsing and answering a short request.
        direct = vectors.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        await (rest if direct is None else direct)(scope, receive, send)

    return app
