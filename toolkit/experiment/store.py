"""The raw part of a results folder: what was found and timed, saved before anything is derived.

    raw/<setting>.<identity>.neighbours.npz   rows (queries, k) int32 or int64, scores (queries, k) float32;
                                              those of queries without judgements in a file of their own
    raw/<setting>.<identity>.pairs.npz        per pair: cosine float64, or the nearest rows of both directions
    raw/<search>.<identity>.timing.npz        every latency sample in ms, every batch in s, one row per round
    raw/<index>.<identity>.build.json         build seconds, index bytes, factory string, peak memory

The identity says all that a file's content depends on; it names the file and stands inside it. What has
another identity (another machine, other threads or versions) stays where it is and is not used.

Every file is written whole or not at all, so an interrupted sweep continues where it was. A damaged one
is measured again. Knows nothing of what the numbers mean.
"""

from __future__ import annotations

import errno
import io
import json
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from toolkit.errors import ResultsError, ToolkitWarning
from toolkit.experiment.identity import Identity, Stamp
from toolkit.experiment.setting import Setting
from toolkit.files import parse_json, write_atomically
from toolkit.search.neighbours import Neighbours
from toolkit.vectors import Vectors

T = TypeVar("T")
KINDS = ("*.neighbours.npz", "*.pairs.npz", "*.timing.npz", "*.build.json")
_CORPUS = "corpus.npy"
_STAMP = "identity"
_COPIED_ROWS = 16_384
# What reading a file that is cut short or has flipped bits can raise.
_DAMAGED = (zipfile.BadZipFile, ValueError, KeyError, EOFError, RuntimeError, NotImplementedError, TypeError)


@dataclass(frozen=True)
class RawStore:
    """Raw results of one sweep, by setting, as far as they have its identity.

    saved : the files that this store and its parts wrote, in order.
    """

    folder: Path
    identity: Identity
    saved: list[Path] = field(default_factory=list, compare=False)

    def part(self, documents: int, *, drawn: str = "") -> RawStore:
        """A store of its own inside this one, for a part of the corpus; `drawn` says how it was drawn."""
        folder = self.folder / f"{documents}-documents"
        with writing(folder):
            folder.mkdir(exist_ok=True)
        return RawStore(folder, self.identity.part(documents, drawn=drawn), self.saved)

    @property
    def index_folder(self) -> Path:
        """Where built indexes wait to be timed; those of other conditions wait elsewhere."""
        return self.folder / f"indexes-{self.identity.build('').name}"

    def corpus_file(self, size_bytes: int) -> Path:
        """Where vectors that are read from disk go; raises ResultsError if the disk has no room for them."""
        import psutil

        # Writing to a mapped file on a full disk would kill the process.
        with writing(self.folder):
            there = self.folder / _CORPUS
            free_bytes = psutil.disk_usage(str(self.folder)).free
            there_bytes = there.stat().st_size if there.exists() else 0
            if free_bytes + there_bytes < size_bytes:
                raise OSError(errno.ENOSPC, f"{size_bytes:,} bytes needed, {free_bytes:,} free")
            with there.open("ab"):
                return there

    def mapped(self, vectors: Vectors, rows: np.ndarray) -> Vectors:
        """Some rows of the vectors, in that order, memory-mapped from a file of this store."""
        whole = vectors.rows
        path = self.corpus_file(whole.itemsize * whole.shape[1] * len(rows))
        with writing(path):
            part = np.lib.format.open_memmap(path, "w+", whole.dtype, (len(rows), whole.shape[1]))
            for start in range(0, len(rows), _COPIED_ROWS):
                part[start : start + _COPIED_ROWS] = whole[rows[start : start + _COPIED_ROWS]]
            part.flush()
        return Vectors.open(path)

    def drop_corpus(self) -> None:
        """Remove the file of vectors: the cache has them."""
        (self.folder / _CORPUS).unlink(missing_ok=True)

    def neighbours(self, setting: Setting, *, asked: str = "") -> Neighbours | None:
        """The neighbours found at a setting, if they were saved.

        asked : hash of the queries without judgements, for theirs; empty for those of the sweep's own queries.
        """
        stamp = self.identity.neighbours(setting.key, asked)
        found = self._arrays(setting, "neighbours", stamp, {"rows", "scores"})
        return None if found is None else Neighbours(found["rows"].astype(np.int64), found["scores"])

    def save_neighbours(self, setting: Setting, neighbours: Neighbours, *, asked: str = "") -> None:
        """Save what a search found; int32 row numbers where they fit."""
        arrays = {"rows": _small(neighbours.rows), "scores": neighbours.scores}
        self._save(setting, "neighbours", self.identity.neighbours(setting.key, asked), arrays)

    def holds(self, setting: Setting) -> bool:
        """Whether what a setting finds was saved, neighbours or pairs."""
        stamp = self.identity.neighbours(setting.key)
        return any(
            self._path(setting.slug, f"{kind}.npz", stamp).exists() for kind in ("neighbours", "pairs")
        )

    def pairs(self, setting: Setting) -> dict[str, np.ndarray] | None:
        """What was found for every pair of texts at a setting, if it was saved."""
        return self._arrays(setting, "pairs", self.identity.neighbours(setting.key), set())

    def save_pairs(self, setting: Setting, arrays: Mapping[str, np.ndarray]) -> None:
        """Save arrays with one entry per pair."""
        self._save(setting, "pairs", self.identity.neighbours(setting.key), arrays)

    def timing(self, search: Setting) -> dict[str, np.ndarray] | None:
        """All timing samples of a search, one row per round, if there are any."""
        stamp = self.identity.durations(search.key)
        return self._arrays(search, "timing", stamp, {"single_ms_0", "batch_s_0"})

    def rounds_timed(self, search: Setting, also: Iterable[str] = ()) -> int:
        """How many rounds of timing a search has; `also` names further samples that must be there."""
        samples = self.timing(search)
        if samples is None or not samples.keys() >= set(also):
            return 0
        return min(len(rows) for rows in samples.values())

    def add_timing(self, search: Setting, samples: Mapping[str, np.ndarray]) -> None:
        """Add the samples of further rounds to those there are."""
        before = self.timing(search) or {}
        joined = {
            name: np.concatenate([before[name], rows]) if name in before else rows
            for name, rows in samples.items()
        }
        self._save(search, "timing", self.identity.durations(search.key), joined)

    def timed_otherwise(self, search: Setting) -> int:
        """How many files of timing samples a search has that belong to another identity."""
        own = self._path(search.slug, "timing.npz", self.identity.durations(search.key))
        return sum(path != own for path in self.folder.glob(f"{search.slug}.*.timing.npz"))

    def build(self, name: str) -> dict[str, object] | None:
        """Build facts of an index, if they were saved."""
        stamp = self.identity.build(name)
        path = self._path(name, "build.json", stamp)

        def read() -> dict[str, object]:
            facts = parse_json(path.read_bytes())
            if not isinstance(facts, dict) or facts.pop(_STAMP, None) != json.loads(stamp.text):
                raise ValueError("another identity")
            if not {"factory", "build_s", "index_bytes"} <= facts.keys():
                raise ValueError("facts are missing")
            return facts

        return _read_or_drop(path, read)

    def save_build(self, name: str, facts: Mapping[str, object]) -> None:
        """Save build facts as JSON."""
        stamp = self.identity.build(name)
        payload = json.dumps(dict(facts) | {_STAMP: json.loads(stamp.text)}, ensure_ascii=False).encode()
        self._write(self._path(name, "build.json", stamp), payload)

    def _save(self, setting: Setting, kind: str, stamp: Stamp, arrays: Mapping[str, np.ndarray]) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, **{_STAMP: np.array(stamp.text)}, **arrays)
        self._write(self._path(setting.slug, f"{kind}.npz", stamp), buffer.getvalue())

    def _write(self, path: Path, payload: bytes) -> None:
        with writing(path):
            write_atomically(path, payload)
        self.saved.append(path)

    def _arrays(
        self, setting: Setting, kind: str, stamp: Stamp, needed: set[str]
    ) -> dict[str, np.ndarray] | None:
        path = self._path(setting.slug, f"{kind}.npz", stamp)

        def read() -> dict[str, np.ndarray]:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            if str(arrays.pop(_STAMP, "")) != stamp.text:
                raise ValueError("another identity")
            if not arrays or not needed <= arrays.keys():
                raise ValueError("arrays are missing")
            return arrays

        return _read_or_drop(path, read)

    def _path(self, name: str, kind: str, stamp: Stamp) -> Path:
        return self.folder / f"{name}.{stamp.name}.{kind}"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a refused write below into one ResultsError that says what is kept and how to continue."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "free some room there"
        else:
            advice = "check its permissions, or choose another folder (out=)"
        raise ResultsError(
            f"{path} cannot be written ({reason}); {advice}; what was measured before is kept, and "
            "resume=True continues from it"
        ) from error


def _read_or_drop(path: Path, read: Callable[[], T]) -> T | None:
    """What `read` gets from a file; None where there is none, or one that is damaged and is removed."""
    try:
        return read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ResultsError(f"{path} cannot be read ({error.strerror or error}); check its disk") from error
    except _DAMAGED as error:
        warnings.warn(
            f"{path} is damaged ({error or type(error).__name__}) and is measured again",
            ToolkitWarning,
            stacklevel=4,
        )
        with writing(path):
            path.unlink(missing_ok=True)
        return None


def _small(rows: np.ndarray) -> np.ndarray:
    fits = rows.size == 0 or rows.max() < np.iinfo(np.int32).max
    return rows.astype(np.int32 if fits else np.int64)
