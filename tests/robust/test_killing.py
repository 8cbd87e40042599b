"""Workers that are killed or stopped at random while thousands of tasks run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from lightwork import Failure, Retry, TaskKilled, TaskTimeout, WorkerCrashed
from tests.contract.functions import note, notes, square
from tests.contract.pools import Gate, eventually, make

TASKS = 1500


def logged(path: str, number: int, seconds: float) -> int:
    """Note the start with the worker's pid, work, and return something that can be checked."""
    note(path, f"{number} {os.getpid()}")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return number * number


class Killer:
    """Kills, every 60 ms, a worker that was seen at work lately."""

    def __init__(self, path: Path, *, seed: int, how: int = signal.SIGKILL) -> None:
        self.path = path
        self.how = how
        self.killed: list[int] = []
        self.random = random.Random(seed)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, name="killer")

    def _victims(self) -> list[int]:
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            file.seek(max(0, self.path.stat().st_size - 400))
            lines = file.read().decode().splitlines()[1:]
            seen = {int(line.split()[1]) for line in lines if line.count(" ") == 1}
            return sorted(seen - set(self.killed))
        return []

    def _run(self) -> None:
        while not self.stopping.wait(0.06):
            victims = self._victims()
            if victims:
                victim = self.random.choice(victims)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, self.how)
                    self.killed.append(victim)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stopping.set()
        self.thread.join()
        print(f"{len(self.killed)} workers killed")
        if kind is None:
            assert len(self.killed) >= 5, "too few were killed for this test to mean anything"


def runs(path: Path) -> Counter[int]:
    """How often each task was started."""
    return Counter(int(line.split()[0]) for line in notes(path))


@pytest.mark.parametrize("seconds", [0.0, 0.0003, 0.003], ids=["tiny", "short", "longer"])
def test_with_retries_all_results_are_right(tmp_path: Path, seconds: float) -> None:
    path = tmp_path / "log"
    count = TASKS if seconds else 20 * TASKS
    with Killer(path, seed=1) as killer, make("forkserver", 2) as pool:
        stubborn = pool.options(retry=Retry(30, on=WorkerCrashed))
        futures = [stubborn.submit(logged, str(path), n, seconds) for n in range(count)]
        assert [one.result(100) for one in futures] == [n * n for n in range(count)]
    started = runs(path)
    attempts = {n: one.info.attempts for n, one in enumerate(futures)}
    assert sum(attempts.values()) - count <= len(killer.killed)
    if seconds:  # tiny calls may be answered in groups: see `exact` below
        assert {n for n in range(count) if started[n] > attempts[n]} == set()


@pytest.mark.parametrize("seconds", [0.0003, 0.003], ids=["short", "longer"])
def test_without_retries_only_the_blamed_fail(tmp_path: Path, seconds: float) -> None:
    path = tmp_path / "log"
    with Killer(path, seed=2) as killer, make("forkserver", 2) as pool:
        futures = [pool.submit(logged, str(path), n, seconds) for n in range(TASKS)]
        errors = {n: one.exception(100) for n, one in enumerate(futures)}
    guilty = [n for n, error in errors.items() if error is not None]
    assert len(guilty) <= len(killer.killed)
    for n in guilty:
        error = errors[n]
        assert isinstance(error, WorkerCrashed)
        assert error.signal == "SIGKILL"
        assert error.pid in killer.killed
        assert error.index == n
    assert len({errors[n].pid for n in guilty}) == len(guilty)  # type: ignore[union-attr]
    started = runs(path)
    assert {n: started[n] for n in range(TASKS) if n not in guilty} == {
        n: 1 for n in range(TASKS) if n not in guilty
    }
    assert all(started[n] <= 1 for n in guilty)
    assert all(futures[n].result() == n * n for n in range(TASKS) if n not in guilty)


@pytest.mark.parametrize("chunksize", [None, 100])
@pytest.mark.parametrize("exact", [True, False])
def test_map_under_fire(tmp_path: Path, exact: bool, chunksize: int | None) -> None:
    path = tmp_path / "log"
    count = 15_000
    with Killer(path, seed=3) as killer, make("forkserver", 2) as pool:
        view = pool.options(exact=exact)
        results = list(
            view.map(
                logged,
                [str(path)] * count,
                range(count),
                [0.00005] * count,
                on_error="return",
                chunksize=chunksize,
            )
        )
    assert len(results) == count
    guilty = {one.index for one in results if isinstance(one, Failure)}
    assert len(guilty) <= len(killer.killed)
    assert all(results[n] == n * n for n in range(count) if n not in guilty)
    again = {n: times for n, times in runs(path).items() if times > 1}
    if exact:
        assert again == {}
    else:  # at most what was finished in the last 2 ms before each death, and not yet written
        assert len(again) <= 45 * len(killer.killed)


def test_exact_holds_for_tiny_calls(tmp_path: Path) -> None:
    path = tmp_path / "log"
    count = 20_000
    with Killer(path, seed=4) as killer, make("forkserver", 2) as pool:
        list(pool.map(square, range(5000)))
        exact = pool.options(exact=True)
        results = list(
            exact.map(tiny, [str(path)] * count, range(count), on_error="return", chunksize=50)
        )
    guilty = {one.index for one in results if isinstance(one, Failure)}
    assert len(guilty) <= len(killer.killed)
    assert max(runs(path).values()) == 1


def tiny(path: str, number: int) -> int:
    note(path, f"{number} {os.getpid()}")
    return number


def test_recycling_under_fire(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with Killer(path, seed=5) as killer:
        with make("forkserver", 2, max_tasks_per_child=7) as pool:
            stubborn = pool.options(on_crash="retry", retry=Retry(30))
            futures = [stubborn.submit(logged, str(path), n, 0.008) for n in range(400)]
            assert [one.result(100) for one in futures] == [n * n for n in range(400)]
    assert sum(one.info.attempts for one in futures) - 400 <= len(killer.killed)
    by_worker = Counter(line.split()[1] for line in notes(path))
    assert max(by_worker.values()) <= 7


# -- stopped workers -------------------------------------------------------------------------------


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def logged_gate(path: str, gate: str, number: int) -> int:
    note(path, f"{number} {os.getpid()}")
    while not os.path.exists(gate):
        time.sleep(0.002)
    return number * number


def test_a_stopped_worker_meets_its_time_limit(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with make("forkserver", 2) as pool:
        careful = pool.options(timeout=0.5)
        futures = [careful.submit(logged_gate, gate.started, gate.path, n) for n in range(2)]
        pids = [int(line.split()[1]) for line in gate.wait_started(2)]
        with stopped(pids[0]), stopped(pids[1]):
            assert all(isinstance(one.exception(20), TaskTimeout) for one in futures)
            assert list(pool.map(square, range(100))) == [n * n for n in range(100)]


def test_a_stopped_worker_can_be_killed(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with make("forkserver", 1) as pool:
        future = pool.submit(logged_gate, gate.started, gate.path, 1)
        with stopped(int(gate.wait_started(1)[0].split()[1])):
            assert future.kill()
            assert isinstance(future.exception(), TaskKilled)
            assert pool.submit(square, 3).result(20) == 9


def test_a_stopped_worker_holds_up_no_other_task(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with make("forkserver", 2) as pool:
        assert list(pool.map(square, range(1000))) == [n * n for n in range(1000)]
        futures = [pool.submit(logged, str(log), n, 0.001) for n in range(400)]
        eventually(lambda: len(notes(log)) >= 20)
        with stopped(int(notes(log)[-1].split()[1])):
            eventually(lambda: sum(not one.done() for one in futures) <= 1)
            time.sleep(0.1)
        assert [one.result(20) for one in futures] == [n * n for n in range(400)]
    assert max(runs(log).values()) == 1


def test_a_pool_of_stopped_workers_can_be_ended(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    pool = make("forkserver", 2)
    futures = [pool.submit(logged_gate, gate.started, gate.path, n) for n in range(10)]
    pids = [int(line.split()[1]) for line in gate.wait_started(2)]
    with stopped(pids[0]), stopped(pids[1]):
        begin = time.monotonic()
        pool.kill_workers()
        assert time.monotonic() - begin < 5
    assert all(one.done() for one in futures)


def test_idle_workers_that_are_stopped_do_not_keep_the_pool(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    gate.open()
    pool = make("forkserver", 1)
    pool.submit(logged_gate, gate.started, gate.path, 1).result(20)
    with stopped(int(notes(gate.started)[0].split()[1])):
        begin = time.monotonic()
        pool.kill_workers()
        assert time.monotonic() - begin < 5
