"""Ray as all work on it needs it: started here or found by address, with as many workers as there is room for.

Knows nothing of what the workers do.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from toolkit.errors import PlanError, ServerError, require_package

_KNOCK_S = 10.0


@dataclass(frozen=True)
class RayWorkers:
    """Where work is done.

    address : of a Ray cluster (``auto``, ``ray://host:10001``); None starts Ray on this machine.
    workers : processes; None is one per `gpus_per_worker` GPUs, or per `cpus_per_worker` CPUs where that is 0.
    gpus_per_worker : GPUs that each worker has to itself, 0.5 for two on one.
    cpus_per_worker : cores that each has.
    """

    address: str | None = None
    workers: int | None = None
    gpus_per_worker: float = 0.0
    cpus_per_worker: float = 1.0

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise PlanError(f"workers {self.workers} must be at least 1")
        if self.gpus_per_worker < 0 or self.cpus_per_worker <= 0:
            raise PlanError(
                f"gpus_per_worker {self.gpus_per_worker} must be 0 or more, and cpus_per_worker "
                f"{self.cpus_per_worker} above 0"
            )


@contextmanager
def on_ray(on: RayWorkers, *, needed_for: str) -> Iterator[int]:
    """Ray within the block, and the number of workers; what this process has started already is used and stays.

    Raises PlanError for resources that are not there, ServerError for an address that does not answer,
    MissingPackageError without Ray.
    """
    require_package("ray", needed_for=needed_for, extra="ray")
    import ray

    started = not ray.is_initialized()
    if started:
        _start(on)
    try:
        yield _count(on)
    finally:
        if started:
            ray.shutdown()


def reason(error: Exception) -> str:
    """One line of an error of Ray's, whose text is a page of tracebacks with advice behind it."""
    ours = re.findall(r"^toolkit\.errors\.\w+: (.+)$", str(error), re.MULTILINE)
    if ours:
        return ours[-1]
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(cause).__name__


def _start(on: RayWorkers) -> None:
    import ray

    # Else Ray measures how it is used and reports it to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    try:
        if on.address is None:
            ray.init(address="local", include_dashboard=False, **options)
        else:
            _knock(on.address)
            ray.init(address=on.address, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise ServerError(
            f"Ray at {on.address or 'this machine'} cannot be reached: {reason(error)}; start it with "
            "`ray start --head`, or leave address out"
        ) from None


def _knock(address: str) -> None:
    """Raise OSError where nobody listens: Ray itself tries such an address for ten minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


def _count(on: RayWorkers) -> int:
    """Workers to start; raises PlanError for more than there is room for."""
    import ray

    there = ray.cluster_resources()
    share, name = (on.gpus_per_worker, "GPU") if on.gpus_per_worker else (on.cpus_per_worker, "CPU")
    room = int(there.get(name, 0) / share + 1e-9)
    wanted = on.workers or room
    if not room or wanted > room:
        raise PlanError(
            f"{max(wanted, 1)} workers with {share:g} {name} each need more than the {there.get(name, 0):g} that Ray "
            f"has; choose at most {room}" + ("" if room else f", or a cluster with {name}s")
        )
    return wanted
