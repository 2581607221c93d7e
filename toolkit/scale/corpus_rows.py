"""Where a worker has the rows of its part of a corpus from: a file that it maps, a vector cache, or what was sent.

Knows nothing of Ray, and of searching nothing but that rows are asked for in parts.
"""

from __future__ import annotations

import mmap
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from toolkit.data.corpus_parts import corpus_parts, part_texts
from toolkit.embedding.cache import VectorCache, text_keys
from toolkit.embedding.key_index import KEY_BYTES
from toolkit.embedding.pipeline import windows
from toolkit.errors import PlanError, ServerError
from toolkit.scale.corpus import check_role
from toolkit.space import EmbeddingSpace, Role


class CorpusRows(Protocol):
    """Rows of a corpus, or of a part of it; pickled, it is what a worker is sent.

    part_bytes : of rows that one part should have at most.
    """

    part_bytes: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, full dimension)."""

    @property
    def row_bytes(self) -> int:
        """Of one row."""

    def part(self, start: int, stop: int) -> CorpusRows:
        """Rows start..stop - 1."""

    def read(self) -> np.ndarray:
        """The rows, (n, full_dim); raises ServerError where they cannot be had."""


@dataclass(frozen=True)
class FileRows:
    """Rows that lie one behind the other in a file, which every worker maps by its path.

    offset_bytes : where the first of them begins. dtype : as numpy writes it, ``<f4``.
    """

    path: str
    dtype: str
    offset_bytes: int
    rows: int
    full_dim: int

    part_bytes = (
        1 << 30
    )  # read once and never held: so large that the work of beginning is little beside the scan

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, full dimension)."""
        return self.rows, self.full_dim

    @property
    def row_bytes(self) -> int:
        """Of one row."""
        return self.full_dim * np.dtype(self.dtype).itemsize

    def part(self, start: int, stop: int) -> FileRows:
        """Rows start..stop - 1."""
        return replace(self, offset_bytes=self.offset_bytes + start * self.row_bytes, rows=stop - start)

    def read(self) -> np.ndarray:
        """The rows, mapped."""
        try:
            return np.memmap(self.path, np.dtype(self.dtype), "r", self.offset_bytes, self.shape)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it ends before these rows do"
            raise ServerError(
                f"the worker on {socket.gethostname()} cannot read {self.path} ({why}): put the file on storage that "
                "every machine mounts at the same place, or give the rows as an array in memory, which is sent"
            ) from None


@dataclass(frozen=True)
class SentRows:
    """Rows that no file has: each part goes to its worker with the work."""

    array: np.ndarray

    part_bytes = 64 << 20  # some of them wait in memory for each worker

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, full dimension)."""
        return self.array.shape

    @property
    def row_bytes(self) -> int:
        """Of one row."""
        return self.array.shape[1] * self.array.itemsize

    def part(self, start: int, stop: int) -> SentRows:
        """Rows start..stop - 1."""
        return SentRows(np.ascontiguousarray(self.array[start:stop]))

    def read(self) -> np.ndarray:
        """The rows as they came."""
        return self.array


@dataclass(frozen=True)
class CachedRows:
    """Rows that a vector cache has, by the keys of their texts; see `cached_rows`.

    keys : (n, 16) uint8, one for each row, in the corpus's order.
    """

    folder: str
    space: EmbeddingSpace
    keys: np.ndarray

    part_bytes = 256 << 20  # copied: shards have their texts by length, not in the corpus's order

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, full dimension)."""
        return len(self.keys), self.space.full_dim

    @property
    def row_bytes(self) -> int:
        """Of one row."""
        return 4 * self.space.full_dim

    def part(self, start: int, stop: int) -> CachedRows:
        """Rows start..stop - 1."""
        return replace(self, keys=self.keys[start:stop])

    def read(self) -> np.ndarray:
        """The rows in memory, from shards whose checksums were compared."""
        folder = Path(self.folder)
        if not (folder / self.space.fingerprint).is_dir():  # opened, it would be made, and be empty
            raise ServerError(
                f"the worker on {socket.gethostname()} has no vectors of {self.space.model} in {folder}: put the "
                "folder on storage that every machine mounts at the same place"
            )
        rows = np.empty(self.shape, dtype=np.float32)
        keys = [key.tobytes() for key in self.keys]
        lost = VectorCache(folder).for_space(self.space).read(keys, rows, np.arange(len(keys)))
        if lost:
            raise ServerError(
                f"{len(lost):,} of {len(keys):,} texts have no whole vector in {folder}; embed the corpus again, which "
                "encodes only those"
            )
        return rows


def cached_rows(
    folder: str | Path,
    space: EmbeddingSpace,
    corpus: str | Path,
    *,
    role: Role = Role.DOCUMENT,
    instruction: str | None = None,
) -> CachedRows:
    """The vectors of a corpus in the folder that `embed_corpus` or `embed_on_ray` made of it, or any vector cache.

    space : of the embedder that made them.
    corpus : as `embed_corpus` takes it; its texts are read once, for their keys of 16 bytes, and rows have their order.

    Raises PlanError if some have no vector, DataError for a corpus that cannot be read.
    """
    check_role(role, instruction)
    folder, render, keys = Path(folder).resolve(), space.renderer(role, instruction), []
    if not (folder / space.fingerprint).is_dir():
        raise PlanError(f"{folder} holds no vectors of {space.model}; embed {corpus} into it first")
    shards = VectorCache(folder).for_space(space)
    missing = 0
    for window in windows(render(text) for part in corpus_parts(corpus) for text in part_texts(part)):
        found = text_keys(window)
        missing += len(shards.missing(found))
        keys.append(np.frombuffer(b"".join(found), dtype=np.uint8).reshape(-1, KEY_BYTES))
    if missing or not keys:
        what = (
            f"{missing:,} texts of {corpus} have no vector in {folder}"
            if missing
            else f"{corpus} holds no texts"
        )
        raise PlanError(f"{what}; embed it first")
    return CachedRows(str(folder), space, np.concatenate(keys))


def rows_of(corpus: str | Path | np.ndarray | CachedRows) -> CorpusRows:
    """The rows of a `.npy` file, of a mapped array by its file, of an array in memory, or of a cache.

    Raises PlanError for a file that cannot be read, or that holds no 2-D array of floating numbers.
    """
    if isinstance(corpus, CachedRows):
        return corpus
    named = "corpus"
    if isinstance(corpus, str | Path):
        named = f"corpus {corpus}"
        try:
            array = np.load(corpus, mmap_mode="r", allow_pickle=False)
        except OSError as error:
            raise PlanError(f"{named} cannot be read: {error.strerror or error}; give a .npy file") from None
        except ValueError as error:
            raise PlanError(
                f"{named} is not a whole .npy file of numbers ({error}); write it again"
            ) from None
    else:
        array = corpus
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != "f":
        what = (
            f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        )
        raise PlanError(f"{named} is {what}; it must be a 2-D array of floating numbers, one row per text")
    # A view has the file's name too, and the offset of what it is a view of.
    whole = isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap)
    if not whole or array.filename is None or not array.flags.c_contiguous:
        return SentRows(array)
    if array.mode in ("r+", "w+"):
        array.flush()  # other machines see what is on the disk
    return FileRows(str(Path(array.filename).resolve()), array.dtype.str, array.offset, *array.shape)
