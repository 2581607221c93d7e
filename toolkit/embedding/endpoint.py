"""One request to an embedding server: retries, answers checked, errors put plainly.

Uses the openai SDK for transport and keys, whichever API the address names; its own retries are off so that there is
one policy. Knows nothing of batches or threads. Always asks for the full vector: `dimensions` is never sent.
"""

from __future__ import annotations

import email.utils
import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from toolkit.embedding.config import RemoteConfig
from toolkit.embedding.keys import key_for
from toolkit.errors import ServerError
from toolkit.key_hosts import ALLOWED, origin
from toolkit.redact import redacted
from toolkit.wire.client_replies import error_text, model_names, read_reply
from toolkit.wire.client_shapes import Address, Ask

if TYPE_CHECKING:
    from openai import APIStatusError

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
_LONGEST_ASKED_WAIT_S = 300.0  # a server that asks for more is out of quota rather than busy
_REFUSES_FORMAT = (400, 422)


class Stopped(Exception):  # noqa: N818 - no error: the caller asked for it
    """The run was given up while a request waited for its next try."""


class EmbeddingsEndpoint:
    """Where a server gives vectors, and where it lists its models. Safe to use from several threads."""

    def __init__(self, config: RemoteConfig) -> None:
        from openai import DefaultHttpxClient, OpenAI

        self._config = config
        self.address = Address.of(config.base_url)
        self.url = self.address.url
        self._key = key_for(config)
        self._client = OpenAI(
            base_url=self.address.base,
            # The SDK insists on a key; servers that need none ignore it.
            api_key=self._key or "none",
            max_retries=0,
            timeout=config.timeout_s,
            # A redirect would carry the texts to a host that nobody named.
            http_client=DefaultHttpxClient(follow_redirects=False),
        )
        if self._key is None:
            # The SDK takes them from the environment, and they are an account's own.
            self._client.organization = self._client.project = None
        self._encoding = "base64" if self.address.shape.encodes_base64 else None
        self._base64_was_accepted = False
        self._was_reached = False

    def embed(self, texts: Sequence[str], stop: threading.Event) -> np.ndarray:
        """Vectors of at least one text as the server gives them, (n, dim) float32 in order, all finite.

        Raises ServerError in one line when tries are used up or the answer is wrong, Stopped when
        `stop` is set while waiting.
        """
        reply = read_reply(self._post(texts, stop), count=len(texts), shape=self.address.shape)
        if reply.rows is None:
            raise ServerError(f"{self.url} {reply.reason}")
        return reply.rows

    def models(self) -> dict[str, str]:
        """Names the server lists, each with the model behind it (its name again if it does not say).

        Empty if the server cannot list models: many cannot.
        """
        import httpx
        import openai

        try:
            return model_names(self._client.get(self.address.models, cast_to=httpx.Response).content)
        except openai.APIError:
            return {}

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _post(self, texts: Sequence[str], stop: threading.Event) -> bytes:
        import httpx
        import openai

        tries = 0
        while True:
            tries += 1
            encoding = self._encoding
            asked_wait_s = None
            try:
                body = self.address.shape.body(Ask(list(texts), self._config.model, encoding=encoding))
                answer = self._client.post(self.address.requests, cast_to=httpx.Response, body=body)
            except openai.APITimeoutError as error:
                failure = ServerError(
                    f"{self.url} did not answer within {self._config.timeout_s:g} s (try {tries}); raise "
                    f"timeout_s, or lower batch_size ({self._config.batch_size}) or concurrency "
                    f"({self._config.concurrency})"
                )
                cause = error
            except openai.APIConnectionError as error:
                failure = ServerError(
                    f"embedding server {self.url} cannot be reached ({_innermost(error)}); check that it is "
                    "running and that scheme, host and port are right"
                )
                cause = error
                if not self._was_reached:
                    raise failure from cause  # a wrong address stays wrong: do not let the user wait
            except openai.APIStatusError as error:
                self._was_reached = True
                may_be_format = error.status_code in _REFUSES_FORMAT and not self._base64_was_accepted
                if may_be_format and encoding == "base64":
                    self._encoding = "float"
                    continue
                failure = self._explain(error)
                cause = error
                if error.status_code not in (408, 409, 429) and error.status_code < 500:
                    raise failure from cause
                asked_wait_s = _retry_after_s(error.response.headers)
                if asked_wait_s is not None and asked_wait_s > _LONGEST_ASKED_WAIT_S:
                    raise failure from cause
            else:
                self._was_reached = True
                self._base64_was_accepted |= encoding == "base64"
                return answer.content
            if tries > self._config.retries:
                raise failure from cause
            backoff_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** (tries - 1)) * random.uniform(0.5, 1.0)  # noqa: S311
            if stop.wait(backoff_s if asked_wait_s is None else asked_wait_s):
                raise Stopped

    def _explain(self, error: APIStatusError) -> ServerError:
        status = error.status_code
        said = error_text(error.response.content)
        if status in (401, 403) and self._key is None:
            return ServerError(
                f"{self.url} wants an API key and none was sent (HTTP {status}: {said}); name the variable that holds "
                f"it, as RemoteConfig(api_key_env=..), or allow one for this host with the environment variable "
                f"{ALLOWED}='OPENAI_API_KEY={origin(self.url)}'"
            )
        if status in (401, 403):
            return ServerError(
                f"{self.url} refused the API key (HTTP {status}: {said}); put the right one in the "
                f"environment variable {self._config.api_key_env or 'OPENAI_API_KEY'}"
            )
        if 300 <= status < 400:
            target = redacted(error.response.headers.get("location", "nowhere"))
            return ServerError(
                f"{self.url} sends requests on to {target} (HTTP {status}), which is not followed; give that address "
                "if you trust it"
            )
        served = self.models() if status in (400, 404) else {}
        if served and self._config.model not in served:
            names = ", ".join(sorted(served)[:10])
            return ServerError(
                f"{self.url} has no model {self._config.model!r}; it serves: {names}; "
                f"write {self.url}#{next(iter(sorted(served)))}"
            )
        if status == 404:
            return ServerError(
                f"{self.address.requests} does not exist (HTTP 404: {said}); the address should end in /v1, or in "
                "/embed, /v2/embed or /api/embed, and the server should have been started for embeddings"
            )
        if status == 429:
            return ServerError(f"{self.url} limits requests (HTTP 429: {said}); lower concurrency or wait")
        if status >= 500:
            return ServerError(f"{self.url} failed (HTTP {status}: {said}); look into the server's log")
        return ServerError(f"{self.url} refused the request (HTTP {status}: {said})")


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The wait a server asks for, in seconds: a number or a date (RFC 9110, section 10.2.3)."""
    asked = headers.get("retry-after", "")
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(asked).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__
