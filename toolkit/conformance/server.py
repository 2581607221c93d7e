"""The server under check: requests as they are, answers with all findings, nothing tried again and nothing mended."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.errors import ServerError
from toolkit.wire.client_replies import Reply, error_text, model_names, read_reply
from toolkit.wire.client_shapes import Address, Ask, Inputs


@dataclass(frozen=True)
class Answer:
    """What came back for one request.

    status : of HTTP; 0 where no answer came. reply : of status 200 alone. said : the error's text.
    """

    status: int
    reply: Reply | None
    said: str
    body: bytes = b""

    @property
    def rows(self) -> np.ndarray | None:
        """(count, dim) float32 as the server gave them, in the order of the request; None if there are none."""
        return None if self.reply is None else self.reply.rows

    @property
    def refused(self) -> bool:
        """Whether the server said no in an orderly way."""
        return 400 <= self.status < 500

    @property
    def why(self) -> str:
        """Why there are no rows."""
        if self.reply is not None and self.reply.reason:
            return self.reply.reason
        return f"HTTP {self.status}: {self.said}" if self.status else self.said


class CheckedServer:
    """One server and model; safe to use from several threads. A context manager."""

    def __init__(self, url: str, model: str, *, key: str | None = None, timeout_s: float = 60.0) -> None:
        import httpx

        self.address = Address.of(url)
        self.model = model
        self._http = httpx.Client(
            timeout=timeout_s,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
        )

    def ask(
        self,
        inputs: Inputs,
        *,
        dimensions: Any = None,  # noqa: ANN401 - wrong values too
        encoding: str | None = "float",
        **more: Any,  # noqa: ANN401 - JSON
    ) -> Answer:
        """Send one request."""
        shape = self.address.shape
        ask = Ask(inputs, self.model, dimensions, encoding if shape.encodes_base64 else None, more)
        answer = self.send(shape.body(ask))
        if answer.status != 200:
            return answer
        reply = read_reply(answer.body, count=ask.count, shape=shape)
        return Answer(200, reply, reply.reason or "", answer.body)

    def send(self, body: Any, *, raw: bytes | None = None) -> Answer:  # noqa: ANN401 - JSON
        """Send any body at all; `raw` instead of JSON."""
        import httpx

        try:
            if raw is None:
                answer = self._http.post(self.address.requests, json=body)
            else:
                headers = {"Content-Type": "application/json"}
                answer = self._http.post(self.address.requests, content=raw, headers=headers)
        except httpx.HTTPError as error:
            return Answer(0, None, f"no answer ({type(error).__name__}: {error})")
        return Answer(answer.status_code, None, error_text(answer.content), answer.content)

    def get(self, url: str) -> tuple[int, bytes]:
        """Status and body of a GET; status 0 where none came."""
        import httpx

        try:
            answer = self._http.get(url)
        except httpx.HTTPError:
            return 0, b""
        return answer.status_code, answer.content

    def models(self) -> dict[str, str]:
        """Models that it lists, each with what stands behind it; empty if it lists none."""
        status, body = self.get(self.address.models)
        return model_names(body) if status == 200 else {}

    def alone(self, texts: Sequence[str]) -> np.ndarray:
        """(n, dim) float32 rows, each text in a request of its own, one after another, in numbers.

        Raises ServerError if one of them has no usable vector: then nothing can be compared.
        """
        rows = []
        for text in texts:
            answer = self.ask([text])
            if answer.rows is None:
                raise ServerError(f"{self.address.url} gives no vector for {text[:40]!r}: {answer.why}")
            rows.append(answer.rows[0])
        if len({len(row) for row in rows}) != 1:
            raise ServerError(
                f"{self.address.url} gives vectors of several lengths: {sorted(map(len, rows))}"
            )
        return np.stack(rows)

    def at_once(self, texts: Sequence[str], *, clients: int) -> list[Answer]:
        """Each text in a request of its own, so many under way at once."""
        with ThreadPoolExecutor(clients) as pool:
            return list(pool.map(lambda text: self.ask([text]), texts))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> CheckedServer:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
