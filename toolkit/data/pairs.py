"""Pair files: TSV with a header, either sentence1/sentence2/score (STS) or two columns of text (bitext)."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from toolkit.data.sets import PairSet
from toolkit.errors import DataError


def load_pairs(path: str | Path, *, split: str | None = None) -> PairSet:
    """Read a TSV of pairs.

    A file with a `score` column is an STS set (and may have a `split` column, of which `split`,
    "test" by default, is kept); any other two-column file is a bitext. Raises DataError.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is no file; a pair set is a TSV with a header line")
    with path.open(encoding="utf-8", newline="") as lines:
        # No quoting: these files hold bare quotation marks in their texts.
        rows = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    if len(rows) < 2:
        raise DataError(f"{path} has no pairs; it needs a header line and at least one pair")
    header, body = rows[0], rows[1:]
    for number, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise DataError(f"{path}:{number}: {len(row)} columns where the header has {len(header)}")
    if "score" in header:
        return _scored(path, header, body, split)
    if len(header) != 2:
        raise DataError(f"{path}: a bitext has two columns, this file has {len(header)}: {', '.join(header)}")
    left, right = zip(*body, strict=True)
    return PairSet(path.stem, left, right)


def _scored(path: Path, header: list[str], body: list[list[str]], split: str | None) -> PairSet:
    for needed in ("sentence1", "sentence2"):
        if needed not in header:
            raise DataError(f"{path}: no column {needed!r}; an STS file has sentence1, sentence2 and score")
    first, second, score = (header.index(name) for name in ("sentence1", "sentence2", "score"))
    name = path.stem
    numbered = list(enumerate(body, start=2))
    if "split" in header:
        wanted, column = split or "test", header.index("split")
        splits = sorted({row[column] for row in body})
        if wanted not in splits:
            raise DataError(f"{path} has no split {wanted!r}; choose one of: {', '.join(splits)}")
        numbered = [(number, row) for number, row in numbered if row[column] == wanted]
        name += "" if wanted == "test" else f"@{wanted}"
    scores = np.empty(len(numbered))
    for i, (number, row) in enumerate(numbered):
        try:
            scores[i] = float(row[score])
        except ValueError:
            raise DataError(f"{path}:{number}: score {row[score]!r} is no number") from None
    return PairSet(name, [row[first] for _, row in numbered], [row[second] for _, row in numbered], scores)
