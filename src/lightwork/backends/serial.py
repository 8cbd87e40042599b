"""No workers: calls run in place, in the thread that submits them.

For debugging, and for work that is too small for any worker. A "worker" here is only a number
that the scheduler can send to. There is always a free one, so that a task may submit to its own
pool and wait for the result.

Limitations: a running call cannot be interrupted, so time limits and ``kill`` do nothing.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from .. import current
from ..core.events import Running
from .base import Death, Parcel, Result, Sink, WorkerOptions
from .local import LocalCall, trimmed

__all__ = ["SerialBackend", "cut_queue"]


def cut_queue(queue: deque[Parcel], task: int, offset: int) -> list[tuple[int, int, int]]:
    """Take from a queue of parcels that have not started the call named and all behind it.

    Where the queue does not have it, it has started, and all that is here is behind it.
    """
    tasks = [parcel.task for parcel in queue]
    first = tasks.index(task) if task in tasks else 0
    taken = []
    while len(queue) > first:
        parcel = queue.pop()
        cut = parcel.lo
        if parcel.task == task and offset > cut:
            cut = offset
            queue.append(parcel._replace(hi=cut))
            first += 1
        taken.append((parcel.task, parcel.attempt, cut))
    return taken[::-1]


class _Inside(threading.local):
    depth = 0  # how many tasks of the pool this thread is in


class SerialBackend:
    """See ``backends.base.Backend``."""

    kind = "serial"
    can_kill = False
    has_pump = False
    keeps_time = False
    combines = False

    def open(self, sink: Sink, options: WorkerOptions) -> None:
        """See Backend."""
        self._sink = sink
        self._options = options
        self._initialized = False
        self._todo: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._running: dict[int, _Place] = {}
        self._doomed: dict[int, str] = {}
        self._parcels: dict[int, deque[Parcel]] = {}
        self._inside = _Inside()
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
        """See Backend. Never called: whoever submits runs the call."""
        return [(call, 1) for call in waiting]

    def start(self, worker: int) -> None:
        """See Backend."""
        self._parcels[worker] = deque()
        self._todo.append((self._initialize, (worker,)))

    def _initialize(self, worker: int) -> None:
        if not self._initialized and self._options.initializer is not None:
            try:
                self._options.initializer(*self._options.initargs)
            except Exception as error:
                self._sink.start_failed(worker, error, fatal=True)
                return
        self._initialized = True
        self._sink.ready(worker)

    def send(self, worker: int, parcels: Sequence[Parcel]) -> None:
        """See Backend."""
        self._parcels[worker].extend(parcels)
        self._todo.append((self._run, (worker,)))

    def take_back(self, worker: int, task: int, offset: int) -> list[tuple[int, int, int]]:
        """See Backend."""
        return cut_queue(self._parcels.get(worker, deque()), task, offset)

    def inspect(self, worker: int) -> Running | None:
        """See Backend."""
        place = self._running.get(worker)
        return place.running() if place is not None else None

    def retire(self, worker: int) -> None:
        """See Backend."""
        self._todo.append((self._leave, (worker,)))

    def _leave(self, worker: int) -> None:
        self._parcels.pop(worker, None)
        self._sink.died(worker, Death("retired", None))

    def kill(self, worker: int, how: str) -> None:
        """See Backend. What runs in the caller's thread cannot be ended: it leaves after it."""
        if worker in self._running:
            self._doomed[worker] = how
        else:
            self.retire(worker)

    def flush(self) -> None:
        """Run what was sent, here and now."""
        while True:
            try:
                action, args = self._todo.popleft()
            except IndexError:
                return
            action(*args)

    def wait(self, timeout: float | None) -> None:
        """See Backend."""
        with contextlib.suppress(Empty):
            self._alarm.get(timeout=timeout)

    def wake(self) -> None:
        """See Backend."""
        self._alarm.put(None)

    def close(self) -> None:
        """See Backend."""

    def inside(self) -> bool:
        """See Backend."""
        return self._inside.depth > 0

    def join(self) -> None:
        """See Backend."""

    def _run(self, worker: int) -> None:
        queue = self._parcels.get(worker)
        while queue:
            try:
                parcel = queue.popleft()
            except IndexError:
                return
            if self._options.apart and not parcel.tiny and parcel.hi - parcel.lo > 1:
                queue.appendleft(parcel._replace(lo=parcel.lo + 1))
                parcel = parcel._replace(hi=parcel.lo + 1)
            result = self._parcel(worker, parcel)
            self._sink.results(worker, [result])
            if self._doomed.pop(worker, None):
                self._leave(worker)
            for error in (result.errors or {}).values():
                if isinstance(error, KeyboardInterrupt):
                    raise error  # Ctrl-C hit the caller's own thread: it is the caller's

    def _parcel(self, worker: int, parcel: Parcel) -> Result:
        task, attempt, lo, hi, base, index, call, _, _, _ = parcel
        place = _Place(task, attempt, lo, index + base, worker)
        outside = current._local.where
        depth = self._inside.depth
        self._inside.depth = depth + 1
        self._running[worker] = place
        current._local.where = place
        try:
            call.run_all(base + lo, base + hi, place.values, place.errors, trimmed)
        finally:
            self._running.pop(worker, None)
            current._local.where = outside
            self._inside.depth = depth
        errors = {offset + lo: error for offset, error in place.errors.items()}
        seconds = time.monotonic() - place.started
        return Result(task, attempt, lo, hi, place.values, errors or None, place.started, seconds)


class _Place:
    """Where a parcel is: asked, not told, so that it costs calls nothing that do not ask."""

    def __init__(self, task: int, attempt: int, lo: int, index: int, worker: int) -> None:
        self.values: list[Any] = []
        self.errors: dict[int, BaseException] = {}
        self.started = time.monotonic()
        self._task = task
        self._attempt = attempt
        self._lo = lo
        self._index = index
        self._worker = worker

    def __call__(self) -> tuple[int, int, int, int]:
        """Index, attempt, worker and task of the call that runs."""
        at = self._lo + len(self.values)
        return self._index + at, self._attempt, self._worker, self._task

    def running(self) -> Running:
        """For the engine."""
        return Running(self._task, self._attempt, self._lo + len(self.values), 0.0)
