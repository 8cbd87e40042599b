"""Workers: initializers, recycling, limits, growing and shrinking."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from lightwork import Failure, MemoryLimitExceeded, Pool, PoolBroken, WorkerCrashed

from . import functions as f
from .pools import Gate, eventually, make


def test_every_worker_is_initialized_once(start_method: str) -> None:
    with make(start_method, 2, initializer=f.remember, initargs=("a", 3)) as pool:
        found = list(pool.map(f.remembered, range(40), chunksize=1))
    assert all(one == ["a", 3] for one in found)


def test_thread_and_serial_pools_run_the_initializer(gate: Gate) -> None:
    for kind in ("threads", "serial"):
        ran: list[int] = []
        with make(kind, 2, initializer=ran.append, initargs=(7,)) as pool:
            assert pool.submit(f.square, 3).result(20) == 9
            assert ran[0] == 7
        assert len(ran) <= 2


def test_an_initializer_may_be_a_closure(every_kind: str) -> None:
    value = os.getpid()
    with make(every_kind, 1, initializer=lambda: f.remember(value)) as pool:
        assert value in pool.submit(f.remembered).result(20)
    f.STATE.clear()


def test_a_failing_initializer_breaks_the_pool(every_kind: str) -> None:
    with make(every_kind, 2, initializer=f.fail, initargs=("in the initializer",)) as pool:
        futures = []
        try:
            futures = [pool.submit(f.square, n) for n in range(5)]
        except PoolBroken:
            pass
        for one in futures:
            error = one.exception(20)
            assert isinstance(error, PoolBroken)
            assert isinstance(error.__cause__, ValueError)
            assert "in the initializer" in str(error)

        def refused() -> bool:
            try:
                pool.submit(f.square, 1).exception(20)
            except PoolBroken:
                return True
            return False

        assert eventually(refused)
        with pytest.raises(PoolBroken):
            list(pool.map(f.square, range(3)))


@pytest.mark.parametrize("how", ["exit", "sys-exit", "kill"])
def test_an_initializer_that_ends_the_process_breaks_the_pool(start_method: str, how: str) -> None:
    with make(start_method, 2, initializer=_end, initargs=(how,)) as pool:
        with pytest.raises(PoolBroken):
            pool.submit(f.square, 3).result(60)


def _end(how: str) -> None:
    if how == "exit":
        os._exit(3)
    if how == "sys-exit":
        sys.exit(3)
    f.die()


def test_max_tasks_per_child_is_exact(start_method: str) -> None:
    with make(start_method, 2, max_tasks_per_child=3) as pool:
        pids = Counter(pool.submit(f.pid).result(20) for _ in range(9))
        assert max(pids.values()) <= 3
        mapped = Counter(pool.map(f.pid, range(60)))
        assert max(mapped.values()) <= 3
        assert sum(mapped.values()) == 60
        futures = [pool.submit(f.pid) for _ in range(60)]
        assert max(Counter(one.result(20) for one in futures).values()) <= 3


def test_recycling_under_shutdown(start_method: str) -> None:
    pool = make(start_method, 2, max_tasks_per_child=1)
    futures = [pool.submit(f.square, n) for n in range(8)]
    pool.shutdown()
    assert [one.result(0) for one in futures] == [n * n for n in range(8)]


def test_an_idle_worker_leaves_and_comes_back(start_method: str) -> None:
    with make(start_method, 2, idle_timeout=0.1) as pool:
        first = pool.submit(f.pid).result(20)
        eventually(lambda: not _alive(first))
        second = pool.submit(f.pid).result(20)
        assert second != first
        assert list(pool.map(f.square, range(20))) == [n * n for n in range(20)]


def test_an_idle_thread_leaves_and_comes_back() -> None:
    before = threading.active_count()
    with make("threads", 4, idle_timeout=0.1) as pool:
        assert list(pool.map(f.square, range(20))) == [n * n for n in range(20)]
        eventually(lambda: threading.active_count() <= before + 1)  # the pump may stay
        assert list(pool.map(f.square, range(20))) == [n * n for n in range(20)]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_idle_worker_costs_nothing(start_method: str) -> None:
    with make(start_method, 2) as pool:
        for _ in range(5):
            for pid in set(pool.map(f.sleep_pid, [0.02] * 6, chunksize=1)):
                os.kill(pid, signal.SIGKILL)
            # At once: the death may not even have been noticed when this is sent. What was not
            # started when its worker died goes elsewhere.
            assert pool.submit(f.square, 3).result(20) == 9
            assert list(pool.map(f.square, range(20))) == [n * n for n in range(20)]


def test_memory_limit(start_method: str) -> None:
    with make(start_method, 2, memory_limit=300 * 2**20) as pool:
        results = list(pool.map(_hold, [1, 1, 600, 1, 1], on_error="return"))
        assert [results[at] for at in (0, 1, 3, 4)] == [1, 1, 1, 1]
        failure = results[2]
        assert isinstance(failure, Failure)
        error = failure.exception
        assert isinstance(error, MemoryLimitExceeded)
        assert isinstance(error, MemoryError)
        assert error.limit == 300 * 2**20
        assert error.used is not None
        assert error.used > error.limit
        assert "300" in str(error)
        assert pool.submit(f.square, 3).result(20) == 9


def _hold(megabytes: int) -> int:
    block = bytearray(megabytes * 2**20)
    for at in range(0, len(block), 4096):
        block[at] = 1
    if megabytes > 100:
        time.sleep(20)
    return megabytes


def test_native_threads_are_held_to_their_share() -> None:
    with make("forkserver", 2, native_threads=3) as pool:
        assert pool.submit(os.getenv, "OMP_NUM_THREADS").result(20) == "3"
        assert pool.submit(os.getenv, "OPENBLAS_NUM_THREADS").result(20) == "3"
    with make("forkserver", 1000) as pool:
        assert pool.submit(os.getenv, "OMP_NUM_THREADS").result(20) == "1"


def test_a_crash_says_what_there_is_to_say(start_method: str) -> None:
    with make(start_method, 1) as pool:
        pool.submit(f.square, 1).result(20)
        error = pool.submit(_segfault, "needle").exception(20)
        assert isinstance(error, WorkerCrashed)
        assert error.signal == "SIGSEGV"
        assert error.exitcode == -signal.SIGSEGV
        assert error.pid not in (None, os.getpid())
        assert error.function == "_segfault"
        assert error.arguments is not None
        assert "needle" in error.arguments
        assert error.index == 1
        assert error.attempt == 1
        assert error.peak_memory is not None
        assert 5 * 2**20 < error.peak_memory < 2**32
        assert "_segfault" in error.traceback
        assert "test_workers.py" in error.traceback
        for part in ("SIGSEGV", str(error.pid), "_segfault", "needle", "index 1", "attempt 1"):
            assert part in str(error)

        error = pool.submit(os._exit, 3).exception(20)
        assert isinstance(error, WorkerCrashed)
        assert (error.signal, error.exitcode) == (None, 3)
        assert "code 3" in str(error)


def _segfault(_: str) -> None:
    import faulthandler

    faulthandler._sigsegv()  # type: ignore[attr-defined]


# -- growing and shrinking -------------------------------------------------------------------------


def test_resize_while_tasks_run(parallel_kind: str, tmp_path: Path) -> None:
    with make(parallel_kind, 1) as pool:
        first, second, third = (Gate(tmp_path, name) for name in "abc")
        futures = [
            pool.submit(f.start_and_pass_gate, first.started, first.path, n) for n in range(4)
        ]
        first.wait_started(1)
        time.sleep(0.05)
        assert len(f.notes(first.started)) == 1
        pool.resize(4)
        assert pool.max_workers == 4
        first.wait_started(4)  # without any of them having ended
        first.open()
        assert sorted(one.result(20) for one in futures) == [0, 1, 2, 3]

        pool.resize(2)
        futures = [
            pool.submit(f.start_and_pass_gate, second.started, second.path, n) for n in range(6)
        ]
        second.wait_started(2)
        time.sleep(0.1)
        assert len(f.notes(second.started)) == 2
        pool.resize(1)
        second.open()
        assert sorted(one.result(20) for one in futures) == list(range(6))

        futures = [
            pool.submit(f.start_and_pass_gate, third.started, third.path, n) for n in range(3)
        ]
        third.wait_started(1)
        time.sleep(0.1)
        assert len(f.notes(third.started)) == 1
        third.open()
        assert sorted(one.result(20) for one in futures) == [0, 1, 2]


def test_resize_under_load_loses_nothing(parallel_kind: str) -> None:
    with make(parallel_kind, 2) as pool:
        results = pool.map(f.square, range(20_000))
        for at, result in enumerate(results):
            assert result == at * at
            if at % 1000 == 0:
                pool.resize(1 + (at // 1000 * 7) % 5)


@pytest.mark.parametrize("wrong", [0, -1, "4", 2.5, None, True])
def test_resize_to_nonsense_is_refused(kind: str, wrong: object) -> None:
    with make(kind) as pool:
        with pytest.raises((ValueError, TypeError)):
            pool.resize(wrong)  # type: ignore[arg-type]
        assert pool.submit(f.square, 3).result(20) == 9


def test_statistics(parallel_kind: str, gate: Gate) -> None:
    with make(parallel_kind, 2) as pool:
        futures = [pool.submit(f.start_and_pass_gate, gate.started, gate.path, n) for n in range(6)]
        gate.wait_started(2)
        now = pool.statistics()
        assert now.queued + now.running == 6
        assert now.done == 0
        gate.open()
        for one in futures:
            one.result(20)
        assert list(pool.map(f.fail_if_odd, range(10), on_error="skip")) == [0, 2, 4, 6, 8]
        now = pool.statistics()
        assert (now.queued, now.running) == (0, 0)


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"max_workers": 0}, ValueError, "max_workers"),
        ({"max_workers": -1}, ValueError, "-1"),
        ({"max_workers": "4"}, TypeError, "'4'"),
        ({"max_workers": 1.5}, TypeError, "1.5"),
        ({"max_workers": True}, TypeError, "max_workers"),
        ({"max_tasks_per_child": 0}, ValueError, "max_tasks_per_child"),
        ({"memory_limit": -5}, ValueError, "memory_limit"),
        ({"memory_limit": "1G"}, TypeError, "memory_limit"),
        ({"native_threads": 0}, ValueError, "native_threads"),
        ({"idle_timeout": -1}, ValueError, "idle_timeout"),
        ({"initializer": 3}, TypeError, "initializer"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": "x"}, TypeError, "seed"),
        ({"colour": "red"}, TypeError, "colour"),
    ],
)
def test_nonsense_is_refused_by_name(
    kind: str, options: dict[str, object], error: type[Exception], text: str
) -> None:
    named = {"forkserver": "processes"}.get(kind, kind)
    with pytest.raises(error, match=text):
        Pool(named, **options)  # type: ignore[arg-type]


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="fibres") as caught:
        Pool("fibres")
    for known in ("threads", "processes", "serial"):
        assert known in str(caught.value)
    with pytest.raises(ValueError, match="warp") as caught:
        Pool("processes", start_method="warp")
    for known in ("forkserver", "spawn", "fork"):
        assert known in str(caught.value)
