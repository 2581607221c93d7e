"""Documents that do not exist, as vectors: as near to the corpus and to each other as further documents would be.

Each is drawn around a document of the corpus, along its differences to its nearest neighbours (a local covariance, as
in the manifold Parzen windows of Vincent & Bengio 2003), at an angle at which its nearest neighbour in the corpus is
as near as that document's own nearest one. A new document of the same source would be as near in distribution, so
the distances to neighbours match by construction; the spectrum follows, because the directions are the corpus's own.
Knows no index and no text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from toolkit.errors import DataError
from toolkit.search.exact.search import exact_search
from toolkit.vectors import normalize

NEIGHBOURS = 32
BLOCK_ROWS = 16_384
_ROUNDS = 4  # of bringing the nearest neighbour to its distance
# Neighbours are sought among so many documents of a large corpus: a search of all in all would be quadratic.
_MOST_SEEDS = 20_000


class Distractors:
    """Draws blocks of unit vectors after a corpus.

    rows : (n, dim) float32 unit rows; zero ones are left out. seed : of all draws; block i is the same whenever it
    is drawn.

    Raises DataError for fewer than three documents.
    """

    def __init__(
        self, rows: np.ndarray, *, seed: int = 0, progress: Callable[[int], object] | None = None
    ) -> None:
        used = np.flatnonzero(np.einsum("ij,ij->i", rows, rows) > 0)
        rng = np.random.default_rng([seed, 0])
        if len(used) > _MOST_SEEDS:
            used = np.sort(rng.choice(used, _MOST_SEEDS, replace=False))
        if len(used) < 3:
            raise DataError(
                f"{len(used)} documents that are not empty cannot be told neighbours from; give three"
            )
        self._rows = np.ascontiguousarray(rows[used], dtype=np.float32)
        self._seed = seed
        dim = self._rows.shape[1]
        near = min(NEIGHBOURS, len(used) - 1)
        found = exact_search(self._rows, self._rows, [dim], k=near + 1, progress=progress)[dim]
        own = np.arange(len(used))[:, None]
        # Of equal documents, another may come first: one place is its own or the last is dropped.
        keep = np.argsort(found.rows == own, axis=1, kind="stable")[:, :near]
        self._near = np.take_along_axis(found.rows, keep, axis=1)
        self._nearness = np.take_along_axis(found.scores, keep[:, :1], axis=1)[:, 0].astype(np.float64)

    def block(self, number: int, rows: int) -> np.ndarray:
        """(rows, dim) float32 unit rows, at most BLOCK_ROWS."""
        rng = np.random.default_rng([self._seed, 1, number])
        around = rng.integers(0, len(self._rows), rows)
        centre = self._rows[around]
        direction = self._directions(around, centre, rng)
        wanted = np.clip(self._nearness[around], -0.99, 1.0)
        cosine = wanted.copy()
        for _ in range(_ROUNDS):
            drawn = _at_angle(centre, direction, cosine)
            nearest = self._nearest(around, drawn)
            # The sought neighbour is nearer than the centre, or the centre is too near: turn by what is missing.
            cosine = np.clip(cosine + (wanted - nearest), -1.0, 1.0)
        return _at_angle(centre, direction, cosine)

    def blocks(self, rows: int) -> Iterator[np.ndarray]:
        """Blocks of BLOCK_ROWS and what remains, `rows` together."""
        for number, start in enumerate(range(0, rows, BLOCK_ROWS)):
            yield self.block(number, min(BLOCK_ROWS, rows - start))

    def _nearest(self, around: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Similarity of the nearest document: it is the centre or one of the centre's neighbours."""
        best = np.einsum("ij,ij->i", self._rows[around], drawn)
        for place in range(self._near.shape[1]):
            np.maximum(best, np.einsum("ij,ij->i", self._rows[self._near[around, place]], drawn), out=best)
        return best

    def _directions(self, around: np.ndarray, centre: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Unit rows at right angles to the centres: random sums of the differences to their neighbours."""
        direction = np.zeros_like(centre)
        for place in range(self._near.shape[1]):
            weight = rng.standard_normal((len(around), 1), dtype=np.float32)
            direction += weight * (self._rows[self._near[around, place]] - centre)
        # Copies of one document have no difference: any direction of the corpus will do.
        still = np.einsum("ij,ij->i", direction, direction) < 1e-8
        if still.any():
            one, other = rng.integers(0, len(self._rows), (2, int(still.sum())))
            direction[still] = self._rows[one] - self._rows[other]
        direction -= np.einsum("ij,ij->i", direction, centre)[:, None] * centre
        return normalize(direction)


def _at_angle(centre: np.ndarray, direction: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    sine = np.sqrt(np.maximum(0.0, 1.0 - cosine**2))
    return normalize(
        cosine[:, None].astype(np.float32) * centre + sine[:, None].astype(np.float32) * direction
    )
