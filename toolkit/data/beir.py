"""BEIR folders: `corpus.jsonl`, `queries.jsonl` and `qrels/<split>.tsv`, each also gzipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from toolkit.data.sets import RetrievalSet
from toolkit.data.text_files import json_lines, text_lines
from toolkit.errors import DataError

# The header BEIR writes; a file without one is read as well.
_QRELS_HEADS = ("query-id", "query_id", "qid")


def load_beir(folder: str | Path, *, split: str = "test") -> RetrievalSet:
    """Read a BEIR folder; queries without a judgement in `split` are left out.

    A document is its title and text joined by a space, as mteb does. Ids may be numbers. A split is three columns
    between tabs (query, document, gain) or four between any blanks, as TREC writes them (query, 0, document,
    gain). Raises DataError with file and line for malformed input, and for judgements that name absent queries
    or documents.
    """
    folder = Path(folder)
    corpus, queries_file = (_file(folder, name) for name in ("corpus.jsonl", "queries.jsonl"))
    qrels_file = _split_file(folder, split)
    doc_ids, docs = [], []
    for _, doc_id, record in _records(corpus):
        doc_ids.append(doc_id)
        docs.append(f"{record.get('title') or ''} {record['text']}".strip())
    queries: dict[str, str] = {}
    for number, query_id, record in _records(queries_file):
        if query_id in queries:
            raise DataError(
                f"{queries_file}:{number}: query id {query_id!r} stands more than once; ids must differ"
            )
        queries[query_id] = record["text"]

    qrels = read_qrels(qrels_file)
    for query_id in qrels:
        if query_id not in queries:
            raise DataError(f"{qrels_file} judges query {query_id!r}, which is not in {queries_file.name}")
    kept = [query_id for query_id in queries if query_id in qrels]
    name = folder.resolve().name + ("" if split == "test" else f"@{split}")
    return RetrievalSet(name, doc_ids, docs, kept, [queries[i] for i in kept], qrels)


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Judgements as {query id: {document id: gain}}; raises DataError with file and line."""
    qrels: dict[str, dict[str, int]] = {}
    for number, line in text_lines(path):
        if not line.strip():
            continue
        row = line.split("\t") if "\t" in line else line.split()
        if number == 1 and row[0].lower() in _QRELS_HEADS:
            continue
        try:
            if "\t" in line and len(row) == 3:
                query_id, doc_id, gain = row
            else:
                query_id, _, doc_id, gain = row
            qrels.setdefault(query_id, {})[doc_id] = whole_gain(gain)
        except ValueError:
            raise DataError(
                f"{path}:{number}: expected query-id, corpus-id and a whole-number score between tabs, or TREC's "
                f"four columns, got {row!r}"
            ) from None
    return qrels


def whole_gain(value: object) -> int:
    """A gain such as ``2``, ``"2"`` or ``"2.0"``; raises ValueError for one that is not whole."""
    number = float(value)  # type: ignore[arg-type] - float says what it cannot take
    if number != int(number):
        raise ValueError(f"{value!r} is not a whole number")
    return int(number)


def _file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(
        f"{folder} is not a BEIR folder: {name} is missing; it needs corpus.jsonl, queries.jsonl and "
        "qrels/<split>.tsv"
    )


def _split_file(folder: Path, split: str) -> Path:
    there = {
        path.name.removesuffix(".gz").removesuffix(".tsv"): path
        for path in sorted((folder / "qrels").glob("*.tsv*"))
    }
    if split in there:
        return there[split]
    if not there:
        raise DataError(f"{folder} has no judgements: its folder qrels needs a file {split}.tsv")
    raise DataError(f"{folder} has no split {split!r}; choose one of: {', '.join(there)}")


def _records(path: Path) -> Iterator[tuple[int, str, dict]]:
    for number, record in json_lines(path):
        named, text = record.get("_id"), record.get("text")
        if isinstance(named, bool) or not isinstance(named, str | int) or not isinstance(text, str):
            raise DataError(
                f'{path}:{number}: each line needs "_id", a string or whole number, and "text", a string'
            )
        yield number, str(named), record
