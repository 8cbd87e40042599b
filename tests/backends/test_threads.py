"""Thread workers alone: what is taken back or written off is told truthfully, at any time."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any

import pytest

from lightwork import Pool, PoolClosed
from lightwork.backends.base import Death, Parcel, Result, WorkerOptions
from lightwork.backends.threads import ThreadBackend
from lightwork.errors import TaskKilled


class Record:
    """A sink that writes everything down, and can be waited on."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.log: list[tuple[str, int, Any]] = []

    def _note(self, what: str, worker: int, value: Any = None) -> None:
        with self.changed:
            self.log.append((what, worker, value))
            self.changed.notify_all()

    def ready(self, worker: int) -> None:
        self._note("ready", worker)

    def start_failed(self, worker: int, error: BaseException, *, fatal: bool) -> None:
        self._note("start_failed", worker, (error, fatal))

    def results(self, worker: int, results: Sequence[Result]) -> None:
        self._note("results", worker, list(results))

    def died(self, worker: int, death: Death) -> None:
        self._note("died", worker, death)

    def failed(self, worker: int, error: BaseException) -> None:
        self._note("failed", worker, error)

    def nudged(self) -> None:
        self._note("nudged", 0)

    def wait_for(self, what: str, worker: int) -> Any:
        with self.changed:
            assert self.changed.wait_for(lambda: self.find(what, worker), 10), self.log
            return self.find(what, worker)[0][2]

    def find(self, what: str, worker: int) -> list[tuple[str, int, Any]]:
        return [entry for entry in self.log if entry[:2] == (what, worker)]

    def answered(self) -> list[tuple[int, int]]:
        """(task, offset) of every call that was answered, in order."""
        return [
            (result.task, offset)
            for what, _, results in self.log
            if what == "results"
            for result in results
            for offset in range(result.lo, result.hi)
        ]


@pytest.fixture
def record() -> Record:
    return Record()


@pytest.fixture
def backend(record: Record) -> Iterator[ThreadBackend]:
    backend = ThreadBackend()
    backend.open(record, WorkerOptions(name="test"))
    yield backend
    for worker in list(backend._workers):
        backend.retire(worker)
        backend.flush()
        record.wait_for("died", worker)
    backend.join()


def parcel(backend: ThreadBackend, task: int, fn: Any, *args: Any, tiny: bool = False) -> Parcel:
    call = backend.prepare(fn, args, {})
    return Parcel(task, 1, 0, 1, 0, task, call, False, tiny, False)


def chunk(backend: ThreadBackend, task: int, fn: Any, items: list[Any], tiny: bool) -> Parcel:
    call = backend.prepare_chunk(fn, items, False)
    return Parcel(task, 1, 0, len(items), 0, 0, call, False, tiny, False)


def started(backend: ThreadBackend, record: Record, worker: int) -> None:
    backend.start(worker)
    backend.flush()
    record.wait_for("ready", worker)


def test_take_back_gives_exactly_what_has_not_started(
    backend: ThreadBackend, record: Record
) -> None:
    started(backend, record, 1)
    go, inside = threading.Event(), threading.Event()

    def hold() -> None:
        inside.set()
        go.wait(10)

    backend.send(1, [parcel(backend, 1, hold)])
    assert inside.wait(10)
    backend.send(1, [parcel(backend, task, abs, -task) for task in (2, 3, 4)])
    assert backend.take_back(1, 3, 0) == [(3, 1, 0), (4, 1, 0)]
    assert backend.take_back(1, 1, 0) == [(2, 1, 0)], "1 has started: all behind it is taken"
    running = backend.inspect(1)
    assert running is not None
    assert running.task == 1
    go.set()
    record.wait_for("results", 1)
    assert record.answered() == [(1, 0)]


@pytest.mark.parametrize("tiny", [True, False])
def test_take_back_races_with_a_running_chunk(tiny: bool) -> None:
    """Each call is either run or taken back, never both, never neither."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for attempt in range(60):
            record, backend = Record(), ThreadBackend()
            backend.open(record, WorkerOptions(name="test"))
            started(backend, record, 1)
            ran: list[int] = []
            backend.send(1, [chunk(backend, 1, ran.append, list(range(2000)), tiny)])
            while len(ran) < attempt * 5:
                pass
            taken = backend.take_back(1, 1, 1000)
            backend.flush()
            backend.retire(1)
            record.wait_for("died", 1)
            backend.join()
            cut = taken[0][2] if taken else 2000
            assert 1000 <= cut <= 2000
            assert ran == list(range(cut))
            assert record.answered() == [(1, offset) for offset in range(cut)]
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("tiny", [True, False])
def test_write_off_races_with_the_end_of_a_call(tiny: bool) -> None:
    """A call is answered, or it is the one that its worker died in, or it never started."""
    for attempt in range(60):
        record, backend = Record(), ThreadBackend()
        backend.open(record, WorkerOptions(name="test"))
        started(backend, record, 1)
        ran: list[int] = []

        def call(number: int, ran: list[int] = ran) -> None:
            ran.append(number)
            if number % 7 == 0:
                time.sleep(0)

        backend.send(1, [chunk(backend, 1, call, list(range(500)), tiny)])
        while len(ran) < attempt:
            pass
        taken = backend.take_back(1, 1, 0)
        backend.kill(1, "timed-out")
        backend.flush()
        death: Death = record.wait_for("died", 1)
        cut = taken[0][2] if taken else 500
        answered = [offset for _, offset in record.answered()]
        died_in = [death.running.offset] if death.running else []
        assert answered + died_in == list(range(cut)), (attempt, cut)
        assert [entry[0] for entry in record.log][-1] == "died", "nothing comes behind a death"


def test_failed_initializer_is_fatal(record: Record) -> None:
    backend = ThreadBackend()

    def refuse() -> None:
        raise KeyError("model")

    backend.open(record, WorkerOptions(initializer=refuse))
    backend.start(1)
    backend.flush()
    error, fatal = record.wait_for("start_failed", 1)
    assert isinstance(error, KeyError)
    assert fatal
    backend.join()


def test_a_bug_of_ours_in_a_worker_is_told(
    backend: ThreadBackend, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug = RuntimeError("a bug")

    def run(*_: Any) -> bool:
        raise bug

    started(backend, record, 1)
    monkeypatch.setattr(backend, "_run", run)
    backend.send(1, [parcel(backend, 1, abs, -1)])
    assert record.wait_for("failed", 1) is bug
    backend.join()
    assert not backend._workers


def test_a_pool_ends_after_a_bug_of_ours_in_a_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What waits is told; and nothing waits for a thread that is not there any more."""

    def run(*_: Any) -> bool:
        raise RuntimeError("a bug")

    with Pool("threads", 2) as pool:
        assert list(pool.map(abs, [-1, -2])) == [1, 2]
        monkeypatch.setattr(ThreadBackend, "_run", run)
        results = pool.map(abs, range(10))
        with pytest.raises((TaskKilled, CancelledError)):
            list(results)
        with pytest.raises(PoolClosed, match="a bug"):
            pool.submit(abs, 1)
    assert "a bug" in caplog.text
