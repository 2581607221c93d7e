"""Answers as bytes: vectors to JSON without a Python loop over numbers. Knows no request's way through a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Usage:
    """Tokens of a request: those that were embedded, and those that were cut off before."""

    tokens: int
    cut: int = 0


@dataclass(frozen=True)
class Answer:
    """Vectors of one request, by dimension and type.

    vectors : from dimension and type to (n, width) arrays in the order of the inputs.
    several : whether they go by name; otherwise there is one, and it is the embedding.
    more : further fields of the answer.
    """

    model: str
    vectors: Mapping[tuple[int, str], np.ndarray]
    usage: Usage
    several: bool = False
    base64: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)


def write_openai(answer: Answer) -> bytes:
    """The body of ``/v1/embeddings``. With several vectors an input, ``embedding`` is null and ``embeddings`` has
    them under their dimension and type.
    """
    import orjson

    count = len(next(iter(answer.vectors.values())))
    if answer.several:
        columns = {key: written(rows, as_base64=answer.base64) for key, rows in answer.vectors.items()}
        entries = [_several(i, columns) for i in range(count)]
    else:
        rows = next(iter(answer.vectors.values()))
        opening = b'{"object":"embedding","index":%d,"embedding":'
        entries = [
            opening % i + value + b"}" for i, value in enumerate(written(rows, as_base64=answer.base64))
        ]
    usage = {"prompt_tokens": answer.usage.tokens, "total_tokens": answer.usage.tokens}
    if answer.usage.cut:
        usage["truncated_tokens"] = answer.usage.cut
    rest = orjson.dumps({"model": answer.model, "usage": usage, **answer.more})
    return b'{"object":"list","data":[' + b",".join(entries) + b"]," + rest[1:]


def written(rows: np.ndarray, *, as_base64: bool) -> list[bytes]:
    """Each row as JSON: a list of numbers, or a string with the base64 of its little-endian bytes."""
    import orjson

    rows = np.ascontiguousarray(rows)
    if as_base64:
        import pybase64

        little = rows.astype(rows.dtype.newbyteorder("<"), copy=False)
        return [b'"%b"' % pybase64.b64encode(row) for row in little]
    if rows.dtype == np.float16:
        # The shortest decimals of float32 that give the same float16: orjson writes no halves exactly so.
        rows = rows.astype(np.float32)
    return [orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) for row in rows]


def _several(index: int, columns: Mapping[tuple[int, str], Sequence[bytes]]) -> bytes:
    by_dim: dict[int, list[bytes]] = {}
    for (dim, kind), values in columns.items():
        by_dim.setdefault(dim, []).append(b'"%b":' % kind.encode() + values[index])
    parts = b",".join(b'"%d":{%b}' % (dim, b",".join(kinds)) for dim, kinds in by_dim.items())
    return b'{"object":"embedding","index":%d,"embedding":null,"embeddings":{%b}}' % (index, parts)
