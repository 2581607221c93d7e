"""Runs of an owner's work: texts of one caller or of several, where their rows go, and how long a device takes.

Knows no queue and no thread: the owner alone comes here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from toolkit.embedding.jobs import Job, Started

_FIRST = np.zeros(1, dtype=np.int64)
_SPARE_S = 0.0005  # a run is formed so much before it must be


@dataclass(frozen=True, eq=False)
class UnderWay:
    """A piece that was started at `at_s`; the device may be busy with the one before.

    is_whole : whether it is its run's first, and as a rule only, one.
    """

    run: Run
    started: Started
    at_s: float
    is_whole: bool


class Pace:
    """How long a device takes for runs of a size, and its owner to start one; learnt as they come."""

    def __init__(self) -> None:
        self._took_s: dict[int, float] = {}
        self._starting_s = 0.0
        self._last_done_s = 0.0

    def was_started(self, took_s: float) -> None:
        """Forming and starting a run took so long."""
        self._starting_s = max(took_s, self._starting_s + 0.1 * (took_s - self._starting_s))

    def was_done(self, piece: UnderWay) -> None:
        """The device has done a piece just now."""
        now_s = time.perf_counter()
        if piece.is_whole and math.isfinite(piece.run.size):
            took_s, known = now_s - self._begun_s(piece), _size_class(piece.run.size)
            before_s = self._took_s.get(known, took_s)
            # What took longer may have waited for something else than the device.
            self._took_s[known] = min(took_s, before_s + 0.1 * (took_s - before_s))
        self._last_done_s = now_s

    def next_start_s(self, piece: UnderWay) -> float:
        """When the next run must be formed so that the device does not wait; now, where that is not known."""
        took_s = self._took_s.get(_size_class(piece.run.size)) if piece.is_whole else None
        if took_s is None:
            return 0.0
        return self._begun_s(piece) + took_s - self._starting_s - _SPARE_S

    def _begun_s(self, piece: UnderWay) -> float:
        return max(piece.at_s, self._last_done_s)


def _size_class(characters: float) -> int:
    """Sizes that are about as much work: steps of 9 %."""
    return -1 if math.isinf(characters) else round(8 * math.log2(characters + 1))


class Run:
    """Jobs whose texts the engine works on together.

    under_way : pieces started and not yet waited for.
    exhausted : whether there is nothing more to start.
    """

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs = jobs
        self.pieces: Iterator[Started] | None = jobs[0].pieces
        self.under_way = 0
        self.pieces_started = 0
        self.size = sum(job.size for job in jobs)
        self.exhausted = False
        self.error: Exception | None = None
        # Where each job's texts end, and what they are; None where they are one job's from first to last.
        self._positions: list[np.ndarray] | None = None
        self._ends: np.ndarray | None = None
        self.texts = jobs[0].texts
        # Requests of one text each are what a busy server has most of.
        self._are_single = all(len(job.texts) == 1 for job in jobs)
        if self._are_single:
            self.texts = [job.texts[0] for job in jobs]
        elif len(jobs) > 1 or len(jobs[0].remaining) < len(jobs[0].texts):
            self._positions = [job.remaining for job in jobs]
            self._ends = np.cumsum([len(positions) for positions in self._positions])
            self.texts = [
                job.texts[i]
                for job, chosen in zip(jobs, self._positions, strict=True)
                for i in chosen.tolist()
            ]

    @property
    def is_short(self) -> bool:
        """Whether it is hardly more than a piece."""
        return len(self.jobs) > 1 or len(self.texts) == 1

    @property
    def wants_more(self) -> bool:
        """Whether another piece should be started. Shared runs are short and never wait for a reader."""
        return not self.exhausted and (len(self.jobs) > 1 or self.jobs[0].wants_more)

    def deliver(self, places: np.ndarray, rows: np.ndarray) -> None:
        """Hand rows to the jobs they belong to."""
        if self._are_single:
            for i, place in enumerate(places.tolist()):
                if not self.jobs[place].over:
                    self.jobs[place].deliver(_FIRST, rows[i : i + 1])
            return
        if self._positions is None:
            self.jobs[0].deliver(places, rows)
            return
        owners = np.searchsorted(self._ends, places, side="right")
        for number in np.unique(owners).tolist():
            job, mine = self.jobs[number], owners == number
            if not job.over:
                first = self._ends[number] - len(self._positions[number])
                job.deliver(self._positions[number][places[mine] - first], rows[mine])

    def fail(self, error: Exception) -> None:
        """Start nothing more; what is under way is still waited for, and kept."""
        self.error = self.error or error
        self.leave()

    def leave(self) -> None:
        """Start nothing more."""
        self.exhausted = True
        pieces, self.pieces = self.pieces, None
        if hasattr(pieces, "close"):
            pieces.close()
