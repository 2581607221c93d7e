"""Built indexes between building and timing: on disk, so that a killed sweep need not build again, and
in memory as far as there is room. Knows nothing of settings or results."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from toolkit.errors import ResultsError
from toolkit.search.faiss.index import BuiltIndex

# Share of free memory that held indexes may take.
_MEMORY_SHARE = 0.25


class IndexStore:
    """Indexes by name, in `folder`."""

    def __init__(self, folder: Path) -> None:
        import psutil

        self._folder = folder
        self._room_bytes = int(psutil.virtual_memory().available * _MEMORY_SHARE)
        self._held: dict[str, BuiltIndex] = {}

    def has(self, name: str) -> bool:
        """Whether a whole index of that name is in memory or on disk."""
        if name in self._held:
            return True
        try:
            self._hold(name, BuiltIndex.load(self._path(name)))
        except ResultsError:
            return False
        return True

    def put(self, name: str, index: BuiltIndex) -> None:
        """Keep an index; raises ResultsError if the disk refuses it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        index.save(self._path(name))
        self._hold(name, index)

    def get(self, name: str) -> BuiltIndex:
        """An index that was put here, from memory or from disk."""
        held = self._held.get(name)
        return held if held is not None else BuiltIndex.load(self._path(name))

    def groups(self, names: Sequence[str]) -> Iterator[set[str]]:
        """`names` in groups that fit into memory together."""
        group: set[str] = set()
        size = 0
        for name in names:
            index_bytes = self._path(name).stat().st_size
            if group and size + index_bytes > self._room_bytes:
                yield group
                group, size = set(), 0
            group.add(name)
            size += index_bytes
        if group:
            yield group

    def clear(self) -> None:
        """Remove all of them: they can be built again."""
        self._held.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _hold(self, name: str, index: BuiltIndex) -> None:
        if sum(held.index_bytes for held in self._held.values()) + index.index_bytes <= self._room_bytes:
            self._held[name] = index

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.faiss"
