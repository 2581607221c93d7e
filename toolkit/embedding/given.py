"""Vectors that are there already, as an engine: each text of a set has its row, and no other text has any.

Knows nothing of the set beyond its texts. Nothing is computed, so nothing needs a cache. Documents' rows of a
memory-mapped file stay there as they are: whoever wants all of them in order gets the file's (`in_order`).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from toolkit.embedding.engine import Engine
from toolkit.embedding.protocol import Block
from toolkit.errors import DataError, ToolkitWarning
from toolkit.space import EmbeddingSpace, Prompts
from toolkit.vectors import Vectors, normalize

_BLOCK_ROWS = 8_192
_SAME = 1e-3
# A query and a document of the same words may have different vectors: the role is part of what is looked up.
_AS_QUERY = "query: "


class GivenVectors(Engine):
    """The rows of documents and queries, by their text.

    docs, queries : (texts, rows) each; rows are (n, full_dim) of any float type and need not be normalized. Those of
        documents may be a memory-mapped file of float32 or float16, larger than memory.
    name : how tables name the model behind them.

    Where equal texts of one role have rows that differ, the first counts, and a ToolkitWarning says so. Raises
    DataError for rows that do not fit the texts, VectorError for NaN or infinity.
    """

    cached = False

    def __init__(
        self,
        docs: tuple[Sequence[str], np.ndarray],
        queries: tuple[Sequence[str], np.ndarray],
        *,
        name: str = "given vectors",
    ) -> None:
        super().__init__()
        sides = {"documents": docs, "queries": queries}
        rows = {what: _checked(what, *side, mapped=what == "documents") for what, side in sides.items()}
        widths = {what: side.shape[1] for what, side in rows.items()}
        if len(set(widths.values())) > 1:
            raise DataError(
                f"rows of documents have {widths['documents']} numbers and those of queries {widths['queries']}; "
                "both must come from one model"
            )
        self._rows = rows
        self._docs = docs[0]
        self._mapped = Vectors(rows["documents"]) if isinstance(rows["documents"], np.memmap) else None
        self._place: dict[str, tuple[str, int]] = {}
        for what, (texts, _) in sides.items():
            if what == "queries" or self._mapped is None:
                self._index(what, [_AS_QUERY + text if what == "queries" else text for text in texts])
        digest = hashlib.blake2b(digest_size=12)
        for side in rows.values():
            for start in range(0, len(side), _BLOCK_ROWS):
                block = side[start : start + _BLOCK_ROWS]
                # A file's bytes as they are: it is too long to be widened for this alone.
                digest.update(
                    np.ascontiguousarray(block, block.dtype if self._mapped is not None else "<f4").data
                )
        width = widths["documents"]
        self._space = EmbeddingSpace(
            model=name,
            revision=f"vectors-{digest.hexdigest()}",
            engine="given",
            dtype="unknown",
            pooling="its own",
            max_tokens=0,
            full_dim=width,
            min_dim=width,
            prompts=Prompts(query=_AS_QUERY),
        )

    @property
    def space(self) -> EmbeddingSpace:
        """What decides the vectors' values."""
        return self._space

    def in_order(self, texts: Sequence[str]) -> Vectors | None:
        """The documents' mapped rows, if `texts` are the documents themselves; None where rows are looked up."""
        return self._mapped if texts is self._docs else None

    def _index(self, what: str, texts: Sequence[str]) -> None:
        differing = 0
        for i, text in enumerate(texts):
            first = self._place.setdefault(text, (what, i))
            if first != (what, i):
                differing += not np.allclose(self._rows[first[0]][first[1]], self._rows[what][i], atol=_SAME)
        if differing:
            warnings.warn(
                f"{differing} {what} repeat the text of an earlier one with another row; the first row is used for all",
                ToolkitWarning,
                stacklevel=4,
            )

    def _blocks(self, texts: Sequence[str]) -> Iterator[Block]:
        for start in range(0, len(texts), _BLOCK_ROWS):
            chosen = texts[start : start + _BLOCK_ROWS]
            yield np.arange(start, start + len(chosen)), np.stack([self._row(text) for text in chosen])

    def _row(self, text: str) -> np.ndarray:
        if self._mapped is not None and text not in self._place:
            # Millions of texts are indexed only if one is asked for.
            self._index("documents", self._docs)
        if text not in self._place:
            raise DataError(
                f"the text {text.removeprefix(_AS_QUERY)!r:.60} has no given vector; instructions change queries, so "
                "given vectors are measured without: compute them with the instruction, and sweep them apart"
            )
        what, i = self._place[text]
        row = self._rows[what][i]
        return row if self._mapped is None else normalize(row[None])[0]


def vectors_of(
    given: Mapping[str, np.ndarray] | Sequence[np.ndarray],
    docs: Sequence[str],
    queries: Sequence[str],
) -> GivenVectors:
    """An engine over rows for a set's documents and queries; see `sides_of`."""
    rows, asked = sides_of(given)
    return GivenVectors((docs, rows), (queries, asked))


def sides_of(given: Mapping[str, np.ndarray] | Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of documents and of queries: from that pair, or a mapping with those names. A mapped file stays one.

    Raises DataError for anything else.
    """
    if isinstance(given, Mapping):
        names = {"docs": "documents", "documents": "documents", "queries": "queries"}
        sides = {names.get(str(key), str(key)): rows for key, rows in given.items()}
        if set(sides) != {"documents", "queries"}:
            raise DataError(f"given vectors {sorted(map(str, given))} must be named 'docs' and 'queries'")
        pair = (sides["documents"], sides["queries"])
    elif len(given) == 2:
        pair = (given[0], given[1])
    else:
        raise DataError(f"given vectors are {len(given)} arrays; give two, (documents, queries)")
    return np.asanyarray(pair[0]), np.asarray(pair[1])


def _checked(what: str, texts: Sequence[str], rows: np.ndarray, *, mapped: bool) -> np.ndarray:
    if rows.ndim != 2 or len(rows) != len(texts):
        raise DataError(
            f"rows of {what} have shape {rows.shape} and the set has {len(texts)} {what}; give one row for each, in "
            "the set's order"
        )
    if mapped and isinstance(rows, np.memmap) and rows.dtype in (np.float32, np.float16):
        return rows
    return normalize(rows if rows.dtype.kind == "f" else rows.astype(np.float32))
