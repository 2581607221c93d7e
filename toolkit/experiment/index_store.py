"""Built indexes between building and timing: on disk, so that a killed sweep need not build again, and
in memory as far as there is room. Knows nothing of settings or results, nor of what an index is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from toolkit.errors import ResultsError
from toolkit.search.backend import Backend, Index, KeptElsewhere
from toolkit.search.empty_last import load_index

# Share of free memory that held indexes may take.
_MEMORY_SHARE = 0.25


class IndexStore:
    """Indexes by name, in `folder`.

    room_bytes : what may be held in memory; a quarter of what is free if not given.
    """

    def __init__(self, folder: Path, *, room_bytes: int | None = None) -> None:
        import psutil

        self._folder = folder
        free_bytes = psutil.virtual_memory().available
        self._room_bytes = int(free_bytes * _MEMORY_SHARE) if room_bytes is None else room_bytes
        self._held: dict[str, Index] = {}
        self._backends: dict[str, Backend] = {}

    def has(self, name: str, backend: Backend) -> bool:
        """Whether a whole index of that name is in memory or on disk."""
        self._backends[name] = backend
        if name in self._held:
            return True
        try:
            self._hold(name, load_index(backend, self._path(name)))
        except ResultsError:
            return False
        return True

    def put(self, name: str, index: Index) -> None:
        """Keep an index; raises ResultsError if the disk refuses it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        index.save(self._path(name))
        self._hold(name, index)

    def get(self, name: str, backend: Backend) -> Index:
        """An index that was put here, from memory or from disk."""
        self._backends[name] = backend
        held = self._held.get(name)
        return held if held is not None else load_index(backend, self._path(name))

    def groups(self, sizes: Mapping[str, int]) -> Iterator[set[str]]:
        """The names of `sizes` (bytes by name) in groups that fit into memory together."""
        group: set[str] = set()
        size = 0
        for name, index_bytes in sizes.items():
            if group and size + index_bytes > self._room_bytes:
                yield group
                group, size = set(), 0
            group.add(name)
            size += index_bytes
        if group:
            yield group

    def clear(self) -> None:
        """Remove all of them: they can be built again."""
        for index in self._held.values():
            index.close()
        self._held.clear()
        for name, backend in self._backends.items():
            if isinstance(backend, KeptElsewhere):
                backend.remove(self._path(name))
        shutil.rmtree(self._folder, ignore_errors=True)

    def _hold(self, name: str, index: Index) -> None:
        if sum(held.index_bytes for held in self._held.values()) + index.index_bytes <= self._room_bytes:
            self._held[name] = index

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.index"
