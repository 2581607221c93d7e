"""Pair files: TSV with a header, either sentence1/sentence2/score (STS) or two columns of text (bitext)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from toolkit.data.sets import PairSet
from toolkit.data.text_files import text_lines
from toolkit.errors import DataError

STS_COLUMNS = ("sentence1", "sentence2", "score")


def load_pairs(path: str | Path, *, split: str | None = None) -> PairSet:
    """Read a TSV of pairs, which may be gzipped.

    A file with a `score` column is an STS set (and may have a `split` column, of which `split`,
    "test" by default, is kept); any other two-column file is a bitext. Raises DataError.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is not a file; a pair set is a TSV with a header line")
    # Split at tabs only: these files hold bare quotation marks in their texts.
    rows = [(number, line.split("\t")) for number, line in text_lines(path) if line]
    if len(rows) < 2:
        raise DataError(f"{path} has no pairs; it needs a header line and at least one pair")
    (_, header), body = rows[0], rows[1:]
    for number, row in body:
        if len(row) != len(header):
            raise DataError(f"{path}:{number}: {len(row)} columns where the header has {len(header)}")
    if "score" not in header:
        if len(header) != 2:
            raise DataError(
                f"{path}: a bitext has two columns, this file has {len(header)}: {', '.join(header)}"
            )
        left, right = zip(*(row for _, row in body), strict=True)
        return PairSet(_stem(path), left, right)
    for needed in STS_COLUMNS:
        if needed not in header:
            raise DataError(f"{path}: no column {needed!r}; an STS file has sentence1, sentence2 and score")
    first, second, score = (header.index(name) for name in STS_COLUMNS)
    name = _stem(path)
    if "split" in header:
        wanted, column = split or "test", header.index("split")
        splits = sorted({row[column] for _, row in body})
        if wanted not in splits:
            raise DataError(f"{path} has no split {wanted!r}; choose one of: {', '.join(splits)}")
        body = [(number, row) for number, row in body if row[column] == wanted]
        name += "" if wanted == "test" else f"@{wanted}"
    scores = numbers([row[score] for _, row in body], [f"{path}:{number}" for number, _ in body])
    return PairSet(name, [row[first] for _, row in body], [row[second] for _, row in body], scores)


def numbers(values: Sequence[object], places: Sequence[str]) -> np.ndarray:
    """(n,) float64 scores; raises DataError with the place of one that is not a finite number."""
    scores = np.empty(len(values))
    for i, (value, place) in enumerate(zip(values, places, strict=True)):
        try:
            scores[i] = float(value)  # type: ignore[arg-type] - float says what it cannot take
        except (TypeError, ValueError):
            scores[i] = np.nan
        if not np.isfinite(scores[i]):
            raise DataError(f"{place}: score {value!r} is not a number")
    return scores


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name
