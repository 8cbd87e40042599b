"""Worker processes behind the backend's face: calls, answers, errors, starting, leaving."""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from lightwork.backends.base import WorkerOptions
from lightwork.backends.processes import ProcessBackend
from lightwork.errors import CannotPickle, CannotUnpickle, WorkerCrashed
from tests.backends import tasks
from tests.backends.driver import Driver

MODES = [{"tiny": True}, {}, {"exact": True}]


# -- calls


def test_one_call(driver: Driver, worker: int) -> None:
    assert driver.value(driver.call(worker, tasks.square, 7)) == 49


def test_arguments_of_all_kinds(driver: Driver, worker: int) -> None:
    call = driver.backend.prepare(tasks.keywords, (), {"a": 1, "b": [2]})
    parcel = driver.parcel(call)
    driver.send(worker, parcel)
    assert driver.value(parcel.task) == {"a": 1, "b": [2]}


@pytest.mark.parametrize("mode", MODES)
def test_chunks_come_back_in_order(driver: Driver, worker: int, mode: dict[str, bool]) -> None:
    task = driver.chunk(worker, tasks.square, list(range(1000)), **mode)
    driver.until(lambda: driver.ended == 1000)
    assert driver.values(task, 1000) == [n * n for n in range(1000)]
    answered = [(one.lo, one.hi) for one in driver.results_seen]
    assert answered == sorted(answered)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("items", [[(1, 2), (3, 4)], [(1, 2), (3, tasks.ExitInDel)]])
def test_starred_chunks(
    driver: Driver, worker: int, mode: dict[str, bool], items: list[Any]
) -> None:
    fn = tasks.add if items[1][1] == 4 else tasks.keep_two
    task = driver.chunk(worker, fn, items, star=True, **mode)
    assert driver.value(task, 0) == 3


@pytest.mark.parametrize("mode", MODES)
def test_part_of_a_chunk(driver: Driver, worker: int, mode: dict[str, bool]) -> None:
    for items in (list(range(10)), [[n, tasks.square] for n in range(10)]):
        call = driver.backend.prepare_chunk(tasks.echo, items, False)
        parcel = driver.parcel(call, lo=2, hi=5, **mode)._replace(base=3)
        driver.send(worker, parcel)
        assert [driver.value(parcel.task, n) for n in (2, 3, 4)] == items[5:8]


@pytest.mark.parametrize("mode", MODES)
def test_errors_are_of_their_own_call(driver: Driver, worker: int, mode: dict[str, bool]) -> None:
    values = driver.values(driver.chunk(worker, tasks.fail_on_odd, list(range(40)), **mode), 40)
    for number, value in enumerate(values):
        if number % 2:
            assert isinstance(value, ValueError)
            assert value.args == (number,)
        else:
            assert value == number


@pytest.mark.parametrize("mode", MODES)
def test_a_result_is_what_it_was_when_it_was_returned(
    driver: Driver, worker: int, mode: dict[str, bool]
) -> None:
    task = driver.chunk(worker, tasks.grow, list(range(50)), **mode)
    for number, value in enumerate(driver.values(task, 50)):
        assert value == list(range(number + 1))


def test_a_batch_of_all_forms_is_answered_in_order(driver: Driver, worker: int) -> None:
    prepare, chunk = driver.backend.prepare, driver.backend.prepare_chunk
    parcels = []
    for number in range(30):
        mode = MODES[number % 3]
        parcels += [
            driver.parcel(prepare(tasks.square, (number,), {}), **mode),
            driver.parcel(chunk(tasks.echo, [number, "x" * number], False), **mode),
            driver.parcel(chunk(tasks.echo, [tasks.square, number], False), **mode),
        ]
    driver.send(worker, *parcels)
    driver.until(lambda: driver.ended == 150)
    seen = [task for _, task, _ in driver.order]
    assert sorted(seen) == seen
    assert [driver.value(one.task) for one in parcels[::3]] == [n * n for n in range(30)]
    assert [driver.value(one.task, 1) for one in parcels[2::3]] == list(range(30))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "value",
    [
        *(None, True, -1, 1 << 100, 2.5, 1j, "é\udc80", b"\0"),
        *("x" * 5000, (1, [2]), {"a": {1}}, b"y" * 100_000),
    ],
)
def test_values_survive_the_journey(
    driver: Driver, worker: int, mode: dict[str, bool], value: Any
) -> None:
    single = driver.call(worker, tasks.echo, value, **mode)
    chunk = driver.chunk(worker, tasks.echo, [value, value], **mode)
    for got in (driver.value(single), *driver.values(chunk, 2)):
        assert got == value
        assert type(got) is type(value)


def test_leaving_exceptions_are_the_calls_own(driver: Driver, worker: int) -> None:
    left = driver.value(driver.call(worker, tasks.exit_with, 3))
    assert isinstance(left, SystemExit)
    assert left.code == 3
    assert isinstance(driver.value(driver.call(worker, tasks.interrupt)), KeyboardInterrupt)
    assert isinstance(driver.value(driver.call(worker, tasks.recurse)), RecursionError)
    assert driver.value(driver.call(worker, tasks.square, 2)) == 4


@pytest.mark.parametrize("mode", MODES)
def test_what_cannot_travel_is_its_own_calls_error(
    driver: Driver, worker: int, mode: dict[str, bool]
) -> None:
    with pytest.raises(CannotPickle):
        driver.backend.prepare(tasks.echo, (tasks.lock(),), {})
    names = ["lock", "RaiseAtUnpickle", "interrupt_at_unpickle", "pid"]
    values = driver.values(driver.chunk(worker, tasks.call_named, names, **mode), 4)
    assert isinstance(values[0], CannotPickle)
    assert isinstance(values[1], CannotUnpickle)
    assert isinstance(values[2], CannotUnpickle)
    assert values[3] == driver.value(driver.call(worker, tasks.pid))
    items: list[Any] = [1, tasks.RaiseAtUnpickle(), 3]
    values = driver.values(driver.chunk(worker, tasks.echo, items, **mode), 3)
    assert values[::2] == [1, 3]
    assert isinstance(values[1], CannotUnpickle)


def test_functions_are_forgotten_and_sent_again(driver: Driver, worker: int) -> None:
    functions = [functools.partial(tasks.add, n) for n in range(300)]
    for _ in range(2):
        numbers = [driver.call(worker, fn, 1) for fn in functions]
        assert [driver.value(task) for task in numbers] == list(range(1, 301))
    big = [functools.partial(tasks.size_of_first, bytes(3 << 20), n) for n in range(30)]
    assert [driver.value(driver.call(worker, fn)) for fn in big] == [3 << 20] * 30


def test_where_a_call_is(driver: Driver, worker: int) -> None:
    for mode in MODES:
        task = driver.chunk(worker, tasks.where_of, list(range(40)), index=100, attempt=3, **mode)
        for offset, value in enumerate(driver.values(task, 40)):
            assert value == (100 + offset, 3, worker, task)


def test_inspect_names_the_call_and_its_start(driver: Driver, worker: int) -> None:
    assert driver.inspect(worker) is None
    before = time.monotonic()
    task = driver.chunk(worker, tasks.sleep, [0.0, 0.3, 0.0], timed=True, exact=True)
    driver.value(task, 0)
    time.sleep(0.1)
    seen = driver.inspect(worker)
    assert seen is not None
    assert seen[:3] == (task, 1, 1)
    assert before < seen.since < time.monotonic() - 0.05
    driver.value(task, 2)
    assert driver.inspect(worker) is None


def test_more_frames_than_slots(driver: Driver, worker: int, tmp_path: Any) -> None:
    gate = str(tmp_path / "gate")
    first = driver.call(worker, tasks.hold_until, gate)
    numbers = [driver.call(worker, tasks.square, n) for n in range(500)]
    open(gate, "w").close()
    assert driver.value(first) == gate
    assert [driver.value(task) for task in numbers] == [n * n for n in range(500)]


def test_a_worker_that_does_not_read(driver: Driver, worker: int) -> None:
    """Its socket fills up; nobody waits for it, and all arrives when it goes on."""
    process = driver.value(driver.call(worker, tasks.pid))
    os.kill(process, signal.SIGSTOP)
    begun = time.monotonic()
    numbers = [driver.call(worker, tasks.size_of, bytes(20_000)) for _ in range(400)]
    assert time.monotonic() - begun < 5
    other = driver.start()[0]
    assert driver.value(driver.call(other, tasks.square, 3)) == 9
    os.kill(process, signal.SIGCONT)
    assert [driver.value(task) for task in numbers] == [20_000] * 400


def test_big_results_of_a_fast_worker(driver: Driver, worker: int) -> None:
    task = driver.chunk(worker, tasks.blob, [30_000] * 300)
    assert {len(value) for value in driver.values(task, 300)} == {30_000}


# -- starting and leaving


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
def test_every_start_method(make_driver: Callable[..., Driver], method: str) -> None:
    driver = make_driver(start_method=method)
    for number in driver.start(2):
        assert driver.value(driver.call(number, tasks.square, 5)) == 25


def test_an_initializer_prepares_the_worker(make_driver: Callable[..., Driver]) -> None:
    driver = make_driver(initializer=tasks.remember, initargs=("model", [1, 2]))
    for number in driver.start(2):
        assert driver.value(driver.call(number, tasks.recall, "model")) == [1, 2]


def test_an_initializer_that_raises_is_fatal(make_driver: Callable[..., Driver]) -> None:
    driver = make_driver(initializer=tasks.fail, initargs=("no model",))
    number = driver.start()[0]
    error, fatal = driver.failures[number]
    assert fatal
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("code", [0, 3])
def test_an_initializer_that_leaves_is_fatal(make_driver: Callable[..., Driver], code: int) -> None:
    driver = make_driver(initializer=tasks.exit_with, initargs=(code,))
    error, fatal = driver.failures[driver.start()[0]]
    assert fatal
    assert isinstance(error, SystemExit)


def test_an_initializer_that_ends_the_process_is_fatal(
    make_driver: Callable[..., Driver],
) -> None:
    driver = make_driver(initializer=tasks.exit_process, initargs=(3,))
    error, fatal = driver.failures[driver.start()[0]]
    assert fatal
    assert isinstance(error, WorkerCrashed)
    assert "initializer" in str(error)
    assert error.exitcode == 3


def test_an_initializer_that_is_killed_from_outside_is_not_fatal(
    make_driver: Callable[..., Driver],
) -> None:
    driver = make_driver(initializer=tasks.die_of, initargs=("SIGKILL",))
    error, fatal = driver.failures[driver.start()[0]]
    assert not fatal
    assert isinstance(error, WorkerCrashed)
    assert error.signal == "SIGKILL"


def test_an_initializer_that_hangs_can_be_killed(make_driver: Callable[..., Driver]) -> None:
    driver = make_driver(initializer=tasks.sleep, initargs=(1000,))
    number = driver.start(wait=False)[0]
    time.sleep(0.2)
    driver.kill(number, "killed")
    assert driver.death(number).how == "killed"


def test_an_initializer_that_cannot_travel_is_refused_at_once() -> None:
    backend = ProcessBackend()
    with pytest.raises(CannotPickle):
        backend.open(Any, WorkerOptions(initializer=tasks.remember, initargs=("x", tasks.lock())))


def test_retiring(driver: Driver, worker: int) -> None:
    driver.value(driver.call(worker, tasks.square, 2))
    driver.retire(worker)
    death = driver.death(worker)
    assert death.how == "retired"
    assert death.running is None
    assert death.exitcode == 0


def test_retiring_a_worker_that_is_not_ready_yet(driver: Driver) -> None:
    with driver.lock:
        driver.backend.start(1)
        driver.backend.retire(1)
    driver.backend.flush()
    assert driver.death(1).how == "retired"
    with driver.lock:
        driver.backend.start(2)
    driver.backend.flush()
    driver.retire(2)
    assert driver.death(2).how == "retired"


def test_killing_at_any_moment_of_the_start(driver: Driver) -> None:
    with driver.lock:
        driver.backend.start(1)
        driver.backend.kill(1, "killed")
    driver.backend.flush()
    assert driver.death(1).how == "killed"
    for number in range(2, 12):
        with driver.lock:
            driver.backend.start(number)
        driver.backend.flush()
        time.sleep((number - 2) * 0.002)
        driver.kill(number, "killed")
        assert driver.death(number).how == "killed"


def test_unknown_workers_are_ignored(driver: Driver) -> None:
    driver.send(99, driver.parcel(driver.backend.prepare(tasks.pid, (), {})))
    assert driver.take_back(99, 1) == []
    assert driver.inspect(99) is None
    driver.kill(99, "killed")
    driver.retire(99)


def test_a_system_that_refuses_is_said(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("lightwork.backends.processes.page.create", refuse)
    number = driver.start()[0]
    error, fatal = driver.failures[number]
    assert isinstance(error, OSError)
    assert not fatal
    monkeypatch.undo()
    assert driver.value(driver.call(driver.start()[0], tasks.square, 2)) == 4


def test_what_is_printed_arrives(capfd: pytest.CaptureFixture[str]) -> None:
    driver = Driver(ProcessBackend())
    try:
        driver.value(driver.call(driver.start()[0], tasks.spoken, "a word"))
        time.sleep(0.05)
    finally:
        driver.close()
    assert "a word\n" in capfd.readouterr().out


def test_many_pools_leave_nothing_behind() -> None:
    descriptors = None
    for _ in range(10):
        driver = Driver(ProcessBackend())
        driver.value(driver.call(driver.start(2)[0], tasks.square, 2))
        driver.close()
        if sys.platform == "linux":
            now = len(os.listdir("/proc/self/fd"))
            assert descriptors is None or now <= descriptors
            descriptors = now
