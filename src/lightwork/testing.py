"""For tests of programs that use lightwork, and of lightwork itself.

* `ManualClock`: time that passes when the test says so.
* `FakeBackend`: workers that run a call when the test says so.
* `Saboteur`: an argument or result that does harm at a chosen stage of its journey.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from .backends.base import Death, Parcel, Result, Sink, WorkerOptions
from .backends.local import LocalCall
from .backends.serial import cut_queue
from .core.events import Running

__all__ = ["FakeBackend", "ManualClock", "Saboteur", "harm"]


class ManualClock:
    """A clock for ``Engine(clock=)``; call it for the time, `advance` it for more."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class FakeBackend:
    """Workers without threads or processes; the test decides what they do, and when.

    `queues[worker]` holds the parcels that the worker has; the first is the one it "runs".
    """

    kind = "fake"
    has_pump = False
    keeps_time = True
    combines = False

    def __init__(self, *, can_kill: bool = True) -> None:
        self.can_kill = can_kill
        self.queues: dict[int, deque[Parcel]] = {}
        self.log: list[tuple[Any, ...]] = []
        self.since: dict[int, float] = {}
        self.closed = False

    # -- the engine's side ---------------------------------------------------------------------

    def open(self, sink: Sink, options: WorkerOptions) -> None:
        """See ``backends.base.Backend``; so all the others."""
        self.sink = sink

    def prepare(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> LocalCall:
        return LocalCall(fn, (args,), True, kwargs)

    def prepare_chunk(self, fn: Callable[..., Any], items: Sequence[Any], star: bool) -> LocalCall:
        return LocalCall(fn, items, star, None)

    def combine(self, waiting: Sequence[Any]) -> list[tuple[Any, int]]:
        """Nothing is combined."""
        return [(call, 1) for call in waiting]

    def start(self, worker: int) -> None:
        self.queues[worker] = deque()
        self.log.append(("start", worker))

    def send(self, worker: int, parcels: Sequence[Parcel]) -> None:
        self.queues[worker].extend(parcels)
        self.log.append(("send", worker, [(one.task, one.attempt) for one in parcels]))

    def take_back(self, worker: int, task: int, offset: int) -> list[tuple[int, int, int]]:
        queue = self.queues[worker]
        runs = queue.popleft() if queue else None  # the first one counts as started
        taken = cut_queue(queue, task, offset)
        if runs is not None:
            queue.appendleft(runs)
        self.log.append(("take_back", worker, taken))
        return taken

    def inspect(self, worker: int) -> Running | None:
        queue = self.queues.get(worker)
        if not queue:
            return None
        parcel = queue[0]
        return Running(parcel.task, parcel.attempt, parcel.lo, self.since.get(worker, 0.0))

    def retire(self, worker: int) -> None:
        self.log.append(("retire", worker))

    def kill(self, worker: int, how: str) -> None:
        self.log.append(("kill", worker, how))

    def flush(self) -> None:
        pass

    def wait(self, timeout: float | None) -> None:
        pass

    def wake(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def inside(self) -> bool:
        return False

    def join(self) -> None:
        pass

    # -- the test's side -----------------------------------------------------------------------

    def run(self, worker: int, *, seconds: float = 0.0) -> None:
        """Let the worker run its first parcel, and answer."""
        parcel = self.queues[worker].popleft()
        values: list[Any] = []
        errors: dict[int, BaseException] = {}
        for offset in range(parcel.lo, parcel.hi):
            try:
                values.append(parcel.call.run(parcel.base + offset))
            except Exception as error:
                values.append(None)
                errors[offset] = error
        result = Result(
            parcel.task, parcel.attempt, parcel.lo, parcel.hi, values, errors or None, 0.0, seconds
        )
        self.sink.results(worker, [result])

    def die(self, worker: int, how: str = "crashed") -> None:
        """Let the worker die in the call that it runs."""
        running = self.inspect(worker)
        del self.queues[worker]
        self.sink.died(worker, Death(how, running, pid=worker, signal="SIGKILL"))


def harm(how: str) -> object:
    """Do harm, now: ``"raise"``, ``"sys-exit"``, ``"exit-0"``, ``"exit-3"``, ``"kill"``,
    ``"segfault"``; anything else does none."""
    if how == "raise":
        raise ValueError("sabotage")
    if how == "sys-exit":
        raise SystemExit(7)
    if how == "exit-0":
        os._exit(0)
    if how == "exit-3":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    return None


class Saboteur:
    """An object that does harm when it is pickled, unpickled or deleted.

    Args:
        stage: ``"pickle"``, ``"unpickle"`` or ``"del"``.
        how: see `harm`.
        safe: the process id in which it behaves (the parent's, in most tests).
    """

    def __init__(self, stage: str, how: str, safe: int | None = None) -> None:
        self.stage = stage
        self.how = how
        self.safe = safe

    def _do(self, stage: str) -> None:
        if stage == self.stage and os.getpid() != self.safe:
            harm(self.how)

    def __getstate__(self) -> dict[str, Any]:
        self._do("pickle")
        return dict(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._do("unpickle")

    def __del__(self) -> None:
        self._do("del")
