"""How workers die: who is to blame, what survives, what is said about it."""

from __future__ import annotations

import functools
import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from lightwork.backends.base import Death
from lightwork.core.events import Running
from tests.backends import tasks
from tests.backends.driver import Driver

MODES = [{"tiny": True}, {}, {"exact": True}]


def running(death: Death) -> tuple[int, int, int]:
    assert death.running is not None
    return death.running[:3]


@pytest.mark.parametrize("mode", MODES)
def test_a_crash_is_charged_to_the_very_call(
    driver: Driver, worker: int, mode: dict[str, bool]
) -> None:
    items = [(n, 700) for n in range(1000)]
    task = driver.chunk(worker, tasks.die_on, items, star=True, attempt=4, **mode)
    behind = driver.call(worker, tasks.square, 1)
    death = driver.death(worker)
    assert death.how == "crashed"
    assert death.exitcode == 3
    assert death.signal is None
    assert death.pid is not None
    assert death.peak_memory is not None
    assert 1 << 20 < death.peak_memory < 1 << 34
    assert running(death) == (task, 4, 700)
    finished = {offset for one, offset in driver.outcomes if one == task}
    assert finished == set(range(len(finished)))
    if "tiny" not in mode:
        assert len(finished) == 700
    assert (behind, 0) not in driver.outcomes


def test_results_in_the_journal_survive(driver: Driver, worker: int) -> None:
    """Calls of 0.1 ms are answered every millisecond: those in between are in the journal."""
    for _ in range(20):
        items = [(n, 23) for n in range(100)]
        task = driver.chunk(worker, tasks.slow_die_on, items, star=True)
        assert running(driver.death(worker)) == (task, 1, 23)
        assert [driver.value(task, n) for n in range(23)] == list(range(23))
        assert (task, 23) not in driver.outcomes
        worker = driver.start()[0]


@pytest.mark.parametrize(
    ("name", "code"),
    [("ExitAtUnpickle", 4), ("ExitAtPickle", 5), ("ExitInDel", 6), ("ExitInDelHere", 7)],
)
@pytest.mark.parametrize("place", ["single", "chunk"])
def test_saboteurs_at_every_stage(
    driver: Driver, worker: int, name: str, code: int, place: str
) -> None:
    healthy = driver.chunk(worker, tasks.square, [1, 2, 3])
    if name in ("ExitAtUnpickle", "ExitInDel"):
        items = [0, 1, getattr(tasks, name)(), 3]
        fn: Callable[..., Any] = tasks.size_of_nothing
    else:
        items, fn = ["pid", "pid", name, "pid"], tasks.call_named
    if place == "single":
        guilty, offset = driver.call(worker, fn, items[2]), 0
    else:
        guilty, offset = driver.chunk(worker, fn, items), 2
    death = driver.death(worker)
    assert death.exitcode == code
    assert running(death) == (guilty, 1, offset)
    assert driver.values(healthy, 3) == [1, 4, 9]
    for before in range(offset):
        driver.value(guilty, before)
    assert (guilty, offset) not in driver.outcomes
    assert driver.value(driver.call(driver.start()[0], tasks.square, 3)) == 9


def test_a_signal_is_named(driver: Driver, worker: int) -> None:
    driver.call(worker, tasks.die_of, "SIGTERM")
    death = driver.death(worker)
    assert (death.signal, death.exitcode, death.how) == ("SIGTERM", -15, "crashed")
    assert death.traceback == ""
    assert death.oom_killed is False


def test_a_segfault_shows_the_python_stack(driver: Driver, worker: int) -> None:
    task = driver.call(worker, tasks.segfault)
    death = driver.death(worker)
    assert death.signal == "SIGSEGV"
    assert running(death) == (task, 1, 0)
    assert "Segmentation fault" in death.traceback
    assert "in segfault" in death.traceback
    assert "loop.py" not in death.traceback


def test_a_sigkill_is_not_taken_for_the_oom_killer(driver: Driver, worker: int) -> None:
    driver.call(worker, tasks.die_of, "SIGKILL")
    death = driver.death(worker)
    assert death.signal == "SIGKILL"
    assert not death.oom_killed


def test_the_oom_killer_is_seen_by_its_count(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = [5]
    monkeypatch.setattr("lightwork.backends.processes.limits.oom_kill_count", lambda: count[0])
    worker = driver.start()[0]
    count[0] = 6
    driver.call(worker, tasks.die_of, "SIGKILL")
    assert driver.death(worker).oom_killed is True


def test_a_death_between_calls_is_charged_to_nobody(driver: Driver, worker: int) -> None:
    for _ in range(30):
        process = driver.value(driver.call(worker, tasks.pid))
        os.kill(process, signal.SIGKILL)
        death = driver.death(worker)
        assert death.running is None
        worker = driver.start()[0]


def test_a_blob_of_many_arguments_names_nobody(driver: Driver, worker: int) -> None:
    """Killed while the one blob of a plain chunk is rebuilt, no single call can be named."""
    call = driver.backend.prepare_chunk(tasks.size_of, [[0] * 3_000_000 for _ in range(10)], False)
    for _ in range(20):
        process = driver.value(driver.call(worker, tasks.pid))
        parcel = driver.parcel(call)
        driver.send(worker, parcel)
        end = time.monotonic() + 5
        while driver.inspect(worker) is None and time.monotonic() < end:
            pass
        os.kill(process, signal.SIGKILL)
        death = driver.death(worker)
        if death.running is not None and death.running.offset == -1:
            assert death.running.task == parcel.task
            return
        worker = driver.start()[0]
    pytest.fail("it was never caught at it")


def test_killing_says_what_for(driver: Driver, worker: int) -> None:
    for how in ("timed-out", "killed", "over-memory"):
        task = driver.call(worker, tasks.sleep, 100, timed=True)
        driver.until(functools.partial(driver.inspect, worker))
        driver.kill(worker, how)
        driver.kill(worker, "too late")
        death = driver.death(worker)
        assert death.how == how
        assert running(death) == (task, 1, 0)
        worker = driver.start()[0]


def test_a_stopped_worker_can_be_killed(driver: Driver, worker: int) -> None:
    process = driver.value(driver.call(worker, tasks.pid))
    os.kill(process, signal.SIGSTOP)
    driver.call(worker, tasks.square, 1)
    driver.kill(worker, "timed-out")
    death = driver.death(worker)
    assert death.how == "timed-out"
    assert death.running is None


def test_a_worker_that_ended_by_itself_was_not_our_kill(driver: Driver) -> None:
    seen = set()
    for turn in range(40):
        worker = driver.start()[0]
        driver.call(worker, tasks.exit_process, 9)
        time.sleep(random.Random(turn).random() * 0.002)
        driver.kill(worker, "killed")
        death = driver.death(worker)
        assert (death.how == "killed") == (death.exitcode == -9), death
        seen.add(death.how)
    assert seen <= {"killed", "crashed"}


# -- what a task may do to its process


@pytest.mark.parametrize("mode", MODES)
def test_a_forked_child_does_not_go_on_in_the_loop(
    driver: Driver, worker: int, mode: dict[str, bool]
) -> None:
    for _ in range(5):
        call = driver.backend.prepare(tasks.forked_child_returns, (), {})
        exits = driver.backend.prepare(tasks.forked_child_exits, (5,), {})
        one, two = driver.parcel(call, **mode), driver.parcel(exits, **mode)
        driver.send(worker, one, two)
        assert driver.value(one.task) == 0
        assert driver.value(two.task) == 5
    assert driver.ended == 10


def test_a_grandchild_does_not_hide_a_death(driver: Driver, worker: int) -> None:
    task = driver.call(worker, tasks.fork_and_die, 3)
    begun = time.monotonic()
    death = driver.death(worker)
    assert time.monotonic() - begun < 1
    assert running(death) == (task, 1, 0)


def test_a_task_that_closes_all_files_ends_its_worker(driver: Driver, worker: int) -> None:
    driver.value(driver.call(worker, tasks.square, 1))
    task = driver.call(worker, tasks.close_descriptors)
    death = driver.death(worker)
    assert death.how == "crashed"
    # Its result may have been in the journal already, which is no file of its: then it counts.
    if death.running is None:
        assert driver.value(task) is None
    else:
        assert running(death) == (task, 1, 0)


# -- the memory limit


def test_a_call_that_grows_over_the_limit(make_driver: Callable[..., Driver]) -> None:
    limit = 200 << 20
    driver = make_driver(memory_limit=limit)
    worker = driver.start()[0]
    good = driver.call(worker, tasks.allocate, 20)
    bad = driver.call(worker, tasks.allocate, 400, 20.0)
    behind = driver.call(worker, tasks.square, 1)
    death = driver.death(worker)
    assert death.how == "over-memory"
    assert running(death) == (bad, 1, 0)
    assert death.used_memory is not None
    assert death.used_memory > limit
    assert driver.value(good) == 20 << 20
    assert (behind, 0) not in driver.outcomes


@pytest.mark.parametrize("mode", MODES)
def test_growth_between_calls_is_charged_to_nobody(
    make_driver: Callable[..., Driver], mode: dict[str, bool]
) -> None:
    driver = make_driver(memory_limit=200 << 20)
    worker = driver.start()[0]
    kept = driver.call(worker, tasks.keep_allocated, 300, **mode)
    death = driver.death(worker)
    assert death.how == "over-memory"
    assert death.used_memory is not None
    assert death.used_memory > 200 << 20
    if death.running is None:
        assert driver.value(kept) == death.pid
    else:  # seen from outside, while the call still ran
        assert running(death) == (kept, 1, 0)


# -- all at once


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments(driver: Driver, tmp_path: Any, seed: int) -> None:
    """No result is lost, none comes twice, the one that is blamed had really started, and what
    was not started was not run."""
    choose = random.Random(seed)
    path = str(tmp_path / "log")
    for turn in range(40):
        open(path, "wb").close()
        worker = driver.start()[0]
        process = driver.value(driver.call(worker, tasks.pid))
        mode = choose.choice([{}, {"exact": True}])
        pause = choose.choice([0.0, 0.0002, 0.002])
        items = [(path, n, pause) for n in range(300)]
        task = driver.chunk(worker, tasks.note, items, star=True, **mode)
        time.sleep(choose.random() * 0.01)
        os.kill(process, signal.SIGKILL)
        death = driver.death(worker)
        log = tasks.noted(path)
        got = sorted(offset for one, offset in driver.outcomes if one == task)
        assert got == list(range(len(got))), turn
        assert log == list(range(len(log)))
        assert all(len(driver.outcomes[task, offset]) == 1 for offset in got)
        if death.running is None:
            assert len(log) == len(got), (turn, death)
        elif death.running.task == task and death.running.offset >= 0:
            assert death.running == (Running(task, 1, len(got), 0.0)), turn
            assert len(log) in (len(got), len(got) + 1)
        else:
            assert log == []
