"""Ranges for 8- and 4-bit vectors, from the vectors of texts: those of a sweep's corpus, or of any other set."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.load import load_dataset
from toolkit.data.sets import RetrievalSet
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.pipeline import embed_texts
from toolkit.embedding.protocol import Embedder
from toolkit.search.cut_rows import CutRows
from toolkit.search.faiss.shared_builds import training_places
from toolkit.space import Role
from toolkit.vectors import truncate
from toolkit.wire.codes import Ranges

_KEPT_DIMS = 128
_MOST_TEXTS = 8_192


class Calibration:
    """Ranges at any dimension, computed when it is first asked for.

    rows : (n, full_dim) float32 unit rows of the calibration texts.
    source : where the texts are from, for people.
    """

    def __init__(self, rows: np.ndarray, *, source: str) -> None:
        self._rows = rows
        self.source = source
        digest = hashlib.blake2b(str(rows.shape).encode(), digest_size=8)
        digest.update(np.ascontiguousarray(rows).data)
        self.id = digest.hexdigest()
        self._ranges: dict[int, Ranges] = {}

    def ranges(self, dim: int) -> Ranges:
        """At a dimension, of the rows cut to it and normalized again."""
        found = self._ranges.get(dim)
        if found is None:
            if len(self._ranges) >= _KEPT_DIMS:
                self._ranges.clear()
            found = self._ranges[dim] = Ranges.of(truncate(self._rows, dim))
        return found

    def has(self, dim: int) -> bool:
        """Whether the ranges at a dimension are there; computing them takes a while."""
        return dim in self._ranges

    def about(self) -> dict[str, Any]:
        """As an answer names it."""
        return {"id": self.id, "source": self.source, "texts": len(self._rows)}

    def body(self, dim: int) -> dict[str, Any]:
        """As /v1/calibration gives it: what a client needs to read the codes."""
        ranges = self.ranges(dim)
        return {**self.about(), "dimensions": dim, "low": ranges.low, "high": ranges.high}


def trained_as(embedder: Embedder, data: RetrievalSet, *, dim: int, seed: int, source: str) -> Calibration:
    """What a sweep of `data` trained its indexes of codes on at `dim`, apart from lists, whose codes are of residuals.

    Exactly its ranges at this dimension; at others those of the same texts. Looks vectors up where the sweep left them.
    """
    with tempfile.TemporaryDirectory() as folder:
        vectors = embed_texts(
            embedder,
            data.docs,
            role=Role.DOCUMENT,
            cache=VectorCache(),
            out=Path(folder) / "rows.npy",
            progress=False,
        )
        cut = CutRows(vectors, dim)
        places = training_places(cut, seed=seed)
        rows = np.array(vectors.rows[places if cut.kept is None else cut.kept[places]])
        del vectors, cut  # the file is mapped no more
    made = Calibration(rows, source=f"{len(rows)} documents of {source}")
    made.ranges(dim)
    return made


def calibrate(embedder: Embedder, data: str) -> Calibration:
    """From the documents of an evaluation set, evenly chosen where there are many; what the cache has is not embedded.

    data : a spec as a sweep takes it. Raises PlanError or DataError.
    """
    chosen = load_dataset(data)
    texts = list(chosen.docs if isinstance(chosen, RetrievalSet) else chosen.left)
    texts = texts[:: -(-len(texts) // _MOST_TEXTS)]
    vectors = embed_texts(embedder, texts, role=Role.DOCUMENT, cache=VectorCache(), progress=False)
    return Calibration(np.asarray(vectors.rows), source=f"{len(texts)} documents of {chosen.name}")
