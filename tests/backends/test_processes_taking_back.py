"""Taking calls back from a worker that runs: none is run twice, none is lost, under all load."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.backends import tasks
from tests.backends.driver import Driver

MODES: list[dict[str, Any]] = [{"tiny": True}, {}, {"exact": True}, {"timed": True}]


def test_what_waits_is_taken_back(driver: Driver, worker: int, tmp_path: Any) -> None:
    gate = str(tmp_path / "gate")
    first = driver.call(worker, tasks.hold_until, gate)
    chunk = driver.chunk(worker, tasks.square, list(range(10)))
    last = driver.call(worker, tasks.square, 3)
    assert driver.take_back(worker, chunk, 4) == [(chunk, 1, 4), (last, 1, 0)]
    assert driver.take_back(worker, chunk, 2) == [(chunk, 1, 2)]
    after = driver.call(worker, tasks.square, 5)
    open(gate, "w").close()
    assert driver.value(after) == 25
    assert driver.values(chunk, 2) == [0, 1]
    assert driver.value(first) == gate
    assert driver.ended == 4


def test_what_has_not_been_written_is_taken_back(
    driver: Driver, worker: int, tmp_path: Any
) -> None:
    """Behind more frames than the page has slots, parcels wait in the parent."""
    gate = str(tmp_path / "gate")
    driver.call(worker, tasks.hold_until, gate)
    numbers = [driver.call(worker, tasks.square, n) for n in range(100)]
    taken = driver.take_back(worker, numbers[90])
    assert taken == [(task, 1, 0) for task in numbers[90:]]
    taken = driver.take_back(worker, numbers[30])
    assert taken == [(task, 1, 0) for task in numbers[30:90]]
    open(gate, "w").close()
    assert [driver.value(task) for task in numbers[:30]] == [n * n for n in range(30)]
    assert driver.value(driver.call(worker, tasks.square, 9)) == 81
    assert driver.ended == 32


def test_the_running_call_is_not_taken_back(driver: Driver, worker: int) -> None:
    task = driver.chunk(worker, tasks.sleep, [0.2, 0.2, 0.2], timed=True)
    driver.until(lambda: driver.inspect(worker) is not None)
    assert driver.take_back(worker, task, 0) == [(task, 1, 1)]
    assert driver.value(task, 0) == 0.2
    time.sleep(0.05)
    assert driver.inspect(worker) is None
    assert driver.ended == 1


def test_a_cut_behind_an_answered_task_takes_all_that_is_left(
    driver: Driver, worker: int, tmp_path: Any
) -> None:
    done = driver.call(worker, tasks.square, 1)
    driver.value(done)
    gate = str(tmp_path / "gate")
    first = driver.call(worker, tasks.hold_until, gate)
    driver.until(lambda: driver.inspect(worker) is not None)
    second = driver.call(worker, tasks.square, 2)
    assert driver.take_back(worker, done) == [(second, 1, 0)]
    open(gate, "w").close()
    assert driver.value(first) == gate


def test_a_task_sent_again_behind_its_own_cut(driver: Driver, worker: int, tmp_path: Any) -> None:
    gate = str(tmp_path / "gate")
    driver.call(worker, tasks.hold_until, gate)
    call = driver.backend.prepare_chunk(tasks.square, list(range(6)), False)
    parcel = driver.parcel(call)
    driver.send(worker, parcel)
    for _ in range(5):
        other = driver.call(worker, tasks.square, 7)
        assert driver.take_back(worker, parcel.task, 0) == [(parcel.task, 1, 0), (other, 1, 0)]
        driver.send(worker, parcel)
    assert driver.take_back(worker, parcel.task, 3) == [(parcel.task, 1, 3)]
    open(gate, "w").close()
    assert driver.values(parcel.task, 3) == [0, 1, 4]
    assert driver.value(driver.call(worker, tasks.square, 9)) == 81
    assert driver.ended == 5


def test_a_death_behind_a_cut_is_charged_to_nobody(
    driver: Driver, worker: int, tmp_path: Any
) -> None:
    gate = str(tmp_path / "gate")
    first = driver.call(worker, tasks.hold_until, gate)
    second = driver.call(worker, tasks.square, 2)
    driver.take_back(worker, second)
    open(gate, "w").close()
    driver.value(first)
    time.sleep(0.02)  # it stands at the cut
    driver.kill(worker, "killed")
    assert driver.death(worker).running is None


class Shuttle:
    """Sends chunks, takes parts of them back at random moments, and sends these again: the part
    of a scheduler that matters here. Attempts are counted up, so that late answers would show."""

    def __init__(self, driver: Driver, workers: list[int], seed: int, path: str) -> None:
        self.driver = driver
        self.workers = workers
        self.choose = random.Random(seed)
        self.path = path
        self.calls: dict[int, Any] = {}
        self.taken = 0
        self.cuts = 0

    def run(self, chunks: int, calls: int, pause: float, mode: dict[str, Any]) -> int:
        driver, choose = self.driver, self.choose
        total = 0
        held: dict[int, list[Any]] = {worker: [] for worker in self.workers}
        numbers = iter(range(1, 1 << 60))
        ready: list[Any] = []
        for _ in range(chunks):
            items = [(self.path, next(numbers), pause) for _ in range(calls)]
            call = driver.backend.prepare_chunk(tasks.note, items, True)
            ready.append(driver.parcel(call, **mode))
            total += calls
        while ready or driver.ended < total:
            while ready:
                worker = choose.choice(self.workers)
                parcel = ready.pop(choose.randrange(len(ready)))
                # Alone or together with others, so that frames hold one parcel and many.
                together = [parcel] + [
                    ready.pop() for _ in range(min(choose.randrange(3), len(ready)))
                ]
                held[worker] += together
                driver.send(worker, *together)
            time.sleep(choose.choice([0, 0, 1e-5, 1e-4, 1e-3]))
            worker = choose.choice(self.workers)
            if not held[worker] or driver.ended >= total:
                continue
            target = choose.choice(held[worker])
            ready += self.cut(worker, target, held)
        return total

    def cut(self, worker: int, target: Any, held: dict[int, list[Any]]) -> list[Any]:
        back = []
        answered = sum(
            (target.task, n) in self.driver.outcomes for n in range(target.lo, target.hi)
        )
        if answered == target.hi - target.lo:
            held[worker].remove(target)
            return []
        offset = self.choose.randrange(target.lo, target.hi)
        taken = self.driver.take_back(worker, target.task, offset)
        self.cuts += 1
        for task, attempt, lo in taken:
            parcel = next(one for one in held[worker] if one.task == task)
            held[worker].remove(parcel)
            assert attempt == parcel.attempt
            assert parcel.lo <= lo < parcel.hi
            self.taken += parcel.hi - lo
            if lo > parcel.lo:
                held[worker].append(parcel._replace(hi=lo))
            # What is carved out is a task of its own from now on, as the scheduler does it.
            new = self.driver.new_task()
            back.append(
                parcel._replace(
                    task=new, attempt=attempt + 1, lo=0, hi=parcel.hi - lo, base=parcel.base + lo
                )
            )
        return back


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pause", [0.0, 0.0003])
def test_under_load_each_call_is_run_once(
    driver: Driver, tmp_path: Any, mode: dict[str, Any], pause: float
) -> None:
    workers = driver.start(2)
    path = str(tmp_path / "log")
    cuts = 0
    for seed in range(3):
        driver.ended = 0
        open(path, "wb").close()
        shuttle = Shuttle(driver, workers, seed, path)
        total = shuttle.run(30, 60 if pause else 200, pause, mode)
        assert sorted(tasks.noted(path)) == list(range(1, total + 1))
        assert driver.ended == total
        cuts += shuttle.cuts
    assert all(len(found) == 1 for found in driver.outcomes.values())
    assert cuts > 20


def test_taking_back_from_many_threads(driver: Driver, tmp_path: Any) -> None:
    """Locked methods come from any thread, and so do the flushes that follow them."""
    worker = driver.start()[0]
    path = str(tmp_path / "log")
    taken: list[tuple[int, int, int]] = []
    sent: list[int] = []

    def send(first: int) -> None:
        for number in range(first, first + 300):
            sent.append(driver.call(worker, tasks.note, path, number))
            if number % 10 == 9:
                taken.extend(driver.take_back(worker, sent[-1]))

    threads = [threading.Thread(target=send, args=(at * 1000,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    driver.until(lambda: driver.ended + len(taken) == 1200)
    time.sleep(0.1)
    assert driver.ended + len(taken) == 1200
    assert len(tasks.noted(path)) == driver.ended
    assert not {task for task, _ in driver.outcomes} & {task for task, _, _ in taken}


def test_without_membarrier(
    make_driver: Callable[..., Driver], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightwork.backends.processes.barrier._membarrier", lambda: None)
    driver = make_driver()
    path = str(tmp_path / "log")
    shuttle = Shuttle(driver, driver.start(2), 1, path)
    total = shuttle.run(30, 200, 0.0, {"tiny": True})
    assert sorted(tasks.noted(path)) == list(range(1, total + 1))


def test_what_is_held_back_for_company_is_fetched(
    driver: Driver, worker: int, tmp_path: Any
) -> None:
    """Results wait for others of their chunk, but not behind a call that takes for ever."""
    gate = str(tmp_path / "gate")
    driver.value(driver.call(worker, tasks.square, 1))
    task = driver.chunk(worker, tasks.held_until, [("", n) for n in range(5)] + [(gate, 5)] * 3)
    driver.until(lambda: getattr(driver.inspect(worker), "offset", None) == 5)
    assert driver.take_back(worker, task, 6) == [(task, 1, 6)]
    assert [driver.value(task, n) for n in range(5)] == list(range(5))
    running = driver.inspect(worker)
    assert running is not None
    assert running[:3] == (task, 1, 5)
    assert driver.take_back(worker, task, 6) == []  # and nothing comes twice
    open(gate, "w").close()
    assert driver.value(task, 5) == 5
    assert driver.value(driver.call(worker, tasks.square, 4)) == 16
    assert driver.ended == 8


def test_fetching_while_the_worker_answers(driver: Driver, worker: int) -> None:
    """The worker moves its results from the journal to the socket at any moment."""
    rng = random.Random(3)
    for _ in range(40):
        task = driver.chunk(worker, tasks.busy, [rng.random() * 2e-4 for _ in range(100)])
        ends = 100
        while ends > 20:
            time.sleep(rng.random() * 2e-3)
            ends -= rng.randrange(1, 10)
            for number, attempt, at in driver.take_back(worker, task, ends):
                assert (number, attempt) == (task, 1)
                ends = min(ends, at)
        assert len(driver.values(task, ends)) == ends
    assert driver.value(driver.call(worker, tasks.square, 4)) == 16
