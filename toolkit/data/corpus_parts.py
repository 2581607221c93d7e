"""A corpus of any size as parts that can be read apart: spans of lines, row groups of Parquet, whole files.

    a BEIR folder, or its corpus.jsonl       {"_id": .., "title": .., "text": ..} per line
    .jsonl, .csv, .parquet, .txt             one file, the first three with a column `text` and maybe `title`
    a folder of such files                   all of one kind, by name

The text of a document is its title and text joined by a space, just as `data.beir` and `data.frames` have it, so
that a sweep over the same files finds the same texts. Texts come one after another: no more than a block of one
part is ever held. Knows nothing of models.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from toolkit.data.text_files import json_record, stream_texts, text_lines
from toolkit.errors import DataError

_KINDS = ("jsonl", "parquet", "csv", "txt")
# A part is some seconds of reading: small enough that workers finish together, large enough that opening costs nothing.
_PART_BYTES = 64 * 2**20
_PARQUET_ROWS = 4_096
# A field of a stranger's CSV may be a whole document.
_LONGEST_FIELD = 2**31 - 1


@dataclass(frozen=True)
class CorpusPart:
    """What one reader reads.

    path, kind : a file, and how its texts lie in it; ``beir`` is the JSONL of a corpus.jsonl.
    start, end : bytes of a span of lines, or row groups of Parquet; the whole file where `end` is None.
    """

    path: str
    kind: str
    start: int = 0
    end: int | None = None


def corpus_parts(corpus: str | Path, *, part_bytes: int = _PART_BYTES) -> list[CorpusPart]:
    """The parts of a corpus, in order; together they hold every text once.

    corpus : a file or folder, or ``beir:<folder>``. Raises DataError for one that cannot be read.
    """
    place = Path(str(corpus).removeprefix("beir:"))
    files = [place]
    if place.is_dir():
        files = _files_of(place)
    elif not place.is_file():
        raise DataError(
            f"{place} does not exist; give a .jsonl, .csv, .parquet or .txt file, or a folder of them"
        )
    return [part for path in files for part in _parts_of(path, part_bytes)]


def part_texts(part: CorpusPart) -> Iterator[str]:
    """The texts of a part, one after another; raises DataError naming file and place."""
    path = Path(part.path)
    if part.kind == "parquet":
        return _parquet_texts(path, range(part.start, part.end or 0))
    if part.kind == "csv":
        return _csv_texts(path)
    if part.kind == "txt":
        return stream_texts(path)
    return _json_texts(part)


def _files_of(folder: Path) -> list[Path]:
    for name in ("corpus.jsonl", "corpus.jsonl.gz"):
        if (folder / name).is_file():
            return [folder / name]
    files = sorted(path for path in folder.iterdir() if path.is_file() and _kind(path) in _KINDS)
    kinds = sorted({_kind(path) for path in files})
    if len(kinds) != 1:
        found = f"files of several kinds ({', '.join(kinds)})" if kinds else "no such file"
        raise DataError(
            f"{folder} holds {found}; a corpus folder has a corpus.jsonl (BEIR), or files of one kind: "
            f"{', '.join(f'.{kind}' for kind in _KINDS)}"
        )
    return files


def _kind(path: Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[2].lower()


def _parts_of(path: Path, part_bytes: int) -> list[CorpusPart]:
    kind = _kind(path)
    if kind not in _KINDS:
        kind = "txt"
    if kind == "parquet":
        return _row_groups(path, part_bytes)
    if path.name.removesuffix(".gz") == "corpus.jsonl":
        kind = "beir"
    if kind in ("jsonl", "beir") and path.suffix != ".gz":
        size = path.stat().st_size
        edges = [*range(0, size, part_bytes), size]
        return [CorpusPart(str(path), kind, start, end) for start, end in pairwise(edges)]
    return [CorpusPart(str(path), kind)]


def _row_groups(path: Path, part_bytes: int) -> list[CorpusPart]:
    about = _parquet(path).metadata
    parts, start, size = [], 0, 0
    for group in range(about.num_row_groups):
        size += about.row_group(group).total_byte_size
        if size >= part_bytes:
            parts.append(CorpusPart(str(path), "parquet", start, group + 1))
            start, size = group + 1, 0
    if start < about.num_row_groups:
        parts.append(CorpusPart(str(path), "parquet", start, about.num_row_groups))
    return parts


def _json_texts(part: CorpusPart) -> Iterator[str]:
    """Of the lines that begin in the span: a line belongs to the part that holds its first byte."""
    path = Path(part.path)
    for place, line in _lines(part):
        if not line.strip():
            continue
        record = json_record(line, where=f"{path}:{place}")
        text = record.get("text")
        if not isinstance(text, str):
            raise DataError(f'{path}:{place}: each line must be a JSON object with a string "text"')
        yield _titled(record.get("title"), text) if part.kind == "beir" or "title" in record else text


def _lines(part: CorpusPart) -> Iterator[tuple[str, str]]:
    path = Path(part.path)
    if part.end is None:
        for number, line in text_lines(path):
            yield str(number), line
        return
    try:
        with path.open("rb") as file:
            if part.start:
                # The byte before the span: a line that ends there leaves its first line whole.
                file.seek(part.start - 1)
                file.readline()
            while file.tell() < part.end:
                place = f"byte {file.tell()}"
                raw = file.readline()
                raw = raw.removeprefix(b"\xef\xbb\xbf") if place == "byte 0" else raw
                try:
                    yield place, raw.decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError:
                    raise DataError(
                        f"{path}:{place}: not UTF-8 text; convert the file, for example with: "
                        f"iconv -f latin1 -t utf-8 {path.name}"
                    ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _csv_texts(path: Path) -> Iterator[str]:
    csv.field_size_limit(_LONGEST_FIELD)
    lines = (f"{line}\n" for _, line in text_lines(path))
    reader = csv.DictReader(lines)
    _check_columns(path, reader.fieldnames or [])
    try:
        for row in reader:
            if row["text"] is None:
                raise DataError(f"{path}:{reader.line_num}: the row has no column text")
            yield _titled(row["title"], row["text"]) if "title" in row else row["text"]
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not CSV ({error})") from None


def _parquet_texts(path: Path, groups: Sequence[int]) -> Iterator[str]:
    import pyarrow as pa

    file = _parquet(path)
    names = file.schema_arrow.names
    _check_columns(path, names)
    columns = [name for name in ("text", "title") if name in names]
    try:
        for batch in file.iter_batches(_PARQUET_ROWS, row_groups=list(groups), columns=columns):
            found = batch.to_pydict()
            for text, title in zip(found["text"], found.get("title", [None] * len(batch)), strict=True):
                if not isinstance(text, str):
                    raise DataError(f"{path}: column text holds {text!r:.40}, not a string")
                yield _titled(title, text) if "title" in names else text
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from None


def _parquet(path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as parquet: {' '.join(str(error).split())[:200]}") from None


def _check_columns(path: Path, names: Sequence[str]) -> None:
    if "text" not in names:
        raise DataError(
            f"{path} has the columns {', '.join(names) or 'none'}; it needs text (and title, if any)"
        )


def _titled(title: object, text: str) -> str:
    return f"{title or ''} {text}".strip()
