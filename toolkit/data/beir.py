"""BEIR folders: `corpus.jsonl`, `queries.jsonl` and `qrels/<split>.tsv`, each also gzipped."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from toolkit.data.columns import COLUMNS, Texts, named_clusters
from toolkit.data.sentences import sentences_of
from toolkit.data.sets import GIVEN, SENTENCES, UNJUDGED, RetrievalSet
from toolkit.data.text_files import json_lines, text_lines
from toolkit.errors import DataError

# The header BEIR writes; a file without one is read as well.
_QRELS_HEADS = COLUMNS["query_id"]
_CLUSTER_HEADS = (*COLUMNS["query_id"], *COLUMNS["id"])


def load_beir(folder: str | Path, *, split: str | None = None) -> RetrievalSet:
    """Read a BEIR folder; queries without a judgement in `split` are those of the set without labels.

    split : the judgements, ``qrels/<split>.tsv``; ``test`` if not given. Without a folder ``qrels`` the set has no
        judgement at all; without ``queries.jsonl`` as well, sentences of the documents stand in for queries.

    A document is its title and text joined by a space, as mteb does. Ids may be numbers. A split is three columns
    between tabs (query, document, gain) or four between any blanks, as TREC writes them (query, 0, document,
    gain). Queries that are not independent share a ``cluster``: a key of the query or of its ``metadata``, or the
    second column of ``clusters.tsv``. Raises DataError with file and line for malformed input, and for judgements
    that name absent queries or documents.
    """
    folder = Path(folder)
    corpus = _file(folder, "corpus.jsonl")
    judged = split is not None or (folder / "qrels").exists()
    queries_file = _file(folder, "queries.jsonl") if judged else _there(folder, "queries.jsonl")
    qrels_file = _split_file(folder, split or "test") if judged else None
    doc_ids, docs = [], []
    for _, doc_id, record in _records(corpus):
        doc_ids.append(doc_id)
        docs.append(f"{record.get('title') or ''} {record['text']}".strip())
    asked = None if queries_file is None else _queries(queries_file, _there(folder, "clusters.tsv"))
    name = folder.resolve().name
    if asked is None or qrels_file is None:
        queries, source = (sentences_of(docs), SENTENCES) if asked is None else (asked, GIVEN)
        return RetrievalSet(
            name,
            doc_ids,
            docs,
            queries.ids,
            queries.texts,
            {},
            unlabelled_source=source,
            clusters=queries.clusters,
        )
    qrels = read_qrels(qrels_file)
    for query_id in qrels:
        if query_id not in asked.by_id:
            raise DataError(f"{qrels_file} judges query {query_id!r}, which is not in {queries_file.name}")
    kept, others = ([i for i in asked.ids if (i in qrels) == wanted] for wanted in (True, False))
    return RetrievalSet(
        name + ("" if split in (None, "test") else f"@{split}"),
        doc_ids,
        docs,
        kept,
        [asked.by_id[i] for i in kept],
        qrels,
        unlabelled_ids=others,
        unlabelled=[asked.by_id[i] for i in others],
        unlabelled_source=UNJUDGED if others else "",
        clusters=asked.clusters,
    )


def _queries(path: Path, clusters_file: Path | None) -> Texts:
    queries: dict[str, str] = {}
    clusters: dict[str, str] = {}
    for number, query_id, record in _records(path):
        if query_id in queries:
            raise DataError(f"{path}:{number}: query id {query_id!r} stands more than once; ids must differ")
        queries[query_id] = record["text"]
        about = record.get("metadata")
        cluster = record.get("cluster", about.get("cluster") if isinstance(about, dict) else None)
        if cluster is not None:
            clusters[query_id] = str(cluster)
    if clusters_file is not None:
        clusters |= read_clusters(clusters_file)
    return Texts(queries, {query_id: name for query_id, name in clusters.items() if query_id in queries})


def read_clusters(path: Path) -> dict[str, str]:
    """The first two columns of a file, query id and cluster, between tabs, or commas in a ``.csv``; may be gzipped.

    A header is passed over. Raises DataError with file and line.
    """
    comma = path.name.removesuffix(".gz").endswith(".csv")
    ids, names = [], []
    for number, line in text_lines(path):
        row = next(csv.reader([line])) if comma else line.split("\t")
        if not line.strip() or (number == 1 and row[0].lower() in _CLUSTER_HEADS):
            continue
        if len(row) < 2:
            raise DataError(
                f"{path}:{number}: expected query-id and cluster between {'commas' if comma else 'tabs'}, got {row!r}"
            )
        ids.append(row[0])
        names.append(row[1])
    try:
        return named_clusters(ids, names)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


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


def _there(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _file(folder: Path, name: str) -> Path:
    path = _there(folder, name)
    if path is not None:
        return path
    raise DataError(
        f"{folder} is not a BEIR folder: {name} is missing; it needs corpus.jsonl, queries.jsonl and, for "
        "judgements, qrels/<split>.tsv"
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
