"""Cohere's ``/v2/embed`` as this server speaks it: texts, one dimension, several types. Knows no model."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from toolkit.wire.answers import Answer, written
from toolkit.wire.findings import RequestError
from toolkit.wire.requests import TYPES, EmbeddingRequest, Limits, Reader

FIELDS = ("model", "texts", "input_type", "output_dimension", "embedding_types", "truncate")
ROLES = {
    "search_document": "document",
    "search_query": "query",
    "classification": "document",
    "clustering": "document",
}
# Cohere's own types, and this server's others.
KINDS = (*TYPES, "base64")
# Cohere cuts unless told otherwise; here a cut is asked for.
TRUNCATIONS = ("NONE", "END")


def parse_cohere(values: Mapping[str, Any], limits: Limits) -> EmbeddingRequest:
    """The request; raises RequestError with all findings."""
    reader = Reader(values, FIELDS)
    role = reader.choice("input_type", tuple(ROLES), required=True)
    kinds = reader.types("embedding_types", KINDS) or ("float",)
    if "base64" in kinds and "float" in kinds:
        reader.add("embedding_types", ", ".join(kinds), "float or base64", "ask for one of the two")
    request = EmbeddingRequest(
        model=reader.text("model", required=True),
        texts=reader.text_list("texts", limits),
        dims=reader.dim("output_dimension", limits),
        types=tuple("float" if kind == "base64" else kind for kind in kinds),
        several=True,
        base64="base64" in kinds,
        role=ROLES.get(role or ""),
        truncate=reader.choice("truncate", TRUNCATIONS) == "END",
    )
    return reader.finish(request, limits)


def write_cohere(answer: Answer) -> bytes:
    """The body of an answer; what this server has to add stands in ``meta``."""
    import orjson

    columns = []
    for (_, kind), rows in answer.vectors.items():
        as_base64 = answer.base64 and kind == "float"
        name = b"base64" if as_base64 else kind.encode()
        columns.append(b'"%b":[%b]' % (name, b",".join(written(rows, as_base64=as_base64))))
    billed = {"input_tokens": answer.usage.tokens}
    if answer.usage.cut:
        billed["truncated_tokens"] = answer.usage.cut
    meta = {"api_version": {"version": "2"}, "billed_units": billed, **answer.more}
    rest = orjson.dumps({"id": str(uuid.uuid4()), "meta": meta})
    return b'{"embeddings":{' + b",".join(columns) + b"}," + rest[1:]


def cohere_error(error: RequestError) -> dict[str, Any]:
    """An error as Cohere writes it; ``findings`` has each of them in parts."""
    return {"id": str(uuid.uuid4()), "message": str(error), "findings": error.told}
