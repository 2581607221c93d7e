"""What stands between callers on any thread and what only one of them may use: a bounded queue with an end.

A job has a place from `submit`, `encode` or the first block asked of `blocks` until it is over: done,
failed, cancelled or left. Who does the work is for the two kinds: `owner.OwnerQueue`, where one thread at
a time has the device, and `request_queue.RequestQueue`, where several requests are under way at once.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import CancelledError
from functools import partial

import numpy as np

from toolkit.embedding.jobs import BlockJob, Job, WholeJob
from toolkit.embedding.protocol import Block
from toolkit.errors import EngineClosedError, QueueFullError

PLACES = 512
_EXIT_WAIT_S = 5.0  # for what a thread is in the middle of when the interpreter ends

_open_queues: weakref.WeakSet[JobQueue] = weakref.WeakSet()


class JobQueue(ABC):
    """Admission, cancellation and closing; safe from any thread of the process that made it.

    places : jobs that may wait or be at work at once.
    """

    def __init__(self, *, places: int) -> None:
        self._places = places
        # Reentrant: a stream that nobody reads any more may be collected, and withdrawn, at any line.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)  # a job is over, or nobody is at work any more
        self._live: dict[Job, None] = {}  # in the order they came
        self._closed = False
        self._process = os.getpid()
        _open_queues.add(self)

    @property
    def pending(self) -> int:
        """Jobs that wait or are at work."""
        return len(self._live)

    def submit(self, job: WholeJob, timeout_s: float | None) -> None:
        """Queue a job and return; its future tells the rest.

        Raises QueueFullError, EngineClosedError.
        """
        self._admit(job, timeout_s)
        job.future.add_done_callback(partial(self._future_is_done, job))
        self._call_worker()

    def encode(self, job: WholeJob) -> np.ndarray:
        """Queue a job and wait for its rows, doing the work on this thread where that may be."""
        try:
            self._admit(job, None)
            self._advance(job)
            return job.future.result()
        except CancelledError:
            raise EngineClosedError("the engine was closed while it encoded; open it again") from None
        finally:
            self.withdraw(job)

    def encode_one(self, texts: list[str], engine: object) -> np.ndarray | None:  # noqa: ARG002
        """The row of one text without queueing, (1, full_dim), where nobody else is about; else None."""
        return None

    def blocks(self, job: BlockJob) -> Iterator[Block]:
        """Queue a job when the first block is asked for, and yield its blocks."""
        try:
            self._admit(job, None)
            while True:
                if not job.has_news:
                    self._advance(job)
                block = job.next_block()
                if block is None:
                    return
                self._was_read()
                yield block
        finally:
            self.withdraw(job)

    def withdraw(self, job: Job) -> None:
        """Take a job back that nobody waits for, unless it is over; what was not started never is."""
        if os.getpid() != self._process:
            return
        with self._lock:
            if job not in self._live:
                return
            del self._live[job]
            job.over = True
            self._forget(job)
            self._changed.notify_all()
        if isinstance(job, WholeJob):
            job.cancel()

    def close(self, *, cancel: bool = False) -> None:
        """Take no more; wait for what was submitted, or cancel it. Open streams end with an error."""
        if os.getpid() != self._process:
            return
        with self._lock:
            self._closed = True
            jobs = list(self._live)
            self._changed.notify_all()
        cancel |= self._is_mine()  # whoever does the work cannot wait for itself
        for job in jobs:
            if isinstance(job, BlockJob):
                self._end(
                    job, EngineClosedError("the engine was closed while its stream was read; open it again")
                )
            elif cancel:
                self.withdraw(job)
        with self._lock:
            while not self._is_mine() and (self._live or self._is_at_work()):
                self._changed.wait()
        self._stop_threads()

    def _admit(self, job: Job, timeout_s: float | None) -> None:
        if os.getpid() != self._process:
            raise EngineClosedError(
                f"this engine belongs to process {self._process}, of which {os.getpid()} is a fork; "
                "open an engine in the process that uses it"
            )
        self._prepare(job)
        until = None if timeout_s is None else time.monotonic() + timeout_s
        with self._lock:
            while not self._closed and len(self._live) >= self._places:
                left_s = None if until is None else until - time.monotonic()
                if self._is_mine() or (left_s is not None and left_s <= 0):
                    raise QueueFullError(
                        f"the engine's queue is full ({self._places} requests wait or are at work); "
                        "try again later, or wait with timeout_s=None"
                    )
                self._changed.wait(left_s)
            if self._closed:
                raise EngineClosedError("this engine is closed; open it again")
            self._live[job] = None
            self._queue(job)

    def _end(self, job: Job, error: Exception | None) -> None:
        """Let a job go, with all its rows or with an error. Its future's callbacks run here."""
        with self._lock:
            if job not in self._live:
                return
            del self._live[job]
            job.over = True
            self._forget(job)
            self._changed.notify_all()
        job.finish(error)

    def _future_is_done(self, job: WholeJob, _future: object) -> None:
        self.withdraw(job)  # where the caller cancelled it; otherwise it is over already

    def _prepare(self, job: Job) -> None:
        """What takes a while for many texts, before the lock is taken; the default is nothing."""

    @abstractmethod
    def _queue(self, job: Job) -> None:
        """A job has come; the lock is held."""

    @abstractmethod
    def _forget(self, job: Job) -> None:
        """A job is over; the lock is held."""

    @abstractmethod
    def _call_worker(self) -> None:
        """See to it that somebody works where there is work."""

    @abstractmethod
    def _advance(self, job: Job) -> None:
        """The calling thread waits for this job: do its work, or see to it that somebody does."""

    @abstractmethod
    def _was_read(self) -> None:
        """A block was read."""

    @abstractmethod
    def _is_mine(self) -> bool:
        """Whether the calling thread is doing the work just now, further up its stack."""

    @abstractmethod
    def _is_at_work(self) -> bool:
        """Whether some thread is; the lock is held."""

    @abstractmethod
    def _stop_threads(self) -> list[threading.Thread]:
        """Tell threads that wait for work that none will come; returns those to wait for at the exit."""


@atexit.register
def _stop_all() -> None:
    """Let no thread be inside torch while the interpreter is taken apart."""
    until = time.monotonic() + _EXIT_WAIT_S
    for queue in [queue for queue in _open_queues if queue._process == os.getpid()]:  # noqa: SLF001 - of this module
        queue._closed = True  # noqa: SLF001
        for job in list(queue._live):  # noqa: SLF001
            queue.withdraw(job)
        for thread in queue._stop_threads():  # noqa: SLF001
            thread.join(max(0.0, until - time.monotonic()))
