"""A queue whose work one thread at a time does, so that a device, a model and its buffers have one owner.

A caller who finds nobody at work does it on its own thread: an uncontended `encode` costs no change of
threads. It may do so if it is the first thread that ever called (or that one has ended); all others are
served by the queue's own thread, so that never more than two threads have a cuBLAS workspace and a pool
of OpenMP threads for one engine. Whoever is at work does everybody's: rows go to the callers they belong
to, whichever thread makes them.

Work is done in runs: the texts of one caller, or few texts of several callers together. Runs take turns,
a started piece each, and a new one comes first: a short request waits for the pieces under way, never for
a long request's end.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from toolkit.embedding.jobs import BlockJob, Caught, Job, Started
from toolkit.embedding.queue import PLACES, JobQueue
from toolkit.errors import VectorError

# Starts work on texts piece by piece; may be left early.
Begin = Callable[[Sequence[str]], Iterator[Started]]

_LINGER_S = 10.0  # the thread stays so long without work: starting one costs as much as a short request


class OwnerQueue(JobQueue):
    """Runs texts through `begin` on one thread at a time.

    ahead : pieces that may be started before the first of them is waited for.
    shared_characters : called for how many characters, of several callers together, make up a run.
    """

    def __init__(
        self,
        begin: Begin,
        *,
        ahead: int = 1,
        shared_characters: Callable[[], int],
        places: int = PLACES,
        name: str = "engine",
    ) -> None:
        super().__init__(places=places)
        self._begin = begin
        self._ahead = ahead
        self._shared_characters = shared_characters
        self._name = name
        self._work = threading.Condition(self._lock)  # there is work for the thread
        self._thread: threading.Thread | None = None
        self._home: threading.Thread | None = None
        self._owner: threading.Thread | None = None
        self._depth = 0  # a future's callback may call the engine from within its work
        self._waiting: deque[Job] = deque()
        # These three only the owner touches.
        self._runs: deque[_Run] = deque()
        self._started: deque[tuple[_Run, Started]] = deque()

    # -- who works ------------------------------------------------------------------------------------

    def _queue(self, job: Job) -> None:
        self._waiting.append(job)

    def _forget(self, job: Job) -> None:
        if job in self._waiting:
            self._waiting.remove(job)
        elif self._owner is None:
            self._drop_abandoned()

    def _call_worker(self) -> None:
        with self._lock:
            if self._owner is not None or not self._live:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name=f"{self._name}-owner", daemon=True)
                self._thread.start()
            else:
                self._work.notify()

    def _advance(self, job: Job) -> None:
        with self._lock:
            mine = self._may_work_here()
            if mine:
                self._owner = threading.current_thread()
                self._depth += 1
            else:
                self._call_worker()
        if mine:
            self._work_for(job)

    def _may_work_here(self) -> bool:
        me = threading.current_thread()
        if self._owner is not None:
            return self._owner is me
        if self._home is None or not self._home.is_alive():
            self._home = me
        return self._home is me

    def _work_for(self, job: Job) -> None:
        """Work until the job has something to hand out. An interruption leaves all others' jobs whole."""
        intact = False
        try:
            while not (job.over or (isinstance(job, BlockJob) and job.has_news)):
                self._turn()
            intact = True
        finally:
            with self._lock:
                if not intact:
                    self._start_over()
                self._depth -= 1
                if not self._depth:
                    self._leave(job)

    def _leave(self, job: Job) -> None:
        self._owner = None
        self._changed.notify_all()
        # A stream that only its reader's thread works for goes on when it is read on.
        if any(other.wants_more for other in self._live if other is not job):
            self._call_worker()

    def _was_read(self) -> None:
        if self._home is not threading.current_thread():
            self._call_worker()  # go ahead while the block is used

    def _serve(self) -> None:
        """The queue's thread: works while there is work, and ends when there was none for a while."""
        me = threading.current_thread()
        while True:
            with self._lock:
                while self._owner is not None or not self._has_work():
                    if self._closed and not self._live:
                        self._thread = None
                        return
                    if not self._work.wait(_LINGER_S) and not self._has_work():
                        self._thread = None
                        return
                self._owner, self._depth = me, 1
            while self._turn():
                pass
            with self._lock:
                self._owner, self._depth = None, 0
                self._changed.notify_all()

    def _has_work(self) -> bool:
        return any(job.wants_more for job in list(self._live))

    def _is_mine(self) -> bool:
        return self._owner is threading.current_thread()

    def _is_at_work(self) -> bool:
        return self._owner is not None

    def _threads(self) -> list[threading.Thread]:
        with self._lock:
            self._work.notify_all()
            return [self._thread] if self._thread is not None else []

    # -- the work; only the owner comes here ------------------------------------------------------------

    def _turn(self) -> bool:
        """Start what may be started, then wait for what was started first; False if there was nothing."""
        did = False
        while len(self._started) < self._ahead:
            run = self._next_run()
            if run is None:
                break
            self._start(run)
            did = True
        if self._started:
            self._settle(*self._started.popleft())
            did = True
        return did

    def _next_run(self) -> _Run | None:
        self._drop_abandoned()
        if self._waiting:
            self._form_run()
        for _ in range(len(self._runs)):
            run = self._runs[0]
            self._runs.rotate(-1)
            if run.wants_more:
                return run
        return None

    def _form_run(self) -> None:
        """Of the job that has waited longest, and if it is small, of others too: they share packs."""
        room = self._shared_characters()
        with self._lock:
            if not self._waiting:
                return
            jobs = [self._waiting[0]]
            size = jobs[0].size
            if size <= room and not jobs[0].alone:
                for job in list(self._waiting)[1:]:
                    if size + job.size <= room and not job.alone:
                        jobs.append(job)
                        size += job.size
            self._runs.appendleft(_Run(jobs))
            if len(jobs) == 1:
                self._waiting.popleft()
            else:
                taken = set(jobs)
                self._waiting = deque(job for job in self._waiting if job not in taken)

    def _start(self, run: _Run) -> None:
        with Caught() as caught:
            if run.pieces is None:
                run.pieces = self._begin(run.texts)
            started = next(run.pieces, None)
        if caught.error is not None:
            run.fail(caught.error)
        elif started is not None:
            self._started.append((run, started))
            run.under_way += 1
            return
        run.exhausted = True
        self._end_of(run)

    def _settle(self, run: _Run, started: Started) -> None:
        run.under_way -= 1
        with Caught() as caught:
            run.deliver(*started())
        if caught.error is not None:
            run.fail(caught.error)
        complete = [job for job in run.jobs if job.complete]
        self._end_of(run)
        for job in complete:
            self._end(job, None)

    def _end_of(self, run: _Run) -> None:
        if not run.exhausted or run.under_way or run not in self._runs:
            return
        self._runs.remove(run)
        jobs = [job for job in run.jobs if not job.over and not job.complete]
        if run.error is not None and len(run.jobs) > 1:
            # Whose text it was is not known: each is tried again by itself, and only one fails.
            with self._lock:
                for job in jobs:
                    job.alone = True
                self._waiting.extendleft(reversed([job for job in jobs if job in self._live]))
            return
        for job in jobs:
            self._end(job, run.error or job.missing())

    def _drop_abandoned(self) -> None:
        """Let go of runs that nobody waits for; what the device still does for them is not waited for."""
        abandoned = [run for run in self._runs if all(job.over for job in run.jobs)]
        for run in abandoned:
            run.leave()
            self._runs.remove(run)
        if abandoned:
            self._started = deque(pair for pair in self._started if pair[0] in self._runs)

    def _start_over(self) -> None:
        """What was under way is unknown: forget it, and queue again all texts that have no row yet."""
        for run in self._runs:
            run.leave()
        self._runs.clear()
        self._started.clear()
        self._waiting = deque(self._live)
        for job in [job for job in self._waiting if job.pieces is not None]:
            self._end(job, VectorError("the work on these packs was interrupted; start it again"))


class _Run:
    """Jobs whose texts the engine works on together.

    under_way : pieces started and not yet waited for.
    exhausted : whether there is nothing more to start.
    """

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs = jobs
        self.pieces: Iterator[Started] | None = jobs[0].pieces
        self.under_way = 0
        self.exhausted = False
        self.error: Exception | None = None
        # Where each job's texts end, and what they are; None where they are one job's from first to last.
        self._positions: list[np.ndarray] | None = None
        self._ends: np.ndarray | None = None
        self.texts = jobs[0].texts
        if len(jobs) > 1 or len(jobs[0].remaining) < len(jobs[0].texts):
            self._positions = [job.remaining for job in jobs]
            self._ends = np.cumsum([len(positions) for positions in self._positions])
            self.texts = [
                job.texts[i]
                for job, chosen in zip(jobs, self._positions, strict=True)
                for i in chosen.tolist()
            ]

    @property
    def wants_more(self) -> bool:
        """Whether another piece should be started. Shared runs are short and never wait for a reader."""
        return not self.exhausted and (len(self.jobs) > 1 or self.jobs[0].wants_more)

    def deliver(self, places: np.ndarray, rows: np.ndarray) -> None:
        """Hand rows to the jobs they belong to."""
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
