"""Lines, JSON objects and tables from files of strangers: UTF-8, plain or gzipped; every failure names its place.

Knows nothing of what the lines mean.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolkit.errors import DataError
from toolkit.files import parse_json

_BOM = b"\xef\xbb\xbf"


def text_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    r"""(number from 1, line without its end) of a UTF-8 file, a gzipped one by its suffix `.gz`; read as it is used.

    Lines end at ``\n`` or ``\r\n`` and nowhere else: form feeds and Unicode's own line separators are part of
    texts. Raises DataError naming file, line and byte.
    """
    path = Path(path)
    opens = gzip.open if path.suffix == ".gz" else open
    try:
        with opens(path, "rb") as file:
            for number, raw in enumerate(file, start=1):
                line = raw.removeprefix(_BOM) if number == 1 else raw
                line = line.removesuffix(b"\n").removesuffix(b"\r")
                try:
                    yield number, line.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{path}:{number}: not UTF-8 text (byte {error.start + 1} of the line is "
                        f"{line[error.start]:#04x}); convert the file, for example with: "
                        f"iconv -f latin1 -t utf-8 {path.name}"
                    ) from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path} cannot be read: {reason}") from None


def json_lines(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, object) of each line that is not blank; raises DataError for a line that is not a JSON object."""
    for number, line in text_lines(path):
        if not line.strip():
            continue
        yield number, json_record(line, where=f"{path}:{number}")


def json_record(line: str, *, where: str) -> dict[str, Any]:
    """The JSON object of a line; raises DataError, naming `where`, for anything else."""
    try:
        record = parse_json(line)
    except ValueError as error:
        reason = getattr(error, "msg", "nested too deeply")
        raise DataError(f"{where}: not a JSON object ({reason}); each line must be one") from None
    if not isinstance(record, dict):
        raise DataError(f"{where}: not a JSON object but {type(record).__name__}; each line must be one")
    return record


def read_texts(path: str | Path) -> list[str]:
    """The texts of a `.jsonl` file (field ``text``) or of any other file, one per line; `.gz` as well.

    Blank lines of a plain file are kept as empty texts, so that row i is line i. Raises DataError.
    """
    texts = list(stream_texts(path))
    if not texts:
        raise DataError(f"{path} holds no texts; write one per line")
    return texts


def stream_texts(path: str | Path) -> Iterator[str]:
    """As `read_texts`, one after another."""
    path = Path(path)
    if path.name.removesuffix(".gz").endswith(".jsonl"):
        for number, record in json_lines(path):
            if not isinstance(record.get("text"), str):
                raise DataError(f'{path}:{number}: each line must be a JSON object with a string "text"')
            yield record["text"]
    else:
        for _, line in text_lines(path):
            yield line
