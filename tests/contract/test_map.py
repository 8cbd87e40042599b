"""``map``, over all kinds: order, laziness, errors."""

from __future__ import annotations

import concurrent.futures
import itertools
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lightwork import CannotPickle, Failure, Retry, TaskKilled, TaskTimeout, WorkerCrashed

from . import functions as f
from .pools import Gate, eventually, make


def test_results_in_the_order_of_the_items(every_kind: str) -> None:
    with make(every_kind) as pool:
        assert list(pool.map(f.square, range(5000))) == [n * n for n in range(5000)]
        assert list(pool.map(f.square, [])) == []
        assert list(pool.map(f.square, (n for n in range(3)))) == [0, 1, 4]


@pytest.mark.parametrize("chunksize", [1, 3, 50, 10_000])
def test_with_a_chunk_size(kind: str, chunksize: int) -> None:
    with make(kind) as pool:
        results = pool.map(f.square, range(301), chunksize=chunksize)
        assert list(results) == [n * n for n in range(301)]


@pytest.mark.parametrize("buffersize", [1, 2, 7, 1000])
def test_with_a_buffer_size(kind: str, buffersize: int) -> None:
    read: list[int] = []
    with make(kind) as pool:
        taken = 0
        for result in pool.map(f.square, _recorded(range(301), read), buffersize=buffersize):
            assert result == taken * taken
            assert len(read) <= taken + buffersize + 1
            taken += 1
    assert taken == 301


def _recorded(items: Any, read: list[Any]) -> Iterator[Any]:
    for item in items:
        read.append(item)
        yield item


def test_several_iterables_go_in_step(kind: str) -> None:
    with make(kind) as pool:
        assert list(pool.map(pow, range(10), range(10))) == [n**n for n in range(10)]
        assert list(pool.map(f.mul, [2, 3], itertools.count(10))) == [20, 33]
        assert list(pool.map(f.mul, [2, 3], [])) == []


def test_it_starts_before_it_is_iterated(parallel_kind: str, gate: Gate) -> None:
    with make(parallel_kind) as pool:
        results = pool.map(f.noted, itertools.repeat(gate.started), range(2))
        gate.wait_started(2)
        assert list(results) == [0, 1]


def test_what_was_given_is_finished_though_nobody_asks(parallel_kind: str, gate: Gate) -> None:
    # As concurrent.futures: leaving the `with` block waits for what has been submitted.
    with make(parallel_kind) as pool:
        results = pool.map(f.noted, itertools.repeat(gate.started), range(4))
    assert sorted(f.notes(gate.started)) == ["0", "1", "2", "3"]
    del results


def test_endless_inputs(kind: str) -> None:
    with make(kind) as pool:
        results = pool.map(f.square, itertools.count())
        assert list(itertools.islice(results, 1000)) == [n * n for n in range(1000)]
        results.close()
        assert list(results) == []
        assert pool.submit(f.square, 3).result(20) == 9


def test_the_first_result_comes_before_the_last_item_is_read(kind: str) -> None:
    read: list[int] = []
    with make(kind) as pool:
        results = pool.map(f.square, _recorded(range(10**6), read))
        assert next(results) == 0
        assert len(read) < 10**6
        results.close()


def test_breaking_off_stops_the_rest(parallel_kind: str, gate: Gate) -> None:
    with make(parallel_kind) as pool:
        for result in pool.map(_slow_note, itertools.repeat(gate.started), range(1000)):
            if result == 3:
                break
        del result
        begin = time.monotonic()
    assert time.monotonic() - begin < 10
    assert len(f.notes(gate.started)) < 900


def _slow_note(path: str, value: int) -> int:
    time.sleep(0.01)
    f.note(path, value)
    return value


def test_as_they_finish(parallel_kind: str) -> None:
    with make(parallel_kind, 2) as pool:
        seconds = [0.5, 0.0, 0.0, 0.0]
        order = list(pool.map(_sleep, seconds, range(4), ordered=False))
        assert sorted(order) == [0, 1, 2, 3]
        assert order[-1] == 0


def _sleep(seconds: float, value: int) -> int:
    time.sleep(seconds)
    return value


def test_unordered_loses_and_doubles_nothing(kind: str) -> None:
    with make(kind) as pool:
        assert sorted(pool.map(f.square, range(5000), ordered=False)) == [
            n * n for n in range(5000)
        ]


# -- errors ----------------------------------------------------------------------------------------


def test_raise_comes_in_its_place(kind: str) -> None:
    with make(kind) as pool:
        results = pool.map(f.fail_if_odd, [0, 2, 4, 5, 6, 7])
        assert [next(results) for _ in range(3)] == [0, 2, 4]
        with pytest.raises(ValueError, match="^5 is odd") as caught:
            next(results)
        assert "index 3" in " ".join(caught.value.__notes__)
        assert "fail_if_odd(5)" in " ".join(caught.value.__notes__)
        with pytest.raises(StopIteration):
            next(results)
        assert pool.submit(f.square, 3).result(20) == 9


@pytest.mark.parametrize("ordered", [True, False])
def test_return_puts_failures_beside_the_results(kind: str, ordered: bool) -> None:
    with make(kind) as pool:
        results = list(pool.map(f.fail_if_odd, range(100), on_error="return", ordered=ordered))
    assert len(results) == 100
    failures = {one.index: one for one in results if isinstance(one, Failure)}
    assert sorted(failures) == list(range(1, 100, 2))
    for index, failure in failures.items():
        assert failure.item == index
        assert isinstance(failure.exception, ValueError)
        assert failure.attempts == 1
        assert failure.worker is not None
        assert not failure
    if ordered:
        assert results[::2] == list(range(0, 100, 2))


def test_skip_leaves_failures_out(kind: str) -> None:
    with make(kind) as pool:
        assert list(pool.map(f.fail_if_odd, range(100), on_error="skip")) == list(range(0, 100, 2))


def test_group_runs_all_and_raises_at_the_end(kind: str) -> None:
    results = []
    with make(kind) as pool, pytest.raises(ExceptionGroup) as caught:
        for one in pool.map(f.fail_if_odd, range(10), on_error="group"):
            results.append(one)  # noqa: PERF402 - it is kept when the loop raises
    assert results == [0, 2, 4, 6, 8]
    assert sorted(str(one) for one in caught.value.exceptions) == [
        f"{n} is odd" for n in (1, 3, 5, 7, 9)
    ]
    assert "index" in str(caught.value)


def test_group_without_failures_raises_nothing(kind: str) -> None:
    with make(kind) as pool:
        assert list(pool.map(f.square, range(3), on_error="group")) == [0, 1, 4]


def test_a_callable_decides(kind: str) -> None:
    with make(kind) as pool:
        results = pool.map(f.fail_if_odd, range(6), on_error=lambda failure: -failure.index)
        assert list(results) == [0, -1, 2, -3, 4, -5]


def test_a_callable_that_raises_ends_the_map(kind: str) -> None:
    def refuse(failure: Failure) -> object:
        raise KeyError(failure.index)

    with make(kind) as pool:
        with pytest.raises(KeyError):
            list(pool.map(f.fail_if_odd, range(6), on_error=refuse))
        assert pool.submit(f.square, 3).result(20) == 9


def test_an_input_that_raises_does_so_in_its_place(kind: str) -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise LookupError("the input is broken")

    with make(kind) as pool:
        results = pool.map(f.square, items())
        assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
        with pytest.raises(LookupError, match="the input is broken"):
            next(results)
        assert pool.submit(f.square, 3).result(20) == 9


def test_an_item_that_cannot_travel_fails_alone(start_method: str) -> None:
    items = [1, f.Unpicklable(), 3, lambda: None, 5]
    with make(start_method) as pool:
        results = list(pool.map(_kind_of, items, on_error="return", chunksize=5))
    assert [results[at] for at in (0, 2, 3, 4)] == ["int", "int", "function", "int"]
    assert isinstance(results[1].exception, CannotPickle)
    assert results[1].index == 1


def _kind_of(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize("chunksize", [None, 1, 10, 1000])
def test_crashes_hit_only_their_items(start_method: str, chunksize: int | None) -> None:
    items = [1 if n in (7, 8, 150) else 0 for n in range(200)]
    with make(start_method) as pool:
        results = list(pool.map(f.die_if_odd, items, on_error="return", chunksize=chunksize))
    guilty = {one.index: one for one in results if isinstance(one, Failure)}
    assert sorted(guilty) == [7, 8, 150]
    for index, failure in guilty.items():
        crash = failure.exception
        assert isinstance(crash, WorkerCrashed)
        assert (crash.index, crash.signal, crash.function) == (index, "SIGKILL", "die_if_odd")


def test_time_limits_hold_for_each_item(parallel_kind: str) -> None:
    seconds = [0.0, 60.0, 0.0, 0.0] if parallel_kind == "forkserver" else [0.0, 2.0, 0.0, 0.0]
    with make(parallel_kind) as pool:
        begin = time.monotonic()
        careful = pool.options(timeout=0.3)
        results = list(careful.map(_sleep, seconds, range(4), on_error="return"))
        assert time.monotonic() - begin < 10
    assert [results[at] for at in (0, 2, 3)] == [0, 2, 3]
    assert isinstance(results[1].exception, TaskTimeout)


def test_retries_hold_for_each_item(kind: str, gate: Gate) -> None:
    with make(kind) as pool:
        stubborn = pool.options(retry=Retry(3, on=OSError))
        paths = [f"{gate.path}-{n}" for n in range(20)]
        results = stubborn.map(f.fail_first, paths, [n % 3 for n in range(20)], range(20))
        assert list(results) == list(range(20))
    assert [len(f.notes(path)) for path in paths] == [n % 3 + 1 for n in range(20)]


def test_the_time_for_all_results(parallel_kind: str, gate: Gate) -> None:
    with make(parallel_kind) as pool:
        assert list(pool.map(_sleep_or_gate, [None] * 4)) == [None] * 4  # the workers are there
        results = pool.map(_sleep_or_gate, [None, None, gate.path], timeout=2.0)
        assert [next(results), next(results)] == [None, None]
        with pytest.raises(TimeoutError):
            next(results)
        gate.open()


def _sleep_or_gate(path: str | None) -> None:
    if path is not None:
        f.pass_gate(path)


# -- the rest --------------------------------------------------------------------------------------


def test_progress_is_told(kind: str) -> None:
    class Bar:
        done = 0
        closed = 0

        def update(self, n: int) -> None:
            self.done += n

        def close(self) -> None:
            self.closed += 1

    bar = Bar()
    with make(kind) as pool:
        assert sum(pool.map(f.fail_if_odd, range(100), progress=bar, on_error="skip")) == 2450
    assert (bar.done, bar.closed) == (100, 1)


def test_bad_options_are_refused_at_once(kind: str) -> None:
    wrong: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"chunksize": 0}, ValueError),
        ({"chunksize": -1}, ValueError),
        ({"chunksize": "3"}, TypeError),
        ({"buffersize": 0}, ValueError),
        ({"buffersize": 1.5}, TypeError),
        ({"timeout": "soon"}, TypeError),
        ({"on_error": "ignore"}, ValueError),
        ({"seed": "x"}, TypeError),
    ]
    with make(kind) as pool:
        for options, error in wrong:
            with pytest.raises(error):
                pool.map(f.square, [1], **options)
        with pytest.raises(TypeError):
            pool.map(f.square)
        with pytest.raises(TypeError):
            pool.map(f.square, 3)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            pool.map("square", [3])  # type: ignore[arg-type]


def test_many_maps_at_once(kind: str) -> None:
    with make(kind) as pool:
        maps = [pool.map(f.mul, itertools.repeat(k), range(300)) for k in range(10)]
        random.Random(3).shuffle(order := list(range(10)))
        for k in order:
            assert list(maps[k]) == [k * n for n in range(300)]


def test_maps_in_maps_in_place() -> None:
    with make("serial") as pool:

        def inner(k: int) -> int:
            return sum(pool.map(f.square, range(k)))

        assert list(pool.map(inner, range(12))) == [sum(n * n for n in range(k)) for k in range(12)]


def test_even_though_calls_differ_wildly(parallel_kind: str) -> None:
    draw = random.Random(1)
    seconds = [draw.choice([0.0, 0.0, 0.0, 0.0, 0.001, 0.02]) for _ in range(400)]
    with make(parallel_kind) as pool:
        assert list(pool.map(_sleep, seconds, range(400))) == list(range(400))


def test_shutdown_under_a_map(parallel_kind: str) -> None:
    pool = make(parallel_kind)
    results = pool.map(_slow, range(200), buffersize=4)
    assert next(results) == 0
    pool.shutdown(wait=False)
    with pytest.raises((RuntimeError, StopIteration)):
        # What was in flight is delivered; what had not been read cannot be submitted any more.
        while True:
            next(results)
    pool.shutdown()


def _slow(value: int) -> int:
    time.sleep(0.005)
    return value


def test_forgetting_a_map_cancels_it(parallel_kind: str, gate: Gate) -> None:
    with make(parallel_kind, 2) as pool:
        results = pool.map(_slow_note, itertools.repeat(gate.started), range(500))
        assert next(results) == 0
        del results
        eventually(lambda: pool.statistics().queued == 0)
    assert len(f.notes(gate.started)) < 400


@pytest.mark.parametrize("dropped", [True, False])
def test_what_nobody_asks_for_is_still_done(parallel_kind: str, dropped: bool, gate: Gate) -> None:
    """As concurrent.futures: ``pool.map(save, files)`` for its effects alone does them all."""
    with make(parallel_kind) as pool:
        results = pool.map(f.noted, itertools.repeat(gate.started, 200), range(200))
        if dropped:
            del results
    assert sorted(map(int, f.notes(gate.started))) == list(range(200))


def test_results_do_not_wait_for_a_call_that_takes_for_ever(gate: Gate) -> None:
    """Even when it was expected to be as short as all others, and is in one chunk with them."""
    with make("forkserver", 1) as pool:
        list(pool.map(f.pass_gate_if_given, [("", n) for n in range(300)]))
        items = [("", n) for n in range(10)] + [(gate.path, 10)] + [("", n) for n in range(11, 20)]
        results = pool.map(f.pass_gate_if_given, items)
        assert [next(results) for _ in range(10)] == list(range(10))
        gate.open()
        assert list(results) == list(range(10, 20))


@pytest.mark.parametrize("ordered", [True, False])
def test_killing_the_pool_ends_a_map_that_is_half_done(gate: Gate, ordered: bool) -> None:
    pool = make("forkserver", 1)
    list(pool.map(f.pass_gate_if_given, [("", n) for n in range(300)]))
    items = [("", n) for n in range(10)] + [(gate.path, 10)] + [("", n) for n in range(11, 20)]
    results = pool.map(f.pass_gate_if_given, items, ordered=ordered)
    assert sorted(next(results) for _ in range(10)) == list(range(10))
    pool.kill_workers()
    with pytest.raises((TaskKilled, concurrent.futures.CancelledError)):
        list(results)
    gate.open()
