"""What a server is told when it starts."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.errors import PlanError

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class ServeSettings:
    """Settings of a server, all with a default that is safe on a machine of one's own.

    host, port : to listen on; port 0 takes a free one.
    names : the model is known by; empty is the space's own name.
    keys : any of them opens the server; none lets everybody in.
    results : a folder of `toolkit sweep`, whose recommended setting is served too, as ``<name>#recommended``.
    calibrate : data whose documents give the ranges of int8, uint8 and uint4, as a sweep names data; None takes those
        of `results`, and without such refuses these types.
    most_inputs, most_tokens : in one request, as OpenAI has them.
    most_body_bytes : of a request. body_timeout_s : until it has come whole.
    most_waiting : requests that wait or are at work; more get HTTP 429.
    most_waiting_tokens : of all of these together; one request alone may have more.
    stop_timeout_s : what was accepted may take so long to finish when the server stops.
    """

    host: str = "127.0.0.1"
    port: int = 30_000
    names: tuple[str, ...] = ()
    keys: tuple[str, ...] = field(default=(), repr=False)
    results: Path | None = None
    calibrate: str | None = None
    most_inputs: int = 2_048
    most_tokens: int = 300_000
    most_body_bytes: int = 32 * 2**20
    body_timeout_s: float = 30.0
    most_waiting: int = 512
    most_waiting_tokens: int = 4_000_000
    stop_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        for name, least in (
            ("port", 0),
            ("most_inputs", 1),
            ("most_tokens", 1),
            ("most_body_bytes", 1),
            ("most_waiting", 1),
            ("most_waiting_tokens", 1),
        ):
            if getattr(self, name) < least:
                raise PlanError(f"{name} {getattr(self, name)} is too small; choose {least} or more")
        if self.port > 65_535:
            raise PlanError(f"port {self.port} does not exist; choose 0..65535")

    @property
    def is_open(self) -> bool:
        """Whether anybody on the network can use it."""
        return self.host not in _LOOPBACK and not self.keys


def keys_from(variable: str | None) -> tuple[str, ...]:
    """The keys, between commas, in an environment variable; raises PlanError if it is named and empty."""
    if variable is None:
        return ()
    keys = tuple(key.strip() for key in os.environ.get(variable, "").split(",") if key.strip())
    if not keys:
        raise PlanError(f"environment variable {variable} holds no key; set it, or name none")
    return keys
