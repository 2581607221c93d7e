"""How fast a server answers: one load after another, by clients or by rate, at dimensions and sizes of request.

Judges nothing but its own clients: where they were the limit, the figure is a lower bound, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from toolkit.conformance.load import Load, LoadResult, run_load
from toolkit.conformance.server import CheckedServer
from toolkit.embedding.config import RemoteConfig, checked_config
from toolkit.embedding.keys import key_for
from toolkit.errors import PlanError, ServerError
from toolkit.experiment.encode_speed import workload_texts
from toolkit.experiment.environment import hardware
from toolkit.experiment.plan import auto_dims

_PROBE = "How long is one vector?"


@dataclass(frozen=True)
class ServerPlan:
    """What to send; every combination is one load.

    clients : requests under way at once, of a closed loop each. rates : requests per second, of an open loop each,
        which then stand in place of `clients`, whose largest bounds what is under way.
    dims : dimensions to ask for; None is the full vector, and ``"auto"`` a range up to it.
    texts_per_request : sizes of request.
    seconds : how long each load lasts. processes : of clients; None chooses.
    """

    clients: tuple[int, ...] = (1, 8, 32, 128)
    rates: tuple[float, ...] = ()
    dims: tuple[int, ...] | str | None = None
    texts_per_request: tuple[int, ...] = (1,)
    seconds: float = 10.0
    processes: int | None = None
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("clients", "texts_per_request", "rates"):
            given = getattr(self, name)
            if (not given and name != "rates") or any(value <= 0 for value in given):
                raise PlanError(f"{name}={given} holds nothing to measure; give numbers above 0")


@dataclass(frozen=True)
class ServerSpeed:
    """What was measured: a load's result for each combination, in the order they ran."""

    url: str
    model: str
    api: str
    workload: str
    full_dim: int
    results: tuple[LoadResult, ...]

    @property
    def client_limits(self) -> tuple[str, ...]:
        """Why the clients were the limit, one line for each load where they were."""
        return tuple(
            f"{_load_name(result)}: the client was the limit, the server may be faster: {result.client_limit}"
            for result in self.results
            if result.client_limit
        )

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file; `client` is the machine that asked."""
        return {
            "url": self.url,
            "model": self.model,
            "api": self.api,
            "workload": self.workload,
            "full_dim": self.full_dim,
            "client": hardware(),
            "loads": [result.row() for result in self.results],
        }

    def __rich__(self) -> Any:  # noqa: ANN401 - a rich renderable, imported when shown
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        title = f"{self.model} at {self.url} ({self.api} API, {self.full_dim} numbers), {self.workload}"
        table = Table(title=Text(title), box=box.SIMPLE)
        for name in _COLUMNS:
            table.add_column(name, justify="left" if name == "failed" else "right", no_wrap=name != "failed")
        for result in self.results:
            table.add_row(*map(Text, self._cells(result)))
        lines = [Text(f"* {line}", style="yellow") for line in self.client_limits]
        return Group(table, *lines)

    def _cells(self, result: LoadResult) -> list[str]:
        failed = dict(result.failures) | ({"never sent": result.dropped} if result.dropped else {})
        return [
            f"{result.clients}" if result.rate is None else f"{result.rate:g}/s",
            str(result.dimensions or self.full_dim),
            f"{result.texts_per_request:g}",
            f"{result.requests_per_s:,.1f}{'*' if result.client_limit else ''}",
            f"{result.texts_per_s:,.1f}",
            *(_shown_ms(result.percentile_ms(percent)) for percent in (50, 95, 99)),
            ", ".join(f"{kind}: {count:,}" for kind, count in failed.items()) or "0",
        ]


_COLUMNS = ("clients", "dim", "texts", "requests/s", "texts/s", "p50 ms", "p95 ms", "p99 ms", "failed")


def measure_server(
    url: str,
    *,
    model: str | None = None,
    workload: str = "queries",
    plan: ServerPlan | None = None,
    api_key_env: str | None = None,
    announce: Callable[[str], None] | None = None,
) -> ServerSpeed:
    """Send every load of a plan and wait for it.

    url : as `toolkit.check` takes it; ``#<model>`` at its end names the model, as `model` does. Without either it is
        the one that the server lists.
    workload : ``passages``, ``queries``, ``long``, or a file of texts.
    announce : gets a line before each load.

    Raises PlanError for what cannot be measured, ServerError if the server cannot be reached, gives no vectors, or
    gives another dimension than it was asked for: its figure would stand under a wrong name.
    """
    plan = plan or ServerPlan()
    texts = workload_texts(workload)
    url, _, named = url.partition("#")
    values = {"base_url": url, "model": model or named or "?", "api_key_env": api_key_env}
    config = checked_config(RemoteConfig, values)
    key = key_for(config)
    with CheckedServer(config.base_url, config.model, key=key, timeout_s=plan.timeout_s) as server:
        if not (model or named):
            server.model = _only_model(server)
        full_dim = _length(server, None)
        dims = _dims(plan.dims, full_dim)
        for dim in filter(None, dims):
            _length(server, dim)
    loads = []
    for dim, size, (clients, rate) in product(dims, plan.texts_per_request, _paces(plan)):
        loads.append(
            Load(
                config.base_url,
                server.model,
                _requests(texts, size),
                clients=clients,
                seconds=plan.seconds,
                rate=rate,
                dimensions=dim,
                processes=plan.processes,
                timeout_s=plan.timeout_s,
                key=key,
            )
        )
    results = []
    for number, load in enumerate(loads, 1):
        if announce:
            announce(f"{number} of {len(loads)}: {_load_name(load)}, {plan.seconds:g} s")
        results.append(run_load(load))
    return ServerSpeed(
        server.address.url, server.model, server.address.shape.name, workload, full_dim, tuple(results)
    )


def _paces(plan: ServerPlan) -> list[tuple[int, float | None]]:
    if plan.rates:
        return [(max(plan.clients), rate) for rate in plan.rates]
    return [(clients, None) for clients in plan.clients]


def _dims(asked: Sequence[int] | str | None, full_dim: int) -> list[int | None]:
    if asked is None:
        return [None]
    dims = auto_dims(full_dim) if isinstance(asked, str) else list(asked)
    outside = [dim for dim in dims if not 1 <= dim <= full_dim]
    if outside:
        raise PlanError(f"dimension {outside[0]} is outside what the server has; choose 1..{full_dim}")
    return dims


def _length(server: CheckedServer, dim: int | None) -> int:
    answer = server.ask([_PROBE], dimensions=dim)
    if answer.rows is None:
        asked = "" if dim is None else f" at dimensions={dim}"
        raise ServerError(f"{server.address.url} gives no vector{asked}: {answer.why}")
    length = answer.rows.shape[1]
    if dim not in (None, length):
        raise ServerError(
            f"{server.address.url} answers dimensions={dim} with {length} numbers; leave the dimension out, or start "
            "the server so that it cuts (toolkit check says how)"
        )
    return length


def _only_model(server: CheckedServer) -> str:
    names = sorted(server.models())
    if len(names) != 1:
        listed = f"lists {', '.join(names[:10])}" if names else "lists no models"
        raise PlanError(f"{server.address.url} {listed}; name one with model=")
    return names[0]


def _requests(texts: Sequence[str], size: int) -> list[list[str]]:
    """All texts in requests of one size; where they are too few for one, from the beginning again."""
    whole = [list(texts[first : first + size]) for first in range(0, len(texts) - size + 1, size)]
    return whole or [[texts[i % len(texts)] for i in range(size)]]


def _load_name(load: Load | LoadResult) -> str:
    pace = f"{load.clients} clients" if load.rate is None else f"{load.rate:g} requests/s"
    size = load.texts_per_request if isinstance(load, LoadResult) else len(load.requests[0])
    dim = "" if load.dimensions is None else f", dimension {load.dimensions}"
    return f"{pace}, {size:g} texts a request{dim}"


def _shown_ms(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:,.1f}"
