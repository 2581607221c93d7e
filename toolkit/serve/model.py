"""The model that is served, as those who speak HTTP know it: its space, tokens, templates and names."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from toolkit.embedding.tokens import TokenCounter
from toolkit.errors import ToolkitWarning
from toolkit.space import EmbeddingSpace, Instruction, Role
from toolkit.wire.findings import Finding, RequestError
from toolkit.wire.requests import EmbeddingRequest

_KEPT_RENDERERS = 256


@dataclass(frozen=True)
class Alias:
    """A name with defaults of its own.

    dim, instruction : for requests that name none. kind, query_kind : the type of numbers of a document's and of a
    query's vectors likewise. about : what /v1/models says of it.
    """

    dim: int | None = None
    instruction: str | None = None
    kind: str = "float"
    query_kind: str = "float"
    about: dict[str, Any] = field(default_factory=dict)


class ServedModel:
    """Renders, counts and checks; runs nothing.

    counter : None where the tokenizer is not known; tokens are then estimated and never too many.
    aliases : names and their defaults; the first is the model's own.
    """

    def __init__(
        self, space: EmbeddingSpace, counter: TokenCounter | None, aliases: dict[str, Alias]
    ) -> None:
        self.space = space
        self.counter = counter
        self.aliases = aliases
        self.fingerprint = space.fingerprint
        self._created = int(time.time())
        self._renderers: dict[tuple[str, str | None], tuple[Callable[[str], str] | None, list[str]]] = {}

    @property
    def name(self) -> str:
        """The model's own."""
        return next(iter(self.aliases))

    @property
    def max_tokens(self) -> int:
        """Of one text; 0 is any number."""
        return self.space.max_tokens

    def alias(self, name: str | None) -> Alias:
        """What a name stands for; raises RequestError (404) for one that is not served."""
        if name is None:
            return self.aliases[self.name]
        if name not in self.aliases:
            names = ", ".join(self.aliases)
            finding = Finding("model", f"model {name[:80]!r} is not served here", names, f"use {self.name}")
            raise RequestError([finding], status=HTTPStatus.NOT_FOUND, code="model_not_found")
        return self.aliases[name]

    def render(
        self, texts: Sequence[str], request: EmbeddingRequest, alias: Alias
    ) -> tuple[list[str], list[str]]:
        """The strings that the engine sees, and warnings for the client."""
        instruction, role = request.instruction, request.side
        if role == "query" and instruction is None:
            instruction = alias.instruction
        render, told = self._renderer(role, instruction)
        return (list(texts) if render is None else [render(text) for text in texts]), told

    def dim_warnings(self, dims: Sequence[int]) -> list[str]:
        """What the library would warn of at these dimensions."""
        if min(dims) >= self.space.min_dim:
            return []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ToolkitWarning)
            for dim in dims:
                self.space.check_dim(dim)
        return [str(one.message) for one in caught]

    def _renderer(self, role: str, instruction: str | None) -> tuple[Callable[[str], str] | None, list[str]]:
        key = (role, instruction)
        if key not in self._renderers:
            if len(self._renderers) >= _KEPT_RENDERERS:
                self._renderers.clear()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", ToolkitWarning)
                render = self.space.renderer(Role(role), Instruction.of(instruction))
            changes = render("text") != "text"
            self._renderers[key] = (render if changes else None, [str(one.message) for one in caught])
        return self._renderers[key]

    def listing(self) -> dict[str, Any]:
        """The body of /v1/models."""
        return {"object": "list", "data": [self.entry(name) for name in self.aliases]}

    def entry(self, name: str) -> dict[str, Any]:
        """One model of the list, with all that decides its vectors."""
        space = self.space
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "toolkit",
            "root": space.model,
            "max_model_len": space.max_tokens or None,
            "embedding": {
                "fingerprint": self.fingerprint,
                "full_dim": space.full_dim,
                "custom_dim_range": [1, space.full_dim],
                "trained_dim_range": [space.min_dim, space.full_dim],
                "max_tokens": space.max_tokens or None,
                "pooling": space.pooling,
                "end_token": self.counter.end_token if self.counter else None,
                "dtype": space.dtype,
                "engine": space.engine,
                "engine_version": space.engine_version,
                "revision": space.revision,
                "prompts": {
                    "document": space.prompts.document,
                    "query": space.prompts.query,
                    "instructed": space.prompts.instructed,
                    "default_instruction": space.prompts.default_instruction,
                },
                **self.aliases[name].about,
            },
        }
