"""A real HTTP server that speaks OpenAI's embedding API, and misbehaves on request.

Vectors are a hash of the text, so that order and duplicates can be checked without a model.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

DIM = 48
MODEL = "tiny-embedder"


def hash_vector(text: str, dim: int = DIM) -> np.ndarray:
    """A vector of norm 3 (not 1: the client must normalize) that depends on the text alone."""
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    vector = np.random.default_rng(seed).standard_normal(dim)
    return (3.0 * vector / np.linalg.norm(vector)).astype(np.float32)


# A misbehaviour takes the request's body and returns (status, headers, body bytes), or None to behave.
Answer = tuple[int, dict[str, str], bytes]
Misbehaviour = Callable[[dict], Answer | None]


def status(code: int, body: object = None, **headers: str) -> Misbehaviour:
    """Answer with an HTTP status."""
    payload = body if isinstance(body, bytes) else json.dumps(body or {"error": {"message": "busy"}}).encode()
    return lambda _request: (
        code,
        {name.replace("_", "-"): value for name, value in headers.items()},
        payload,
    )


class EmbeddingServer:
    """Use as a context manager. `requests` holds the bodies received, in order of arrival.

    once : misbehaviours for the next requests, one each.
    always : a misbehaviour for every request; it may return None to behave.
    edit : changes the list of entries of a good answer.
    path : of the API: ``/v1/embeddings``, ``/embed`` (TEI), ``/v2/embed`` (Cohere) or ``/api/embed`` (Ollama).
    accepts_base64 : False refuses it with HTTP 400, None ignores the wish and sends numbers.
    """

    def __init__(self) -> None:
        self.requests: list[dict] = []
        self.headers: list[Message] = []  # names in any case
        self.once: deque[Misbehaviour] = deque()
        self.always: Misbehaviour | None = None
        self.edit: Callable[[list[dict]], list[dict]] = lambda entries: entries
        self.accepts_base64: bool | None = True
        self.refuses_empty = True
        self.path = "/v1/embeddings"
        self.models: list[dict] | None = [{"id": MODEL, "object": "model"}]
        self.delay_s = 0.0
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        path = "/v1" if self.path == "/v1/embeddings" else self.path
        return f"http://127.0.0.1:{self._http.server_address[1]}{path}"

    def __enter__(self) -> EmbeddingServer:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path == "/v1/models" and server.models is not None:
                    body = json.dumps({"object": "list", "data": server.models}).encode()
                    self._send(200, {}, body)
                else:
                    self._send(404, {}, b'{"detail": "Not Found"}')

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path != server.path:
                    self._send(404, {}, b'{"detail": "Not Found"}')
                    return
                with server._lock:
                    server.requests.append(request)
                    server.headers.append(self.headers)
                    server._at_once += 1
                    server.most_at_once = max(server.most_at_once, server._at_once)
                    misbehaviour = server.once.popleft() if server.once else server.always
                try:
                    time.sleep(server.delay_s)
                    answer = misbehaviour(request) if misbehaviour else None
                    self._send(*(answer or server._answer(request)))
                finally:
                    with server._lock:
                        server._at_once -= 1

            def _send(self, code: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                pass

            def handle(self) -> None:
                # The client goes away in tests of interruption.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    super().handle()

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _answer(self, request: dict) -> Answer:
        wants_base64 = request.get("encoding_format") == "base64"
        if wants_base64 and self.accepts_base64 is False:
            return status(400, {"detail": [{"loc": ["encoding_format"], "msg": "must be float"}]})(request)
        texts = request.get("input") or request.get("inputs") or request.get("texts")
        if self.refuses_empty and "" in texts:
            return status(400, {"error": {"message": "input cannot be an empty string"}})(request)
        dim = request.get("dimensions", DIM)
        entries = []
        for index, text in enumerate(texts):
            vector = hash_vector(text)[:dim]
            packed = base64.b64encode(vector.astype("<f4").tobytes()).decode()
            value = packed if wants_base64 and self.accepts_base64 else vector.tolist()
            entries.append({"object": "embedding", "index": index, "embedding": value})
        entries = self.edit(entries)
        if self.path == "/v1/embeddings":
            payload = {"object": "list", "model": request["model"], "data": entries}
        else:
            vectors = [entry["embedding"] for entry in entries]
            payload = {
                "/embed": vectors,
                "/v2/embed": {"embeddings": {"float": vectors}},
                "/api/embed": {"model": request.get("model"), "embeddings": vectors},
            }[self.path]
        return 200, {}, json.dumps(payload).encode()
