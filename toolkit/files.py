"""Where the toolkit keeps files of its own, and how it writes them: whole or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def cache_folder() -> Path:
    """``$TOOLKIT_CACHE``, or ``embedding-toolkit`` in the user's cache folder."""
    named = os.environ.get("TOOLKIT_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "embedding-toolkit"


def write_atomically(path: Path, payload: bytes) -> None:
    """Write `path` so that a reader or a killed run never sees half of it. Raises OSError."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
