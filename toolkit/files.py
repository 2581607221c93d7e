"""Where the toolkit keeps files of its own, how it writes them (whole or not at all), how it reads a stranger's."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_LONGEST_NAME_BYTES = 120  # file systems take 255, and suffixes come on top
_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))}


def cache_folder() -> Path:
    """``$TOOLKIT_CACHE``, or ``embedding-toolkit`` in the user's cache folder."""
    named = os.environ.get("TOOLKIT_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "embedding-toolkit"


def safe_name(text: str) -> str:
    """A foreign name (a model's, a server's, a data set's) as one component of a path, never outside its folder.

    Separators and whatever a file system may refuse become ``_``, leading dots go, a name that Windows keeps for
    itself gets a ``_``, and a long one ends in a hash of the whole; two names may meet, so where that matters a
    digest stands beside it.
    """
    name = re.sub(r"[^\w.@+-]+", "_", text).lstrip(".").rstrip(". ") or "_"
    if name.partition(".")[0].upper() in _RESERVED:
        name = f"_{name}"
    if len(name.encode()) > _LONGEST_NAME_BYTES:
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        name = f"{name.encode()[: _LONGEST_NAME_BYTES - 17].decode(errors='ignore')}-{digest}"
    return name


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


def write_json(path: Path, value: object) -> None:
    """Write a JSON file for people to read too, and the folders above it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401 - whatever a file holds
    """A stranger's JSON; raises ValueError for all that is wrong with it, nesting too deep for Python included."""
    return _parsed(json.loads, text)


def parse_toml(text: str) -> dict[str, Any]:
    """A stranger's TOML; raises ValueError for all that is wrong with it, nesting too deep for Python included."""
    return _parsed(tomllib.loads, text)


def _parsed(parse: Callable[[Any], T], text: str | bytes) -> T:
    try:
        return parse(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
