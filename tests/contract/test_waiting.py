"""Many submitted calls that wait while all workers are busy: they travel together, and are still
ended, blamed, retried and told one by one."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import random
import time
import weakref
from concurrent.futures import CancelledError, as_completed
from pathlib import Path
from typing import Any

import pytest

from lightwork import Future, Pool, Retry, TaskKilled, TaskTimeout, WorkerCrashed

from . import functions as f
from .pools import Gate, eventually, make

COUNT = 600  # more than one bunch of them


def busy(kind: str, gate: Gate, **options: Any) -> tuple[Pool, Future]:
    """A pool of one worker, which waits at the gate."""
    pool = make(kind, 1, **options)
    first = pool.submit(f.start_and_pass_gate, gate.started, gate.path, "first")
    gate.wait_started(1)
    return pool, first


def behind_one_that_waits(pool: Pool, gate: Gate) -> list[Future]:
    """A hundred calls that are known to be short; number 20 waits at the gate already."""
    for n in range(200):
        pool.submit(f.square_or_pass_gate, n, "", "").result(20)
    hold = (gate.started, gate.path)
    futures = [
        pool.submit(f.square_or_pass_gate, n, *(hold if n == 20 else ("", ""))) for n in range(100)
    ]
    gate.wait_started(1)
    return futures


def test_each_gets_its_own_result(parallel_kind: str, gate: Gate) -> None:
    pool, first = busy(parallel_kind, gate)
    with pool:
        squares = [pool.submit(f.square, n) for n in range(COUNT)]
        words = [pool.submit(str.upper, f"w{n}") for n in range(COUNT)]
        mixed = [pool.submit(pow, n, 2) if n % 2 else pool.submit(f.square, n) for n in range(50)]
        assert pool.statistics().queued == 2 * COUNT + 50
        gate.open()
        assert first.result(20) == "first"
        assert [one.result(20) for one in reversed(squares)] == [
            n * n for n in reversed(range(COUNT))
        ]
        assert [one.result(20) for one in words] == [f"W{n}" for n in range(COUNT)]
        assert [one.result(20) for one in mixed] == [n * n for n in range(50)]
        assert all(one.info.attempts == 1 and one.info.finished for one in squares)


def test_closures_of_one_code_are_told_apart(parallel_kind: str, gate: Gate) -> None:
    pool, _ = busy(parallel_kind, gate)
    with pool:
        adders = [(lambda x, n=n: x + n) for n in range(20)]
        futures = [pool.submit(add, 100) for add in adders for _ in range(3)]
        gate.open()
        assert [one.result(20) for one in futures] == [100 + n for n in range(20) for _ in range(3)]


@pytest.mark.parametrize("order", ["forward", "backward", "random"])
def test_any_of_them_can_be_cancelled(
    parallel_kind: str, gate: Gate, tmp_path: Path, order: str
) -> None:
    path = str(tmp_path / "ran")
    pool, _ = busy(parallel_kind, gate)
    with pool:
        futures = [pool.submit(f.noted, path, n) for n in range(COUNT)]
        if order == "random":
            pool.statistics()  # they stand in the scheduler's queue already
        which = list(range(COUNT))
        random.Random(1).shuffle(which)
        gone = which[:200] if order == "random" else range(200, 400)
        for n in sorted(gone, reverse=True) if order == "backward" else gone:
            assert futures[n].cancel()
            assert futures[n].cancel()
        assert pool.statistics().cancelled == 200
        assert pool.statistics().queued == COUNT - 200
        gate.open()
        for n, future in enumerate(futures):
            if n in set(gone):
                assert future.cancelled()
                with pytest.raises(CancelledError):
                    future.result(20)
            else:
                assert future.result(20) == n
    assert sorted(map(int, f.notes(path))) == sorted(set(range(COUNT)) - set(gone))


def test_one_of_them_is_cancelled_at_its_worker(parallel_kind: str, gate: Gate) -> None:
    """Known to be short, many are at the worker already, behind one that takes its time."""
    with make(parallel_kind, 1) as pool:
        futures = behind_one_that_waits(pool, gate)
        assert eventually(futures[20].running)
        assert not futures[20].cancel()
        assert not futures[21].running()
        assert futures[40].cancel()
        assert futures[99].cancel()
        assert futures[21].cancel()
        gate.open()
        for n, future in enumerate(futures):
            if n in (21, 40, 99):
                assert future.cancelled()
            else:
                assert future.result(20) == n * n


def test_one_of_them_is_killed(parallel_kind: str, gate: Gate) -> None:
    with make(parallel_kind, 1) as pool:
        futures = behind_one_that_waits(pool, gate)
        assert futures[60].kill()  # has not started: as good as cancelled
        assert futures[60].cancelled()
        assert futures[20].kill()
        assert isinstance(futures[20].exception(20), TaskKilled)
        assert not futures[20].kill() or isinstance(futures[20].exception(), TaskKilled)
        for n, future in enumerate(futures):
            if n not in (20, 60):
                assert future.result(20) == n * n


def test_errors_are_each_ones_own(parallel_kind: str, gate: Gate) -> None:
    pool, _ = busy(parallel_kind, gate)
    with pool:
        futures = [pool.submit(divmod, 100, n % 7) for n in range(COUNT)]
        gate.open()
        for n, future in enumerate(futures):
            if n % 7:
                assert future.result(20) == divmod(100, n % 7)
            else:
                error = future.exception(20)
                assert isinstance(error, ZeroDivisionError)
                assert f"index {n + 1}, attempt 1" in error.__notes__[0]


def test_retries_are_each_ones_own(parallel_kind: str, gate: Gate, tmp_path: Path) -> None:
    pool, _ = busy(parallel_kind, gate)
    with pool:
        again = pool.options(retry=Retry(3, on=ValueError))
        futures = [again.submit(f.fail_at_first, str(tmp_path), n, 5) for n in range(100)]
        gate.open()
        assert [one.result(20) for one in futures] == list(range(100))
        assert [one.info.attempts for one in futures] == [1 if n % 5 else 2 for n in range(100)]


def test_a_crash_and_a_time_limit_hit_one_of_them(gate: Gate) -> None:
    pool, _ = busy("forkserver", gate)
    with pool:
        limited = pool.options(timeout=1.0)
        futures = [limited.submit(f.crash_or_hang, n, 50, 70) for n in range(100)]
        gate.open()
        for n, future in enumerate(futures):
            if n == 50:
                error = future.exception(30)
                assert isinstance(error, WorkerCrashed)
                assert error.index == 51
                assert error.arguments == "50, 50, 70"
            elif n == 70:
                assert isinstance(future.exception(30), TaskTimeout)
            else:
                assert future.result(30) == n


def test_callbacks_and_as_completed(parallel_kind: str, gate: Gate) -> None:
    pool, _ = busy(parallel_kind, gate)
    with pool:
        futures = [pool.submit(f.square, n) for n in range(COUNT)]
        told: list[int] = []
        for n, future in enumerate(futures):
            future.add_done_callback(lambda _, n=n: told.append(n))  # type: ignore[misc]
        late = [pool.submit(f.square, n) for n in range(10)]
        gate.open()
        ended = as_completed(list[concurrent.futures.Future[int]](futures), 20)
        assert {one.result() for one in ended} == {n * n for n in range(COUNT)}
        assert [one.result(20) for one in late] == [n * n for n in range(10)]
    assert sorted(told) == list(range(COUNT))


def test_a_priority_overtakes_those_that_wait(
    parallel_kind: str, gate: Gate, tmp_path: Path
) -> None:
    path = str(tmp_path / "ran")
    pool, _ = busy(parallel_kind, gate)
    with pool:
        for n in range(20):
            pool.submit(f.noted, path, n)
        pool.options(priority=1).submit(f.noted, path, "first")
        gate.open()
    assert f.notes(path) == ["first", *map(str, range(20))]


def test_shutdown_cancels_or_runs_those_that_wait(parallel_kind: str, gate: Gate) -> None:
    pool, first = busy(parallel_kind, gate)
    futures = [pool.submit(f.square, n) for n in range(COUNT)]
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(one.cancelled() for one in futures)
    gate.open()
    assert first.result(20) == "first"
    pool.shutdown()

    other = Gate(Path(gate.path).parent, "other")
    pool, first = busy(parallel_kind, other)
    futures = [pool.submit(f.square, n) for n in range(COUNT)]
    pool.shutdown(wait=False)
    other.open()
    assert [one.result(20) for one in futures] == [n * n for n in range(COUNT)]
    pool.shutdown()


def test_killing_the_pool_ends_those_that_wait(parallel_kind: str, gate: Gate) -> None:
    pool, first = busy(parallel_kind, gate)
    futures = [pool.submit(f.square, n) for n in range(COUNT)]
    pool.statistics()
    futures += [pool.submit(f.square, n) for n in range(COUNT)]
    futures[3].cancel()
    pool.kill_workers()
    assert isinstance(first.exception(20), TaskKilled)
    assert all(one.cancelled() for one in futures)
    gate.open()


def test_half_answered_work_ends_once_when_the_pool_is_killed(gate: Gate) -> None:
    """Of what had results when the pool was killed, none is lost; all else ends, each once."""
    with make("forkserver", 1) as pool:
        futures = behind_one_that_waits(pool, gate)
        done = [one for one in futures[:20] if one.done()]
        pool.kill_workers()
        for one in futures:
            assert one.done()
        assert all(one.exception() is None for one in done)
        assert isinstance(futures[20].exception(), TaskKilled)
    gate.open()


class Result:
    """Something that can be referred to weakly."""


def test_a_result_is_held_by_nobody_else(gate: Gate) -> None:
    pool, _ = busy("threads", gate)
    with pool:
        futures = [pool.submit(Result) for _ in range(50)]
        gate.open()
        seen = []
        while futures:
            seen.append(weakref.ref(futures.pop().result(20)))
        gc.collect()
        assert [ref() for ref in seen] == [None] * 50


def test_a_fork_in_a_thread_pool_orphans_those_that_wait(gate: Gate) -> None:
    pool, first = busy("threads", gate)
    with pool:
        futures = [pool.submit(f.square, n) for n in range(20)]
        pid = os.fork()
        if pid == 0:
            ended = all(one.exception(5) is not None for one in futures)
            os._exit(0 if ended else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        gate.open()
        assert [one.result(20) for one in futures] == [n * n for n in range(20)]
        assert first.result(20) == "first"


def test_submitting_while_others_are_cancelled(parallel_kind: str) -> None:
    rng = random.Random(2)
    with make(parallel_kind, 2) as pool:
        futures: list[Future] = []
        ends = time.monotonic() + 0.5
        while time.monotonic() < ends:
            futures.append(pool.submit(f.square, len(futures)))
            if rng.random() < 0.2:
                rng.choice(futures[-50:]).cancel()
        for n, future in enumerate(futures):
            if not future.cancelled():
                assert future.result(20) == n * n
