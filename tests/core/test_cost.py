"""What an event costs, counted in steps and not in time; and that nothing is left to chance."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from lightwork.core import commands as do
from lightwork.core import events as ev
from lightwork.core.retry import FamilyPolicy
from lightwork.core.scheduler import Scheduler
from tests.core.world import World, wander


def lines(fn: Callable[[], object]) -> int:
    """How many lines of Python `fn` runs through, itself and all that it calls."""
    count = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        fn()
    finally:
        sys.settrace(before)
    return count


def _run(fn: Callable[[], object]) -> int:
    """In place of `lines`, where nobody counts."""
    fn()
    return 0


class Pool:
    """A scheduler whose workers are all at work, and many tasks wait."""

    def __init__(self, workers: int, tasks: int, seconds: float) -> None:
        self.now = 0.0
        self.scheduler = Scheduler(workers=workers, random=random.Random(0))
        self.family = self.scheduler.add_family(FamilyPolicy(timeout=60.0))
        self.seconds = seconds
        self.parts: dict[int, list[do.Part]] = {}
        self.steps = 0
        self.count: Callable[[Callable[[], object]], int] = _run
        for _ in range(workers):
            self.submit()
        for number in range(1, workers + 1):
            self.tell(ev.Ready(number))
        for _ in range(tasks):
            self.submit()
        for number in list(self.parts):
            self.answer(number)
        self.count = lines

    def submit(self) -> None:
        self.tell(ev.Submitted(self.scheduler.new_task(), self.family, 1))

    def answer(self, number: int, calls: int | None = None) -> None:
        parts = self.parts.get(number, [])
        done, self.parts[number] = parts[:calls], parts[len(parts[:calls]) :]
        answers = [ev.Answer(part.task, part.attempt, part.hi) for part in done]
        event = ev.Answered(number, answers, len(done) * self.seconds, len(done))
        self.now += 1e-3
        self.tell(event)

    def tell(self, event: ev.Event) -> None:
        waiting: list[do.Command] = []
        self.steps += self.count(lambda: waiting.extend(self.scheduler.handle(event, self.now)))
        while waiting:
            command = waiting.pop(0)
            if isinstance(command, do.Send):
                self.parts.setdefault(command.worker, []).extend(command.parts)
            elif isinstance(command, do.TakeBack):
                reply = ev.TakenBack(command.worker, [])
                waiting += self.scheduler.handle(reply, self.now)

    def cost(self, what: Callable[[], object], times: int = 20) -> float:
        """Steps of `what`, on average."""
        self.steps = 0
        for _ in range(times):
            what()
        return self.steps / times


@pytest.mark.parametrize("waiting", [5, 50])  # tasks for each worker
@pytest.mark.parametrize("seconds", [2e-4, 0.05])
def test_an_event_costs_the_same_for_many_tasks_and_workers(waiting: int, seconds: float) -> None:
    costs = []
    for workers in (40, 1000):
        pool = Pool(workers, workers * waiting, seconds)
        numbers = iter(list(pool.parts) * 5)
        costs.append((pool.cost(pool.submit), pool.cost(lambda: pool.answer(next(numbers), 1))))  # noqa: B023
    for small, large in zip(*costs):
        assert large <= small + 20, costs


def test_a_submission_to_a_busy_pool_is_a_few_lines() -> None:
    pool = Pool(2, 100, 0.05)
    assert pool.cost(pool.submit) <= 40


def test_dry_workers_ask_for_help_without_looking_at_all_others() -> None:
    costs = []
    for workers in (10, 1000):
        pool = Pool(workers, 0, 1e-3)
        (first, *_) = list(pool.parts)
        pool.tell(ev.Submitted(pool.scheduler.new_task(), pool.family, 1000))
        costs.append(pool.cost(partial(pool.answer, first, 0), 5))
    assert costs[1] <= costs[0] + 20


def walk(seed: int) -> World:
    rng = random.Random(seed)
    world = World(workers=4, seed=seed, checked=False)
    wander(world, rng, 400)
    world.finish()
    return world


def test_the_same_events_give_the_same_commands() -> None:
    for seed in range(10):
        assert repr(walk(seed).log) == repr(walk(seed).log)


def test_hashes_of_strings_play_no_part() -> None:
    script = (
        "from tests.core.test_cost import walk\n"
        "import hashlib\n"
        "print(hashlib.sha256(repr([walk(seed).log for seed in range(5)]).encode()).hexdigest())"
    )
    root = Path(__file__).parents[2]
    said = set()
    for seed in ("0", "1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", script],
            cwd=root,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": f"{root}:{root / 'src'}"},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        said.add(run.stdout)
    assert len(said) == 1


def test_timers_do_not_pile_up() -> None:
    world = World(2, checked=False)
    for _ in range(500):
        task = world.submit(3)
        world.start_all()
        worker = next(number for number in world.workers if world.workers[number].todo)
        world.begin(worker)
        world.die(worker)
        world.start_all()
        world.cancel(task)
        for model in list(world.workers.values()):
            if model.running:
                world.die(model.number)
    assert len(world.scheduler._timers) < 200


def test_cancelled_attempts_leave_no_timers() -> None:
    world = World(1, checked=False)
    for _ in range(500):
        task = world.submit(2)
        world.start_all()
        (worker,) = world.workers
        world.begin(worker)
        world.end(worker, raised=True)
        world.report(worker)
        world.cancel(task)
    assert len(world.scheduler._timers) < 200


def test_empty_levels_do_not_pile_up() -> None:
    scheduler = Scheduler(workers=1, random=random.Random(0))
    for number in range(100):
        family = scheduler.add_family(FamilyPolicy(priority=number))
        task = scheduler.new_task()
        scheduler.handle(ev.Submitted(task, family, 1), 0.0)
        scheduler.handle(ev.CancelAsked(task), 0.0)
        scheduler.handle(ev.Submitted(scheduler.new_task(), family, 1), 0.0)
        scheduler.forget_family(family)
    scheduler.handle(ev.Ready(1), 0.0)
    while scheduler.statistics().running:
        (task,) = (task.number for task in scheduler._workers[1].held)
        scheduler.handle(ev.Answered(1, [ev.Answer(task, 1, 1)], 1.0, 1), 0.0)
    scheduler._ready.first()
    assert len(scheduler._ready._levels) < 20
    scheduler.check_invariants()
