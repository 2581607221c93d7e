"""One caller's texts on their way through an engine, and how their rows go back. Knows no engine."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from queue import SimpleQueue
from types import TracebackType

import numpy as np

from toolkit.embedding.protocol import Block
from toolkit.errors import VectorError

# Blocks made ahead of a reader that is slower than the engine; more would only take memory.
BLOCKS_AHEAD = 2
# A job of more texts never shares work with others, and is not measured for it.
_MOST_SHARED_TEXTS = 4_096

# Work that has been started: called once, it waits for its rows.
Started = Callable[[], Block]


@dataclass(frozen=True, eq=False)
class Begun:
    """Work that was begun on texts of one caller or of several together.

    at_s : of the clock `time.perf_counter`. jobs, texts : how many go together.
    """

    at_s: float
    jobs: int
    texts: int


class RowsFuture(Future[np.ndarray]):
    """Rows to come; `begun` is None until somebody works on them, and of a server always."""

    begun: Begun | None = None


class Job(ABC):
    """Texts, and which of them have their row.

    engine : what works on it, kept alive as long as it does.
    over : whether the caller has all it will get; the queue sets it.
    alone : whether it must not share work with other callers, because shared work failed.
    order : positions in the order to ask a server for them.
    pieces : the work itself, where that is something else than what the engine makes of `texts`.
    """

    order: np.ndarray | None = None
    pieces: Iterator[Started] | None = None

    def __init__(self, texts: list[str], *, engine: object, full_dim: int) -> None:
        self.texts = texts
        self.engine = engine
        self.full_dim = full_dim
        self.over = False
        self.alone = False
        self._filled = np.zeros(len(texts), dtype=bool)

    @property
    def remaining(self) -> np.ndarray:
        """Positions without a row, (m,) int64."""
        return np.flatnonzero(~self._filled)

    @property
    def complete(self) -> bool:
        """Whether every text has its row."""
        return bool(self._filled.all())

    @cached_property
    def size(self) -> float:
        """Characters, counting something for a text without any."""
        if len(self.texts) > _MOST_SHARED_TEXTS:
            return math.inf
        return sum(map(len, self.texts)) + len(self.texts)

    @property
    def wants_more(self) -> bool:
        """Whether more work should be done for it now."""
        return not self.over

    def deliver(self, positions: np.ndarray, rows: np.ndarray) -> None:
        """Take rows; raises VectorError where they are not one vector a text."""
        if rows.shape != (len(positions), self.full_dim):
            raise VectorError(
                f"the engine returned an array of shape {rows.shape} for {len(positions)} texts; "
                f"it must return rows of shape ({len(positions)}, {self.full_dim})"
            )
        self._take(positions, rows)
        self._filled[positions] = True

    @abstractmethod
    def _take(self, positions: np.ndarray, rows: np.ndarray) -> None: ...

    def missing(self) -> VectorError | None:
        """What to say if the work has ended and some text has no row."""
        return VectorError(
            f"the engine returned no vector for text {int(self.remaining[0])} of {len(self.texts)}; "
            "it must return one row for every text"
        )

    def was_begun(self, begun: Begun) -> None:
        """Work on it has begun."""

    @abstractmethod
    def finish(self, error: Exception | None) -> None:
        """Tell the caller that all rows are there, or why they never will be."""


class WholeJob(Job):
    """Rows in input order, all at once, through a future."""

    def __init__(self, texts: list[str], *, engine: object, full_dim: int) -> None:
        super().__init__(texts, engine=engine, full_dim=full_dim)
        self.future = RowsFuture()
        self._rows: np.ndarray | None = None

    def _take(self, positions: np.ndarray, rows: np.ndarray) -> None:
        if len(self.texts) == len(rows) == 1:  # a query waits for every line here
            self._rows = np.asarray(rows, dtype=np.float32)
            return
        if self._rows is None:
            self._rows = np.empty((len(self.texts), self.full_dim), dtype=np.float32)
        self._rows[positions] = rows

    def was_begun(self, begun: Begun) -> None:
        """Say so to whoever has the future."""
        self.future.begun = begun

    def finish(self, error: Exception | None) -> None:
        """Set the future, unless the caller has just cancelled it."""
        if not self.future.set_running_or_notify_cancel():
            return
        if error is None:
            self.future.set_result(self._rows)
        else:
            self.future.set_exception(error)

    def cancel(self) -> None:
        """Nobody waits for the rows any more."""
        self.future.cancel()
        self.future.set_running_or_notify_cancel()


class BlockJob(Job):
    """Rows block by block, as they are ready, to one reader."""

    def __init__(self, texts: list[str], *, engine: object, full_dim: int) -> None:
        super().__init__(texts, engine=engine, full_dim=full_dim)
        self._blocks: SimpleQueue[Block | None] = SimpleQueue()
        self._error: Exception | None = None

    @property
    def wants_more(self) -> bool:
        """Whether the reader has not got plenty."""
        return not self.over and self.unread < BLOCKS_AHEAD

    @property
    def unread(self) -> int:
        """Blocks that wait for the reader."""
        return self._blocks.qsize()

    @property
    def has_news(self) -> bool:
        """Whether `next_block` returns at once."""
        return not self._blocks.empty()

    def next_block(self) -> Block | None:
        """Wait for a block; None is the end. Raises what the work failed with."""
        block = self._blocks.get()
        if block is None and self._error is not None:
            raise self._error
        return block

    def _take(self, positions: np.ndarray, rows: np.ndarray) -> None:
        self._blocks.put((positions, rows))

    def finish(self, error: Exception | None) -> None:
        """End the blocks."""
        self._error = error
        self._blocks.put(None)


class PiecesJob(BlockJob):
    """Work that was prepared outside, on texts that are known to it alone; ends when its pieces do."""

    def __init__(self, pieces: Iterator[Started], *, engine: object, full_dim: int) -> None:
        super().__init__([], engine=engine, full_dim=full_dim)
        self.pieces = pieces

    @property
    def complete(self) -> bool:
        """Unknown before the pieces end."""
        return False

    @property
    def size(self) -> float:
        """Never shared."""
        return math.inf

    def missing(self) -> None:
        """Nothing is."""

    def deliver(self, positions: np.ndarray, rows: np.ndarray) -> None:
        """Take rows."""
        self._take(positions, rows)


class Caught:
    """A block of code whose error is kept for the caller it belongs to, and does not end its thread.

    What is no Exception, such as KeyboardInterrupt, passes through.
    """

    error: Exception | None = None

    def __enter__(self) -> Caught:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, Exception):
            self.error = error
        return self.error is not None
