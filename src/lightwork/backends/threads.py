"""Worker threads.

Each worker has an inbox (a ``SimpleQueue``) and hands its answers over when its inbox is empty
or a millisecond has passed. What a worker has not started is exactly what can still be had from
its inbox, or from the right end of its current chunk's deque: both give each item to one taker
only, on builds with and without the GIL. So taking back needs no lock.

A thread cannot be killed. Whoever is first to pop a worker's `running` cell decides: the worker,
then the call has ended and its result counts; or ``kill``, then the thread is written off, its
late result is dropped when it comes, and the engine puts another thread in its place.

Limitations: a written-off thread goes on until its call returns; it holds what it holds.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from .. import current
from ..core.events import Running
from .base import Death, Parcel, Result, Sink, WorkerOptions
from .local import LocalCall, LocalCalls, trimmed

__all__ = ["ThreadBackend"]

FLUSH = 1e-3
"""Seconds that a result may wait for company."""

_LEAVE, _NUDGE = object(), object()


class _Answer(NamedTuple):
    parcel: Parcel
    offset: int
    value: Any
    error: BaseException | None
    started: float
    ended: float


class _Worker:
    __slots__ = (
        "answers",
        "cell",
        "collecting",
        "ended",
        "inbox",
        "news",
        "number",
        "remaining",
        "telling",
        "thread",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.inbox: SimpleQueue[Any] = SimpleQueue()
        self.answers: deque[_Answer] = deque()  # each is taken once, by whoever comes first
        self.cell: list[Running] = []  # the call that runs; whoever pops it decides
        self.ended = 0.0  # when its last call did
        self.remaining: tuple[Parcel, deque[int]] | None = None  # offsets not started
        self.thread: threading.Thread | None = None
        self.news: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.telling = threading.Lock()
        self.collecting = threading.Lock()  # held for moments, and nothing is waited for inside


class ThreadBackend:
    """See ``backends.base.Backend``."""

    kind = "threads"
    can_kill = False
    has_pump = False
    keeps_time = True
    combines = True

    def open(self, sink: Sink, options: WorkerOptions) -> None:
        """See Backend."""
        self._sink = sink
        self._options = options
        self._workers: dict[int, _Worker] = {}
        self._threads: list[threading.Thread] = []
        self._to_launch: deque[_Worker] = deque()
        self._to_tell: deque[_Worker] = deque()  # workers of which there is news
        self._alarm: SimpleQueue[None] = SimpleQueue()

    def prepare(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> LocalCall:
        """See Backend."""
        return LocalCall(fn, (args,), True, kwargs)

    def prepare_chunk(self, fn: Callable[..., Any], items: Sequence[Any], star: bool) -> LocalCall:
        """See Backend."""
        return LocalCall(fn, items, star, None)

    def combine(self, waiting: Sequence[Any]) -> list[tuple[Any, int]]:
        """See Backend."""
        if len(waiting) == 1:
            return [(waiting[0], 1)]
        return [(LocalCalls(waiting), len(waiting))]

    def start(self, worker: int) -> None:
        """See Backend."""
        state = self._workers[worker] = _Worker(worker)
        self._to_launch.append(state)

    def send(self, worker: int, parcels: Sequence[Parcel]) -> None:
        """See Backend."""
        state = self._workers.get(worker)
        if state is not None:
            for parcel in parcels:
                state.inbox.put(parcel)

    def take_back(self, worker: int, task: int, offset: int) -> list[tuple[int, int, int]]:
        """See Backend."""
        state = self._workers.get(worker)
        if state is None:
            return []
        waiting: list[Any] = []
        with contextlib.suppress(Empty):
            while True:
                waiting.append(state.inbox.get_nowait())
        taken: list[tuple[int, int, int]] = []
        # Where the cut is not in the inbox, it was started: all that waits is behind it.
        found = next((i for i, one in enumerate(waiting) if _is(one, task)), -1)
        if found < 0:
            taken += self._cut_chunk(state, task, offset)
        for place, one in enumerate(waiting):
            if not isinstance(one, Parcel) or place < found:
                state.inbox.put(one)
                continue
            cut = one.lo
            if place == found and offset > one.lo:
                cut = offset
                state.inbox.put(one._replace(hi=offset))
            taken.append((one.task, one.attempt, cut))
        self._answer_for(state)
        return taken

    @staticmethod
    def _cut_chunk(state: _Worker, task: int, offset: int) -> list[tuple[int, int, int]]:
        """Take the calls of the current chunk that have not started, from `offset` on."""
        current_chunk = state.remaining
        if current_chunk is None:
            return []
        parcel, offsets = current_chunk
        least = offset if parcel.task == task else 0
        first = -1
        # Look before taking: what was taken could not be put back, for the worker may have found
        # the deque empty meanwhile, and gone on. Only we take from this end, so what is seen is
        # what is popped, or the worker was faster, and nothing is left.
        while offsets:
            try:
                if offsets[-1] < least:
                    break
                first = offsets.pop()
            except IndexError:
                pass  # without a GIL, -1 counts from where the end was before the worker took one
        return [(parcel.task, parcel.attempt, first)] if first >= 0 else []

    def inspect(self, worker: int) -> Running | None:
        """See Backend."""
        state = self._workers.get(worker)
        try:
            return state.cell[0] if state is not None else None
        except IndexError:
            return None

    def retire(self, worker: int) -> None:
        """See Backend."""
        state = self._workers.get(worker)
        if state is not None:
            state.inbox.put(_LEAVE)

    def kill(self, worker: int, how: str) -> None:
        """See Backend."""
        state = self._workers.get(worker)
        if state is None:
            return
        try:
            running = state.cell.pop()
        except IndexError:
            state.inbox.put(_LEAVE)  # it is between calls: it answers, and leaves by itself
            return
        del self._workers[worker]
        state.inbox.put(_LEAVE)
        self._forget(state)
        self._answer_for(state)
        state.news.append((self._sink.died, (worker, Death(how, running))))
        self._to_tell.append(state)

    def flush(self) -> None:
        """See Backend."""
        with contextlib.suppress(IndexError):
            while True:
                self._launch(self._to_launch.popleft())
        with contextlib.suppress(IndexError):
            while True:
                self._tell(self._to_tell.popleft())

    @staticmethod
    def _tell(state: _Worker) -> None:
        """Tell the sink what there is of this worker, in order, by one thread at a time.

        1. A has told all and is about to let go of the lock; 2. B brings news, cannot have the
        lock, and leaves; 3. A lets go, looks once more, and tells B's news. So none is left
        lying, and a death is never told before the results that came before it.
        """
        while state.news and state.telling.acquire(blocking=False):
            try:
                while state.news:
                    action, args = state.news.popleft()
                    action(*args)
            finally:
                state.telling.release()

    def wait(self, timeout: float | None) -> None:
        """See Backend."""
        with contextlib.suppress(Empty):
            self._alarm.get(timeout=timeout)
            while True:
                self._alarm.get_nowait()

    def wake(self) -> None:
        """See Backend. Also safe in finalisers: ``SimpleQueue.put`` is reentrant."""
        self._alarm.put(None)
        for state in list(self._workers.values()):
            state.inbox.put(_NUDGE)

    def close(self) -> None:
        """See Backend."""

    def inside(self) -> bool:
        """See Backend."""
        return getattr(threading.current_thread(), "_lightwork_worker", None) is self

    def join(self) -> None:
        """See Backend. Threads that were written off are not waited for."""
        me = threading.current_thread()
        for thread in list(self._threads):
            if thread is not me:
                thread.join()

    # -- in the worker ---------------------------------------------------------------------------

    def _launch(self, state: _Worker) -> None:
        thread = threading.Thread(
            target=self._work,
            args=(state,),
            name=f"{self._options.name}-{state.number}",
            daemon=True,  # what is alive at exit is ended by our own hook, in order
        )
        state.thread = thread
        thread._lightwork_worker = self  # type: ignore[attr-defined]
        try:
            thread.start()
        except RuntimeError as error:
            self._workers.pop(state.number, None)
            self._sink.start_failed(state.number, error, fatal=False)
        else:
            self._threads.append(thread)

    def _work(self, state: _Worker) -> None:
        try:
            self._serve(state)
        except BaseException as error:
            # A bug of ours, or there was no memory left: nobody is to wait for this thread.
            self._workers.pop(state.number, None)
            self._forget(state)
            self._sink.failed(state.number, error)

    def _serve(self, state: _Worker) -> None:
        options = self._options
        if options.initializer is not None:
            try:
                options.initializer(*options.initargs)
            except BaseException as error:
                self._workers.pop(state.number, None)
                self._sink.start_failed(state.number, trimmed(error), fatal=True)
                return
        self._sink.ready(state.number)
        clock = time.monotonic
        last = clock()
        inbox = state.inbox
        while True:
            try:
                parcel = inbox.get_nowait()
            except Empty:
                # Whatever emptied the inbox, nothing is held back while we wait.
                self._answer_for(state)
                self.flush()
                parcel = inbox.get()
            if parcel is _NUDGE:
                self._sink.nudged()
                continue
            if parcel is _LEAVE:
                break
            if not self._run(state, parcel):
                self._forget(state)
                return  # written off
            hurry = not parcel.tiny  # who knows how long the next one takes
            parcel = None  # do not keep the arguments alive while waiting
            now = clock()
            if hurry or now - last >= FLUSH:
                last = now
                self._answer_for(state)
                self.flush()
        self._answer_for(state)
        if self._workers.pop(state.number, None) is not None:
            state.news.append((self._sink.died, (state.number, Death("retired", None))))
            self._to_tell.append(state)
        self.flush()
        self._forget(state)

    def _forget(self, state: _Worker) -> None:
        """Its thread is not waited for any more: it ends, or was written off; or both at once."""
        with contextlib.suppress(ValueError):
            self._threads.remove(state.thread)  # type: ignore[arg-type]

    def _answer_for(self, state: _Worker) -> None:
        """Note the worker's answers for the sink, consecutive ones of a task together.

        By one thread at a time, for answers are to be told in the order of the calls.
        """
        with state.collecting:
            results: list[Result] = []
            run: list[_Answer] = []
            while state.answers:
                answer = state.answers.popleft()
                if run and (
                    (self._options.apart and not answer.parcel.tiny)
                    or run[-1].parcel is not answer.parcel
                    or run[-1].offset + 1 != answer.offset
                ):
                    results.append(_together(run))
                    run = []
                run.append(answer)
            if run:
                results.append(_together(run))
            if results:
                state.news.append((self._sink.results, (state.number, results)))
                self._to_tell.append(state)

    def _run(self, state: _Worker, parcel: Parcel) -> bool:
        """Run a parcel; calls may be taken from its right end meanwhile. False: written off."""
        if parcel.hi - parcel.lo == 1:
            return self._call(state, parcel, parcel.lo)
        offsets = deque(range(parcel.lo, parcel.hi))
        state.remaining = (parcel, offsets)
        last = time.monotonic()
        try:
            while True:
                try:
                    offset = offsets.popleft()
                except IndexError:
                    return True
                if not self._call(state, parcel, offset):
                    return False
                if not offsets:
                    return True
                if not parcel.tiny or state.ended - last >= FLUSH:
                    last = state.ended
                    self._answer_for(state)
                    self.flush()
        finally:
            state.remaining = None

    @staticmethod
    def _call(state: _Worker, parcel: Parcel, offset: int) -> bool:
        """Run one call. False: this thread was written off meanwhile."""
        started = time.monotonic()
        cell = state.cell
        cell.append(Running(parcel.task, parcel.attempt, offset, started))
        at = parcel.base + offset
        current.enter(parcel.index + at, parcel.attempt, state.number, parcel.task)
        value, wrong = None, None
        try:
            value = parcel.call.run(at)
        except BaseException as error:
            wrong = trimmed(error)
        state.ended = time.monotonic()
        answer = _Answer(parcel, offset, value, wrong, started, state.ended)
        try:
            cell.pop()
        except IndexError:
            return False
        state.answers.append(answer)
        return True


def _together(run: list[_Answer]) -> Result:
    """One result of the answers of consecutive calls."""
    first, last = run[0], run[-1]
    errors = {answer.offset: answer.error for answer in run if answer.error is not None}
    return Result(
        first.parcel.task,
        first.parcel.attempt,
        first.offset,
        last.offset + 1,
        [answer.value for answer in run],
        errors or None,
        first.started,
        last.ended - first.started,
    )


def _is(parcel: Any, task: int) -> bool:
    return isinstance(parcel, Parcel) and parcel.task == task
