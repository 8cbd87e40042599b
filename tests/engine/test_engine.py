"""The engine with a fake backend and a manual clock: no thread, no process, no waiting."""

from __future__ import annotations

import concurrent.futures
from typing import Any

import pytest

from lightwork import (
    Backoff,
    Future,
    PoolBroken,
    PoolClosed,
    Retry,
    TaskKilled,
    TaskOptions,
    TaskTimeout,
    WorkerCrashed,
)
from lightwork.backends.base import WorkerOptions
from lightwork.engine import Engine
from lightwork.testing import FakeBackend, ManualClock


class Bench:
    """An engine on a fake backend."""

    def __init__(self, workers: int = 2, **options: Any) -> None:
        self.clock = ManualClock()
        self.backend = FakeBackend()
        self.engine = Engine(
            self.backend, WorkerOptions(max_workers=workers), workers=workers, clock=self.clock
        )
        self.engine._pump.start = lambda: None  # type: ignore[method-assign]
        self.family = self.engine.add_family(TaskOptions(**options))

    def submit(self, fn: Any, *args: Any) -> Future:
        future = Future()
        future._engine = self.engine
        future._fn, future._args = fn, args
        self.engine.submit(self.backend.prepare(fn, args, {}), future, self.family)
        self.start()
        return future

    def start(self) -> None:
        """Let workers that were asked for be ready."""
        for entry in list(self.backend.log):
            if entry[0] == "start":
                self.backend.log.remove(entry)
                self.engine.ready(entry[1])

    def worker_of(self, future: Future) -> int:
        for worker, queue in self.backend.queues.items():
            if any(parcel.task == future._task for parcel in queue):
                return worker
        raise AssertionError("no worker has it")

    def tick(self, seconds: float) -> None:
        from lightwork.core.events import Tick

        self.clock.advance(seconds)
        self.engine._say(Tick())


def test_result_reaches_its_future() -> None:
    bench = Bench()
    future = bench.submit(divmod, 7, 2)
    assert not future.done()
    bench.backend.run(bench.worker_of(future))
    assert future.result(0) == (3, 1)
    assert future.info.attempts == 1
    assert bench.engine._ledger.entries == {}


def test_error_arrives_as_itself_with_a_note() -> None:
    bench = Bench()
    future = bench.submit(int, "seven")
    bench.backend.run(bench.worker_of(future))
    error = future.exception(0)
    assert type(error) is ValueError
    assert "int('seven'), index 0, attempt 1" in error.__notes__[0]


def test_crash_is_charged_to_the_running_call_only() -> None:
    bench = Bench(workers=1)
    first = bench.submit(str, 1)
    bench.backend.run(1, seconds=0.0001)  # a mean, so that the next go in one batch
    others = [bench.submit(str, number) for number in range(2, 6)]
    holder = bench.worker_of(others[0])
    bench.backend.die(holder)
    bench.start()
    error = others[0].exception(0)
    assert isinstance(error, WorkerCrashed)
    assert isinstance(error, concurrent.futures.process.BrokenProcessPool)
    assert (error.function, error.arguments, error.signal) == ("str", "2", "SIGKILL")
    for _ in range(20):
        for worker, queue in list(bench.backend.queues.items()):
            if queue:
                bench.backend.run(worker)
    assert first.result(0) == "1"
    assert [future.result(0) for future in others[1:]] == ["3", "4", "5"]


def test_retry_of_an_error_waits_for_its_backoff() -> None:
    bench = Bench(workers=1, retry=Retry(2, on=ValueError, backoff=Backoff(5, jitter=0)))
    answers: list[object] = [ValueError("first"), "fine"]

    def moody() -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    future = bench.submit(moody)
    bench.backend.run(1)
    assert not future.done()
    bench.tick(4.9)
    assert not bench.backend.queues[1]
    bench.tick(0.2)
    bench.backend.run(1)
    assert future.result(0) == "fine"
    assert future.info.attempts == 2


def test_retries_end_with_the_last_error() -> None:
    bench = Bench(workers=1, retry=Retry(2, on=ValueError))
    future = bench.submit(int, "x")
    bench.backend.run(1)
    bench.tick(0.0)
    bench.backend.run(1)
    assert isinstance(future.exception(0), ValueError)
    assert future.info.attempts == 2


def test_time_limit_kills_the_worker_of_that_call() -> None:
    bench = Bench(workers=2, timeout=3)
    slow, other = bench.submit(str, 1), bench.submit(str, 2)
    worker = bench.worker_of(slow)
    bench.backend.since[worker] = bench.clock()
    bench.backend.run(bench.worker_of(other))
    bench.tick(3.5)
    assert ("kill", worker, "timed-out") in bench.backend.log
    assert not slow.done()
    bench.backend.die(worker, "timed-out")
    error = slow.exception(0)
    assert isinstance(error, TaskTimeout)
    assert error.timeout == 3
    assert other.result(0) == "2"


def test_kill_of_a_running_call() -> None:
    bench = Bench()
    future = bench.submit(str, 1)
    worker = bench.worker_of(future)
    assert future.running()
    assert bench.engine.kill_future(future)
    bench.backend.die(worker, "killed")
    assert isinstance(future.exception(0), TaskKilled)
    assert not bench.engine.kill_future(future)


def test_cancel_reaches_only_what_has_not_started() -> None:
    bench = Bench(workers=1)
    running, waiting = bench.submit(str, 1), bench.submit(str, 2)
    assert not running.cancel()
    assert waiting.cancel()
    assert waiting.cancel()
    assert waiting.cancelled()
    bench.backend.run(1)
    assert running.result(0) == "1"
    assert not running.cancel()
    assert not bench.backend.queues[1]


def test_close_refuses_then_ends() -> None:
    bench = Bench(workers=1)
    future = bench.submit(str, 1)
    bench.engine.close(cancel=False)
    with pytest.raises(PoolClosed, match="shut down"):
        bench.submit(str, 2)
    assert not bench.engine.wait_finished(0)
    bench.backend.run(1)
    assert future.result(0) == "1"
    assert ("retire", 1) in bench.backend.log
    bench.backend.die(1, "retired")
    assert bench.engine.wait_finished(0)
    assert bench.backend.closed


def test_failed_initializer_breaks_the_pool() -> None:
    bench = Bench(workers=1)
    bench.start = lambda: None  # type: ignore[method-assign]
    future = bench.submit(str, 1)
    bench.engine.start_failed(1, KeyError("model"), fatal=True)
    error = future.exception(0)
    assert isinstance(error, PoolBroken)
    assert isinstance(error.__cause__, KeyError)
    with pytest.raises(PoolBroken, match="model"):
        bench.submit(str, 2)


def test_abort_ends_everything_without_the_scheduler() -> None:
    bench = Bench(workers=1)
    running, waiting = bench.submit(str, 1), bench.submit(str, 2)
    bench.engine._scheduler = bench.engine._carrier.scheduler = None  # type: ignore[assignment]
    bench.engine.abort("the pool was interrupted")
    assert isinstance(running.exception(0), TaskKilled)
    assert waiting.cancelled()
    bench.backend.die(1, "killed")
    assert bench.engine.wait_finished(0)


def test_interrupt_inside_the_lock_hangs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(workers=1)
    running = bench.submit(str, 1)

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.engine._scheduler, "handle", interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt):
        bench.submit(str, 2)
    assert isinstance(running.exception(0), TaskKilled)
    with pytest.raises(PoolClosed, match="interrupted"):
        bench.submit(str, 3)
