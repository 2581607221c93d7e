"""The embedded default: WordLlama's static token vectors, averaged. No download, no GPU."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import numpy as np

from toolkit.embedding.engine import Engine
from toolkit.embedding.protocol import Block
from toolkit.embedding.tokens import TokenizerFile, keep_no_texts
from toolkit.space import EmbeddingSpace
from toolkit.vectors import normalize

_BLOCK_TEXTS = 1_024
# WordLlama README: its Matryoshka training covers 64, 128 and 256 of the bundled 256 dimensions.
_TRAINED_MIN_DIM = 64
_FULL_DIM = 256


class StaticEmbedder(Engine):
    """WordLlama, 256 dimensions, Matryoshka-trained. A text without tokens gets the zero vector."""

    @cached_property
    def space(self) -> EmbeddingSpace:
        """Known without loading the weights: model and revision are the installed package's."""
        return EmbeddingSpace(
            model="wordllama-l2-supercat-256",
            revision=version("wordllama"),
            engine="wordllama",
            engine_version=version("wordllama"),
            dtype="float32",
            pooling="mean",
            max_tokens=0,
            full_dim=_FULL_DIM,
            min_dim=_TRAINED_MIN_DIM,
        )

    @cached_property
    def _model(self):
        # Importing wordllama calls logging.basicConfig, which would make every library's INFO lines appear.
        root = logging.getLogger()
        handlers, level = list(root.handlers), root.level
        from wordllama import WordLlama

        root.handlers[:] = handlers
        root.setLevel(level)
        # Without `cache_dir`, load() looks for the bundled tokenizer in a folder that does not exist.
        model = WordLlama.load(cache_dir=Path(str(files("wordllama"))), dim=_FULL_DIM, disable_download=True)
        keep_no_texts(model.tokenizer)
        return model

    def tokenizer_file(self) -> TokenizerFile:
        """WordLlama's; it frames no text."""
        return TokenizerFile(self._model.tokenizer.to_str(), special_tokens=False)

    def _blocks(self, texts: Sequence[str]) -> Iterator[Block]:
        # Texts of like length together: each batch is padded to its longest.
        order = np.argsort([len(text) for text in texts], kind="stable")
        for start in range(0, len(order), _BLOCK_TEXTS):
            positions = order[start : start + _BLOCK_TEXTS]
            chosen = [texts[i] for i in positions]
            # norm=False: WordLlama's own normalization divides a text without tokens by zero.
            yield positions, normalize(self._model.embed(chosen, norm=False))
