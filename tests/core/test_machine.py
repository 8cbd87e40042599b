"""The state machine: anything may happen at any time, and the guarantees hold after each step."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.core.world import POLICIES, SECONDS, ModelWorker, World, happen, wander

which = st.integers(0, 20)


class Machine(RuleBasedStateMachine):
    """The world, with Hypothesis at the wheel; `World` itself asserts."""

    world: World

    @initialize(
        workers=st.integers(1, 5),
        max_calls=st.sampled_from((None, None, 1, 2, 7)),
        idle_timeout=st.sampled_from((None, None, 0.01, 1.0)),
        prefetch=st.sampled_from((True, True, False)),
        balance=st.sampled_from((True, True, True, False)),
    )
    def open(
        self,
        workers: int,
        max_calls: int | None,
        idle_timeout: float | None,
        prefetch: bool,
        balance: bool,
    ) -> None:
        self.world = World(
            workers,
            max_tasks_per_child=max_calls,
            idle_timeout=idle_timeout,
            prefetch=prefetch,
            balance=balance,
        )

    def worker(self, at: int) -> ModelWorker:
        """One of the workers."""
        workers = list(self.world.workers.values())
        return workers[at % len(workers)]

    @precondition(lambda self: not (self.world.closed or self.world.broken))
    @rule(
        family=st.integers(0, len(POLICIES) - 1),
        calls=st.sampled_from((1, 1, 1, 2, 5, 40)),
        loose=st.booleans(),
    )
    def submit(self, family: int, calls: int, loose: bool) -> None:
        self.world.submit(family, calls, loose)

    @precondition(lambda self: self.world.workers)
    @rule(
        at=which,
        name=st.sampled_from(("ready", "begin", "end", "report", "unpack", "obey")),
        raises=st.booleans(),
        seconds=st.sampled_from(SECONDS),
    )
    def work(self, at: int, name: str, raises: bool, seconds: float) -> None:
        happen(self.world, self.worker(at), name, raises, seconds)

    @precondition(lambda self: self.world.workers)
    @rule(at=which, times=st.integers(1, 12), seconds=st.sampled_from(SECONDS))
    def work_on(self, at: int, times: int, seconds: float) -> None:
        worker = self.worker(at)
        for _ in range(times):
            if worker.number in self.world.workers:
                self.world.step(worker, seconds)

    @precondition(lambda self: self.world.workers)
    @rule(at=which, name=st.sampled_from(("die", "over-memory", "start-failed")))
    def harm(self, at: int, name: str) -> None:
        happen(self.world, self.worker(at), name, False, 0.0)

    @rule(seconds=st.sampled_from((None, None, 1e-4, 1e-2, 1.0, 10.0)))
    def wait(self, seconds: float | None) -> None:
        self.world.tick(seconds)

    @precondition(lambda self: self.world.past)
    @rule(at=which, other=st.booleans(), whose=which)
    def repeat(self, at: int, other: bool, whose: int) -> None:
        world = self.world
        number = self.worker(whose).number if other and world.workers else None
        world.repeat(at % len(world.past), number)

    @precondition(lambda self: self.world.scheduler._book.tasks)
    @rule(at=which, kill=st.booleans(), one=st.none() | st.integers(0, 40))
    def unwanted(self, at: int, kill: bool, one: int | None) -> None:
        tasks = list(self.world.scheduler._book.tasks)
        task = tasks[at % len(tasks)]
        offset = -1 if one is None else self.world.offset(task, one)
        (self.world.kill if kill else self.world.cancel)(task, offset)

    @rule(workers=st.integers(1, 6))
    def resize(self, workers: int) -> None:
        self.world.resize(workers)

    @rule(cancel=st.booleans())
    def close(self, cancel: bool) -> None:
        self.world.close(cancel)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.finish()


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=120,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("seed", range(150))
def test_random_worlds(seed: int) -> None:
    """Longer walks than Hypothesis takes."""
    rng = random.Random(seed)
    world = World(
        workers=rng.randint(1, 5),
        seed=seed,
        max_tasks_per_child=rng.choice((None, None, 1, 2, 7)),
        idle_timeout=rng.choice((None, None, 0.01, 1.0)),
        prefetch=rng.random() < 0.8,
        balance=rng.random() < 0.9,
    )
    wander(world, rng, 200)
    world.finish()
