"""A server that lies in one way at a time, in a process of its own; what it does is read from a file.

Its vectors are those of the text's hash, so no model is loaded.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from tests.embedding_server import DIM, MODEL, hash_vector

# Those that a client must bear without a word, and those that end it with one.
BORNE = ("slow", "reordered", "rounded")
MODES = (
    *BORNE,
    *("drop", "stall", "wrong", "misindexed", "nan", "infinite", "zeros", "short", "long", "cut", "page"),
    *("busy", "limited", "narrow", "nested"),
)


class HostileServer:
    """Use as a context manager; `mode` holds from the request after the next `honest` ones."""

    def __init__(self, folder: Path) -> None:
        self._orders = folder / "orders.json"
        self.behave()

    def behave(self, mode: str = "honest", *, honest: int = 0) -> None:
        temporary = self._orders.with_suffix(".tmp")
        temporary.write_text(json.dumps([mode, honest, time.monotonic_ns()]))
        temporary.replace(self._orders)

    def __enter__(self) -> HostileServer:
        http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self._orders))
        http.daemon_threads = True
        self.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        self._pid = os.fork()
        if not self._pid:
            http.serve_forever(poll_interval=0.01)
            os._exit(0)
        http.server_close()
        return self

    def __exit__(self, *_exception: object) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _handler(orders: Path) -> type[BaseHTTPRequestHandler]:
    seen = {"stamp": 0, "requests": 0}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_GET(self) -> None:
            self._send(200, json.dumps({"object": "list", "data": [{"id": MODEL}]}).encode())

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            mode, honest, stamp = json.loads(orders.read_text())
            if stamp != seen["stamp"]:
                seen.update(stamp=stamp, requests=0)
            seen["requests"] += 1
            if seen["requests"] <= honest:
                mode = "honest"
            if mode == "drop":
                self.close_connection = True
                return
            if mode in ("slow", "stall"):
                time.sleep(0.05 if mode == "slow" else 2.0)
            code = {"busy": 503, "limited": 429}.get(mode, 200)
            body = json.dumps(_answer(request["input"], mode)).encode()
            if mode == "cut":
                body = body[: len(body) // 2]
            if mode == "page":
                body = b"<html><body>Bad gateway</body></html>"
            self._send(code, body)

        def _send(self, code: int, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

        def handle(self) -> None:
            with contextlib.suppress(OSError, ValueError):  # the client was killed
                super().handle()

    return Handler


def _answer(texts: list[str], mode: str) -> dict[str, object]:
    rows = [hash_vector(text + ("!" if mode == "wrong" else "")) for text in texts]
    if mode == "rounded":
        rows = [row.astype(np.float16).astype(np.float32) for row in rows]
    if mode in ("nan", "infinite", "zeros"):
        rows[-1] = np.full(DIM, {"nan": np.nan, "infinite": np.inf, "zeros": 0.0}[mode], np.float32)
    if mode == "narrow":
        rows = [row[: DIM // 2] for row in rows]
    data = [{"object": "embedding", "index": i, "embedding": row.tolist()} for i, row in enumerate(rows)]
    if mode == "nested":
        data = [entry | {"embedding": [entry["embedding"]]} for entry in data]
    if mode == "short":
        data = data[:-1]
    if mode == "long":
        data.append(data[0])
    if mode == "reordered":
        data.reverse()
    if mode == "misindexed":
        for entry, index in zip(data, reversed(range(len(data))), strict=True):
            entry["index"] = index
    return {"object": "list", "model": MODEL, "data": data}
