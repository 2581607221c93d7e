"""A connection to Milvus: a server by its address, or Milvus Lite in a folder of its own.

A token goes to a server only if its user paired them: ``TOOLKIT_KEY_HOSTS=MILVUS_TOKEN=https://host:19530``.
Knows no collection.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import PlanError, ResultsError, require_package
from toolkit.key_hosts import ALLOWED, is_allowed, origin

if TYPE_CHECKING:
    from pymilvus import MilvusClient

TOKEN = "MILVUS_TOKEN"  # noqa: S105 - the variable's name
_CONNECT_S = 10.0
_NEVER_MS = 2**31 - 1


def is_server(uri: str) -> bool:
    """Whether an address is a server's, not a folder of Milvus Lite."""
    return "://" in uri


def check_uri(uri: str) -> None:
    """Raise PlanError for an address that is neither a server's nor a file of Milvus Lite."""
    if is_server(uri):
        if not origin(uri).startswith("http"):
            raise PlanError(
                f"uri {uri!r} is not a Milvus server; write http://<host>:19530, https://<host> or <file>.db"
            )
    elif uri and not uri.endswith(".db"):
        raise PlanError(f"uri {uri!r} is not a file of Milvus Lite; its name ends with .db")


def connect(uri: str) -> MilvusClient:
    """A client of the server or of Milvus Lite at `uri`.

    Raises MissingPackageError without pymilvus or Milvus Lite, ResultsError where nobody answers.
    """
    require_package("pymilvus", needed_for="backend 'milvus'", extra="milvus")
    if not is_server(uri):
        require_package("milvus_lite", needed_for="Milvus Lite", extra="milvus")
        Path(uri).parent.mkdir(parents=True, exist_ok=True)
    from pymilvus import MilvusClient

    # It logs every refusal with a traceback before it raises the same.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    # Milvus Lite hangs up on a client that pings it while it builds; within one process there is nobody to ping.
    options = {} if is_server(uri) else {"grpc_options": {"grpc.keepalive_time_ms": _NEVER_MS}}
    with engine_errors(uri):
        return MilvusClient(uri, token=_token(uri), timeout=_CONNECT_S, **options)


def release_lite(path: Path) -> None:
    """Stop Milvus Lite over a folder, so that the folder can be moved or removed."""
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(str(path))


@contextmanager
def engine_errors(uri: str) -> Iterator[None]:
    """Turn what Milvus raises into a ResultsError of one line."""
    from grpc import RpcError
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except RpcError as error:
        raise ResultsError(f"Milvus at {uri}: {error.code().name}: {error.details()}") from error
    except MilvusException as error:
        said = " ".join(str(error.message).split())
        raise ResultsError(f"Milvus at {uri}: {said}") from error


def _token(uri: str) -> str:
    token = os.environ.get(TOKEN, "")
    if not token or not is_server(uri) or is_allowed(TOKEN, origin(uri)):
        return token if is_server(uri) else ""
    raise PlanError(
        f"{TOKEN} is set, and nothing allows it to go to {origin(uri)}; allow it with the environment variable "
        f"{ALLOWED}='{TOKEN}={origin(uri)}', or unset it"
    )
