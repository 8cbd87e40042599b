"""What the engine asks of a backend, and what a backend tells the engine.

The engine holds one lock around the scheduler. A backend's methods are marked:

* **locked**: called with that lock held, so they neither block nor run user code nor call the
  sink (they may queue what they would say, and say it from `flush` or `wait`);
* **free**: called without it.

A backend calls the sink from any thread, never while the engine is inside a locked method on
the same thread. For each worker it reports in order: ``ready``, then ``results`` any number of
times, then ``died`` exactly once (or only ``start_failed``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from ..core.events import Running

__all__ = ["Backend", "Call", "Death", "Parcel", "Result", "Sink", "WorkerOptions"]


class WorkerOptions(NamedTuple):
    """What every worker of a pool is given at its start."""

    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    start_method: str | None = None  # processes: "forkserver", "spawn", "fork"; None: the best
    native_threads: int | None = None  # threads of BLAS/OpenMP in each worker; None: their share
    memory_limit: int | None = None  # bytes of resident memory of one worker
    max_workers: int = 1  # how many there will be, for shares
    name: str = "lightwork"
    seed: int | None = None
    logs: bool = True  # processes: send log records and warnings to the parent
    apart: bool = False  # answer each call by a result of its own, with its own times
    capture: str | None = None  # processes: "lines" or "log", what becomes of printed lines


class Call(Protocol):
    """A function with the arguments of one or more calls, in the form its backend runs.

    What is inside is the backend's own affair; the engine only keeps it until its calls have
    ended, for it may have to be sent again.
    """

    @property
    def calls(self) -> int: ...


class Parcel(NamedTuple):
    """Calls `lo` to `hi` of `call`, to be run in order and answered under `task`.

    `base`: offset 0 of the task is call number `base` of `call` (a carved task starts inside).
    `index`: the position, in its map or submission order, of call number 0 of `call`.
    """

    task: int
    attempt: int
    lo: int
    hi: int
    base: int
    index: int  # type: ignore[assignment]  # tuple.index is nobody's need
    call: Any
    timed: bool  # note when each call starts (a time limit is to be watched)
    tiny: bool  # calls expected so short (< 20 us) that they may be answered all at once
    exact: bool  # write each result before the next call starts


class Result(NamedTuple):
    """The outcome of the calls `lo` to `hi` of a task, in order.

    `values`: their results; where `errors` has an entry, the value is meaningless.
    `errors`: offset -> exception as it is to be raised in the caller (with notes, remote
    traceback as its cause), or None when every call gave a result.
    """

    task: int
    attempt: int
    lo: int
    hi: int
    values: Sequence[Any]
    errors: dict[int, BaseException] | None
    started: float  # clock of time.monotonic() when the first of them started; 0.0 if not noted
    seconds: float  # working time of them all


class Death(NamedTuple):
    """How a worker ended. `how` as in ``core.events.Died``; the rest as in ``WorkerCrashed``."""

    how: str
    running: Running | None
    pid: int | None = None
    signal: str | None = None
    exitcode: int | None = None
    peak_memory: int | None = None
    oom_killed: bool | None = None
    traceback: str = ""
    used_memory: int | None = None  # over-memory: what was seen, in bytes


class Sink(Protocol):
    """Where a backend says what happened. All **free**; from any thread."""

    def ready(self, worker: int) -> None:
        """The worker takes parcels now."""

    def start_failed(self, worker: int, error: BaseException, *, fatal: bool) -> None:
        """The worker could not be started. `fatal`: its initializer raised `error`."""

    def results(self, worker: int, results: Sequence[Result]) -> None:
        """Calls have ended. One call of this for all that arrived together."""

    def died(self, worker: int, death: Death) -> None:
        """The worker is gone; whatever it had answered was reported before."""

    def failed(self, worker: int, error: BaseException) -> None:
        """The worker is gone by a fault of the backend's: what it had is lost."""

    def nudged(self) -> None:
        """`wake` was called, and no pump thread is there to see to it."""


class Backend(Protocol):
    """One kind of worker."""

    kind: str
    can_kill: bool  # whether `kill` really ends a running call
    has_pump: bool  # whether `wait` must always be running (else only while a deadline is ahead)
    keeps_time: bool  # whether time limits can be watched at all
    combines: bool  # whether `combine` makes anything cheaper

    def open(self, sink: Sink, options: WorkerOptions) -> None:
        """Free. Called once, before all else. Acquires nothing that is not needed yet."""

    def prepare(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Free, in the submitter's thread. Make a ``Call`` of one call.

        Raises CannotPickle, naming what cannot travel.
        """

    def prepare_chunk(self, fn: Callable[..., Any], items: Sequence[Any], star: bool) -> Any:
        """Free. Make a ``Call`` of ``fn(item)`` for each item, or ``fn(*item)`` with `star`.

        Raises CannotPickle.
        """

    def combine(self, waiting: Sequence[Any]) -> list[tuple[Any, int]]:
        """Locked. Make one ``Call`` of neighbours that go well together, each made by `prepare`.

        Returns the calls in order, each with how many of the given ones it holds. One that holds
        several has ``forget(lo, hi)``: these have ended, and are not sent again.
        """

    def start(self, worker: int) -> None:
        """Locked. Begin to start a worker; the sink hears of it later."""

    def send(self, worker: int, parcels: Sequence[Parcel]) -> None:
        """Locked. Queue these for the worker, behind what it has. Unknown worker: ignored."""

    def take_back(self, worker: int, task: int, offset: int) -> list[tuple[int, int, int]]:
        """Locked. Stop the worker from starting that call and all behind it.

        Returns (task, attempt, offset) for each task of which calls from `offset` on will now
        not be started by this worker; all others that it holds have started, or come before.
        """

    def inspect(self, worker: int) -> Running | None:
        """Locked. The call that the worker is at now."""

    def retire(self, worker: int) -> None:
        """Locked. Tell an idle worker to leave: ``died(how="retired")`` follows."""

    def kill(self, worker: int, how: str) -> None:
        """Locked. End the worker at once: ``died(how)`` follows (``"retired"``/``"crashed"``
        if it was gone already).

        Where a worker cannot be killed (threads) it is written off: ``died`` is still reported
        at once, and what it answers later is dropped.
        """

    def flush(self) -> None:
        """Free. Do what locked methods queued: write, wake, run. Called after each of them."""

    def wait(self, timeout: float | None) -> None:
        """Free. Called in a loop by the engine's pump thread alone: wait up to `timeout`
        seconds (None: for ever) for something to happen, report it to the sink, return."""

    def wake(self) -> None:
        """Free or locked. Make `wait` return soon."""

    def close(self) -> None:
        """Free. All workers are gone: give every resource back. May be called again."""

    def inside(self) -> bool:
        """Free. Whether the current thread is in a call that runs here, so that it must not wait
        for the end of the pool."""

    def join(self) -> None:
        """Free. After `close`: wait for threads of ours to end, unless called from one."""
