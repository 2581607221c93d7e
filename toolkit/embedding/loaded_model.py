"""A SentenceTransformer that the caller has loaded, as an engine: encoded by its own `encode`, never changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from toolkit.embedding.checkpoint import prompts_of
from toolkit.embedding.engine import Engine, windows_by_length
from toolkit.embedding.local import library_versions
from toolkit.embedding.protocol import Block
from toolkit.space import EmbeddingSpace
from toolkit.vectors import normalize

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_BATCH = 64


class LoadedModelEmbedder(Engine):
    """The caller's model stays the caller's: it is not closed here, and a cut it is set to is left out.

    ``local:<folder>`` is faster and knows what the checkpoint states; here the revision is a hash of the weights,
    and no shorter dimension counts as trained.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self._model = model
        full_dim = self._rows(["probe"]).shape[1]
        parameter = next(iter(model.parameters()), None)
        self._space = EmbeddingSpace(
            model=_name(model),
            revision=f"weights-{_hash(model)}",
            engine="sentence-transformers encode",
            engine_version=library_versions(),
            dtype="unknown" if parameter is None else str(parameter.dtype).removeprefix("torch."),
            pooling="its own",
            max_tokens=model.max_seq_length or 0,
            full_dim=full_dim,
            min_dim=full_dim,
            prompts=prompts_of(model.prompts or {}, model.default_prompt_name),
        )

    @property
    def space(self) -> EmbeddingSpace:
        """What decides the vectors' values."""
        return self._space

    def _blocks(self, texts: Sequence[str]) -> Iterator[Block]:
        for places in windows_by_length(texts, _BATCH):
            yield places, self._rows([texts[i] for i in places])

    def _rows(self, texts: list[str]) -> np.ndarray:
        with self._model.truncate_embeddings(None):
            # The texts come with their prompts; an empty one keeps the model from adding its default.
            rows = self._model.encode(texts, prompt="", convert_to_numpy=True, show_progress_bar=False)
        return normalize(np.asarray(rows, dtype=np.float32))


def _name(model: SentenceTransformer) -> str:
    path = getattr(model[0].auto_model.config, "_name_or_path", "") if hasattr(model[0], "auto_model") else ""
    return path.rstrip("/").rpartition("/")[2] or type(model).__name__


def _hash(model: SentenceTransformer) -> str:
    import torch

    digest = hashlib.blake2b(digest_size=12)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
