"""``options``: time limits, retries, priorities, crashes; ``current_task`` and seeds."""

from __future__ import annotations

import contextvars
import itertools
import time
from typing import Any

import pytest

from lightwork import Backoff, Pool, Retry, TaskKilled, TaskTimeout, WorkerCrashed, current_task

from . import functions as f
from .pools import EVERY_KIND, Gate, make


def test_options_give_the_same_pool(kind: str) -> None:
    with make(kind) as pool:
        view = pool.options(retry=Retry(2))
        assert isinstance(view, Pool)
        assert view.submit(f.square, 3).result() == 9
        assert view.options(priority=1).submit(f.square, 3).result() == 9
        assert view.kind == pool.kind
        assert view.max_workers == pool.max_workers
    with pytest.raises(RuntimeError):
        view.submit(f.square, 3)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"timeout": 0}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"timeout": "3"}, TypeError),
        ({"timeout": float("nan")}, ValueError),
        ({"retry": 3}, TypeError),
        ({"priority": 1.5}, TypeError),
        ({"exact": 1}, TypeError),
        ({"on_crash": "explode"}, ValueError),
        ({"speed": "fast"}, TypeError),
    ],
)
def test_wrong_options_are_named(
    kind: str, options: dict[str, Any], error: type[Exception]
) -> None:
    with make(kind) as pool, pytest.raises(error, match=next(iter(options))):
        pool.options(**options)


# -- time limits -----------------------------------------------------------------------------------


def test_a_time_limit_ends_the_task_and_no_other(start_method: str, gate: Gate) -> None:
    with make(start_method) as pool:
        begin = time.monotonic()
        late = pool.options(timeout=0.3).submit(f.start_and_pass_gate, gate.started, gate.path)
        others = [pool.submit(f.square, n) for n in range(50)]
        error = late.exception(20)
        assert isinstance(error, TaskTimeout)
        assert isinstance(error, TimeoutError)
        assert error.timeout == 0.3
        assert "0.3" in str(error)
        assert "start_and_pass_gate" in str(error)
        assert time.monotonic() - begin < 5
        assert [one.result(20) for one in others] == [n * n for n in range(50)]
        assert pool.submit(f.square, 9).result(20) == 81


def test_a_time_limit_counts_from_the_start_of_the_task(parallel_kind: str) -> None:
    with make(parallel_kind, 1) as pool:
        careful = pool.options(timeout=1.0)
        futures = [careful.submit(f.sleep_pid, 0.3) for _ in range(6)]
        assert all(one.exception(30) is None for one in futures)


def test_a_thread_past_its_time_limit_is_replaced(gate: Gate) -> None:
    with make("threads", 2) as pool:
        careful = pool.options(timeout=0.2)
        late = [careful.submit(f.pass_gate, gate.path) for _ in range(4)]
        begin = time.monotonic()
        assert all(isinstance(one.exception(20), TaskTimeout) for one in late)
        assert time.monotonic() - begin < 5
        width = [pool.submit(f.start_and_pass_gate, gate.started, gate.path + "2") for _ in "ab"]
        gate.wait_started(2)
        open(gate.path + "2", "w").close()
        assert all(one.exception(20) is None for one in width)
        gate.open()


def test_in_time_is_in_time(kind: str) -> None:
    with make(kind) as pool:
        careful = pool.options(timeout=30)
        assert list(careful.map(f.square, range(200))) == [n * n for n in range(200)]


# -- retries ---------------------------------------------------------------------------------------


def test_a_failure_is_tried_again(kind: str, gate: Gate) -> None:
    with make(kind) as pool:
        future = pool.options(retry=Retry(4)).submit(f.fail_first, gate.started, 2, "done")
        assert future.result(20) == "done"
        assert future.info.attempts == 3
    assert len(f.notes(gate.started)) == 3


def test_attempts_run_out(kind: str, gate: Gate) -> None:
    with make(kind) as pool:
        future = pool.options(retry=Retry(3)).submit(f.fail_first, gate.started, 9)
        error = future.exception(20)
        assert isinstance(error, OSError)
        assert "attempt 3" in " ".join(error.__notes__)
        assert future.info.attempts == 3
    assert len(f.notes(gate.started)) == 3


def test_only_what_is_named_is_tried_again(kind: str, gate: Gate) -> None:
    with make(kind) as pool:
        options = pool.options(retry=Retry(3, on=(KeyError, ValueError)))
        assert isinstance(options.submit(f.fail_first, gate.started, 9).exception(20), OSError)
    assert len(f.notes(gate.started)) == 1


def test_backoff_waits_longer_each_time(kind: str, gate: Gate) -> None:
    retry = Retry(4, on=OSError, backoff=Backoff(0.1, 2, jitter=0))
    with make(kind) as pool:
        future = pool.options(retry=retry).submit(f.fail_first, gate.started, 3, "done")
        others = [pool.submit(f.square, n) for n in range(50)]
        assert [one.result(20) for one in others] == [n * n for n in range(50)]
        assert future.result(20) == "done"
    times = [float(line) for line in f.notes(gate.started)]
    waits = [later - sooner for sooner, later in itertools.pairwise(times)]
    for wait, least in zip(waits, (0.1, 0.2, 0.4), strict=True):
        assert least * 0.99 < wait < least + 2


def test_a_retry_that_waits_can_be_cancelled(parallel_kind: str, gate: Gate) -> None:
    retry = Retry(3, backoff=Backoff(60))
    with make(parallel_kind) as pool:
        future = pool.options(retry=retry).submit(f.fail_first, gate.started, 9)
        gate.wait_started(1)
        time.sleep(0.1)
        future.cancel()
        begin = time.monotonic()
    assert time.monotonic() - begin < 10
    assert future.done()


def test_a_time_out_is_tried_again_when_named(gate: Gate) -> None:
    with make("forkserver") as pool:
        options = pool.options(timeout=0.5, retry=Retry(3, on=TaskTimeout))
        assert options.submit(f.hang_first, gate.started, 1, "done").result(20) == "done"
        # (Not OSError: Python's TimeoutError is one.)
        options = pool.options(timeout=0.5, retry=Retry(3, on=ValueError))
        path = gate.started + "2"
        assert isinstance(options.submit(f.hang_first, path, 1).exception(20), TaskTimeout)
    assert len(f.notes(gate.started)) == 2
    assert len(f.notes(path)) == 1


@pytest.mark.parametrize(
    ("options", "runs"),
    [
        ({}, 1),
        ({"retry": Retry(3, on=OSError)}, 1),
        ({"retry": Retry(3, on=WorkerCrashed)}, 3),
        ({"retry": Retry(3)}, 3),
        ({"on_crash": "retry"}, 3),
        ({"on_crash": "retry", "retry": Retry(2, on=OSError)}, 2),
        ({"on_crash": "raise", "retry": Retry(3)}, 1),
    ],
)
def test_a_crash_is_tried_again_when_asked(options: dict[str, Any], runs: int, gate: Gate) -> None:
    with make("forkserver") as pool:
        future = pool.options(**options).submit(f.die_first, gate.started, 9)
        error = future.exception(30)
        assert isinstance(error, WorkerCrashed)
        assert error.attempt == runs
    assert len(f.notes(gate.started)) == runs


def test_a_crash_may_be_survived(gate: Gate) -> None:
    with make("forkserver") as pool:
        future = pool.options(on_crash="retry").submit(f.die_first, gate.started, 2, "done")
        assert future.result(30) == "done"
        assert future.info.attempts == 3


def test_a_killed_task_is_not_tried_again(gate: Gate) -> None:
    with make("forkserver") as pool:
        stubborn = pool.options(retry=Retry(5))
        future = stubborn.submit(f.start_and_pass_gate, gate.started, gate.path)
        gate.wait_started(1)
        assert future.kill()
        assert isinstance(future.exception(20), TaskKilled)
    assert len(f.notes(gate.started)) == 1


# -- priority --------------------------------------------------------------------------------------


def test_higher_priority_starts_first(parallel_kind: str, gate: Gate) -> None:
    with make(parallel_kind, 1) as pool:
        first = pool.submit(f.start_and_pass_gate, gate.started, gate.path, "gate")
        gate.wait_started(1)
        for priority, name in ((0, "a"), (-1, "z"), (5, "c"), (0, "b"), (5, "d"), (9, "e")):
            pool.options(priority=priority).submit(f.noted, gate.started, name)
        gate.open()
        first.result(20)
    assert f.notes(gate.started) == ["gate", "e", "c", "d", "a", "b", "z"]


# -- what a task knows of itself -------------------------------------------------------------------


def test_current_task(kind: str) -> None:
    with pytest.raises(RuntimeError):
        current_task()
    with make(kind, 2) as pool:
        found = list(pool.map(f.where, range(100)))
        assert [index for index, _, _ in found] == list(range(100))
        assert {attempt for _, attempt, _ in found} == {1}
        assert {worker for _, _, worker in found} <= {1, 2}
        indexes = [pool.submit(f.where).result()[0] for _ in range(5)]
        assert indexes == list(range(indexes[0], indexes[0] + 5))
    with pytest.raises(RuntimeError):
        current_task()


def test_current_task_counts_attempts(kind: str, gate: Gate) -> None:
    with make(kind) as pool:
        future = pool.options(retry=Retry(3)).submit(_attempt_three)
        assert future.result(20) == 3


def _attempt_three() -> int:
    attempt = current_task().attempt
    if attempt < 3:
        raise OSError(attempt)
    return attempt


def test_seeds_give_the_same_numbers_for_any_pool() -> None:
    mapped, submitted = set(), set()
    for kind, workers in itertools.product(EVERY_KIND, (1, 3)):
        with make(kind, workers, seed=42) as pool:
            mapped.add(tuple(pool.map(f.draw, range(200))))
            mapped.add(tuple(pool.map(f.draw, range(200), seed=None, chunksize=7)))
            submitted.add(tuple(pool.submit(f.draw).result(20) for _ in range(10)))
    assert len(mapped) == 2  # the first map of a pool, and its second
    assert len(submitted) == 1
    assert all(len(set(numbers)) == 200 for numbers in mapped)
    assert not mapped & submitted


def test_a_map_may_have_its_own_seed(kind: str) -> None:
    with make(kind, 2) as pool:
        one = list(pool.map(f.draw, range(50), seed=7))
        two = list(pool.map(f.draw, range(50), seed=7, chunksize=3))
        three = list(pool.map(f.draw, range(50), seed=8))
        assert one == two
        assert not set(one) & set(three)
        with pytest.raises(RuntimeError, match="seed"):
            list(pool.map(f.draw, range(3)))


def test_unordered_draws_the_same(parallel_kind: str) -> None:
    with make(parallel_kind, 2) as pool:
        one = list(pool.map(f.draw, range(300), seed=7))
        two = list(pool.map(f.draw, range(300), seed=7, ordered=False))
    assert sorted(one) == sorted(two)


def test_numpy_streams(kind: str) -> None:
    pytest.importorskip("numpy")
    with make(kind, 2) as pool:
        one = list(pool.map(f.draw_numpy, range(50), seed=7))
    with make("serial") as pool:
        assert one == list(pool.map(f.draw_numpy, range(50), seed=7))
    assert len(set(one)) == 50


def test_workers_do_not_share_the_global_random_state(start_method: str) -> None:
    with make(start_method, 2) as pool:
        numbers = list(pool.map(_global_draw, range(50), chunksize=1))
    assert len(set(numbers)) == 50


def _global_draw(_: int) -> float:
    import random

    time.sleep(0.002)
    return random.random()


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


@pytest.mark.parametrize("kind", ["threads", "serial"])
def test_context_variables_are_carried_along(kind: str) -> None:
    with make(kind, 2) as pool:
        token = VARIABLE.set("outer")
        try:
            future = pool.submit(_read_and_set)
            results = pool.map(_read_and_set_item, range(3))
            VARIABLE.set("changed later")
            assert future.result(20) == "outer"
            assert next(results) == "outer"
            assert VARIABLE.get() == "changed later"
        finally:
            VARIABLE.reset(token)
        assert pool.submit(_read_and_set).result(20) == "unset"


def _read_and_set() -> str:
    found = VARIABLE.get()
    VARIABLE.set("task")  # stays in the task's own copy
    return found


def _read_and_set_item(_: int) -> str:
    return _read_and_set()
