"""A queue whose work is requests, several of them under way at once. Knows nothing of servers or processes.

Request threads take batches from the jobs in turn: a batch that one job does not fill has texts of others.
They exist while there is work. Daemon threads, not a ThreadPoolExecutor's: those are joined when the
interpreter exits, and a server that hangs would hold up Ctrl-C until the request times out.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from toolkit.embedding.jobs import BlockJob, Caught, Job
from toolkit.embedding.queue import PLACES, JobQueue
from toolkit.errors import ServerError

_AHEAD_PER_THREAD = 2  # batches under way or unread, of one stream


@dataclass(frozen=True)
class Waiting:
    """What is to be asked for when a batch is taken.

    texts : how many. longest : characters of the longest. under_way : requests that are.
    """

    texts: int
    longest: int
    under_way: int


@dataclass(eq=False)
class _Todo:
    """What a job has still to ask for.

    positions : of its texts, in the order to ask in.
    batches : under way.
    error : why nothing more is asked for.
    """

    positions: np.ndarray
    batches: list[_Batch] = field(default_factory=list)
    error: Exception | None = None

    @property
    def is_done(self) -> bool:
        """Whether nothing is to be asked and nothing under way."""
        return not self.batches and not len(self.positions)

    def wants_more(self, job: Job, ahead: int) -> bool:
        """Whether to ask on; not for a stream that has its reader's full of batches."""
        if not len(self.positions):
            return False
        return not isinstance(job, BlockJob) or len(self.batches) + job.unread < ahead


@dataclass(eq=False)
class _Batch:
    """One request: positions of one job's texts, or of several.

    stop : set when nobody waits for it any more, so that it is not tried again.
    """

    parts: list[tuple[Job, np.ndarray]]
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def texts(self) -> list[str]:
        """Of all parts."""
        return [job.texts[i] for job, positions in self.parts for i in positions.tolist()]


class RequestQueue(JobQueue):
    """Gives batches to `request` on at most `threads` threads at once.

    request : a method of the engine, called with at most `batch_size` texts, and an event that is set when
        nobody waits any more.
    order : positions of a job's texts in the order to ask in; those left out have a row of zeros.
    batch_size : texts of a request at most; or a method of the engine that says it, of texts whose longest comes
        first in `order`.
    """

    def __init__(
        self,
        request: Callable[[list[str], threading.Event], np.ndarray],
        *,
        order: Callable[[list[str]], np.ndarray],
        full_dim: int,
        batch_size: int | Callable[[Waiting], int],
        threads: int,
        places: int = PLACES,
    ) -> None:
        super().__init__(places=places)
        self._request = weakref.WeakMethod(request)  # jobs keep the engine, not the queue
        self._order = order
        self._full_dim = full_dim
        self._batch_size = batch_size if isinstance(batch_size, int) else weakref.WeakMethod(batch_size)
        self._most_threads = threads
        self._ahead = _AHEAD_PER_THREAD * threads
        self._requests = 0  # under way
        self._coming = 0  # threads that are about to take their first batch
        self._workers: set[threading.Thread] = set()
        self._todo: dict[Job, _Todo] = {}
        self._turns: deque[Job] = deque()

    def _prepare(self, job: Job) -> None:
        job.order = self._order(job.texts)
        left_out = np.setdiff1d(np.arange(len(job.texts)), job.order)
        if len(left_out):
            job.deliver(left_out, np.zeros((len(left_out), self._full_dim), dtype=np.float32))

    def _queue(self, job: Job) -> None:
        self._todo[job] = _Todo(job.order)
        self._turns.append(job)

    def _forget(self, job: Job) -> None:
        todo = self._todo.pop(job)
        self._turns.remove(job)
        self._stop_unwanted(todo)

    def _call_worker(self) -> None:
        with self._lock:
            nothing_to_ask = [(job, todo.error) for job, todo in self._todo.items() if todo.is_done]
            if self._requests + self._coming < self._most_threads and self._askable():
                # The name shows in stack dumps, and tells these threads from the caller's.
                worker = threading.Thread(target=self._serve, name="embed-request", daemon=True)
                self._workers.add(worker)
                self._coming += 1
                worker.start()
        for job, error in nothing_to_ask:
            self._end(job, error)

    def _advance(self, job: Job) -> None:  # noqa: ARG002 - requests are for threads of their own
        self._call_worker()

    def _was_read(self) -> None:
        self._call_worker()

    def _is_mine(self) -> bool:
        return threading.current_thread() in self._workers

    def _is_at_work(self) -> bool:
        return False  # a request that nobody waits for is not waited for

    def _stop_threads(self) -> list[threading.Thread]:
        return []

    def _serve(self) -> None:
        """A request thread: asks while there is something to ask, and ends."""
        try:
            batch = self._take(first=True)
            while batch is not None:
                self._call_worker()  # another thread for the next batch, if there is one
                self._ask(batch)
                batch = self._take()
        finally:
            with self._lock:
                self._workers.discard(threading.current_thread())

    def _ask(self, batch: _Batch) -> None:
        rows = None
        # Stands if the thread ends in a way that is no Exception: whoever waits must hear of it.
        failure: Exception | None = ServerError("a request thread broke; its traceback says why")
        try:
            with Caught() as caught:
                rows = self._request()(batch.texts, batch.stop)
            failure = caught.error
        finally:
            for job, error in self._settle(batch, rows, failure):
                self._end(job, error)

    def _take(self, *, first: bool = False) -> _Batch | None:
        with self._lock:
            self._coming -= first
            jobs = self._askable()
            if not jobs or self._requests == self._most_threads:
                return None
            jobs = jobs[:1] if jobs[0].alone else [job for job in jobs if not job.alone]
            batch = _Batch([])
            room = self._room(jobs)
            # In turn, so that everybody gets a share; what small jobs leave of theirs goes to larger ones.
            jobs = jobs[:room]
            jobs.sort(key=lambda job: len(self._todo[job].positions))
            for others, job in zip(reversed(range(len(jobs))), jobs, strict=True):
                todo, share = self._todo[job], room // (others + 1)
                batch.parts.append((job, todo.positions[:share]))
                todo.positions = todo.positions[share:]
                todo.batches.append(batch)
                room -= len(batch.parts[-1][1])
                self._turns.remove(job)
                self._turns.append(job)
            self._requests += 1
            return batch

    def _room(self, jobs: list[Job]) -> int:
        if isinstance(self._batch_size, int):
            return self._batch_size
        todo = [self._todo[job].positions for job in jobs]
        longest = max(len(job.texts[positions[0]]) for job, positions in zip(jobs, todo, strict=True))
        return self._batch_size()(Waiting(sum(map(len, todo)), longest, self._requests))

    def _askable(self) -> list[Job]:
        return [job for job in self._turns if self._todo[job].wants_more(job, self._ahead)]

    def _settle(
        self, batch: _Batch, rows: np.ndarray | None, error: Exception | None
    ) -> list[tuple[Job, Exception | None]]:
        """Hand out the rows of a request, or what it failed with; returns the jobs that ended with it."""
        ended = []
        end = 0
        with self._lock:
            self._requests -= 1
            for job, positions in batch.parts:
                start, end = end, end + len(positions)
                todo = self._todo.get(job)
                if todo is None:
                    continue
                todo.batches.remove(batch)
                if rows is not None:
                    job.deliver(positions, rows[start:end])
                elif len(batch.parts) > 1 and todo.error is None:
                    # Whose text it was is not known: each is asked again by itself, and only one fails.
                    job.alone = True
                    todo.positions = np.concatenate([positions, todo.positions])
                elif todo.error is None:
                    # What is under way may finish, but is not tried again.
                    todo.error, todo.positions = error, todo.positions[:0]
                    self._stop_unwanted(todo)
                if todo.is_done:
                    ended.append((job, todo.error))
        return ended

    def _stop_unwanted(self, todo: _Todo) -> None:
        for batch in todo.batches:
            owners = [self._todo.get(job) for job, _ in batch.parts]
            if all(owner is None or owner.error is not None for owner in owners):
                batch.stop.set()
