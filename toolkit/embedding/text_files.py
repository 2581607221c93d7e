"""Texts from files, and rows to files. Knows nothing of embedders."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np

from toolkit.errors import DataError, PlanError
from toolkit.files import write_atomically


def read_texts(path: str | Path) -> list[str]:
    """Read the texts of a `.jsonl` file (field ``text``) or of any other file, one a line.

    Blank lines of a plain file are kept as empty texts, so that row i is line i. Raises DataError.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text (byte {error.start}); convert it first") from None
    if path.suffix == ".jsonl":
        lines = [
            _text_field(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()
        ]
    if not lines:
        raise DataError(f"{path} holds no texts; write one a line")
    return lines


def _text_field(path: Path, number: int, line: str) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError):
        text = None
    if not isinstance(text, str):
        raise DataError(f'{path}:{number}: each line must be a JSON object with a string "text"')
    return text


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
        raise PlanError(f"output {path} cannot be written: {error.strerror}; choose another --out") from None
