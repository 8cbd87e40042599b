"""What is sent to whom, in which order and how much; and what is taken back."""

from __future__ import annotations

from typing import Any

import pytest

from lightwork.core import batching
from lightwork.core import commands as do
from lightwork.core import events as ev
from lightwork.core.commands import Part
from tests.core.world import POLICIES, World, kinds, only


def running(workers: int, **options: Any) -> World:
    """A world with this many workers ready, and nothing known of any family."""
    world = World(workers, **options)
    for _ in range(workers):
        world.submit()
    world.start_all()
    world.drain()
    world.log.clear()
    return _forgotten(world)


def _forgotten(world: World) -> World:
    for family in world.scheduler._families.values():
        family.mean, family.seen = float("inf"), 0
    return world


def known(workers: int, seconds: float, **options: Any) -> World:
    """The same, where a call of family 0 is known to take so many seconds."""
    world = running(workers, **options)
    family = world.scheduler._families[world.policies[0]]
    family.learn(seconds * 1000, 1000)
    return world


def sent(world: World, worker: int) -> list[int]:
    """The tasks that a worker has, once for each call."""
    model = world.workers[worker]
    return ([model.running[0]] if model.running else []) + [task for task, _, _ in model.todo]


def occupy(world: World) -> list[int]:
    """Give every worker a task of a family of its own, and start it; return the workers."""
    world.policies.append(world.scheduler.add_family(POLICIES[0]))
    busy = []
    for _ in range(len(world.workers)):
        task = world.submit(len(world.policies) - 1)
        (worker,) = (number for number in world.workers if task in sent(world, number))
        world.begin(worker)
        busy.append(worker)
    return busy


def release(world: World, worker: int, seconds: float = 1e-3) -> list[do.Command]:
    """Let a worker end and report what it runs."""
    world.end(worker)
    return world.report(worker, seconds)


def test_a_task_starts_a_worker_and_is_sent_when_it_is_ready() -> None:
    world = World(3)
    task = world.submit()
    assert world.log == [do.Start(1)]
    assert world.ready(1) == [do.Send(1, [Part(task, 1, 0, 1)])]


def test_an_idle_worker_is_used_before_another_is_started() -> None:
    world = World(3)
    world.submit()
    world.start_all()
    world.drain()
    world.log.clear()
    world.submit()
    assert kinds(world.log) == ["Send"]


def test_the_worker_that_worked_last_is_warm() -> None:
    world = running(3)
    first, second, third = occupy(world)
    for worker in (third, first, second):
        release(world, worker)
    world.submit()
    assert sent(world, second)


def test_in_order_within_a_priority_and_higher_ones_first() -> None:
    world = running(1)
    (worker,) = occupy(world)
    low = [world.submit(3) for _ in range(2)]
    middle = [world.submit(0) for _ in range(2)]
    high = [world.submit(2) for _ in range(2)]
    order: list[int] = []
    while len(order) < 6:
        (send,) = only(release(world, worker, 1.0), do.Send)
        order += [part.task for part in send.parts]
        world.begin(worker)
    assert order == high + middle + low


def test_what_comes_back_goes_in_front_in_the_order_of_submission() -> None:
    world = known(2, 1e-4)
    first, second = occupy(world)
    tasks = [world.submit() for _ in range(20)]
    world.end(first)
    world.report(first, 1e-4)
    world.end(second)
    world.report(second, 1e-4)
    assert len(sent(world, first)) > 1
    assert len(sent(world, second)) > 1
    world.resize(1)  # no replacement
    for worker in (second, first):
        if worker in world.workers:
            world.die(worker)
    queue = [task.number for task in world.scheduler._ready]
    assert queue == sorted(tasks)


def test_an_unknown_family_is_probed_one_task_a_worker() -> None:
    world = running(2)
    tasks = [world.submit() for _ in range(10)]
    assert sorted(sent(world, 1) + sent(world, 2)) == tasks[:2]
    assert not only(world.log, do.TakeBack)


def test_a_batch_is_a_few_milliseconds_of_calls() -> None:
    world = known(1, 1e-4)
    (worker,) = occupy(world)
    for _ in range(200):
        world.submit()
    (send,) = only(release(world, worker), do.Send)
    assert len(send.parts) == round(batching.TARGET / 1e-4)


def test_a_batch_is_no_more_than_a_fair_share() -> None:
    world = known(4, 1e-5)
    workers = occupy(world)
    for _ in range(10):
        world.submit()
    (send,) = only(release(world, workers[0]), do.Send)
    assert len(send.parts) == 3  # of 10 among 4


def test_a_worker_is_topped_up_before_it_runs_dry() -> None:
    world = known(1, 1e-4)
    (worker,) = occupy(world)
    for _ in range(500):
        world.submit()
    release(world, worker)
    tops = []
    batch, low = round(batching.TARGET / 1e-4), round(batching.LOW / 1e-4)
    for _ in range(batch - low + 5):
        world.begin(worker)
        tops += only(release(world, worker, 1e-4), do.Send)
    assert len(tops) == 1
    left = len(sent(world, worker)) - len(tops[0].parts)
    assert low - 10 <= left <= low


def test_a_worker_has_one_task_waiting_where_calls_are_of_middling_length() -> None:
    world = known(2, 8e-3)
    first, _ = occupy(world)
    for _ in range(10):
        world.submit()
    release(world, first, 8e-3)
    assert len(sent(world, first)) == 2
    world.begin(first)
    release(world, first, 8e-3)
    assert len(sent(world, first)) == 2


def test_long_calls_are_sent_one_at_a_time() -> None:
    world = known(2, 0.05)
    first, _ = occupy(world)
    for _ in range(10):
        world.submit()
    release(world, first, 0.05)
    assert len(sent(world, first)) == 1


def test_without_prefetch_a_worker_has_one_task() -> None:
    world = known(1, 1e-5, prefetch=False)
    (worker,) = occupy(world)
    for _ in range(10):
        world.submit()
    release(world, worker, 1e-5)
    assert len(sent(world, worker)) == 1


def test_families_of_different_length_share_a_batch() -> None:
    world = known(1, batching.TARGET / 8)
    world.scheduler._families[world.policies[1]].learn(1000 * batching.TARGET / 4, 1000)
    (worker,) = occupy(world)
    for family in (0, 1, 0, 1, 0, 1, 0):
        world.submit(family)
    (send,) = only(release(world, worker), do.Send)
    assert len(send.parts) == 5  # 1 + 2 + 1 + 2 + 1 of 8; another 2 would be too much


def test_a_long_task_is_divided_among_the_idle() -> None:
    world = known(4, 1e-3)
    world.submit(calls=100)
    parts = [part for send in only(world.log, do.Send) for part in send.parts]
    # Each a fourth of what is left: the rest waits for whoever is done first.
    assert [part.hi - part.lo for part in parts] == [25, 19, 14, 11]
    assert world.scheduler.statistics().queued == 31
    world.finish()


def test_a_short_task_is_not_divided() -> None:
    world = known(4, 1e-6)
    world.submit(calls=100)
    assert kinds(world.log) == ["Send"]


def test_an_idle_worker_gets_half_of_what_another_has_not_started() -> None:
    world = known(2, 1e-4)
    first, second = occupy(world)
    tasks = [world.submit() for _ in range(40)]
    release(world, first, 1e-4)
    assert sent(world, first) == tasks[:20]
    world.begin(first)
    for task in tasks[20:]:
        world.cancel(task)
    said = release(world, second, 1e-4)
    assert do.TakeBack(first, tasks[10], 0) in said
    (send,) = only(said, do.Send)
    assert send.worker == second
    assert sent(world, first) == tasks[:10]


def test_a_chunk_is_cut_for_an_idle_worker() -> None:
    world = known(1, 1e-3)
    task = world.submit(calls=100)
    (worker,) = world.workers
    world.begin(worker)
    world.log.clear()
    world.resize(2)
    (start,) = only(world.log, do.Start)
    said = world.ready(start.worker)
    assert said[0] == do.TakeBack(worker, task, 50)
    first, second = only(said, do.Carve)
    assert (first.task, first.lo, first.hi) == (task, 50, 100)
    assert (second.task, second.lo, second.hi) == (first.new, 25, 50)
    assert only(said, do.Send) == [do.Send(start.worker, [Part(first.new, 1, 0, 25)])]


def test_what_is_too_short_is_not_taken_back() -> None:
    world = known(2, 1e-5)
    first, second = occupy(world)
    for _ in range(20):
        world.submit()
    release(world, first, 1e-5)
    release(world, second, 1e-5)
    while len(sent(world, first)) > 5:
        world.begin(first)
        release(world, first, 1e-5)
    world.log.clear()
    while sent(world, second):
        world.begin(second)
        release(world, second, 1e-5)
    assert not only(world.log, do.TakeBack)


def test_who_has_nothing_left_to_give_is_asked_once() -> None:
    world = known(2, 1e-3)
    first, second = occupy(world)
    for _ in range(4):
        world.submit()
    release(world, first)  # has two of them now
    assert len(sent(world, first)) == 2
    for _ in range(2):
        world.begin(first)
        world.end(first)  # and has done both, but not said so
    said = release(world, second)
    while sent(world, second):
        world.begin(second)
        said += release(world, second)
    assert len(only(said, do.TakeBack)) == 1
    said = world.report(first, 1e-3)
    assert not only(said, do.TakeBack)
    tasks = [world.submit() for _ in range(8)]  # to who has something new, it counts no more
    assert len(sent(world, first)) + len(sent(world, second)) == 2
    release_all = world.step
    while len(sent(world, first)) < 3:
        release_all(world.workers[first])
    for task in tasks:
        if task not in sent(world, first):
            world.cancel(task)
    world.log.clear()
    while not only(world.log, do.TakeBack):
        assert world.step(world.workers[second])


def test_a_surprise_counts_at_once() -> None:
    world = known(1, 1e-5)
    (worker,) = occupy(world)
    for _ in range(300):
        world.submit()
    release(world, worker, 1e-5)
    world.begin(worker)
    said = release(world, worker, 5.0)
    assert not only(said, do.Send)
    assert (world.scheduler.expected(world.policies[0]) or 0) > 0.02


def test_a_silent_worker_loses_what_it_has_not_started() -> None:
    world = known(2, 1e-4)
    first, second = occupy(world)
    tasks = [world.submit() for _ in range(60)]
    release(world, first, 1e-4)
    world.begin(first)
    held = len(sent(world, first))
    due = world.scheduler.next_deadline()
    assert due is not None
    assert due == pytest.approx(world.now + 10 * held * 1e-4 + 0.01)
    world.log.clear()
    world.tick()
    assert do.TakeBack(first, tasks[0], 0) in world.log
    assert sent(world, first) == tasks[:1]
    assert not only(world.log, do.Send)  # the other one is at work
    (send,) = only(release(world, second, 1e-4), do.Send)
    assert send.parts[0].task == tasks[1]
    said = release(world, first, 1e-4)  # it has answered: all is forgiven
    assert len(only(said, do.Send)[0].parts) > 1


def test_a_worker_that_starts_nothing_is_idle_but_the_last_to_be_given_work() -> None:
    world = known(3, 1e-4)
    workers = occupy(world)
    stopped = workers[0]
    for _ in range(90):
        world.submit()
    release(world, stopped, 1e-4)
    while world.scheduler.next_deadline() is not None and sent(world, stopped):
        world.tick()
    assert world.workers[stopped].todo  # the only idle one; but it is trusted with one task only
    assert len(sent(world, stopped)) == 1


def test_without_balance_a_task_stays_where_it_is() -> None:
    world = known(3, 1e-3, balance=False)
    world.submit(calls=100)
    assert kinds(world.log) == ["Send"]
    assert world.scheduler.next_deadline() is None
    world.finish()


def test_nobody_watches_a_worker_that_has_one_call() -> None:
    world = running(2)
    world.submit()
    assert world.scheduler.next_deadline() is None


def test_chunks_grow_with_the_evidence() -> None:
    world = running(1)
    scheduler, family = world.scheduler, world.policies[0]
    assert scheduler.chunk_calls(family) == 1
    assert scheduler.expected(family) is None
    record = scheduler._families[family]
    sizes = []
    for _ in range(5):
        calls = scheduler.chunk_calls(family)
        record.learn(calls * 2e-6, calls)
        sizes.append(calls)
    assert sizes == [1, 8, 72, 648, 5832]
    record.learn(5832 * 2e-6, 5832)
    assert scheduler.chunk_calls(family) == round(batching.CHUNK / 2e-6)
    record.learn(1.0, 1)
    assert scheduler.chunk_calls(family) == 1


def test_a_forgotten_family_leaves_its_tasks_alone() -> None:
    world = running(1)
    world.submit()
    world.scheduler.forget_family(world.policies[0])
    assert world.scheduler.expected(world.policies[0]) is None
    assert world.scheduler.chunk_calls(world.policies[0]) == 1
    world.finish()


def test_late_and_repeated_answers_change_nothing() -> None:
    world = running(3)
    task = world.submit(1)  # family 1 retries crashes
    (send,) = only(world.log, do.Send)
    world.begin(send.worker)
    said = world.die(send.worker)
    (again,) = only(said, do.Send)
    assert again.parts == [Part(task, 2, 0, 1)]
    for worker, attempt in ((send.worker, 1), (again.worker, 1), (99, 2)):
        answer = ev.Answered(worker, [ev.Answer(task, attempt, 1)], 0.1, 1)
        assert not only(world.tell(answer), do.Resolve)
    other = next(number for number in world.workers if number != again.worker)
    assert not only(world.tell(ev.Answered(other, [ev.Answer(task, 2, 1)], 0.1, 1)), do.Resolve)
    assert world.scheduler.statistics().late == 4
    world.begin(again.worker)
    world.end(again.worker)
    assert only(world.report(again.worker), do.Resolve)
    assert not world.tell(ev.Answered(again.worker, [ev.Answer(task, 2, 1)], 0.1, 1))
    world.finish()


def test_explain() -> None:
    world = World(1)
    explain = world.scheduler.explain
    first = world.submit(calls=3)
    assert explain(first) == (
        "Task 1 (attempt 1, 3 calls left) is ready, behind 0 other tasks; 1 worker(s) are starting."
    )
    world.start_all()
    second = world.submit()
    assert "is with worker 1, the first that it has not answered" in explain(first)
    assert "behind 0 other tasks; all 1 worker(s) are at work" in explain(second)
    world.cancel(second)
    assert "has ended" in explain(second)
    assert "not known" in explain(77)
