"""A minimal engine: plays the sink and the pump for one backend, and keeps count of everything."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from lightwork.backends.base import Death, Parcel, Result, WorkerOptions
from lightwork.core.events import Running

WAIT = 20.0
"""Seconds after which a test is stuck."""


class Driver:
    """Sends what it is told to send, and remembers what came back.

    Attributes:
        outcomes: (task, offset) -> list of (attempt, value or exception); each ends once.
        deaths, failures: by worker.
    """

    def __init__(self, backend: Any, options: WorkerOptions | None = None) -> None:
        self.backend = backend
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.ready_workers: list[int] = []
        self.deaths: dict[int, Death] = {}
        self.failures: dict[int, tuple[BaseException, bool]] = {}
        self.outcomes: dict[tuple[int, int], list[tuple[int, Any]]] = {}
        self.results_seen: list[Result] = []
        self.order: list[tuple[int, int, int]] = []  # (worker, task, lo)
        self.ended = 0
        self._tasks = 0
        self._workers = 0
        self._stop = False
        self.pump_error: BaseException | None = None
        backend.open(self, options or WorkerOptions(max_workers=2))
        self._pump = threading.Thread(target=self._run, name="driver-pump", daemon=True)
        self._pump.start()

    # -- Sink

    def ready(self, worker: int) -> None:
        with self.changed:
            self.ready_workers.append(worker)
            self.changed.notify_all()

    def start_failed(self, worker: int, error: BaseException, *, fatal: bool) -> None:
        with self.changed:
            self.failures[worker] = error, fatal
            self.changed.notify_all()

    def results(self, worker: int, results: Sequence[Result]) -> None:
        with self.changed:
            assert worker not in self.deaths
            for one in results:
                assert len(one.values) == one.hi - one.lo
                self.results_seen.append(one)
                self.order.append((worker, one.task, one.lo))
                for offset in range(one.lo, one.hi):
                    value = one.values[offset - one.lo]
                    if one.errors and offset in one.errors:
                        value = one.errors[offset]
                    self.outcomes.setdefault((one.task, offset), []).append((one.attempt, value))
                    self.ended += 1
            self.changed.notify_all()

    def died(self, worker: int, death: Death) -> None:
        with self.changed:
            assert worker not in self.deaths
            self.deaths[worker] = death
            self.changed.notify_all()

    def failed(self, worker: int, error: BaseException) -> None:
        raise AssertionError(f"worker {worker} failed") from error

    def nudged(self) -> None:
        pass

    # -- the pump

    def _run(self) -> None:
        try:
            while not self._stop:
                self.backend.wait(None)
        except BaseException as error:
            self.pump_error = error
            raise

    # -- what a test asks for

    def until(self, condition: Callable[[], object], timeout: float = WAIT) -> None:
        """Wait until something holds; it is looked at whenever the backend has said something."""
        end = time.monotonic() + timeout
        with self.changed:
            while not condition():
                left = end - time.monotonic()
                if left <= 0 or self.pump_error is not None:
                    raise AssertionError(f"stuck: {self.describe()}") from self.pump_error
                self.changed.wait(min(left, 0.005))

    def describe(self) -> str:
        return (
            f"ended {self.ended}, ready {self.ready_workers}, "
            f"deaths {self.deaths}, failures {self.failures}"
        )

    def start(self, count: int = 1, *, wait: bool = True) -> list[int]:
        with self.lock:
            numbers = [self._workers + 1 + i for i in range(count)]
            self._workers += count
            for number in numbers:
                self.backend.start(number)
        self.backend.flush()
        if wait:
            self.until(lambda: all(n in self.ready_workers or n in self.failures for n in numbers))
        return numbers

    def new_task(self) -> int:
        with self.lock:
            self._tasks += 1
            return self._tasks

    def parcel(
        self,
        call: Any,
        *,
        task: int | None = None,
        attempt: int = 1,
        lo: int = 0,
        hi: int | None = None,
        index: int = 0,
        **flags: bool,
    ) -> Parcel:
        timed, tiny, exact = (flags.get(name, False) for name in ("timed", "tiny", "exact"))
        task = self.new_task() if task is None else task
        hi = call.calls if hi is None else hi
        return Parcel(task, attempt, lo, hi, 0, index, call, timed, tiny, exact)

    def send(self, worker: int, *parcels: Parcel) -> None:
        with self.lock:
            self.backend.send(worker, parcels)
        self.backend.flush()

    def call(self, worker: int, fn: Callable[..., Any], *args: Any, **how: Any) -> int:
        """Send one call; return its task."""
        parcel = self.parcel(self.backend.prepare(fn, args, {}), **how)
        self.send(worker, parcel)
        return parcel.task

    def chunk(self, worker: int, fn: Callable[..., Any], items: list[Any], **how: Any) -> int:
        star = how.pop("star", False)
        parcel = self.parcel(self.backend.prepare_chunk(fn, items, star), **how)
        self.send(worker, parcel)
        return parcel.task

    def value(self, task: int, offset: int = 0) -> Any:
        """Wait for the outcome of a call; its error is returned, not raised."""
        self.until(lambda: (task, offset) in self.outcomes)
        found = self.outcomes[task, offset]
        assert len(found) == 1, found
        return found[0][1]

    def values(self, task: int, calls: int) -> list[Any]:
        return [self.value(task, offset) for offset in range(calls)]

    def take_back(self, worker: int, task: int, offset: int = 0) -> list[tuple[int, int, int]]:
        with self.lock:
            taken: list[tuple[int, int, int]] = self.backend.take_back(worker, task, offset)
        self.backend.flush()
        return taken

    def inspect(self, worker: int) -> Running | None:
        with self.lock:
            found: Running | None = self.backend.inspect(worker)
            return found

    def kill(self, worker: int, how: str) -> None:
        with self.lock:
            self.backend.kill(worker, how)
        self.backend.flush()

    def retire(self, worker: int) -> None:
        with self.lock:
            self.backend.retire(worker)
        self.backend.flush()

    def death(self, worker: int) -> Death:
        self.until(lambda: worker in self.deaths)
        return self.deaths[worker]

    def _is_gone(self, worker: int) -> bool:
        return worker in self.deaths or worker in self.failures

    def close(self) -> None:
        """Retire what lives, wait for it, give everything back."""
        with self.lock:
            gone = self.deaths.keys() | self.failures.keys()
            alive = [number for number in range(1, self._workers + 1) if number not in gone]
        for number in alive:
            self.kill(number, "killed")
        for number in alive:
            self.until(functools.partial(self._is_gone, number))
        self._stop = True
        self.backend.wake()
        self._pump.join(WAIT)
        assert not self._pump.is_alive()
        self.backend.close()
        self.backend.close()
        self.backend.join()
