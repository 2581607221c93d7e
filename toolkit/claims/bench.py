"""What the measurements share: the embedder, its cached vectors, the data at hand, and a server if one is named.

Knows no claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from toolkit.conformance.server import CheckedServer
from toolkit.data.beir import load_beir
from toolkit.data.load import load_dataset
from toolkit.data.sets import RetrievalSet
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.config import RemoteConfig, parse_spec
from toolkit.embedding.keys import key_for
from toolkit.embedding.pipeline import embed_texts
from toolkit.embedding.protocol import Embedder
from toolkit.errors import DataError, PlanError
from toolkit.space import QWEN3_PROMPTS, Instruction, Role
from toolkit.vectors import Vectors

SUBJECT = "Qwen3-Embedding-4B"
SUBJECT_SPEC = "local:Qwen/Qwen3-Embedding-4B"
_SUBJECT_DIM = 2560
_LADDER = (32, 64, 128, 256, 512, 1024, 2048)


@dataclass
class Bench:
    """Where claims are measured.

    spec : the embedder as one types it; `embedder` : the same, open.
    folder : holds the evaluation sets by name (``tatoeba``, ``stard_goldpool`` ..); None for the built-in set alone.
    server : a server's config, or None. serves_embedder : whether it is one of this package, over `embedder`.
    most : queries, pairs or documents of one measurement, at most.
    repeats : samples of each latency.
    """

    spec: str
    embedder: Embedder
    folder: Path | None = None
    server: RemoteConfig | None = None
    serves_embedder: bool = False
    most: int = 2_000
    repeats: int = 100
    progress: bool = True
    cache: VectorCache = field(default_factory=VectorCache)

    @property
    def is_subject(self) -> bool:
        """Whether this has the dimension and the template of the model that the claims are about."""
        space = self.embedder.space
        return space.full_dim == _SUBJECT_DIM and space.prompts == QWEN3_PROMPTS

    @cached_property
    def server_is_subject(self) -> bool:
        """Whether the server's vectors have the dimension of the model that the claims are about.

        Raises ServerError if it gives none.
        """
        if self.serves_embedder:
            return self.is_subject
        with self.asked() as server:
            return server.alone(["a text"]).shape[1] == _SUBJECT_DIM

    def asked(self) -> CheckedServer:
        """The server that is named, to be asked anything; close it, or use it in a `with`."""
        config = self.server
        return CheckedServer(config.base_url, config.model, key=key_for(config), timeout_s=config.timeout_s)

    @property
    def server_name(self) -> str:
        """The server in a sentence."""
        if self.serves_embedder:
            return f"toolkit serve with {self.model}"
        return f"{self.server.base_url} ({self.server.model})"

    @property
    def model(self) -> str:
        """The model's name."""
        return self.embedder.space.model

    @property
    def full_dim(self) -> int:
        """The model's full dimension."""
        return self.embedder.space.full_dim

    @property
    def dims(self) -> list[int]:
        """32, 64, 128 .. as far as the model goes, and its full dimension."""
        return [dim for dim in _LADDER if dim < self.full_dim] + [self.full_dim]

    @property
    def seen_texts(self) -> list[str]:
        """A few hundred documents of the built-in set, always the same."""
        docs = self.builtin.docs
        return list(docs[:: max(1, len(docs) // min(self.most, 300))])

    @cached_property
    def builtin(self) -> RetrievalSet:
        """The built-in set."""
        return load_dataset("builtin")

    def rows(
        self, texts: Sequence[str], role: Role = Role.DOCUMENT, instruction: str | Instruction | None = None
    ) -> Vectors:
        """Full-dimension vectors, from the cache where they are."""
        return embed_texts(
            self.embedder,
            texts,
            role=role,
            instruction=instruction,
            cache=self.cache,
            progress=self.progress,
        )

    def path(self, name: str) -> Path | None:
        """A set's folder; None where it is not at hand."""
        path = None if self.folder is None else self.folder / name
        return path if path is not None and path.exists() else None

    def retrieval(self, name: str, split: str = "test") -> RetrievalSet | None:
        """A BEIR folder among the data; None where it is not at hand."""
        path = self.path(name)
        return None if path is None else load_beir(path, split=split)

    def column(self, name: str, table: str, key: str, value: str) -> dict[str, str]:
        """One column of a set's table by another, ``clusters.tsv`` by ``query-id`` for example."""
        lines = (self.folder / name / table).read_text(encoding="utf-8").splitlines()
        head, *body = [line.split("\t") for line in lines if line]
        try:
            left, right = head.index(key), head.index(value)
        except ValueError:
            raise DataError(
                f"{name}/{table} needs the columns {key} and {value}, has {', '.join(head)}"
            ) from None
        return {row[left]: row[right] for row in body}

    def drawn(self, count: int, *, seed: int = 0) -> np.ndarray:
        """At most `most` of `count` positions, in order."""
        if count <= self.most:
            return np.arange(count)
        return np.sort(np.random.default_rng(seed).choice(count, self.most, replace=False))


def server_config(spec: str | None) -> RemoteConfig | None:
    """The config of ``http://host:port/v1#model``; raises PlanError for a spec of another kind."""
    if spec is None:
        return None
    config = parse_spec(spec)
    if not isinstance(config, RemoteConfig):
        raise PlanError(f"server {spec!r} is not a server; write http://host:port/v1#<model>")
    return config
