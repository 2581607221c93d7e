"""Connections to PostgreSQL with pgvector, by an address without a password.

A password comes from ``~/.pgpass``, which pairs it with a host; the one in ``PGPASSWORD`` goes to a host that an
address names only if its user paired them: ``TOOLKIT_KEY_HOSTS=PGPASSWORD=postgresql://host:5432``. An address without
a host (``postgresql:///database``) leaves host and password to the environment. Knows no table.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from toolkit.errors import PlanError, ResultsError, require_package
from toolkit.key_hosts import ALLOWED, is_allowed, origin

if TYPE_CHECKING:
    from psycopg import Connection

PASSWORD = "PGPASSWORD"  # noqa: S105 - the variable's name
_CONNECT_S = 10
# Other parameters could lead elsewhere (hostaddr, service) or name files of this machine (passfile, sslkey).
_PARAMETERS = {"host", "port", "dbname", "user", "sslmode"}
_EXAMPLE = "postgresql://host:5432/database?user=name"


def check_uri(uri: str) -> None:
    """Raise PlanError for what is not a plain address of PostgreSQL, MissingPackageError without psycopg."""
    _parameters(uri)


def connect(uri: str) -> Connection[Any]:
    """A connection that knows pgvector's types, one statement per transaction; the extension is created if it may be.

    Raises ResultsError where nobody answers or pgvector is not installed there.
    """
    import psycopg
    from pgvector.psycopg import register_vector

    parameters = _parameters(uri)
    _check_password(parameters)
    with engine_errors(uri), ExitStack() as undo:
        connection = psycopg.connect(**parameters, connect_timeout=_CONNECT_S, autocommit=True)
        undo.callback(connection.close)
        if connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone() is None:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(connection)
        undo.pop_all()
    return connection


@contextmanager
def engine_errors(uri: str) -> Iterator[None]:
    """Turn what PostgreSQL and psycopg raise into a ResultsError of one line."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        said = " ".join(str(error).split())
        raise ResultsError(f"PostgreSQL at {uri}: {said}") from error


def _parameters(uri: str) -> dict[str, str]:
    for package in ("psycopg", "pgvector"):
        require_package(package, needed_for="backend 'pgvector'", extra="pgvector")
    import psycopg

    if not uri:
        raise PlanError(f"backend 'pgvector' needs the address of a database; give it as uri = '{_EXAMPLE}'")
    if not uri.startswith(("postgresql://", "postgres://")):
        raise PlanError(f"uri {uri!r} is not an address of PostgreSQL; write {_EXAMPLE}")
    try:
        parameters = psycopg.conninfo.conninfo_to_dict(uri)
    except psycopg.Error as error:
        raise PlanError(f"uri {uri!r} is not an address of PostgreSQL ({error}); write {_EXAMPLE}") from None
    for name in parameters:
        if name not in _PARAMETERS:
            raise PlanError(
                f"uri: parameter {name!r} may not stand there; allowed: {', '.join(sorted(_PARAMETERS))}"
            )
    return {name: str(value) for name, value in parameters.items()}


def _check_password(parameters: dict[str, str]) -> None:
    """Nothing, where the environment may answer as it likes; raises PlanError where its password would go astray."""
    host = parameters.get("host", "")
    if not host or host.startswith(("/", "@")) or not os.environ.get(PASSWORD):
        return
    place = origin(f"postgresql://{host}:{parameters.get('port', 5432)}")
    if place and is_allowed(PASSWORD, place):
        return
    raise PlanError(
        f"{PASSWORD} is set, and nothing allows it to go to {place or host}; allow it with the environment variable "
        f"{ALLOWED}='{PASSWORD}={place or host}', or use ~/.pgpass"
    )
