"""The server's description of itself: an OpenAPI document of the fields that its parsers read and its limits.

Of a server that is ready the document is exact: its names, dimensions and vocabulary. Knows no route's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolkit.serve.service import Service
from toolkit.serve.settings import ServeSettings
from toolkit.wire import cohere, tei
from toolkit.wire.requests import MOST_DIMENSIONS, OPENAI_FIELDS, TYPES

Schema = dict[str, Any]

_ERRORS = {
    "400": "A field cannot be used: its value, what is allowed and the fix.",
    "401": "The API key is missing or wrong.",
    "404": "This model is not served here.",
    "408": "The body did not come whole in time.",
    "409": "The vectors are of another space than X-Expect-Space names.",
    "413": "The body or the answer would be too large.",
    "415": "The body is not JSON.",
    "429": "The queue is full; Retry-After says when to come back.",
    "500": "The engine failed.",
    "502": "The server behind this one failed.",
    "503": "The server is loading or stopping; Retry-After says when to come back.",
}


def document(settings: ServeSettings, service: Service | None, *, version: str) -> Schema:
    """The OpenAPI 3.1 document.

    service : None while the model loads; limits that come from the model are then left out.
    """
    limits = _Limits(settings, service)
    described: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "Embeddings",
            "version": version,
            "description": "One forward pass answers every dimension and type that a request names. "
            "Unknown fields are refused, and nothing is cut unless asked.",
        },
        "paths": {
            "/v1/embeddings": _vectors("OpenAI's API", limits.openai(), _openai_answer(), "Error"),
            "/v2/embed": _vectors("Cohere's API", limits.cohere(), _cohere_answer(), "CohereError"),
            "/embed": _vectors("TEI's API", limits.tei(), _rows(), "TeiError"),
            "/v1/models": _page("Names that are served, each with all that decides its vectors", _object()),
            "/v1/models/{name}": _page(
                "One of them",
                _object(),
                parameters=[_parameter("name", "path", _known({"type": "string"}, limits.names))],
                errors=("404",),
            ),
            "/v1/calibration": _page(
                "The ranges that 8- and 4-bit vectors are quantized with",
                _object(),
                parameters=[_parameter("dimensions", "query", limits.dim())],
                errors=("400", "404"),
            ),
            "/info": _page("The model and its limits, as TEI tells them", _object()),
            "/health": _page("That the process answers", _object(), errors=()),
            "/health/ready": _page("Whether it embeds: 200, else 503", _object(), errors=()),
            "/metrics": _page("For Prometheus", {"type": "string"}, kind="text/plain"),
            "/openapi.json": _page("This document", _object(), errors=()),
        },
        "components": {
            "schemas": {
                "Error": _object(error=_object(message=_TEXT, type=_TEXT, code=_TEXT, findings=_FINDINGS)),
                "CohereError": _object(id=_TEXT, message=_TEXT, findings=_FINDINGS),
                "TeiError": _object(error=_TEXT, error_type=_TEXT, findings=_FINDINGS),
            }
        },
    }
    # A server that is not ready says so, in the way of /health.
    described["paths"]["/health/ready"]["get"]["responses"]["503"] = _answer("Not yet, or no more", _object())
    if settings.keys:
        described["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path in described["paths"].values():
            for operation in path.values():
                if "401" in operation["responses"]:
                    operation["security"] = [{"key": []}]
    return described


class _Limits:
    """Schemas of the fields, with the limits of a server."""

    def __init__(self, settings: ServeSettings, service: Service | None) -> None:
        self._inputs = settings.most_inputs
        self._full_dim = service.model.space.full_dim if service else None
        self._vocabulary = service.limits.vocabulary if service else None
        self._takes_ids = service is None or self._vocabulary is not None
        self.names = list(service.model.aliases) if service else None

    def openai(self) -> Schema:
        """The body of /v1/embeddings."""
        fields = {
            "model": _known({"type": "string"}, self.names),
            "input": self._inputs_schema(),
            "dimensions": {
                "anyOf": [
                    self.dim(),
                    {"type": "array", "items": self.dim(), "minItems": 1, "maxItems": MOST_DIMENSIONS},
                    {"type": "null"},
                ],
                "description": "A list asks for vectors at each, under their names.",
            },
            "encoding_format": _one_of("float", "base64"),
            "user": {"type": ["string", "null"]},
            "embedding_types": _types(TYPES),
            "instruction": {
                "type": ["string", "null"],
                "description": "Of queries, put into the model's own template.",
            },
            "role": _one_of("query", "document"),
            "truncate": {
                "type": ["boolean", "null"],
                "description": "Cut texts that are too long; else refused.",
            },
        }
        return _body(fields, OPENAI_FIELDS, required=("model", "input"))

    def cohere(self) -> Schema:
        """The body of /v2/embed."""
        fields = {
            "model": _known({"type": "string"}, self.names),
            "texts": {"type": "array", "items": _WORDS, "minItems": 1, "maxItems": self._inputs},
            "input_type": {"type": "string", "enum": list(cohere.ROLES)},
            "output_dimension": {"anyOf": [self.dim(), {"type": "null"}]},
            "embedding_types": _types(cohere.KINDS),
            "truncate": _one_of(*cohere.TRUNCATIONS),
        }
        return _body(fields, cohere.FIELDS, required=("model", "texts", "input_type"))

    def tei(self) -> Schema:
        """The body of /embed."""
        fields = {
            "inputs": self._inputs_schema(),
            "dimensions": {"anyOf": [self.dim(), {"type": "null"}]},
            "normalize": {"enum": [True, None], "description": "Vectors have norm 1 here."},
            "prompt_name": _one_of(*tei.PROMPTS),
            "truncate": {"type": ["boolean", "null"]},
            "truncation_direction": _one_of(*tei.DIRECTIONS),
        }
        return _body(fields, tei.FIELDS, required=("inputs",))

    def dim(self) -> Schema:
        """A dimension."""
        return {"type": "integer", "minimum": 1, **({"maximum": self._full_dim} if self._full_dim else {})}

    def _inputs_schema(self) -> Schema:
        forms: list[Schema] = [
            _WORDS,
            {"type": "array", "items": _WORDS, "minItems": 1, "maxItems": self._inputs},
        ]
        if self._takes_ids:
            number: Schema = {"type": "integer", "minimum": 0}
            if self._vocabulary:
                number["maximum"] = self._vocabulary - 1
            ids = {"type": "array", "items": number, "minItems": 1}
            forms += [ids, {"type": "array", "items": ids, "minItems": 1, "maxItems": self._inputs}]
        return {"anyOf": forms, "description": "A text, texts, the token ids of one text, or of several."}


_TEXT: Schema = {"type": ["string", "null"]}
_WORDS: Schema = {"type": "string", "minLength": 1}
_NUMBERS: Schema = {"type": "array", "items": {"type": "number"}}
_VECTOR: Schema = {"anyOf": [_NUMBERS, {"type": "string", "contentEncoding": "base64"}]}
_FINDINGS: Schema = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": dict.fromkeys(("param", "problem", "allowed", "fix"), _TEXT),
        "required": ["param", "problem", "allowed", "fix"],
    },
}
_COUNT: Schema = {"type": "integer", "minimum": 0}


def _object(**properties: Schema) -> Schema:
    """All of them are always there; others may be."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _body(fields: dict[str, Schema], known: Sequence[str], *, required: Sequence[str]) -> Schema:
    """A request's, of the fields that its parser knows, in that order."""
    return {
        "type": "object",
        "properties": {name: fields[name] for name in known},
        "required": list(required),
        "additionalProperties": False,
    }


def _known(schema: Schema, choices: list[str] | None) -> Schema:
    return schema if choices is None else schema | {"enum": choices}


def _one_of(*words: str) -> Schema:
    return {"enum": [*words, None]}


def _types(known: Sequence[str]) -> Schema:
    one = {"type": "string", "enum": list(known)}
    several = {"type": "array", "items": one, "minItems": 1, "maxItems": len(known)}
    return {"anyOf": [one, several, {"type": "null"}]}


def _openai_answer() -> Schema:
    by_dim = {"type": "object", "additionalProperties": {"type": "object", "additionalProperties": _VECTOR}}
    entry = _object(
        object={"const": "embedding"}, index=_COUNT, embedding={"anyOf": [_VECTOR, {"type": "null"}]}
    )
    entry["properties"]["embeddings"] = by_dim | {"description": "Under their dimension and type."}
    return _object(
        object={"const": "list"},
        data={"type": "array", "items": entry},
        model={"type": "string"},
        usage=_object(prompt_tokens=_COUNT, total_tokens=_COUNT),
    )


def _cohere_answer() -> Schema:
    columns = {"type": "object", "additionalProperties": {"type": "array", "items": _VECTOR}}
    return _object(id={"type": "string"}, embeddings=columns, meta=_object(billed_units=_object()))


def _rows() -> Schema:
    return {"type": "array", "items": _NUMBERS}


def _answer(words: str, schema: Schema, kind: str = "application/json") -> Schema:
    return {"description": words, "content": {kind: {"schema": schema}}}


def _parameter(name: str, place: str, schema: Schema) -> Schema:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _vectors(summary: str, body: Schema, answer: Schema, error: str) -> Schema:
    refused = {"$ref": f"#/components/schemas/{error}"}
    return {
        "post": {
            "summary": f"Vectors of texts: {summary}",
            "parameters": [_parameter("X-Expect-Space", "header", {"type": "string"})],
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": {
                "200": _answer("The vectors", answer)
                | {"headers": {"X-Embedding-Space": {"schema": {"type": "string"}}}},
                **{status: _answer(words, refused) for status, words in _ERRORS.items()},
            },
        }
    }


def _page(
    summary: str,
    schema: Schema,
    *,
    kind: str = "application/json",
    parameters: Sequence[Schema] = (),
    errors: Sequence[str] | None = None,
) -> Schema:
    """A GET; of pages that need the key and the model, `errors` come on top of what these say."""
    refused = {"$ref": "#/components/schemas/Error"}
    told = () if errors == () else ("401", "503", *(errors or ()))
    operation: Schema = {
        "summary": summary,
        "responses": {"200": _answer("It", schema, kind)}
        | {status: _answer(_ERRORS[status], refused) for status in told},
    }
    if parameters:
        operation["parameters"] = list(parameters)
    return {"get": operation}
