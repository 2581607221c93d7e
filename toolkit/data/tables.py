"""Evaluation sets from CSV, Parquet and JSONL files: one table of judged pairs, or a folder of three tables.

<file>      columns query, document [, score]            judged pairs; equal texts are one
            or sentence1, sentence2 [, score]            a pair set
<folder>    documents.<kind>  id, text [, title]
            queries.<kind>    id, text
            qrels.<kind>      query_id, document_id [, score]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit.data.frames import judged_pairs, pair_set, retrieval_set
from toolkit.data.sets import PairSet, RetrievalSet
from toolkit.data.text_files import json_lines, text_lines
from toolkit.errors import DataError

KINDS = ("csv", "parquet", "jsonl")


def load_tables(place: str, *, kind: str) -> RetrievalSet | PairSet:
    """Read a file or folder of tables of one `kind`, each also gzipped (``.csv.gz``, ``.jsonl.gz``).

    Raises DataError naming file, columns found and columns needed.
    """
    path = Path(place)
    if path.is_dir():
        parts = {part: _part(path, part, kind) for part in ("documents", "queries", "qrels")}
        try:
            return retrieval_set(
                parts["documents"], parts["queries"], parts["qrels"], name=path.resolve().name
            )
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
    if not path.is_file():
        raise DataError(
            f"{path} does not exist; give a {kind} file with columns query, document[, score], or a folder with "
            f"documents.{kind}, queries.{kind} and qrels.{kind}"
        )
    frame = read_table(path, kind)
    name = path.name.removesuffix(".gz").removesuffix(f".{kind}")
    try:
        if "sentence1" in frame.columns:
            return pair_set(frame, name=name)
        return judged_pairs({str(column): frame[column].tolist() for column in frame.columns}, name=name)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def read_table(path: Path, kind: str) -> Any:  # noqa: ANN401 - a pandas frame
    """A file as a pandas frame; texts stay texts. Raises DataError if it cannot be read."""
    import pandas as pd

    try:
        if kind == "parquet":
            return pd.read_parquet(path)
        if kind == "jsonl":
            return pd.DataFrame([record for _, record in json_lines(path)])
        for _ in text_lines(path):  # pandas says neither line nor byte of what is not UTF-8
            pass
        # Empty cells stay empty texts, and "NA" is a word.
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError, pd.errors.ParserError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as {kind}: {' '.join(str(error).split())[:200]}") from None


def _part(folder: Path, part: str, kind: str) -> Any:  # noqa: ANN401
    for path in (folder / f"{part}.{kind}", folder / f"{part}.{kind}.gz"):
        if path.is_file():
            return read_table(path, kind)
    raise DataError(
        f"{folder} has no {part}.{kind}; it needs documents.{kind}, queries.{kind} and qrels.{kind}"
    )
