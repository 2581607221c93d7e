"""Where rows go as they are made: an array, or a `.npy` file, of a length that may not be known beforehand.

Knows nothing of texts or engines.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from toolkit.errors import VectorError
from toolkit.vectors import Vectors


class RowSink:
    """Grows by windows of rows; a context manager that closes its file.

    dim : numbers per row.
    out : a `.npy` file to write and map; None keeps the rows in memory.
    count : rows there will be; None if it is not known.
    """

    def __init__(self, dim: int, *, out: Path | None, count: int | None) -> None:
        self._dim, self._out, self._count = dim, out, count
        self._used = 0
        self._parts: list[np.ndarray] = []
        if count is not None:
            shape = (count, dim)
            self._parts = [np.empty(shape, dtype=np.float32) if out is None else _mapped(out, shape)]
        elif out is not None:
            _write_header(out, (0, dim))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parts = []

    @property
    def whole(self) -> bool:
        """Whether all rows there will be have been asked for."""
        return self._count is not None and self._used == self._count

    def grow(self, rows: int) -> tuple[int, np.ndarray]:
        """The number of the next row, and an array (rows, dim) to fill from there.

        Raises VectorError for more rows than were announced.
        """
        start = self._used
        self._used += rows
        if self._count is not None:
            if self._used > self._count:
                raise VectorError(f"{self._count} texts were announced and {self._used} came; give a list")
            return start, self._parts[0][start : self._used]
        if self._out is None:
            self._parts.append(np.empty((rows, self._dim), dtype=np.float32))
            return start, self._parts[-1]
        return start, _grown(self._out, start, rows, self._dim)

    def row(self, number: int) -> np.ndarray:
        """A row that was filled before."""
        if self._count is None and self._out is not None:
            return _grown(self._out, number, 1, self._dim)[0]
        for part in self._parts:
            if number < len(part):
                return part[number]
            number -= len(part)
        raise VectorError(f"row {number} beyond the last of {self._used}")

    def finish(self) -> Vectors:
        """All rows, in memory or mapped; raises VectorError if fewer came than were announced."""
        if self._count is not None and self._used != self._count:
            raise VectorError(f"{self._count} texts were announced and {self._used} came; give a list")
        if self._count is not None:
            return Vectors(self._parts[0])
        if self._out is None:
            return Vectors(np.concatenate([np.empty((0, self._dim), dtype=np.float32), *self._parts]))
        _write_header(self._out, (self._used, self._dim))
        return Vectors(np.lib.format.open_memmap(self._out, mode="r+"))


def _mapped(out: Path, shape: tuple[int, int]) -> np.ndarray:
    return np.lib.format.open_memmap(out, mode="w+", dtype=np.float32, shape=shape)


def _write_header(out: Path, shape: tuple[int, int]) -> int:
    """Write or overwrite the header; numpy leaves room in it for any number of rows. Returns its length."""
    about = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with out.open("r+b" if shape[0] else "wb") as file:
        np.lib.format.write_array_header_1_0(file, about)
        return file.tell()


def _grown(out: Path, start: int, rows: int, dim: int) -> np.ndarray:
    """Rows start..start + rows of the file, which grows as far as needed."""
    with out.open("r+b") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        offset = file.tell() + 4 * dim * start
    return np.memmap(out, dtype=np.float32, mode="r+", offset=offset, shape=(rows, dim))
