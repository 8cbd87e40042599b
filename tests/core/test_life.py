"""Which workers there are, and when; how a pool breaks, and how it ends."""

from __future__ import annotations

import pytest

from lightwork.core import commands as do
from lightwork.core import events as ev
from lightwork.core.life import FIRST_WAIT, LONGEST_WAIT, TRIES
from lightwork.errors import InternalError
from tests.core.test_deaths import ends, holding
from tests.core.test_dispatch import known, occupy, release, running, sent
from tests.core.world import World, kinds, only

# -- on demand -----------------------------------------------------------------------------------


def test_no_worker_before_there_is_work() -> None:
    assert World(4).log == []


def test_a_worker_for_each_task_up_to_the_target() -> None:
    world = World(3)
    for _ in range(5):
        world.submit()
    assert kinds(world.log) == ["Start"] * 3


def test_a_chunk_brings_up_more_workers_when_there_is_something_to_hand_over() -> None:
    world = World(3)
    world.submit(calls=100)
    assert kinds(world.log) == ["Start"]
    said = world.ready(1)
    assert kinds(said) == ["Send", "Start"]
    said = world.ready(2)
    assert do.TakeBack(1, 1, 50) in said
    assert only(said, do.Start)
    world.finish()


def test_an_idle_worker_that_dies_costs_nothing() -> None:
    world = running(2)
    assert world.die(1) == []
    world.submit()
    assert kinds(world.log) == ["Send"]
    world.finish()


def test_idle_workers_retire_after_a_while() -> None:
    world = running(3, idle_timeout=10.0)
    now = world.now
    first, second, third = occupy(world)
    for worker, seconds in ((first, 1.0), (second, 1.0), (third, 1.0)):
        world.now += seconds
        release(world, worker)
    gone = []
    while world.scheduler.next_deadline() is not None:
        gone += [(one.worker, world.now - now) for one in only(world.tick(), do.Retire)]
    assert gone == [(first, 11.0), (second, 12.0), (third, 13.0)]
    world.drain()
    assert not world.workers
    world.submit()
    world.finish()


def test_a_busy_worker_does_not_retire() -> None:
    world = running(1, idle_timeout=1.0)
    (worker,) = occupy(world)
    world.tick(5.0)
    assert only(world.log, do.Retire) == []
    release(world, worker)
    assert world.scheduler.next_deadline() == world.now + 1.0


# -- a number of calls each ----------------------------------------------------------------------


def test_a_worker_is_given_so_many_calls_and_its_replacement_is_early() -> None:
    world = World(1, max_tasks_per_child=10)
    world.scheduler._families[world.policies[0]].learn(1e-3, 1000)
    task = world.submit(calls=25)
    said = world.ready(1)
    (send,) = only(said, do.Send)
    assert [(part.lo, part.hi) for part in send.parts] == [(0, 10)]
    assert only(said, do.Start) == [do.Start(2)]  # before the first has done anything
    assert not only(said, do.Retire)
    for _ in range(10):
        assert not world.workers[1].told
        world.begin(1)
        world.end(1)
    said = world.report(1)
    assert only(said, do.Retire) == [do.Retire(1)]
    world.finish()
    assert {world.outcome[task, at] for at in range(25)} == {"done"}
    assert max(world.given.values()) == 10


def test_a_replacement_is_early_even_when_nothing_waits() -> None:
    world = World(1, max_tasks_per_child=1)
    world.submit()
    assert kinds(world.ready(1)) == ["Send", "Start"]
    world.finish()


def test_what_is_taken_back_was_not_given() -> None:
    world = World(2, max_tasks_per_child=100)
    world.scheduler._families[world.policies[0]].learn(10.0, 1000)
    world.submit(calls=80)
    world.start_all()
    world.drain()
    assert sum(world.given.values()) == 80
    records = world.scheduler._workers
    assert {number: records[number].given for number in records} == {
        number: world.given[number] for number in records
    }


# -- resize --------------------------------------------------------------------------------------


def test_growing_starts_workers_for_what_waits() -> None:
    world = running(1)
    occupy(world)
    for _ in range(5):
        world.submit()
    assert kinds(world.resize(3)) == ["Start", "Start"]


def test_shrinking_retires_the_idle_first() -> None:
    world = running(3)
    world.submit()
    busy = holding(world, next(iter(world.open))[0])
    retired = [one.worker for one in only(world.resize(1), do.Retire)]
    assert len(retired) == 2
    assert busy not in retired
    world.finish()


def test_who_is_busy_and_too_many_ends_what_it_runs() -> None:
    world = known(2, 1e-4)
    first, second = occupy(world)
    for _ in range(20):
        world.submit()
    for worker in (first, second):
        release(world, worker)
        world.begin(worker)
    said = world.resize(1)
    (taken,) = only(said, do.TakeBack)
    leaves = taken.worker
    assert len(sent(world, leaves)) == 1  # only what it runs
    assert not only(said, do.Retire)
    assert not only(said, do.Kill)
    said = release(world, leaves)
    assert only(said, do.Retire) == [do.Retire(leaves)]
    assert not [send for send in only(said, do.Send) if send.worker == leaves]
    world.finish()
    assert set(world.outcome.values()) == {"done"}


def test_who_is_starting_and_too_many_is_killed() -> None:
    world = World(3)
    for _ in range(3):
        world.submit()
    assert world.resize(1) == [do.Kill(3, "retired"), do.Kill(2, "retired")]
    world.workers[2].up = True
    assert world.tell(ev.Ready(2)) == []  # it had not heard of it yet
    world.leave(2)
    world.workers[3].up = False
    assert world.start_failed(3) == []
    world.finish()


# -- failing starts ------------------------------------------------------------------------------


def test_an_initializer_that_fails_breaks_the_pool() -> None:
    world = World(3)
    tasks = [world.submit() for _ in range(3)]
    world.ready(1)
    world.begin(1)
    said = world.start_failed(2, fatal=True)
    assert ends(said) == [(task, 0, 1, "broken") for task in tasks]
    assert only(said, do.Broken)
    assert {(one.worker, one.how) for one in only(said, do.Kill)} == {(1, "killed"), (3, "retired")}
    world.drain()
    assert world.done
    assert world.close() == []


def test_tries_one_at_a_time_with_growing_waits_then_breaks() -> None:
    world = World(4)
    for _ in range(4):
        world.submit()
    waits = []
    for number in range(1, 5):  # all that were started at once count as one failure
        world.start_failed(number)
    for _ in range(TRIES - 1):
        assert not world.workers
        before = world.now
        assert len(only(world.tick(), do.Start)) == 1
        waits.append(world.now - before)
        (number,) = world.workers
        said = world.start_failed(number)
    assert waits == pytest.approx([FIRST_WAIT * 2**n for n in range(TRIES - 1)])
    assert only(said, do.Broken)
    assert set(world.outcome.values()) == {"broken"}
    assert world.done


def test_a_worker_that_works_ends_the_failures() -> None:
    world = World(2)
    for _ in range(6):
        world.submit()
    for _ in range(10):
        starting = [number for number, worker in world.workers.items() if not worker.up]
        if len(world.workers) == len(starting):
            world.ready(starting.pop(0))
        for number in starting:
            assert not only(world.start_failed(number), do.Broken)
        world.tick()
    assert max(len(world.workers), 1) <= 2
    world.finish()
    assert set(world.outcome.values()) == {"done"}


def test_after_a_success_the_next_failure_waits_again() -> None:
    """Even at once: else failing and starting would chase each other until the old wait is over."""
    world = World(2)
    for _ in range(4):
        world.submit()
    world.ready(1)
    assert only(world.start_failed(2), do.Start) == []  # waits
    world.begin(1)
    release(world, 1)  # the first answer of the first worker: all is well
    (start,) = only(world.log, do.Start)[2:] or only(world.cancel(world.submit()), do.Start)
    said = world.start_failed(start.worker)
    assert only(said, do.Start) == []
    assert world.scheduler.next_deadline() is not None
    world.finish()


def test_with_a_worker_alive_failing_starts_only_wait_longer() -> None:
    world = World(2)
    for _ in range(3):
        world.submit()
    world.ready(1)
    waits = []
    for _ in range(10):
        (number,) = (number for number in world.workers if number != 1)
        assert not only(world.start_failed(number), do.Broken)
        before = world.now
        world.tick()
        waits.append(world.now - before)
    assert waits[0] == pytest.approx(FIRST_WAIT)
    assert waits[-1] == pytest.approx(LONGEST_WAIT)
    world.finish()


def test_dying_while_starting_is_a_failure_to_start() -> None:
    world = World(1)
    world.submit()
    for _ in range(TRIES):
        if not world.workers:
            world.tick()
        (number,) = world.workers
        said = world.die(number)
    assert only(said, do.Broken)


def test_workers_that_die_of_whatever_they_are_sent_break_the_pool() -> None:
    world = World(1)
    world.submit()
    for _ in range(TRIES):
        while not world.workers:
            world.tick()
        (number,) = world.workers
        world.ready(number)
        said = world.die(number)  # before it has begun the call
    assert only(said, do.Broken)


def test_a_crash_in_a_call_is_no_failure_to_start() -> None:
    world = World(1)
    for _ in range(20):
        world.submit()
    for _ in range(20):
        (number,) = world.workers
        world.ready(number)
        world.begin(number)
        assert not only(world.die(number), do.Broken)
    assert set(world.outcome.values()) == {"crashed"}


# -- the end -------------------------------------------------------------------------------------


def test_an_unused_pool_ends_at_once() -> None:
    assert World(3).close() == [do.Done()]


def test_what_was_accepted_is_done_before_the_end() -> None:
    world = running(2)
    for _ in range(10):
        world.submit()
    task = world.submit(2)
    said = world.close()
    assert said == []
    world.drain()
    assert world.done
    assert world.outcome[task, 0] == "done"


def test_delayed_attempts_still_run_after_close() -> None:
    world = running(1)
    task = world.submit(2)
    worker = holding(world, task)
    world.begin(worker)
    world.end(worker, raised=True)
    world.report(worker)
    assert world.close() == []
    world.drain()
    assert world.done
    assert world.outcome[task, 0] == "done"


def test_close_with_cancel_ends_what_has_not_started() -> None:
    world = known(1, 1e-4)
    (worker,) = occupy(world)
    tasks = [world.submit() for _ in range(60)]
    release(world, worker)
    world.begin(worker)
    assert world.close() == []
    world.close(cancel=True)
    assert [world.outcome.get((task, 0)) for task in tasks] == [None] + ["cancelled"] * 59
    said = release(world, worker)
    assert only(said, do.Retire) == [do.Retire(worker)]
    world.drain()
    assert world.done
    assert world.outcome[tasks[0], 0] == "done"


def test_close_does_not_wait_for_who_is_starting() -> None:
    world = World(2)
    world.submit()
    world.submit()
    world.ready(1)
    for _ in range(2):
        world.begin(1)
        release(world, 1)
    assert world.close() == [do.Retire(1), do.Kill(2, "retired")]
    world.leave(1)
    world.leave(2)
    assert world.done
    assert world.close(cancel=True) == []


def test_a_task_after_the_end_is_a_bug() -> None:
    world = World(1)
    world.close()
    with pytest.raises(InternalError, match="submitted after"):
        world.submit()
    with pytest.raises(InternalError):  # and nothing is trusted any more
        world.tick(1.0)
        world.tell(ev.Tick())


def test_the_story_is_told() -> None:
    world = World(1)
    world.submit()
    with pytest.raises(
        InternalError, match=r"(?s)KeyError.*Submitted\(task=1.*-> Start\(worker=1\)"
    ):
        world.tell(ev.Submitted(2, 99, 1))


def test_a_crash_in_a_call_ends_the_failures_to_start() -> None:
    world = World(1)
    for _ in range(3):
        world.submit()
    for _ in range(3):
        for _ in range(TRIES - 1):
            while not world.workers:
                world.tick()
            (number,) = world.workers
            assert not only(world.start_failed(number), do.Broken)
        while not world.workers:
            world.tick()
        (number,) = world.workers
        world.ready(number)
        world.begin(number)
        world.die(number)
    assert set(world.outcome.values()) == {"crashed"}
