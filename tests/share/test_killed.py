"""A SIGKILL at any bytecode of any operation leaves the others able to go on, and nothing half
done.

Each operation is done by processes that are killed before their first, second, third ... bytecode,
each with an object of its own. Then the objects are looked at.
"""

from __future__ import annotations

import contextlib
import queue
import random
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from lightwork import OwnerDied, share
from tests.share.killing import forked, killed_at, reap, steps_of

BATCH = 40
TIME = 20.0


def _lock_again(lock: Any, before: int) -> None:
    """The next one gets the lock, knowing or not, and it is an ordinary lock then."""
    try:
        assert lock.acquire(timeout=TIME)
    except OwnerDied:
        assert before != 0
    assert not lock.acquire(timeout=0) or isinstance(lock, share.RLock)
    while lock.held():
        lock.release()
    assert not lock.locked()
    assert reap(forked(lambda: _lock_once(lock))) == 0
    assert not lock.locked()


def _release_and_lock_again(lock: Any, before: int) -> None:
    lock.release()
    _lock_again(lock, before)


def _lock_once(lock: Any) -> None:
    assert lock.acquire(timeout=TIME)
    lock.release()


def _take_and_give(lock: Any) -> None:
    lock.acquire()
    lock.release()


def _acquire_held(lock: Any) -> None:
    lock.acquire(timeout=0.03)


def _semaphore(semaphore: Any, before: int) -> None:
    assert semaphore.acquire(timeout=TIME)
    assert semaphore.acquire(timeout=TIME)
    assert not semaphore.acquire(blocking=False)
    semaphore.release(2)


def _event(event: Any, before: int) -> None:
    assert before or event.is_set()
    event.set()
    assert event.wait(TIME)


def _notified(pair: Any, before: int) -> None:
    """A condition still wakes its waiters after a notifier, or a waiter, was killed."""
    condition, flag = pair
    woken = []

    def wait() -> None:
        with contextlib.suppress(OwnerDied):
            condition.acquire()
        while not flag.is_set():
            with contextlib.suppress(OwnerDied):
                assert condition.wait(TIME)
        woken.append(1)
        condition.release()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        with contextlib.suppress(OwnerDied):
            assert condition.acquire(timeout=TIME)
        flag.set()
        condition.notify_all()
        condition.release()
    finally:
        thread.join(TIME)
    assert woken


def _notify(pair: Any) -> None:
    with pair[0]:
        pair[0].notify()


def _wait_a_moment(pair: Any) -> None:
    with pair[0]:
        pair[0].wait(0.03)


def _barrier(barrier: Any, before: int) -> None:
    barrier.reset()
    other = threading.Thread(target=barrier.wait, args=(TIME,))
    other.start()
    assert barrier.wait(TIME) in (0, 1)
    other.join()


def _wait_at_barrier(barrier: Any) -> None:
    with contextlib.suppress(threading.BrokenBarrierError):
        barrier.wait(0.03)


def _was_put(it: Any, before: int) -> None:
    found = _drain(it)
    assert found == ["a", "b", "c"] or (before and found == ["a", "b"])
    it.put("d")
    it.put([1] * 30_000)  # the next ring
    assert it.qsize() == 2
    assert it.get(timeout=TIME) == "d"
    assert it.get(timeout=TIME) == [1] * 30_000
    assert it.qsize() == 0


def _drain(it: Any) -> list[Any]:
    found = []
    with contextlib.suppress(queue.Empty):
        while True:
            found.append(it.get(timeout=0.3))
    return found


def _was_got(it: Any, before: int) -> None:
    it.put("d")
    found = _drain(it)
    assert found[-1] == "d"
    if before == 0:
        assert found == ["b", "d"]
    else:
        assert found in (["a", "b", "d"], ["b", "d"])
        assert it.lost == 3 - len(found), found
    assert it.qsize() == 0


def _was_got_and_done(it: Any, before: int) -> None:
    found = _drain(it)
    for _ in found:
        it.task_done()
    if before and it.lost:
        with contextlib.suppress(OwnerDied):
            assert it.join(TIME)
    assert it.join(TIME)


def _get_and_report(it: Any) -> None:
    it.get()
    it.task_done()


def _list(it: Any, before: int) -> None:
    assert it.copy() in ([[1], 2, 3], [[1], 2])
    assert before or len(it) == 3
    it.append(4)
    assert it.copy()[-1] == 4
    assert reap(forked(it.pop)) == 0
    assert it[-1] != 4


def _long_list(it: Any, before: int) -> None:
    assert len(it) in (0, 2)
    it.clear()
    assert it.copy() == []


def _dict(it: Any, before: int) -> None:
    assert it.copy() in ({"a": 1}, {"a": 2})
    assert before or it["a"] == 2
    it["b"] = 1
    assert it.pop("b") == 1


def _locked_dict(it: Any, before: int) -> None:
    told = False
    try:
        it["c"] = 1
    except OwnerDied:
        told = True
        it["c"] = 1
    found = it.copy()
    found.pop("c")
    assert found in ({"a": 1}, {"a": 5}, {"a": 5, "b": 6})
    assert told or found != {"a": 5}  # in the middle of the block: said so


def _change_two(it: Any) -> None:
    with it.locked():
        it["a"] = 5
        it["b"] = 6


def _number(it: Any, before: int) -> None:
    assert it.value in (3, 7)
    assert before or it.value == 7
    it_value = it.value
    try:
        it.add(1)
    except OwnerDied:
        pass
    else:
        assert it.value == it_value + 1


class Case(NamedTuple):
    """What is made, what the victim does, and what must hold then (given the victim's status)."""

    make: Callable[[], Any]
    act: Callable[[Any], object]
    check: Callable[[Any, int], None]


def _held(cls: Any) -> Any:
    lock = cls()
    lock.acquire()
    return lock


def _full_queue() -> Any:
    it = share.Queue()
    it.put("a")
    it.put("b")
    return it


CASES = {
    "Lock": Case(share.Lock, _take_and_give, _lock_again),
    "RLock": Case(share.RLock, _take_and_give, _lock_again),
    "Lock, waiting": Case(lambda: _held(share.Lock), _acquire_held, _release_and_lock_again),
    "Semaphore.acquire": Case(lambda: share.Semaphore(2), share.Semaphore.acquire, _semaphore),
    "Semaphore": Case(lambda: share.BoundedSemaphore(2), _take_and_give, _semaphore),
    "Event.set": Case(share.Event, share.Event.set, _event),
    "Condition.notify": Case(lambda: (share.Condition(), share.Event()), _notify, _notified),
    "Condition.wait": Case(lambda: (share.Condition(), share.Event()), _wait_a_moment, _notified),
    "Barrier": Case(lambda: share.Barrier(2), _wait_at_barrier, _barrier),
    "Queue.put": Case(_full_queue, lambda it: it.put("c"), _was_put),
    "Queue.get": Case(_full_queue, lambda it: it.get(), _was_got),
    "Queue.task_done": Case(_full_queue, _get_and_report, _was_got_and_done),
    "List.append": Case(lambda: share.List([[1], 2]), lambda it: it.append(3), _list),
    "List, new log": Case(share.List, lambda it: it.extend(["x" * 3000] * 2), _long_list),
    "Dict.update_with": Case(
        lambda: share.Dict({"a": 1}), lambda it: it.update_with("a", lambda n: n + 1), _dict),
    "Dict.locked": Case(lambda: share.Dict({"a": 1}), _change_two, _locked_dict),
    "Value.add": Case(lambda: share.Value("q", 3), lambda it: it.add(4), _number),
    "Counter.add": Case(lambda: share.Counter(3), lambda it: it.add(4), _number),
}  # fmt: skip


def _try(case: Case, steps: list[int]) -> None:
    """Kill one process before each of these steps, all at a time; then look at what they left."""
    objects = [case.make() for _ in steps]
    victims = [
        killed_at(step, lambda it=it: case.act(it))  # type: ignore[misc]
        for step, it in zip(steps, objects, strict=True)
    ]
    statuses = [reap(pid) for pid in victims]
    assert set(statuses) <= {0, -9}
    for step, it, status in zip(steps, objects, statuses, strict=True):
        try:
            case.check(it, status)
        except BaseException as error:
            error.add_note(f"killed before bytecode {step}, status {status}")
            raise


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_killed_at_some_steps(name: str) -> None:
    """Twenty of them, others each time."""
    case = CASES[name]
    it = case.make()
    total = steps_of(lambda: case.act(it))
    draw = random.Random()
    _try(case, sorted(draw.sample(range(1, total + 3), min(20, total))))


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", CASES)
def test_killed_at_any_step(name: str) -> None:
    case = CASES[name]
    it = case.make()
    steps = list(range(1, steps_of(lambda: case.act(it)) + 3))
    for first in range(0, len(steps), BATCH):
        _try(case, steps[first : first + BATCH])
