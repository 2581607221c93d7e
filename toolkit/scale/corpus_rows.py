"""Where a worker has the rows of its part of a corpus from: a file that it maps, or what was sent to it.

Knows nothing of Ray, and of searching nothing but that rows are asked for in parts.
"""

from __future__ import annotations

import mmap
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from toolkit.errors import PlanError, ServerError


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


def rows_of(corpus: str | Path | np.ndarray) -> CorpusRows:
    """The rows of a `.npy` file, of a mapped array by its file, or of an array in memory.

    Raises PlanError for a file that cannot be read, or that holds no 2-D array of floating numbers.
    """
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
