"""Empty texts rank last in every index: they are kept out of it and put after all its rows.

A zero vector has no direction. An inner product scores it 0, above all that is less than unrelated; an L2
graph over product codes scores it as near as 0.5; a Hamming distance takes it for some other vector. So
it is in none of them. Only where more neighbours are asked for than there are other rows do empty texts
come, by row, with score -inf. Knows nothing of the index inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from toolkit.errors import DataError, PlanError, ResultsError
from toolkit.search.backend import Backend, BareSearch, Builder, Filtering, Index, IndexSpec
from toolkit.search.cut_rows import CutRows
from toolkit.search.neighbours import Neighbours
from toolkit.vectors import Vectors


class CorpusBuilder:
    """Builds indexes of one backend over a corpus at one dimension, its empty texts last.

    Raises DataError if every text is empty.
    """

    def __init__(self, backend: Backend, vectors: Vectors, dim: int, *, seed: int = 0) -> None:
        self._rows = CutRows(vectors, dim)
        if not len(self._rows):
            raise DataError(
                f"all {self._rows.documents} rows are zero at dimension {dim} (empty texts); nothing to index"
            )
        self._backend = backend
        self._builder: Builder = backend.builder(self._rows, seed=seed)

    def build(self, spec: IndexSpec) -> Index:
        """Build it; raises PlanError for what cannot be built over the rows that are not empty."""
        self._backend.check(spec, documents=len(self._rows), k=1)
        built = self._builder.build(spec)
        return built if self._rows.kept is None else EmptyLast(built, self._rows.kept, self._rows.empty)


class EmptyLast:
    """An index over the rows `kept` of a corpus, followed by its `empty` rows."""

    def __init__(self, inner: Index, kept: np.ndarray, empty: np.ndarray) -> None:
        self._inner = inner
        self._kept, self._empty = kept, empty
        # Row -1 ("none") stays -1: it is looked up at the end.
        self._row_of = np.append(kept, -1)
        for name in ("description", "dim", "steps_s", "build_s", "peak_bytes", "device", "thread_safe"):
            setattr(self, name, getattr(inner, name))

    description: str
    dim: int
    steps_s: Mapping[str, float]
    build_s: float
    peak_bytes: int
    device: str
    thread_safe: bool

    @property
    def index_bytes(self) -> int:
        """Of the index inside and of the row numbers."""
        return self._inner.index_bytes + self._row_of.nbytes

    def __len__(self) -> int:
        return len(self._kept) + len(self._empty)

    def search(self, queries: np.ndarray, k: int, search_args: Mapping[str, int] | None = None) -> Neighbours:
        """As the index inside, with row numbers of the corpus."""
        self._check(k)
        found = self._inner.search(queries, min(k, len(self._inner)), search_args)
        return Neighbours(*self._with_empty(found.rows, found.scores, k))

    def bare_search(self, k: int, search_args: Mapping[str, int] | None = None) -> BareSearch:
        """As the index inside; the row numbers are looked up within the call."""
        self._check(k)
        search = self._inner.bare_search(min(k, len(self._inner)), search_args)

        def search_and_look_up(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            scores, rows = search(queries)
            rows, scores = self._with_empty(rows, scores, k)
            return scores, rows

        return search_and_look_up

    def filtered_search(
        self, k: int, share: float, search_args: Mapping[str, int] | None = None
    ) -> BareSearch:
        """As the index inside: an empty text passes no filter. Raises PlanError where the index has no filters."""
        if not isinstance(self._inner, Filtering):
            raise PlanError(f"{self.description} has no filtered search; leave timing.filters out")
        search = self._inner.filtered_search(min(k, len(self._inner)), share, search_args)

        def search_and_look_up(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            scores, rows = search(queries)
            return scores, self._row_of[rows]

        return search_and_look_up

    def accelerated(self) -> Index:
        """The index inside on its fastest device."""
        moved = self._inner.accelerated()
        return self if moved is self._inner else EmptyLast(moved, self._kept, self._empty)

    def save(self, path: Path) -> None:
        """The index inside, and the row numbers beside it."""
        self._inner.save(path)
        try:
            np.savez(_rows_path(path), kept=self._kept, empty=self._empty)
        except OSError as error:
            raise ResultsError(f"index {path} cannot be written ({error.strerror})") from error

    def close(self) -> None:
        """Close the index inside."""
        self._inner.close()

    def _check(self, k: int) -> None:
        if not 1 <= k <= len(self):
            raise PlanError(f"k {k} is outside the index's {len(self)} documents; choose 1..{len(self)}")

    def _with_empty(self, rows: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self._row_of[rows]
        lacking = k - rows.shape[1]
        if lacking:
            shape = (len(rows), lacking)
            rows = np.concatenate([rows, np.broadcast_to(self._empty[:lacking], shape)], axis=1)
            last = np.full(shape, -np.inf, dtype=np.float32)
            scores = np.concatenate([scores.astype(np.float32), last], axis=1)
        return rows, scores


def load_index(backend: Backend, path: Path) -> Index:
    """Read what `save` of an index over a corpus wrote; raises ResultsError."""
    inner = backend.load(path)
    try:
        with np.load(_rows_path(path), allow_pickle=False) as rows:
            return EmptyLast(inner, rows["kept"], rows["empty"])
    except FileNotFoundError:
        return inner
    except (OSError, ValueError, KeyError) as error:
        raise ResultsError(f"index {path} cannot be read: its row numbers are damaged ({error})") from error


def _rows_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.rows.npz")
