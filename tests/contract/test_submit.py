"""``submit`` and its future, over all kinds."""

from __future__ import annotations

import concurrent.futures
import functools
import logging
import operator
import threading
import time
from typing import Any

import pytest

from lightwork import (
    CannotPickle,
    Future,
    Pool,
    RemoteError,
    TaskKilled,
    as_completed,
    wait,
)

from . import functions as f
from .pools import Gate, eventually, make


def test_a_pool_is_an_executor(kind: str) -> None:
    with make(kind) as pool:
        assert isinstance(pool, concurrent.futures.Executor)
        future = pool.submit(pow, 2, 8)
        assert isinstance(future, concurrent.futures.Future)
        assert future.result() == 256


def test_arguments_travel_as_given(every_kind: str) -> None:
    with make(every_kind) as pool:
        future = pool.submit(f.capture, 1, (2, "b"), self=3, fn=4, args=5)
        assert future.result() == ((1, (2, "b")), {"self": 3, "fn": 4, "args": 5})


@pytest.mark.parametrize("wrong", [None, 3, "name"])
def test_what_is_not_callable_is_refused_at_once(kind: str, wrong: Any) -> None:
    with make(kind) as pool, pytest.raises(TypeError):
        pool.submit(wrong)


def test_the_function_is_positional_only(kind: str) -> None:
    with make(kind) as pool:
        with pytest.raises(TypeError):
            pool.submit(fn=f.capture)  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            pool.submit()  # type: ignore[call-arg]


def _local_cases() -> list[tuple[str, Any, tuple[Any, ...], Any]]:
    three = 3

    def closure(x: int) -> int:
        return x + three

    def recursive(n: int) -> int:
        return 1 if n < 2 else n * recursive(n - 1)

    class Local:
        def __call__(self, x: int) -> int:
            return -x

    return [
        ("lambda", lambda x: x + 1, (1,), 2),
        ("closure", closure, (4,), 7),
        ("recursive closure", recursive, (10,), 3628800),
        ("partial", functools.partial(f.mul, 6), (7,), 42),
        ("partial of a lambda", functools.partial(lambda a, b: a - b, 6), (7,), -1),
        ("bound method", f.Account(40).plus, (2,), 42),
        ("callable object", f.Account(21), (2,), 42),
        ("object of a local class", Local(), (5,), -5),
        ("builtin", len, ("four",), 4),
        ("method of a builtin", "a-b".split, ("-",), ["a", "b"]),
        ("operator", operator.itemgetter(1), ((5, 6),), 6),
        ("class", complex, (1, 2), 1 + 2j),
        ("cached", functools.lru_cache(f.square), (3,), 9),
    ]


@pytest.mark.parametrize("case", _local_cases(), ids=lambda case: case[0])
def test_whatever_can_be_called_can_be_sent(
    kind: str, case: tuple[str, Any, tuple[Any, ...], Any]
) -> None:
    _, fn, args, expected = case
    with make(kind, 1) as pool:
        assert pool.submit(fn, *args).result() == expected
        assert list(pool.map(fn, *([one] for one in args))) == [expected]


def test_a_closure_is_sent_as_it_is_now(kind: str) -> None:
    box = [1]
    with make(kind, 1) as pool:
        assert pool.submit(lambda: box[0]).result() == 1
        read = lambda: box[0]  # noqa: E731
        assert pool.submit(read).result() == 1
        box[0] = 2
        assert pool.submit(read).result() == 2


def test_an_error_arrives_as_itself(every_kind: str) -> None:
    with make(every_kind) as pool:
        future = pool.submit(f.fail, "text")
        error = future.exception()
        assert type(error) is ValueError
        assert error.args == ("text",)
        assert "fail" in " ".join(error.__notes__)
        assert "attempt 1" in " ".join(error.__notes__)
        with pytest.raises(ValueError, match="^text"):
            future.result()


def test_an_error_of_a_process_brings_its_traceback(start_method: str) -> None:
    with make(start_method) as pool:
        error = pool.submit(f.fail).exception()
    assert error is not None
    assert "raise ValueError(text)" in str(error.__cause__)


def test_system_exit_in_a_task_is_its_error(every_kind: str) -> None:
    with make(every_kind, 1) as pool:
        error = pool.submit(_exit_three).exception()
        assert isinstance(error, SystemExit)
        assert error.code == 3
        assert pool.submit(f.square, 3).result() == 9


def _exit_three() -> None:
    raise SystemExit(3)


def test_keyboard_interrupt_raised_by_a_task_is_its_error(parallel_kind: str) -> None:
    with make(parallel_kind, 1) as pool:
        assert isinstance(pool.submit(_interrupt).exception(), KeyboardInterrupt)
        assert pool.submit(f.square, 3).result() == 9


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_an_exception_that_cannot_be_rebuilt_still_arrives(start_method: str) -> None:
    with make(start_method, 1) as pool:
        error = pool.submit(f.raise_awkward, 7).exception()
        assert isinstance(error, (f.Awkward, RemoteError))
        assert "code 7: awkward" in str(error)
        if isinstance(error, RemoteError):
            assert error.type_name.endswith("Awkward")
            assert error.attributes["code"] == 7
            assert "raise Awkward" in error.traceback
        assert pool.submit(f.square, 3).result() == 9


@pytest.mark.parametrize("what", ["argument", "function", "result"])
def test_what_cannot_be_pickled_fails_its_own_future(start_method: str, what: str) -> None:
    lock = threading.Lock()
    with make(start_method, 1) as pool:
        healthy = [pool.submit(f.square, n) for n in range(20)]
        if what == "argument":
            guilty = pool.submit(f.identity, {"lock": lock})
        elif what == "function":
            guilty = pool.submit(lambda: lock)
        else:
            guilty = pool.submit(threading.Lock)
        healthy += [pool.submit(f.square, n) for n in range(20)]
        error = guilty.exception(20)
        assert isinstance(error, CannotPickle)
        assert "lock" in str(error)
        assert [one.result(20) for one in healthy] == [n * n for n in range(20)] * 2


def test_threads_share_objects_and_do_not_pickle() -> None:
    thing = f.Unpicklable()
    with make("threads") as pool:
        assert pool.submit(f.identity, thing).result() is thing
    with make("serial") as pool:
        assert pool.submit(f.identity, thing).result() is thing


def test_submit_does_not_wait_for_work(parallel_kind: str, gate: Gate) -> None:
    with make(parallel_kind) as pool:
        futures = [pool.submit(f.pass_gate, gate.path, n) for n in range(500)]
        assert not any(one.done() for one in futures)
        gate.open()
        assert [one.result(60) for one in futures] == list(range(500))


def test_no_more_tasks_run_than_there_are_workers(parallel_kind: str, gate: Gate) -> None:
    with make(parallel_kind, 3) as pool:
        futures = [pool.submit(f.start_and_pass_gate, gate.started, gate.path, n) for n in range(9)]
        gate.wait_started(3)
        time.sleep(0.05)
        assert sorted(f.notes(gate.started)) == ["0", "1", "2"]
        gate.open()
        assert wait(futures, 30).not_done == set()


def test_a_result_may_be_waited_for_with_a_time_limit(parallel_kind: str, gate: Gate) -> None:
    with make(parallel_kind) as pool:
        future = pool.submit(f.pass_gate, gate.path, 5)
        for ask in (future.result, future.exception):
            with pytest.raises(TimeoutError):
                ask(0.05)
        gate.open()
        assert future.result(20) == 5
        assert future.exception() is None


def test_as_completed_and_wait_take_our_futures(kind: str) -> None:
    with make(kind) as pool:
        futures: dict[concurrent.futures.Future[Any], int] = {
            pool.submit(f.square, n): n for n in range(50)
        }
        assert {futures[one]: one.result() for one in as_completed(futures, 30)} == {
            n: n * n for n in range(50)
        }
        assert wait(futures).done == set(futures)


def test_cancel_before_the_start(parallel_kind: str, gate: Gate) -> None:
    with make(parallel_kind, 1) as pool:
        first = pool.submit(f.start_and_pass_gate, gate.started, gate.path)
        gate.wait_started(1)
        second = pool.submit(f.noted, gate.started, "second")
        third = pool.submit(f.square, 3)
        called: list[Future] = []
        second.add_done_callback(called.append)  # type: ignore[arg-type]
        assert second.cancel()
        assert second.cancelled()
        assert second.done()
        assert called == [second]
        assert second.cancel()  # again
        with pytest.raises(concurrent.futures.CancelledError):
            second.result()
        gate.open()
        assert first.result(20) is None
        assert third.result(20) == 9
        assert f.notes(gate.started) == ["None"]


def test_cancel_of_what_runs_or_ended_does_nothing(parallel_kind: str, gate: Gate) -> None:
    with make(parallel_kind, 1) as pool:
        running = pool.submit(f.start_and_pass_gate, gate.started, gate.path, 1)
        gate.wait_started(1)
        assert eventually(running.running)
        assert not running.cancel()
        gate.open()
        assert running.result(20) == 1
        assert not running.cancel()
        assert not running.running()


def test_callbacks_run_once_wherever_they_are_added(kind: str, gate: Gate) -> None:
    gate.open() if kind == "serial" else None
    called: list[int] = []
    with make(kind) as pool:
        future = pool.submit(f.pass_gate, gate.path, 4)
        future.add_done_callback(lambda one: called.append(one.result()))
        gate.open()
        future.result(20)
        eventually(lambda: called == [4])
        future.add_done_callback(lambda one: called.append(-one.result()))
        assert called == [4, -4]


def test_a_callback_that_raises_harms_nobody(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    def bad(_: Any) -> None:
        raise RuntimeError("bad callback")

    with caplog.at_level(logging.CRITICAL, "concurrent.futures"), make(kind) as pool:
        futures = [pool.submit(f.square, n) for n in range(20)]
        for one in futures:
            one.add_done_callback(bad)
        assert [one.result(20) for one in futures] == [n * n for n in range(20)]


def test_a_callback_may_submit(kind: str) -> None:
    results: list[int] = []
    done = threading.Event()
    with make(kind) as pool:

        def again(one: concurrent.futures.Future[int]) -> None:
            results.append(one.result())
            if len(results) == 20:
                done.set()
            else:
                pool.submit(f.square, len(results)).add_done_callback(again)

        pool.submit(f.square, 0).add_done_callback(again)
        assert done.wait(20)
    assert results == [n * n for n in range(20)]


def test_kill_ends_a_running_task_and_nothing_else(start_method: str, gate: Gate) -> None:
    with make(start_method) as pool:
        guilty = pool.submit(f.start_and_pass_gate, gate.started, gate.path)
        others = [pool.submit(f.square, n) for n in range(50)]
        gate.wait_started(1)
        begin = time.monotonic()
        assert guilty.kill()
        assert time.monotonic() - begin < 5
        assert isinstance(guilty.exception(), TaskKilled)
        assert not guilty.kill()  # it has ended
        assert [one.result(20) for one in others] == [n * n for n in range(50)]
        assert pool.submit(f.square, 9).result(20) == 81


def test_kill_writes_a_thread_off_and_keeps_the_width(gate: Gate) -> None:
    with make("threads", 1) as pool:
        guilty = pool.submit(f.start_and_pass_gate, gate.started, gate.path)
        gate.wait_started(1)
        assert guilty.kill()
        assert isinstance(guilty.exception(5), TaskKilled)
        assert pool.submit(f.square, 9).result(20) == 81
        gate.open()


def test_kill_before_the_start_cancels(parallel_kind: str, gate: Gate) -> None:
    with make(parallel_kind, 1) as pool:
        first = pool.submit(f.start_and_pass_gate, gate.started, gate.path, 1)
        gate.wait_started(1)
        second = pool.submit(f.square, 3)
        assert second.kill()
        assert second.cancelled()
        gate.open()
        assert first.result(20) == 1


def test_info_tells_how_it_went(kind: str) -> None:
    with make(kind, 1) as pool:
        future = pool.submit(time.sleep, 0.05)
        future.result()
        info = future.info
        assert info.attempts == 1
        assert info.worker is not None
        assert info.finished is not None
        assert info.submitted <= info.finished
        if info.started is not None:
            assert info.submitted <= info.started <= info.finished
        assert info.seconds is not None
        assert 0.04 < info.seconds < 5


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 1_000_003, 40_000_000])
def test_payloads_of_all_sizes_come_back_equal(kind: str, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with make(kind, 1) as pool:
        assert pool.submit(f.identity, data).result(60) == data
        assert pool.submit(f.identity, bytearray(data)).result(60) == data


def test_arrays_come_back_equal_and_writable(kind: str) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(300_000.0).reshape(300, 1000)
    with make(kind, 1) as pool:
        for given in (array, array.T, array[::2], array[:0]):
            copy = pool.submit(f.identity, given).result(60)
            assert numpy.array_equal(copy, given)
            if kind == "forkserver":
                copy += 1
                assert numpy.array_equal(copy, given + 1)
        changed = pool.submit(_add_in_place, array.copy()).result(60)
        assert numpy.array_equal(changed, array + 1)
    assert array[0, 0] == 0


def _add_in_place(array: Any) -> Any:
    array += 1
    return array


def test_submit_from_many_threads(kind: str) -> None:
    results: dict[int, list[int]] = {}

    with make(kind) as pool:

        def use(number: int, pool: Pool = pool) -> None:
            futures = [pool.submit(f.mul, number, n) for n in range(100)]
            results[number] = [one.result(60) for one in futures]

        threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {number: [number * n for n in range(100)] for number in range(8)}


def test_tasks_of_a_thread_pool_may_submit_and_wait() -> None:
    for kind in ("threads", "serial"):
        with make(kind, 2) as pool:
            inner = pool.submit(lambda pool=pool: pool.submit(f.square, 5).result(20))
            assert inner.result(20) == 25
