"""Rows to files. Knows nothing of embedders."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from toolkit.errors import PlanError
from toolkit.files import write_atomically


def write_rows(path: str | Path, rows: np.ndarray) -> None:
    """Write an array as `.npy`, whole or not at all; raises PlanError if it cannot be written."""
    path = Path(path)
    if path.suffix != ".npy":
        raise PlanError(f"output {path} must end in .npy")
    buffer = io.BytesIO()
    np.save(buffer, rows)
    try:
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise PlanError(f"output {path} cannot be written: {error.strerror}; choose another (out=)") from None
