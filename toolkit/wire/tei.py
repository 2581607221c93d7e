"""TEI's ``/embed`` as this server speaks it: vectors alone, in the order of the inputs. Knows no model."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from toolkit.wire.answers import Answer, written
from toolkit.wire.findings import RequestError
from toolkit.wire.requests import EmbeddingRequest, Limits, Reader

FIELDS = ("inputs", "dimensions", "normalize", "prompt_name", "truncate", "truncation_direction")
PROMPTS = ("query", "document")
DIRECTIONS = ("Right", "right")

_ERROR_TYPES = {
    HTTPStatus.TOO_MANY_REQUESTS: "Overloaded",
    HTTPStatus.SERVICE_UNAVAILABLE: "Unhealthy",
}


def parse_tei(values: Mapping[str, Any], limits: Limits) -> EmbeddingRequest:
    """The request; raises RequestError with all findings. ``prompt_name`` is the role that a text is embedded in."""
    reader = Reader(values, FIELDS)
    if not reader.flag("normalize", default=True):
        reader.add("normalize", value=False, allowed="true", fix="vectors have norm 1 here: leave it out")
    reader.choice("truncation_direction", DIRECTIONS)
    texts, token_ids = reader.inputs("inputs", limits)
    request = EmbeddingRequest(
        texts=texts,
        token_ids=token_ids,
        dims=reader.dim("dimensions", limits),
        role=reader.choice("prompt_name", PROMPTS),
        truncate=reader.flag("truncate", default=False),
    )
    return reader.finish(request, limits)


def write_tei(answer: Answer) -> bytes:
    """The body of an answer: a list of vectors."""
    (rows,) = answer.vectors.values()
    return b"[" + b",".join(written(rows, as_base64=False)) + b"]"


def tei_error(error: RequestError) -> dict[str, Any]:
    """An error as TEI writes it; ``findings`` has each of them in parts."""
    kind = _ERROR_TYPES.get(HTTPStatus(error.status), "Validation" if error.status < 500 else "Backend")
    return {"error": str(error), "error_type": kind, "findings": error.told}
