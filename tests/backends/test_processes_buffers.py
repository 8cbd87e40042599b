"""Big buffers: through shared memory that is used again, in both directions, whoever dies."""

from __future__ import annotations

import gc
import os
import signal
from typing import Any

import pytest

from lightwork.backends.processes.backend import ProcessBackend
from lightwork.wire.segments import Arena
from tests.backends import tasks
from tests.backends.driver import Driver

np = pytest.importorskip("numpy")
MB = 1 << 20


def leased(driver: Driver) -> int:
    found: int = driver.backend._arena.statistics().leased
    return found


@pytest.mark.parametrize("size", [70_000, 200_000, 5 * MB])
def test_arrays_in(driver: Driver, worker: int, size: int) -> None:
    for value in range(5):
        array = np.full(size, value, dtype=np.uint8)
        assert driver.value(driver.call(worker, tasks.total, array)) == value * size
        assert array[0] == value  # the worker wrote into its own copy
    items = [np.full(size, value, dtype=np.uint8) for value in range(5)]
    task = driver.chunk(worker, tasks.total, items)
    assert driver.values(task, 5) == [value * size for value in range(5)]
    driver.until(lambda: leased(driver) == 0)


@pytest.mark.parametrize("size", [70_000, 200_000, 5 * MB])
@pytest.mark.parametrize("mode", [{}, {"tiny": True}, {"exact": True}])
def test_arrays_out(driver: Driver, worker: int, size: int, mode: dict[str, bool]) -> None:
    items = [(size, value) for value in range(5)]
    arrays = driver.values(driver.chunk(worker, tasks.zeros, items, star=True, **mode), 5)
    for value, array in enumerate(arrays):
        assert array.shape == (size,)
        assert (array == value).all()
        array[0] = 9
    driver.kill(worker, "killed")
    driver.death(worker)
    assert (arrays[4][1:] == 4).all()  # it outlives its worker


def test_memory_is_used_again(driver: Driver, worker: int) -> None:
    for value in range(30):
        array = np.full(4 * MB, value % 7, dtype=np.uint8)
        back = driver.value(driver.call(worker, tasks.echo, array))
        assert (back == value % 7).all()
        driver.outcomes.clear()
        driver.results_seen.clear()
        del back
    driver.until(lambda: leased(driver) == 0)
    found = driver.backend._arena.statistics()
    assert found.fresh <= 3
    assert found.recycled >= 27


def test_little_memory_is_filled_ahead(driver: Driver, worker: int, tmp_path: Any) -> None:
    gate = str(tmp_path / "gate")
    driver.call(worker, tasks.hold_until, gate)
    array = np.full(4 * MB, 1, dtype=np.uint8)
    numbers = [driver.call(worker, tasks.total, array) for _ in range(20)]
    assert leased(driver) <= 2
    open(gate, "w").close()
    assert [driver.value(task) for task in numbers] == [4 * MB] * 20
    assert driver.backend._arena.statistics().fresh <= 3


def test_memory_that_the_worker_keeps_is_not_used_again(driver: Driver, worker: int) -> None:
    kept = np.full(MB, 5, dtype=np.uint8)
    driver.value(driver.call(worker, tasks.keep_array, kept))
    for value in range(10):
        other = np.full(MB, value, dtype=np.uint8)
        driver.value(driver.call(worker, tasks.total, other))
    assert (driver.value(driver.call(worker, tasks.recall, "array")) == 5).all()
    driver.until(lambda: leased(driver) == 1)
    driver.kill(worker, "killed")
    driver.death(worker)
    driver.until(lambda: leased(driver) == 0)


def test_memory_of_results_that_are_kept_is_not_used_again(driver: Driver, worker: int) -> None:
    kept = driver.value(driver.call(worker, tasks.zeros, MB, 3))
    for value in range(10):
        driver.value(driver.call(worker, tasks.zeros, MB, value))
    assert (kept == 3).all()


def test_what_is_taken_back_gives_its_memory_back(
    driver: Driver, worker: int, tmp_path: Any
) -> None:
    gate = str(tmp_path / "gate")
    driver.call(worker, tasks.hold_until, gate)
    array = np.full(2 * MB, 1, dtype=np.uint8)
    numbers = [driver.call(worker, tasks.total, array) for _ in range(4)]
    taken = driver.take_back(worker, numbers[0])
    assert [task for task, _, _ in taken] == numbers
    open(gate, "w").close()
    driver.value(driver.call(worker, tasks.square, 2))
    driver.until(lambda: leased(driver) == 0)


def test_a_call_can_be_sent_again_after_a_death(driver: Driver, worker: int) -> None:
    array = np.full(2 * MB, 1, dtype=np.uint8)
    call = driver.backend.prepare(tasks.total, (array,), {})
    process = driver.value(driver.call(worker, tasks.pid))
    os.kill(process, signal.SIGSTOP)
    parcel = driver.parcel(call)
    driver.send(worker, parcel)
    os.kill(process, signal.SIGKILL)
    driver.death(worker)
    worker = driver.start()[0]
    driver.send(worker, parcel)
    assert driver.value(parcel.task) == 2 * MB
    driver.until(lambda: leased(driver) == 0)


@pytest.mark.parametrize("side", ["parent", "worker"])
def test_without_room_for_shared_memory(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    def full(self: Arena, buffers: Any) -> Any:
        raise OSError(28, "No space left on device")

    if side == "parent":
        worker = driver.start()[0]
        monkeypatch.setattr(Arena, "write", full)
    else:
        worker = driver.start()[0]
        driver.value(driver.call(worker, tasks.no_room))
    array = np.full(3 * MB, 2, dtype=np.uint8)
    back = driver.value(driver.call(worker, tasks.echo, array))
    assert (back == 2).all()
    back[0] = 1  # writable
    text = driver.value(driver.call(worker, tasks.echo, "x" * MB))
    assert text == "x" * MB


def test_a_worker_out_of_descriptors(driver: Driver, worker: int) -> None:
    """What cannot be received is an error of its call; the worker goes on."""
    driver.value(driver.call(worker, tasks.exhaust_descriptors))
    array = np.full(2 * MB, 1, dtype=np.uint8)
    value = driver.value(driver.call(worker, tasks.total, array))
    assert isinstance(value, OSError)
    driver.value(driver.call(worker, tasks.give_descriptors_back))
    assert driver.value(driver.call(worker, tasks.total, array)) == 2 * MB
    driver.until(lambda: leased(driver) == 0)


def test_idle_results_are_given_back_without_another_call(driver: Driver, worker: int) -> None:
    task = driver.call(worker, tasks.zeros, 4 * MB)
    driver.value(task)
    channel = driver.backend._channels[worker]
    driver.outcomes.clear()
    driver.results_seen.clear()
    gc.collect()
    driver.until(lambda: not channel._freed)


def test_closing_with_arrays_alive() -> None:
    driver = Driver(ProcessBackend())
    worker = driver.start()[0]
    array = driver.value(driver.call(worker, tasks.zeros, 2 * MB, 4))
    driver.close()
    assert (array == 4).all()
    driver.outcomes.clear()
    driver.results_seen.clear()
    del array
    gc.collect()
