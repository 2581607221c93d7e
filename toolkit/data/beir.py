"""BEIR folders: `corpus.jsonl`, `queries.jsonl` and `qrels/<split>.tsv`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from toolkit.data.sets import RetrievalSet
from toolkit.errors import DataError

_QRELS_COLUMNS = ("query-id", "corpus-id", "score")


def load_beir(folder: str | Path, *, split: str = "test") -> RetrievalSet:
    """Read a BEIR folder; queries without a judgement in `split` are left out.

    A document is its title and text joined by a space, as mteb does. Raises DataError with file and
    line for malformed input, and for judgements that name absent queries or documents.
    """
    folder = Path(folder)
    qrels_file = folder / "qrels" / f"{split}.tsv"
    for needed in (folder / "corpus.jsonl", folder / "queries.jsonl"):
        if not needed.is_file():
            raise DataError(
                f"{folder} is no BEIR folder: {needed.name} is missing; it needs corpus.jsonl, "
                "queries.jsonl and qrels/<split>.tsv"
            )
    if not qrels_file.is_file():
        splits = sorted(path.stem for path in (folder / "qrels").glob("*.tsv"))
        raise DataError(
            f"{folder} has no split {split!r}; choose one of: {', '.join(splits) or 'none there'}"
        )

    doc_ids, docs = [], []
    for record in _records(folder / "corpus.jsonl"):
        doc_ids.append(record["_id"])
        docs.append(f"{record.get('title') or ''} {record['text']}".strip())
    queries = {record["_id"]: record["text"] for record in _records(folder / "queries.jsonl")}

    qrels = _qrels(qrels_file)
    for query_id in qrels:
        if query_id not in queries:
            raise DataError(f"{qrels_file} judges query {query_id!r}, which is not in queries.jsonl")
    kept = [query_id for query_id in queries if query_id in qrels]
    name = folder.resolve().name + ("" if split == "test" else f"@{split}")
    return RetrievalSet(name, doc_ids, docs, kept, [queries[i] for i in kept], qrels)


def _records(path: Path) -> Iterator[dict]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{path}:{number}: not a JSON object ({error.msg}); each line must be one"
                ) from None
            if not isinstance(record, dict) or not all(
                isinstance(record.get(key), str) for key in ("_id", "text")
            ):
                raise DataError(f'{path}:{number}: each line needs "_id" and "text", both strings')
            yield record


def _qrels(path: Path) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    with path.open(encoding="utf-8", newline="") as lines:
        reader = csv.reader(lines, delimiter="\t")
        for number, row in enumerate(reader, start=1):
            if number == 1 and tuple(row) == _QRELS_COLUMNS:
                continue
            try:
                query_id, doc_id, gain = row
                qrels.setdefault(query_id, {})[doc_id] = int(gain)
            except ValueError:
                raise DataError(
                    f"{path}:{number}: expected query-id, corpus-id and a whole-number score between tabs, "
                    f"got {row!r}"
                ) from None
    return qrels
