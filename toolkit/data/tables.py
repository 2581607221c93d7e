"""Evaluation sets from CSV, Parquet and JSONL files: one table of judged pairs, or a folder of three tables.

<file>      columns query, document [, score, cluster]   judged pairs; equal texts are one
            or sentence1, sentence2 [, score]            a pair set
            or text [, id, title]                        documents without queries or judgements
<folder>    documents.<kind>  id, text [, title]
            queries.<kind>    id, text [, cluster]
            qrels.<kind>      query_id, document_id [, score]; without it, a set without judgements
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from toolkit.data.frames import judged_pairs, pair_set, retrieval_set, texts
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
        absent = next((part for part in parts if parts[part] is None), None)
        if absent == "documents" or (absent == "queries" and parts["qrels"] is not None):
            raise DataError(
                f"{path} has no {absent}.{kind}; it needs documents.{kind}, queries.{kind} and, for judgements, "
                f"qrels.{kind}"
            )
        name = path.resolve().name
        try:
            if absent:
                return texts(parts["documents"], parts["queries"], name=name)
            return retrieval_set(parts["documents"], parts["queries"], parts["qrels"], name=name)
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
        if "text" in frame.columns and not {"query", "document"} & set(frame.columns):
            return texts(frame, name=name)
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
        # Empty cells stay empty texts, and "NA" is a word; between tabs, quotation marks are part of the text.
        form = {"sep": "\t", "quoting": csv.QUOTE_NONE} if kind == "tsv" else {}
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", **form)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as {kind}: {' '.join(str(error).split())[:200]}") from None


def load_texts(place: str) -> RetrievalSet:
    """A set without judgements from a file of documents, as `read_texts` takes it; sentences stand in for queries."""
    path = Path(place)
    name = path.name.removesuffix(".gz")
    try:
        return texts(read_texts(path), name=name.rpartition(".")[0] or name)
    except DataError as error:
        raise DataError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None


def read_texts(path: Path) -> Any:  # noqa: ANN401 - a list or a pandas frame
    """The texts of a file: a table by its suffix (csv, tsv, jsonl, parquet), else one per line, blank ones left out.

    Any of them may be gzipped. Raises DataError if it cannot be read.
    """
    if not path.is_file():
        raise DataError(
            f"{path} is not a file; give one with a text per line (.txt), or a table with a column text "
            "(.csv, .tsv, .jsonl, .parquet)"
        )
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind in (*KINDS, "tsv"):
        return read_table(path, kind)
    return [line for _, line in text_lines(path) if line.strip()]


def _part(folder: Path, part: str, kind: str) -> Any:  # noqa: ANN401
    for path in (folder / f"{part}.{kind}", folder / f"{part}.{kind}.gz"):
        if path.is_file():
            return read_table(path, kind)
    return None
