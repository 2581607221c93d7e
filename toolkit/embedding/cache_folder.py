"""What lies in the folder of cached vectors, and how it is removed. Reads headers only; no vector is loaded."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from toolkit.errors import PlanError
from toolkit.files import parse_json


@dataclass(frozen=True)
class CachedSpace:
    """The vectors of one embedding space.

    name : the space's fingerprint, which is its folder's name.
    shards : files; one that cannot be read counts 0 vectors.
    written : when the youngest file was written, UTC.
    """

    folder: Path
    model: str
    engine: str
    dtype: str
    full_dim: int
    shards: int
    vectors: int
    size_bytes: int
    written: datetime

    @property
    def name(self) -> str:
        """The space's fingerprint."""
        return self.folder.name


def cached_spaces(folder: Path) -> list[CachedSpace]:
    """All spaces of a cache folder, the largest first; an empty list if the folder does not exist."""
    found = [_space(manifest.parent) for manifest in folder.glob("*/space.json")]
    return sorted(found, key=lambda space: (-space.size_bytes, space.name))


def chosen(spaces: Sequence[CachedSpace], names: Sequence[str]) -> list[CachedSpace]:
    """Spaces by model name or by the beginning of their fingerprint; raises PlanError for a name of none."""
    kept = []
    for name in names:
        matching = [space for space in spaces if name == space.model or space.name.startswith(name)]
        if not name or not matching:
            there = ", ".join(f"{space.name[:8]} ({space.model})" for space in spaces) or "nothing is cached"
            raise PlanError(f"no cached vectors are called {name!r}; there are: {there}")
        kept += [space for space in matching if space not in kept]
    return kept


def remove(spaces: Sequence[CachedSpace]) -> int:
    """Remove the vectors of these spaces; returns the bytes that are free now.

    A run that reads them meanwhile encodes again what it does not find. Raises PlanError where the system
    does not let them go.
    """
    for space in spaces:
        try:
            shutil.rmtree(space.folder)
        except FileNotFoundError:
            continue  # another process was first
        except OSError as error:
            raise PlanError(
                f"{space.folder} cannot be removed ({error.strerror}); check its permissions"
            ) from error
    return sum(space.size_bytes for space in spaces)


def _space(folder: Path) -> CachedSpace:
    try:
        about = parse_json((folder / "space.json").read_bytes())
    except (OSError, ValueError):
        about = {}
    about = about if isinstance(about, dict) else {}
    files = [path for path in folder.iterdir() if path.is_file()]
    shards = [path for path in files if path.suffix == ".safetensors"]
    facts = [path.stat() for path in files]
    return CachedSpace(
        folder=folder,
        model=str(about.get("model", "unknown")),
        engine=str(about.get("engine", "unknown")),
        dtype=str(about.get("dtype", "unknown")),
        full_dim=int(about.get("full_dim", 0)),
        shards=len(shards),
        vectors=sum(map(_vectors, shards)),
        size_bytes=sum(fact.st_size for fact in facts),
        written=datetime.fromtimestamp(max((fact.st_mtime for fact in facts), default=0.0), UTC),
    )


def _vectors(shard: Path) -> int:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(shard, framework="np") as file:
            return int(file.get_slice("keys").get_shape()[0])
    except (OSError, SafetensorError):
        return 0
