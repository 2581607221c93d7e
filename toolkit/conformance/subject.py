"""What the probes share: the server, its texts, and vectors asked for once. Judges nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

import numpy as np

from toolkit.conformance.server import CheckedServer
from toolkit.embedding.protocol import Embedder
from toolkit.vectors import normalize

# Plain, of unlike lengths and topics: their vectors are told apart by any model.
TEXTS = (
    "The harbour was full of fishing boats.",
    "A recipe for bread needs flour, water, salt and yeast, and some patience while the dough rises overnight.",
    "Interest rates",
    "How do vaccines train the immune system to recognise a virus that the body has never met before?",
    "The train to the mountains leaves at seven in the morning.",
    "Sorting an array of a million numbers takes less than a second on a current computer.",
    "Violins and cellos",
    "Rainfall in the valley has declined over the past thirty years, according to the weather station's records.",
)
# What 16-bit arithmetic in batches of other shapes still reaches (docs/log.md).
SAME_COSINE = 0.999
# How far from 1 the length of a normalized vector may be in 16-bit arithmetic.
NORM_TOLERANCE = 0.01


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Verdict:
    """What a probe found: its level, and what was seen, with figures."""

    level: Level
    seen: str


def ok(seen: str) -> Verdict:
    """Nothing to find."""
    return Verdict(Level.OK, seen)


def warn(seen: str) -> Verdict:
    """Works, but not as every client expects."""
    return Verdict(Level.WARN, seen)


def fail(seen: str) -> Verdict:
    """Wrong vectors, or answers that a client cannot rely on."""
    return Verdict(Level.FAIL, seen)


def skipped(why: str) -> Verdict:
    """Not asked."""
    return Verdict(Level.SKIPPED, why)


@dataclass
class Subject:
    """A server under check.

    reference : the same model on this machine, if there is one.
    dimension_honoured : set by the probe of dimensions; those that cut build on it.
    """

    server: CheckedServer
    reference: Embedder | None = None
    dimension_honoured: bool | None = None
    _rows: dict[str, np.ndarray] = field(default_factory=dict)

    def alone(self, texts: tuple[str, ...] = TEXTS) -> np.ndarray:
        """(n, full_dim) float32 rows as the server gives each text by itself; asked for once."""
        missing = [text for text in texts if text not in self._rows]
        if missing:
            self._rows.update(zip(missing, self.server.alone(missing), strict=True))
        return np.stack([self._rows[text] for text in texts])

    @property
    def full_dim(self) -> int:
        """Length of the vectors it gives when no dimension is asked for."""
        return self.alone().shape[1]

    @cached_property
    def noise(self) -> float:
        """The largest difference between the vectors of one text asked for twice."""
        return float(np.abs(self.server.alone(TEXTS[:2]) - self.alone()[:2]).max())

    @property
    def shorter(self) -> list[int]:
        """Dimensions to try: half, a quarter, and one that is no power of two."""
        full = self.full_dim
        return sorted({dim for dim in (full // 2, full // 4, full // 2 - 3) if 1 <= dim < full})


def cosines(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) float64 cosine of each row with the other of its position."""
    return np.einsum("ij,ij->i", normalize(rows).astype(np.float64), normalize(others).astype(np.float64))
