"""An honest embedding server over a real model, and one fault at a time that can be switched on.

Another thread's server on a real socket; the model is the embedded one (256 dimensions, no longest text).
"""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from toolkit.embedding.tokens import token_counter

FAULTS = (
    "ignored", "unnormalized cut", "other cut", "no bounds", "index", "coalescing", "truncation",
    "base64 as float64", "usage", "nan", "count", "no errors", "padding", "prompt", "token ids",
)  # fmt: skip


class FaultyServer:
    """Use as a context manager; `fault` is None for the honest server."""

    def __init__(self, embedder, fault: str | None = None) -> None:
        self.embedder, self.fault = embedder, fault
        self.full_dim = embedder.space.full_dim
        self.counter = token_counter(embedder)
        self._lock = threading.Lock()
        self._waiting: list[list[str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> FaultyServer:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1  # head and body in one packet

            def do_GET(self) -> None:
                known = {"/v1/models": {"data": [{"id": "static"}]}, "/health": {"status": "ok"}}
                self._send(
                    200 if self.path in known else 404, known.get(self.path, {"error": {"message": "no"}})
                )

            def do_POST(self) -> None:
                self._send(*server.answer(self.rfile.read(int(self.headers["Content-Length"]))))

            def _send(self, code: int, body: dict) -> None:
                payload = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_arguments: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, body: bytes) -> tuple[int, dict]:
        try:
            request = json.loads(body)
            texts = request["input"]
        except (ValueError, KeyError):
            return (200, {"data": []}) if self.fault == "no errors" else _refused("not a request")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list):
            return _refused("input must be texts")
        if texts and isinstance(texts[0], int):
            (text,) = self.counter.texts_of([texts])
            if text is None:
                return _refused("token ids of no text")
            texts = [f"{text}." if self.fault == "token ids" else text]
        if "" in texts:
            return _refused("an input is empty")
        dim = request.get("dimensions") or (self.full_dim if "dimensions" not in request else 0)
        if not 1 <= dim <= self.full_dim:
            if self.fault != "no bounds":
                return _refused(f"dimensions must be in 1..{self.full_dim}")
            dim = self.full_dim
        rows = self._rows(texts)
        return 200, self._written(
            texts, self._cut(rows, dim), as_base64=request.get("encoding_format") == "base64"
        )

    def _rows(self, texts: list[str]) -> np.ndarray:
        mine = texts
        if self.fault == "truncation":
            mine = [" ".join(text.split()[:100]) for text in texts]
        if self.fault == "prompt":
            mine = [f"Represent this for search: {text}" for text in texts]
        if self.fault == "padding":
            longest = max(len(text.split()) for text in texts)
            mine = [text + " padding" * (len(text.split()) < longest) for text in texts]
        if self.fault == "coalescing":
            mine = self._of_a_neighbour(texts)
        return self.embedder.encode(mine).copy()

    def _of_a_neighbour(self, texts: list[str]) -> list[str]:
        """What a server gives that joins requests and hands the rows out by the wrong offset."""
        with self._lock:
            self._waiting.append(texts)
        time.sleep(0.005)
        with self._lock:
            others = [other for other in self._waiting if other is not texts and len(other) == len(texts)]
            self._waiting = [other for other in self._waiting if other is not texts]
        return others[0] if others else texts

    def _cut(self, rows: np.ndarray, dim: int) -> np.ndarray:
        if self.fault == "ignored" or dim == self.full_dim:
            return rows
        cut = rows[:, -dim:] if self.fault == "other cut" else rows[:, :dim]
        return cut if self.fault == "unnormalized cut" else cut / np.linalg.norm(cut, axis=1, keepdims=True)

    def _written(self, texts: list[str], rows: np.ndarray, *, as_base64: bool) -> dict:
        if self.fault == "nan":
            rows[[not text.isascii() for text in texts]] = np.nan
        if self.fault == "count" and len(rows) > 1:
            rows = rows[:-1]
        kind = "<f8" if self.fault == "base64 as float64" else "<f4"
        entries = [
            {
                "index": i,
                "embedding": base64.b64encode(row.astype(kind).tobytes()).decode()
                if as_base64
                else row.tolist(),
            }
            for i, row in enumerate(rows)
        ]
        if self.fault == "index":
            for entry in entries:
                entry["index"] = len(entries) - 1 - entry["index"]
        tokens = 1 if self.fault == "usage" else sum(len(text.split()) for text in texts)
        return {
            "data": entries,
            "model": "static",
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }


def _refused(message: str) -> tuple[int, dict]:
    return 400, {"error": {"message": message, "type": "invalid_request_error", "code": None, "param": None}}
