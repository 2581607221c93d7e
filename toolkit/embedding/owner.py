"""A queue whose work one thread at a time does, so that a device, a model and its buffers have one owner.

A caller who finds nobody at work does it on its own thread: an uncontended `encode` costs no change of
threads. It may do so if it is the first thread that ever called (or that one has ended); all others are
served by the queue's own thread, so that never more than two threads have a cuBLAS workspace and a pool
of OpenMP threads for one engine. Whoever is at work does everybody's: rows go to the callers they belong
to, whichever thread makes them.

Work is done in runs: the texts of one caller, or few texts of several callers together. Runs take turns,
a started piece each, and every other turn is for small requests, those that share a run first and then whoever
came since: a short request waits for a few pieces, never for a long request's end, and many short ones do not hold
up a long one.

While a device is busy the next run need not be formed before the device is about to be free: what comes until
then goes along, instead of waiting behind a run of the few that happened to be there.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from toolkit.embedding.jobs import Begun, BlockJob, Caught, Job, Started
from toolkit.embedding.queue import PLACES, JobQueue
from toolkit.embedding.runs import Pace, Run, UnderWay
from toolkit.errors import VectorError

# Starts work on texts piece by piece; may be left early.
Begin = Callable[[Sequence[str]], Iterator[Started]]

_LINGER_S = 10.0  # the thread stays so long without work: starting one costs as much as a short request


class OwnerQueue(JobQueue):
    """Runs texts through `begin` on one thread at a time.

    begin : a method of the engine, which starts work on texts piece by piece.
    ahead : pieces that may be started before the first of them is waited for.
    shared_characters : a method of the engine: how many characters, of several callers, make up a run.
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
        # Weak, so that an engine goes when nobody has it any more, though a thread may linger; jobs keep it.
        self._begin = weakref.WeakMethod(begin)
        self._shared_characters = weakref.WeakMethod(shared_characters)
        self._ahead = ahead
        self._name = name
        self._work = threading.Condition(self._lock)  # there is work for the thread
        self._thread: threading.Thread | None = None
        self._home: threading.Thread | None = None
        self._owner: threading.Thread | None = None
        self._depth = 0  # a future's callback may call the engine from within its work
        self._waiting: deque[Job] = deque()
        # These three only the owner touches.
        self._runs: list[Run] = []  # the one whose turn is next comes first
        self._newest_had_turn = False
        self._started: deque[UnderWay] = deque()
        self._pace = Pace()
        self._enough = threading.Condition(self._lock)  # as much waits as the device is busy with
        self._missing = math.inf  # characters until then

    # -- who works ------------------------------------------------------------------------------------

    def _queue(self, job: Job) -> None:
        self._waiting.append(job)
        self._missing -= job.size
        if self._missing <= 0:
            self._enough.notify_all()

    def _forget(self, job: Job) -> None:
        if job in self._waiting:
            self._waiting.remove(job)
        elif self._owner is None:
            self._drop_abandoned()

    def _call_worker(self) -> None:
        with self._lock:
            if self._owner is not None or not self._has_work():
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
            with self._working():
                while not (job.over or (isinstance(job, BlockJob) and job.has_news)):
                    self._turn()
            # A stream that only its reader's thread works for goes on when it is read on.
            if self._has_work(besides=job):
                self._call_worker()

    def _may_work_here(self) -> bool:
        me = threading.current_thread()
        if self._owner is not None:
            return self._owner is me
        if self._home is None or not self._home.is_alive():
            self._home = me
        return self._home is me

    def encode_one(self, texts: list[str], engine: object) -> np.ndarray | None:  # noqa: ARG002 - kept alive
        """The row of one text without queueing, where nobody else is about; else None.

        A query takes a few milliseconds at most, and the queue's Python is part of that.
        """
        if os.getpid() != self._process:
            return None
        with self._lock:
            if self._live or self._owner is not None or self._closed or not self._may_work_here():
                return None
            self._owner, self._depth = threading.current_thread(), 1
        try:
            started = next(self._begin()(texts), None)
            return None if started is None else started()[1]
        finally:
            with self._lock:
                self._owner, self._depth = None, 0
                self._changed.notify_all()
                if self._live:
                    self._call_worker()

    @contextmanager
    def _working(self) -> Iterator[None]:
        """The time in which the thread is the owner. An interruption leaves the others' jobs whole."""
        intact = False
        try:
            yield
            intact = True
        finally:
            with self._lock:
                if not intact:
                    self._start_over()
                self._depth -= 1
                if not self._depth:
                    self._owner = None
                    self._changed.notify_all()

    def _was_read(self) -> None:
        if self._home is not threading.current_thread():
            self._call_worker()  # go ahead while the block is used

    def _serve(self) -> None:
        """The queue's thread: works while there is work, and ends when there was none for a while."""
        try:
            while self._wait_for_work():
                with self._working():
                    while self._turn():
                        pass
        finally:
            with self._lock:
                self._thread = None
                self._call_worker()  # something may have come just now

    def _wait_for_work(self) -> bool:
        """Become the owner when there is work; False when there was none for a while, or never will be."""
        with self._lock:
            while self._owner is not None or not self._has_work():
                if self._closed and not self._live:
                    return False
                if not self._work.wait(_LINGER_S) and not self._has_work():
                    return False
            self._owner, self._depth = threading.current_thread(), 1
            return True

    def _has_work(self, besides: Job | None = None) -> bool:
        with self._lock:
            return any(job.wants_more for job in list(self._live) if job is not besides)

    def _is_mine(self) -> bool:
        return self._owner is threading.current_thread()

    def _is_at_work(self) -> bool:
        return self._owner is not None

    def _stop_threads(self) -> list[threading.Thread]:
        with self._lock:
            self._work.notify_all()
            return [self._thread] if self._thread is not None else []

    # -- the work; only the owner comes here ------------------------------------------------------------

    def _turn(self) -> bool:
        """Start what may be started, then wait for what was started first; False if there was nothing."""
        did = False
        while len(self._started) < self._ahead:
            if self._ahead > 1:
                self._gather()
            began_s = time.perf_counter()
            run = self._next_run()
            if run is None:
                break
            self._start(run)
            self._pace.was_started(time.perf_counter() - began_s)
            did = True
        if self._started:
            self._settle(self._started.popleft())
            did = True
        return did

    def _gather(self) -> None:
        """Wait for more texts until the device is about to be free, or as much waits as it is busy with."""
        for run in [run for run in self._runs if run.is_short and run.under_way and run.wants_more]:
            if len(self._started) < self._ahead:
                self._start(run)  # finds, as a rule, that there is no more of it
        if not self._started or any(run.wants_more for run in self._runs):
            return
        until_s = self._pace.next_start_s(self._started[-1])
        with self._lock:
            self._missing = self._started[-1].run.size - sum(job.size for job in self._waiting)
            while self._missing > 0 and not self._closed:
                left_s = until_s - time.perf_counter()
                if left_s <= 0:
                    break
                self._enough.wait(left_s)
            self._missing = math.inf

    def _next_run(self) -> Run | None:
        self._drop_abandoned()
        run = next((run for run in self._runs if run.wants_more), None)
        if run is None or not self._newest_had_turn:
            # Callers who share a run are served whole before the next ones share another: else those whose texts
            # come last in theirs would wait for everybody who comes after them.
            shared = next((one for one in self._runs if len(one.jobs) > 1 and one.wants_more), None)
            if shared is not None or self._waiting:
                self._newest_had_turn = True
                return shared or self._form_run()
        self._newest_had_turn = False
        if run is not None:
            self._runs.remove(run)
            self._runs.append(run)
        return run

    def _form_run(self) -> Run | None:
        """Of the job that has waited longest, and if it is small, of others too: they share packs."""
        room = self._shared_characters()()
        with self._lock:
            waiting = list(self._waiting)
            jobs, size = waiting[:1], 0
            if jobs and not jobs[0].alone:
                size = jobs[0].size
                for job in waiting[1:]:
                    if size + job.size <= room and not job.alone:
                        jobs.append(job)
                        size += job.size
            if not jobs:
                return None
            run = Run(jobs)
            self._runs.append(run)
            begun = Begun(time.perf_counter(), len(jobs), len(run.texts))
            for job in jobs:
                job.was_begun(begun)
            self._waiting = deque(job for job in waiting if job not in jobs and not job.over)
            return run

    def _start(self, run: Run) -> None:
        with Caught() as caught:
            if run.pieces is None:
                run.pieces = self._begin()(run.texts)
            started = next(run.pieces, None)
        if caught.error is not None:
            run.fail(caught.error)
        elif started is not None:
            self._started.append(UnderWay(run, started, time.perf_counter(), is_whole=not run.pieces_started))
            run.under_way += 1
            run.pieces_started += 1
            return
        run.exhausted = True
        self._end_of(run)

    def _settle(self, under_way: UnderWay) -> None:
        run = under_way.run
        run.under_way -= 1
        with Caught() as caught:
            block = under_way.started()
            self._pace.was_done(under_way)
            run.deliver(*block)
        if caught.error is not None:
            run.fail(caught.error)
        complete = [job for job in run.jobs if job.complete]
        if all(job.over or job.complete for job in run.jobs):
            run.leave()
        self._end_of(run)
        for job in complete:
            self._end(job, None)

    def _end_of(self, run: Run) -> None:
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
            self._started = deque(one for one in self._started if one.run in self._runs)

    def _start_over(self) -> None:
        """What was under way is unknown: forget it, and queue again all texts that have no row yet."""
        for run in self._runs:
            run.leave()
        self._runs.clear()
        self._started.clear()
        self._waiting = deque(self._live)
        for job in [job for job in self._waiting if job.pieces is not None]:
            self._end(job, VectorError("the work on these packs was interrupted; start it again"))
