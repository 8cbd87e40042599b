"""The future of one call, and what is known of a call that failed."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from .pump import slices

if TYPE_CHECKING:
    from .bunch import Bunch
    from .engine import Engine

__all__ = ["Failure", "Future", "TaskInfo"]


class TaskInfo(NamedTuple):
    """How a call went: ``Future.info``. Times are in seconds on ``time.monotonic()``."""

    attempts: int
    """How often it was run, as far as it is known by now."""
    worker: int | None
    """The number of the worker that ran it last, counted from 1 in each pool."""
    submitted: float
    """When it was accepted."""
    started: float | None
    """When its last attempt started; None where nobody noted it (very short calls)."""
    finished: float | None
    """When its outcome reached the caller's process; None while it has none."""
    seconds: float | None
    """How long its last attempt worked; for very short calls the mean of its group."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Stands in the place of a result where ``on_error="return"`` was asked for.

    Args:
        exception: the error, as ``on_error="raise"`` would have raised it.
        item: the item of the map; a tuple where the map had several iterables.
        index: the position of the item, from 0.
        attempts: how often the call was run.
        worker: the number of the worker that ran it last, or None if it never ran.
    """

    exception: BaseException
    item: Any
    index: int
    attempts: int
    worker: int | None

    def __bool__(self) -> bool:
        """A failure is false, so that ``filter(None, results)`` drops it."""
        return False


guard = threading.Lock()
"""Held for a moment by whoever gives a future its condition, or finishes one without."""


class Future(concurrent.futures.Future[Any]):
    """A ``concurrent.futures.Future`` that can also be killed, awaited, and asked how it went.

    Futures are made by ``Pool.submit``. All methods may be called from any thread.

    Most futures are finished before anybody waits for them, and a ``Condition`` is by far their
    largest part: eight objects, half of the cost of a submission. So a future gets its condition
    (and its lists of waiters and callbacks) when it is first asked for:

    1. whoever waits asks for ``_condition``: it is made under `guard`;
    2. whoever finishes looks under `guard`: where there is none, nobody waits, and the outcome
       is simply stored; else all goes its usual way. A waiter that comes later finds FINISHED.
    """

    # What the base class sets in its __init__, which we do not call.
    _state: str = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _made_condition: threading.Condition | None = None

    _engine: Engine | None = None
    _task: int = -1
    _fn: Callable[..., Any] | None = None
    _args: tuple[Any, ...] = ()
    _kwargs: dict[str, Any] | None = None
    # As ``ledger.Entry`` has them
    _call: Any = None
    _family: int = -1
    _index: int = -1
    _base = 0
    _open = 1
    _worker: int | None = None
    _bunch: Bunch | None = None  # of whose task it is call number `_base`
    _submitted: float = 0.0
    _finished: float | None = None
    _run: tuple[int, int | None, float, float] | None = None  # attempt, worker, started, seconds

    def __init__(self) -> None:  # see the docstring of the class
        pass

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        made = self._made_condition
        if made is None:
            with guard:
                made = self._made_condition
                if made is None:
                    bunch = self._bunch
                    if bunch is not None:
                        bunch.watched = True
                    self._waiters: list[Any] = []
                    self._done_callbacks: list[Any] = []
                    made = self._made_condition = threading.Condition()
        return made

    def done(self) -> bool:
        """Whether it has an outcome, or was cancelled."""
        return self._state in (FINISHED, CANCELLED, CANCELLED_AND_NOTIFIED)

    def result(self, timeout: float | None = None) -> Any:
        """The result; waits up to `timeout` seconds for it.

        Raises what the call raised, ``CancelledError``, and ``TimeoutError`` when nothing has
        come in time (the call goes on; its own time limit is ``Pool.options(timeout=)``).
        """
        if self._state == FINISHED and self._exception is None:
            return self._result
        return super().result(self._help(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The exception that the call raised, or None; waits, and raises, as `result` does."""
        return super().exception(self._help(timeout))

    def _help(self, timeout: float | None) -> float | None:
        """Do the engine's waiting while we wait for it; return how much of `timeout` is left."""
        engine = self._engine
        if engine is None:
            return timeout
        if timeout is None:
            engine.help(self, None)
            for moment in slices(None):
                if moment is None or self.done():
                    return None
                with self._condition:
                    if not self.done():
                        self._condition.wait(moment)
            return None
        until = time.monotonic() + timeout
        if timeout > 0:
            engine.help(self, timeout)
        return max(0.0, until - time.monotonic())

    def set_result(self, result: Any) -> None:
        """For executors: store the result, tell who waits."""
        engine = self._engine
        if not self._store(result, None):
            super().set_result(result)
        if engine is not None:
            engine.stir(self)

    def set_exception(self, exception: BaseException | None) -> None:
        """For executors: store the exception, tell who waits."""
        engine = self._engine
        if not self._store(None, exception):
            super().set_exception(exception)
        if engine is not None:
            engine.stir(self)

    def _store(self, result: Any, exception: BaseException | None) -> bool:
        """Finish a future that nobody waits for. False: somebody does, or it has ended."""
        with guard:
            if self._made_condition is not None or self._state not in (PENDING, RUNNING):
                return False
            self._result, self._exception = result, exception
            self._state = FINISHED
            return True

    # -- what the caller may ask ---------------------------------------------------------------

    def cancel(self) -> bool:
        """Cancel the call if it has not started; return whether it is cancelled now."""
        engine = self._engine
        if engine is None:
            return super().cancel()
        if self._state in (PENDING, RUNNING):
            engine.cancel_future(self)
        return self.cancelled()

    def kill(self) -> bool:
        """End the call even while it runs; return whether it ended without a result.

        A call that has not started is cancelled. One that runs ends with ``TaskKilled``: its
        worker process is replaced, and no other task is touched. A thread cannot be ended: it
        is written off, and goes on unobserved. Waits for the end of the call.
        """
        engine = self._engine
        if engine is None or not engine.kill_future(self):
            return self.cancel()
        from .errors import TaskKilled

        return self.cancelled() or isinstance(self.exception(), TaskKilled)

    def running(self) -> bool:
        """Whether a worker is at this call now."""
        engine = self._engine
        if engine is None or self._state != PENDING:
            return super().running()
        return engine.is_running(self)

    @property
    def info(self) -> TaskInfo:
        """How the call went so far."""
        attempt, worker, started, seconds = self._run or (0, None, 0.0, 0.0)
        return TaskInfo(
            attempts=attempt,
            worker=worker,
            submitted=self._submitted,
            started=started or None,
            finished=self._finished,
            seconds=seconds if self._run and self._finished is not None else None,
        )

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the result from a coroutine, without blocking its event loop."""
        import asyncio

        return asyncio.wrap_future(self).__await__()

    # -- what the engine says ------------------------------------------------------------------

    def _settle(self, lo: int, values: Any, errors: Any, run: Any, now: float) -> None:
        """Take the outcome. Called once, without any lock of ours."""
        self._run = run
        self._finished = now
        self._forget()
        try:
            if errors:
                self.set_exception(errors[lo])
            else:
                self.set_result(values[0])
        except concurrent.futures.InvalidStateError:
            pass  # the user set a result by hand; ours comes too late

    def _cancelled(self, lo: int, hi: int) -> None:
        """The engine confirms: it was not started, and never will be."""
        self._forget()
        if super().cancel():
            self.set_running_or_notify_cancel()

    def _has_listeners(self) -> bool:
        """Whether an outcome makes somebody's callback run."""
        return self._made_condition is not None and bool(self._done_callbacks)

    def _orphaned(self, error: BaseException) -> None:
        """In a forked child: the parent gets the outcome, we never do. Locks may be held by
        threads that are not here, so none is asked for."""
        self._engine = self._made_condition = None
        self._exception, self._state = error, FINISHED

    @property
    def _target(self) -> Future:
        return self

    def _forget(self) -> None:
        """Hold the arguments no longer than needed."""
        self._engine = self._call = self._bunch = self._fn = self._kwargs = None
        self._args = ()

    def _carved(self, task: int) -> None:
        """It is this task. (Of a chunk, more may be made.)"""
        self._task = task

    def _describe(self, offset: int) -> tuple[Callable[..., Any], object, int]:
        """The function, its arguments and the index of the call, for the text of an error."""
        return self._fn or _gone, (self._args, self._kwargs or {}), self._index


def _gone() -> None:
    """Stands for a function that is no longer held."""
