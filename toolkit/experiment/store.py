"""The raw part of a results folder: neighbours, timings and builds, saved before anything is derived.

    raw/<setting>.neighbours.npz   rows (queries, k) int32 or int64, scores (queries, k) float32
    raw/<search>.timing.npz        every latency sample in ms, every batch in s, a row a round
    raw/<index>.build.json         build seconds, index bytes, factory string, peak memory
    raw/identity.json              what must be equal for a sweep to go on in this folder

Every file is written whole or not at all, so an interrupted sweep goes on where it was. Knows nothing
of what the numbers mean.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from toolkit.errors import ResultsError
from toolkit.experiment.setting import Setting
from toolkit.files import write_atomically
from toolkit.search.neighbours import Neighbours
from toolkit.vectors import Vectors


@dataclass(frozen=True)
class RawStore:
    """Raw results of one sweep, by setting."""

    folder: Path

    @classmethod
    def create(
        cls, folder: Path, identity: Mapping[str, object], *, resume: bool, overwrite: bool = False
    ) -> RawStore:
        """Open the raw folder for writing.

        identity : embedding space, data hash, k and whatever else every raw file depends on.
        Raises ResultsError if the folder cannot be written, holds a sweep and `resume` is not set,
        or holds a sweep of another identity.
        """
        raw = folder / "raw"
        path = raw / "identity.json"
        try:
            raw.mkdir(parents=True, exist_ok=True)
            if path.exists() and overwrite:
                shutil.rmtree(raw)
                raw.mkdir()
            elif path.exists():
                _check_same(folder, json.loads(path.read_bytes()), identity, resume=resume)
            write_atomically(path, json.dumps(identity, indent=2, ensure_ascii=False).encode())
        except OSError as error:
            raise ResultsError(
                f"results folder {folder} cannot be written ({error.strerror}); choose another with --out"
            ) from error
        return cls(raw)

    def part(self, name: str) -> RawStore:
        """A store of its own inside this one, under the same identity."""
        (self.folder / name).mkdir(exist_ok=True)
        return RawStore(self.folder / name)

    def mapped(self, vectors: Vectors) -> Vectors:
        """The same vectors, memory-mapped from a file of this store."""
        path = self.folder / "corpus.npy"
        np.save(path, vectors.rows)
        return Vectors.open(path)

    def neighbours(self, setting: Setting) -> Neighbours | None:
        """The neighbours found at a setting, if they were saved."""
        found = self._load(setting, "neighbours")
        return None if found is None else Neighbours(found["rows"].astype(np.int64), found["scores"])

    def save_neighbours(self, setting: Setting, neighbours: Neighbours) -> None:
        """Save what a search found; int32 row numbers where they fit."""
        rows = neighbours.rows
        small = rows.size == 0 or rows.max() < np.iinfo(np.int32).max
        self._save(
            setting,
            "neighbours",
            {"rows": rows.astype(np.int32 if small else np.int64), "scores": neighbours.scores},
        )

    def timing(self, search: Setting) -> dict[str, np.ndarray] | None:
        """All timing samples of a search, one row a round, if there are any."""
        return self._load(search, "timing")

    def rounds_timed(self, search: Setting) -> int:
        """How many rounds of timing a search has."""
        samples = self.timing(search)
        return 0 if samples is None else min(len(rows) for rows in samples.values())

    def add_timing(self, search: Setting, samples: Mapping[str, np.ndarray]) -> None:
        """Add the samples of further rounds to those there are."""
        before = self.timing(search) or {}
        joined = {
            name: np.concatenate([before[name], rows]) if name in before else rows
            for name, rows in samples.items()
        }
        self._save(search, "timing", joined)

    def build(self, name: str) -> dict[str, object] | None:
        """Build facts of an index, if they were saved."""
        path = self.folder / f"{name}.build.json"
        return json.loads(path.read_bytes()) if path.exists() else None

    def save_build(self, name: str, facts: Mapping[str, object]) -> None:
        """Save build facts as JSON."""
        write_atomically(self.folder / f"{name}.build.json", json.dumps(facts).encode())

    def _save(self, setting: Setting, kind: str, arrays: Mapping[str, np.ndarray]) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, setting=np.array(setting.key), **arrays)
        write_atomically(self.folder / f"{setting.slug}.{kind}.npz", buffer.getvalue())

    def _load(self, setting: Setting, kind: str) -> dict[str, np.ndarray] | None:
        path = self.folder / f"{setting.slug}.{kind}.npz"
        try:
            with np.load(path) as stored:
                return {name: stored[name] for name in stored.files if name != "setting"}
        except FileNotFoundError:
            return None
        except (BadZipFile, ValueError, OSError):
            return None  # damaged: the sweep measures this setting again


def _check_same(
    folder: Path, there: Mapping[str, object], wanted: Mapping[str, object], *, resume: bool
) -> None:
    if not resume:
        raise ResultsError(
            f"{folder} already holds a sweep; add --resume to go on with it, or choose another --out"
        )
    for name, value in wanted.items():
        if there.get(name) != value:
            raise ResultsError(
                f"{folder} holds a sweep with another {name} ({there.get(name)!r}, now {value!r}); "
                "choose another --out"
            )
