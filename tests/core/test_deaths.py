"""Who is charged with what, and what happens to the others."""

from __future__ import annotations

import random

import pytest

from lightwork.core import commands as do
from lightwork.core import events as ev
from lightwork.core.commands import Part
from lightwork.core.retry import FamilyPolicy
from lightwork.core.scheduler import Scheduler
from tests.core.test_dispatch import known, occupy, release, running, sent
from tests.core.world import World, only

# Families (world.POLICIES): 0 nothing is retried; 1 crashes and time-outs twice, 2 s;
# 2 errors, with backoff; 3 crashes four times, 0.3 s.


def ends(said: list[do.Command]) -> list[tuple[int, int, int, str]]:
    """What ended without a result."""
    return [(one.task, one.lo, one.hi, one.how) for one in only(said, do.Ended)]


def holding(world: World, task: int) -> int:
    """The worker that has a task."""
    return next(number for number in world.workers if task in sent(world, number))


def chunk(world: World, family: int = 0, calls: int = 10) -> tuple[int, int]:
    """A task of several calls at a worker."""
    task = world.submit(family, calls)
    return task, holding(world, task)


def advance(world: World, worker: int, calls: int) -> None:
    """Let a worker begin and end calls, without saying so."""
    for _ in range(calls):
        world.begin(worker)
        world.end(worker)


def test_only_the_running_task_is_charged() -> None:
    world = known(1, 1e-4)
    (worker,) = occupy(world)
    tasks = [world.submit() for _ in range(10)]
    release(world, worker)
    world.begin(worker)
    said = world.die(worker)
    assert ends(said) == [(tasks[0], 0, 1, "crashed")]
    assert [task.number for task in world.scheduler._ready] == tasks[1:]
    assert all(task.attempt == 1 for task in world.scheduler._ready)
    assert len(only(said, do.Start)) == 1
    world.finish()


def test_between_two_calls_nobody_is_charged() -> None:
    world = running(1)
    task, worker = chunk(world)
    world.begin(worker)
    release(world, worker)
    said = world.die(worker)
    assert ends(said) == []
    said = world.ready(only(said, do.Start)[0].worker)
    assert only(said, do.Send)[0].parts == [Part(task, 1, 1, 10)]


def test_a_chunk_loses_the_call_that_crashed_and_nothing_else() -> None:
    world = running(1)
    task, worker = chunk(world)
    advance(world, worker, 3)
    world.report(worker, 1e-3)
    advance(world, worker, 2)  # finished, and lost with the worker
    world.begin(worker)
    said = world.die(worker)
    assert ends(said) == [(task, 5, 6, "crashed")]
    (carve,) = only(said, do.Carve)
    assert (carve.task, carve.lo, carve.hi) == (task, 6, 10)
    world.finish()
    assert [world.outcome[task, at] for at in range(10)] == ["done"] * 5 + ["crashed"] + [
        "done"
    ] * 4


@pytest.mark.parametrize("at", [0, 4, 9])
def test_a_crash_is_retried_as_a_task_of_its_own(at: int) -> None:
    world = running(1)
    task, worker = chunk(world, 1)
    advance(world, worker, at)
    world.begin(worker)
    said = world.die(worker)
    assert ends(said) == []
    first = only(said, do.Carve)[0]
    assert (first.task, first.lo, first.hi) == (task, at, at + 1)
    (retrying,) = only(said, do.Retrying)
    assert retrying == do.Retrying(first.new, 2, world.now, "crashed")
    world.finish()
    assert set(world.outcome.values()) == {"done"}


def test_attempts_come_to_an_end() -> None:
    world = running(1)
    task = world.submit(3)
    hows = []
    for _ in range(4):
        worker = holding(world, task)
        world.begin(worker)
        hows.append(ends(world.die(worker, "over-memory")))
        world.start_all()
    assert hows == [[], [], [], [(task, 0, 1, "over-memory")]]
    assert world.scheduler.statistics().retried == 3
    world.finish()


def test_a_death_in_an_earlier_attempt_charges_nobody() -> None:
    world = running(1)
    task, worker = chunk(world, 0, 1)
    world.begin(worker)
    late = ev.Running(task, 7, 0, world.now)
    held = world.holder.copy()
    assert held
    world.holder.clear()
    world.excused[task, 0] = 1
    del world.workers[worker]
    said = world.tell(ev.Died(worker, late, "crashed"))
    assert ends(said) == []
    world.finish()


def test_nobody_can_be_named() -> None:
    world = known(1, 1e-4)
    (worker,) = occupy(world)
    task = world.submit(0, 4)
    other = world.submit()
    release(world, worker)
    world.unpack(worker)
    said = world.die(worker)
    assert ends(said) == []
    carved = only(said, do.Carve)
    assert [(one.task, one.lo, one.hi) for one in carved] == [(task, at, at + 1) for at in range(4)]
    said = world.ready(only(said, do.Start)[0].worker)
    (send,) = only(said, do.Send)
    assert send.parts == [Part(carved[0].new, 1, 0, 1)]  # alone
    world.begin(send.worker)
    said = release(world, send.worker, 1e-4)
    (send,) = only(said, do.Send)
    assert send.parts == [Part(carved[1].new, 1, 0, 1)]
    world.begin(send.worker)
    said = world.die(send.worker)
    assert ends(said) == [(carved[1].new, 0, 1, "crashed")]
    (send,) = only(world.ready(only(said, do.Start)[0].worker), do.Send)
    world.begin(send.worker)
    (send,) = only(release(world, send.worker, 1e-4), do.Send)
    assert send.parts == [Part(carved[3].new, 1, 0, 1)]
    world.repeat(-1)  # an answer that comes twice is no reason to send it company
    assert sent(world, send.worker) == [carved[3].new]
    world.finish()
    assert world.outcome[other, 0] == "done"


def test_a_single_call_that_dies_while_it_is_rebuilt_is_charged() -> None:
    world = running(1)
    task, worker = chunk(world, 0, 1)
    world.workers[worker].fresh.add(task)
    world.unpack(worker)
    assert ends(world.die(worker)) == [(task, 0, 1, "crashed")]


# -- time limits ---------------------------------------------------------------------------------


def test_a_time_limit_is_looked_at_when_it_can_have_passed() -> None:
    world = running(1)
    task, worker = chunk(world, 1, 3)
    assert world.scheduler.next_deadline() == world.now + 2.0
    world.now += 1.5
    advance(world, worker, 1)
    world.begin(worker)
    world.report(worker, 1.0)
    started = world.now
    said = world.tick()
    assert only(said, do.Inspect)
    assert not only(said, do.Kill)
    assert world.scheduler.next_deadline() == started + 2.0
    said = world.tick()
    taken = said.index(do.TakeBack(worker, task, 2))
    kill = said.index(do.Kill(worker, "timed-out"))
    assert taken < kill  # in this order, or the next call could be hit
    assert len(only(said, do.Start)) == 1  # for what was taken back
    said = world.die(worker)
    assert only(said, do.Retrying)[0].why == "timed-out"
    world.finish()
    assert set(world.outcome.values()) == {"done"}


def test_a_call_that_ends_at_the_last_moment_has_ended_well() -> None:
    world = running(1)
    task, worker = chunk(world, 1, 1)
    world.begin(worker)
    world.tick()
    assert world.workers[worker].told == "timed-out"
    world.end(worker)
    world.report(worker)
    said = world.die(worker)
    assert ends(said) == []
    assert world.outcome[task, 0] == "done"


def test_who_was_told_to_die_for_one_call_is_not_charged_with_another() -> None:
    world = running(1)
    _, worker = chunk(world, 1, 3)
    world.begin(worker)
    world.tick()
    world.end(worker)  # and its answer is lost
    said = world.die(worker)
    assert ends(said) == []
    assert not only(said, do.Retrying)
    world.finish()
    assert world.scheduler.statistics().timed_out == 0


def test_the_last_attempt_times_out() -> None:
    world = running(1)
    task, worker = chunk(world, 3, 1)
    world.begin(worker)
    world.tick()
    assert ends(world.die(worker)) == [(task, 0, 1, "timed-out")]
    assert world.scheduler.next_deadline() is None


def test_a_worker_that_starts_nothing_is_given_up() -> None:
    world = running(1)
    task, worker = chunk(world, 3, 2)
    began = world.now
    for _ in range(100):
        said = world.tick()
        if only(said, do.Kill):
            break
    assert world.now - began >= 5
    assert do.TakeBack(worker, task, 0) in said
    assert ends(world.die(worker)) == []
    world.finish()
    assert set(world.outcome.values()) == {"done"}


def test_no_time_limit_no_look() -> None:
    world = running(1)
    chunk(world, 0, 1)
    assert world.scheduler.next_deadline() is None


def test_what_ended_in_time_leaves_no_look_behind() -> None:
    world = running(1)
    _, worker = chunk(world, 1, 1)
    world.begin(worker)
    release(world, worker)
    assert world.tick() == []
    assert world.scheduler.next_deadline() is None


# -- kill ----------------------------------------------------------------------------------------


def test_kill_ends_a_running_call_and_its_worker() -> None:
    world = known(2, 1e-4)
    first, _ = occupy(world)
    tasks = [world.submit(1) for _ in range(2)] + [world.submit() for _ in range(4)]
    release(world, first)
    assert sent(world, first) == tasks[:1]
    world.begin(first)
    said = world.kill(tasks[0])
    assert only(said, do.Kill) == [do.Kill(first, "killed")]
    assert ends(world.die(first)) == [(tasks[0], 0, 1, "killed")]  # never retried
    world.finish()


def test_kill_of_what_has_not_started_cancels_it() -> None:
    world = known(1, 1e-4)
    (worker,) = occupy(world)
    tasks = [world.submit() for _ in range(4)]
    assert ends(world.kill(tasks[3])) == [(tasks[3], 0, 1, "cancelled")]
    release(world, worker)
    world.begin(worker)
    said = world.kill(tasks[1])
    assert ends(said) == [(tasks[1], 0, 1, "cancelled")]
    assert not only(said, do.Kill)
    world.finish()
    assert world.outcome[tasks[0], 0] == world.outcome[tasks[2], 0] == "done"


def test_kill_of_what_has_just_ended_kills_nobody() -> None:
    world = running(1)
    task, worker = chunk(world, 0, 1)
    advance(world, worker, 1)
    said = world.kill(task)
    assert only(said, do.Inspect)
    assert not only(said, do.Kill)
    world.report(worker)
    assert world.outcome[task, 0] == "done"


def test_kill_of_a_chunk_ends_what_runs_and_cancels_the_rest() -> None:
    world = running(1)
    task, worker = chunk(world, 1, 5)
    advance(world, worker, 1)
    world.report(worker)
    world.begin(worker)
    said = world.kill(task)
    assert ends(said)[0][3] == "cancelled"
    assert ends(world.die(worker)) == [(task, 1, 2, "killed")]
    assert [world.outcome[task, at] for at in range(5)] == ["done", "killed"] + ["cancelled"] * 3


def test_kill_of_a_delayed_attempt_cancels_it() -> None:
    world = running(1)
    task = world.submit(2)
    worker = holding(world, task)
    world.begin(worker)
    world.end(worker, raised=True)
    world.report(worker)
    assert "waits until" in world.scheduler.explain(task)
    assert ends(world.kill(task)) == [(task, 0, 1, "cancelled")]
    world.finish()


# -- errors that are retried ---------------------------------------------------------------------


def test_an_error_is_retried_after_its_backoff() -> None:
    world = running(1)
    task = world.submit(2)
    worker = holding(world, task)
    world.begin(worker)
    world.end(worker, raised=True)
    said = world.report(worker)
    (retrying,) = only(said, do.Retrying)
    wait = retrying.at - world.now
    assert 0.25 <= wait <= 0.5  # half of it is left to chance
    assert not only(said, do.Resolve)
    assert not world.tick(wait / 2)
    assert world.scheduler.statistics().delayed == 1
    said = world.tick()
    assert only(said, do.Send)[0].parts == [Part(task, 2, 0, 1)]
    world.begin(worker)
    world.end(worker, raised=True)
    said = world.report(worker)
    assert ends(said) == [(task, 0, 1, "failed")]
    assert world.scheduler.expected(world.policies[2]) is not None  # failing calls teach, too


def test_errors_in_a_chunk_go_their_own_way() -> None:
    world = running(1)
    task = world.submit(1, 4)
    worker = holding(world, task)
    for raised in (True, False, True, False):
        world.begin(worker)
        world.end(worker, raised)
    said = world.report(worker)
    assert len(only(said, do.Retrying)) == 2
    assert world.outcome[task, 1] == world.outcome[task, 3] == "done"
    world.finish()
    assert world.scheduler.statistics().done == len(world.outcome)
    assert set(world.outcome.values()) == {"done"}


def test_an_error_of_what_nobody_wants_is_not_retried() -> None:
    world = running(1)
    task = world.submit(1)
    worker = holding(world, task)
    world.begin(worker)
    assert ends(world.cancel(task)) == []  # it has started
    world.end(worker, raised=True)
    assert ends(world.report(worker)) == [(task, 0, 1, "failed")]


# -- cancel --------------------------------------------------------------------------------------


def test_cancel_takes_back_what_has_not_started() -> None:
    world = known(1, 1e-4)
    (worker,) = occupy(world)
    tasks = [world.submit() for _ in range(5)]
    release(world, worker)
    world.begin(worker)
    said = world.cancel(tasks[2])
    assert ends(said) == [(tasks[2], 0, 1, "cancelled")]
    assert sent(world, worker)[:2] == tasks[:2]
    assert ends(world.cancel(tasks[0])) == []
    world.finish()
    assert [world.outcome[task, 0] for task in tasks] == [
        "done",
        "done",
        "cancelled",
        "done",
        "done",
    ]


def test_a_cancelled_call_that_crashes_is_charged_and_not_retried() -> None:
    world = running(1)
    task, worker = chunk(world, 1, 3)
    advance(world, worker, 1)
    world.begin(worker)
    world.cancel(task)
    said = world.die(worker)
    assert sorted(ends(said)) == [(task, 0, 1, "cancelled"), (task, 1, 2, "crashed")]
    assert not only(said, do.Retrying)


def test_a_hundred_thousand_cancelled_tasks_leave_the_queue() -> None:
    world = World(1, checked=False)
    tasks = [world.submit() for _ in range(1000)]
    for task in tasks:
        world.scheduler.handle(ev.CancelAsked(task), world.now)
    (level,) = world.scheduler._ready._levels.values()
    assert len(level.back) + len(level.front) < 200
    assert world.scheduler.statistics().cancelled == 1000


# -- what no backend should say, and what is made of it --------------------------------------------


def forged(world: World, worker: int, running: ev.Running, how: str) -> list[do.Command]:
    """A worker's death as it is told, whatever the worker was at."""
    for call, holder in list(world.holder.items()):
        if holder == worker:
            del world.holder[call]
            world.excused[call] = 1
    del world.workers[worker]
    return world.tell(ev.Died(worker, running, how))


def test_a_call_behind_the_condemned_one_is_not_charged() -> None:
    scheduler = Scheduler(workers=1, random=random.Random(0))
    task = scheduler.new_task()
    family = scheduler.add_family(FamilyPolicy(timeout=1.0))
    scheduler.handle(ev.Submitted(task, family, 3), 0.0)
    scheduler.handle(ev.Ready(1), 0.0)
    assert scheduler.handle(ev.Tick(), 1.0) == [do.Inspect(1)]
    said = scheduler.handle(ev.Seen(1, ev.Running(task, 1, 0, 0.0)), 1.0)
    assert said == [do.TakeBack(1, task, 1), do.Kill(1, "timed-out")]
    scheduler.handle(ev.TakenBack(1, []), 1.0)  # it did not take anything back, and went on
    said = scheduler.handle(ev.Died(1, ev.Running(task, 1, 1, 1.0), "timed-out"), 1.0)
    assert said == [do.Start(2)]
    assert scheduler.handle(ev.Ready(2), 1.0) == [do.Send(2, [Part(task, 1, 0, 3)])]


def test_who_retires_is_charged_with_nothing() -> None:
    world = running(1)
    task, worker = chunk(world, 0, 1)
    world.begin(worker)
    assert ends(forged(world, worker, ev.Running(task, 1, 0, world.now), "retired")) == []
    world.finish()
    assert world.outcome[task, 0] == "done"


@pytest.mark.parametrize("kill", [True, False])
def test_a_call_that_has_ended_takes_no_other_with_it(kill: bool) -> None:
    """Its outcome may be on its way to whoever asks to end it."""
    world = known(1, 1e-3)
    task = world.submit(calls=3, loose=True)
    for _ in range(2):
        world.begin(1)
        world.end(1)
        world.report(1, 1e-3)
    event = ev.KillAsked(task, 0) if kill else ev.CancelAsked(task, 0)
    assert world.tell(event) == []
    world.finish()
    assert set(world.outcome.values()) == {"done"}
