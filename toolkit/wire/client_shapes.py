"""Requests as each embedding API wants them, and where in its answer the vectors are. Sends nothing.

The end of an address says which API it speaks: ``/embed`` TEI, ``/v2/embed`` Cohere, ``/api/embed`` Ollama, anything
else OpenAI, which is also spoken by vLLM, SGLang, infinity and llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Texts, token ids of one text, or token ids of several.
Inputs = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]


@dataclass(frozen=True)
class Ask:
    """One request, before it has a shape.

    dimensions : None asks for the full vector. encoding : ``float``, ``base64``, or None for the server's default.
    more : further fields, sent as they are.
    """

    inputs: Inputs
    model: str
    dimensions: Any = None
    encoding: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Vectors that the answer must hold."""
        if isinstance(self.inputs, str) or (self.inputs and isinstance(self.inputs[0], int)):
            return 1
        return len(self.inputs)


@dataclass(frozen=True)
class Answered:
    """What an answer holds, unchecked.

    values : numbers or base64 for each vector. indexes : which input each is of; None where the API has no such
        field and order alone tells. tokens : that the server counted; None where it says nothing.
    """

    values: list[Any]
    indexes: list[Any] | None
    tokens: Any
    model: Any = None


@dataclass(frozen=True)
class Shape:
    """One API: how it is called, and how it answers.

    name : of the API. path : after the server's address. takes_token_ids, encodes_base64, counts_tokens : what it
        has.
    body : the JSON object of an Ask. read : what a parsed answer holds, or None if it holds no embeddings.
    """

    name: str
    path: str
    body: Callable[[Ask], dict[str, Any]]
    read: Callable[[Any], Answered | None]
    takes_token_ids: bool = False
    encodes_base64: bool = False
    counts_tokens: bool = True


def _openai_body(ask: Ask) -> dict[str, Any]:
    body = {"model": ask.model, "input": _plain(ask.inputs), **ask.more}
    if ask.encoding is not None:
        body["encoding_format"] = ask.encoding
    if ask.dimensions is not None:
        body["dimensions"] = ask.dimensions
    return body


def _openai_read(payload: Any) -> Answered | None:  # noqa: ANN401 - JSON
    entries = payload.get("data") if isinstance(payload, Mapping) else None
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        return None
    usage = payload.get("usage")
    return Answered(
        values=[entry.get("embedding") for entry in entries],
        indexes=[entry.get("index") for entry in entries],
        tokens=usage.get("prompt_tokens") if isinstance(usage, Mapping) else None,
        model=payload.get("model"),
    )


def _tei_body(ask: Ask) -> dict[str, Any]:
    body = {"inputs": _plain(ask.inputs), **ask.more}
    if ask.dimensions is not None:
        body["dimensions"] = ask.dimensions
    return body


def _tei_read(payload: Any) -> Answered | None:  # noqa: ANN401 - JSON
    return Answered(values=payload, indexes=None, tokens=None) if isinstance(payload, list) else None


def _cohere_body(ask: Ask) -> dict[str, Any]:
    texts = [ask.inputs] if isinstance(ask.inputs, str) else _plain(ask.inputs)
    body = {"model": ask.model, "texts": texts, "input_type": "search_document", "embedding_types": ["float"]}
    if ask.dimensions is not None:
        body["output_dimension"] = ask.dimensions
    return body | dict(ask.more)


def _cohere_read(payload: Any) -> Answered | None:  # noqa: ANN401 - JSON
    vectors = payload.get("embeddings") if isinstance(payload, Mapping) else None
    if isinstance(vectors, Mapping):
        vectors = vectors.get("float")
    if not isinstance(vectors, list):
        return None
    meta = payload.get("meta")
    billed = meta.get("billed_units") if isinstance(meta, Mapping) else None
    tokens = billed.get("input_tokens") if isinstance(billed, Mapping) else None
    return Answered(values=vectors, indexes=None, tokens=tokens)


def _ollama_body(ask: Ask) -> dict[str, Any]:
    # It cuts long texts unless told otherwise, and says nothing of it.
    body = {"model": ask.model, "input": _plain(ask.inputs), "truncate": False}
    if ask.dimensions is not None:
        body["dimensions"] = ask.dimensions
    return body | dict(ask.more)


def _ollama_read(payload: Any) -> Answered | None:  # noqa: ANN401 - JSON
    vectors = payload.get("embeddings") if isinstance(payload, Mapping) else None
    if not isinstance(vectors, list):
        return None
    return Answered(vectors, None, payload.get("prompt_eval_count"), payload.get("model"))


def _plain(inputs: Inputs) -> Any:  # noqa: ANN401 - JSON
    return inputs if isinstance(inputs, str) else list(inputs)


OPENAI = Shape("openai", "/embeddings", _openai_body, _openai_read, takes_token_ids=True, encodes_base64=True)
TEI = Shape("tei", "/embed", _tei_body, _tei_read, counts_tokens=False)
COHERE = Shape("cohere", "/v2/embed", _cohere_body, _cohere_read)
OLLAMA = Shape("ollama", "/api/embed", _ollama_body, _ollama_read)
SHAPES = {shape.name: shape for shape in (OPENAI, TEI, COHERE, OLLAMA)}


@dataclass(frozen=True)
class Address:
    """Where a server is and what it speaks.

    base : without the path of the request, for example ``http://host:30000/v1``.
    """

    base: str
    shape: Shape

    @classmethod
    def of(cls, url: str) -> Address:
        """The address and API of a URL, which may end with the path of its requests."""
        url = url.rstrip("/")
        for shape in (COHERE, OLLAMA, TEI, OPENAI):  # TEI's path is the end of Cohere's and Ollama's
            if url.endswith(shape.path):
                return cls(url.removesuffix(shape.path), shape)
        return cls(url, OPENAI)

    @property
    def url(self) -> str:
        """As its user writes it: of an OpenAI API the base, of others with the path that names them."""
        return self.base if self.shape is OPENAI else self.base + self.shape.path

    @property
    def requests(self) -> str:
        """Where requests go."""
        return self.base + self.shape.path

    @property
    def root(self) -> str:
        """The server, without a version in the path: where ``/health`` would be."""
        return self.base.removesuffix("/v1")

    @property
    def models(self) -> str:
        """Where an OpenAI API lists its models."""
        return f"{self.base if self.shape is OPENAI else self.root + '/v1'}/models"
