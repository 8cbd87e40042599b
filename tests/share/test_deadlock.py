"""A circle is reported, to one, in full; what only looks like one is left alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from lightwork import DeadlockError, Pool, share
from tests.share.tasks import LONG, lock_both

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def _outcome(future: Any) -> str | DeadlockError:
    try:
        return str(future.result())
    except DeadlockError as error:
        return error


@pytest.mark.parametrize("size", [2, 3])
def test_a_circle(pool: Pool, size: int) -> None:
    pool.resize(size)
    locks = [share.Lock(f"lock {n}") for n in range(size)]
    barrier = share.Barrier(size)
    tasks = [pool.submit(lock_both, locks[n], locks[(n + 1) % size], barrier) for n in range(size)]
    found = [_outcome(one) for one in tasks]
    errors = [one for one in found if isinstance(one, DeadlockError)]
    assert len(errors) == 1
    assert found.count("both") == size - 1
    error = errors[0]
    assert len(error.circle) == size
    for n, one in enumerate(error.circle):
        after = error.circle[(n + 1) % size]
        assert one["waits_for"] == after["holds"][0]
        assert one["thread"] in str(error)
        assert "tasks.py:" in one["where"]
        assert "in lock_both" in one["where"]
        assert "call " in one["task"]
    if pool.kind == "processes":
        assert len({one["pid"] for one in error.circle}) == size
    else:
        assert {one["pid"] for one in error.circle} == {os.getpid()}
    assert not any(one.locked() for one in locks)


def test_across_a_thread_and_a_process() -> None:
    first, second, barrier = share.Lock(), share.RLock(), share.Barrier(2)
    with Pool("processes", 1) as far:
        future = far.submit(lock_both, first, second, barrier)
        try:
            near: Any = lock_both(second, first, barrier)
        except DeadlockError as error:
            near = error
        found = [near, _outcome(future)]
    assert sorted(type(one).__name__ for one in found) == ["DeadlockError", "str"]


@pytest.mark.parametrize("kind", ["RLock", "Condition", "Value", "List", "Dict"])
def test_whatever_has_a_lock(kind: str) -> None:
    """Also one inside of something: a condition's, a value's, and the block of a container."""
    lock, other, barrier = share.Lock(), getattr(share, kind)(), share.Barrier(2)
    with Pool("processes", 2) as pool:
        tasks = [
            pool.submit(lock_both, lock, other, barrier),
            pool.submit(lock_both, other, lock, barrier),
        ]
        found = [_outcome(one) for one in tasks]
    assert sorted(type(one).__name__ for one in found) == ["DeadlockError", "str"]


def test_a_lock_taken_twice() -> None:
    lock = share.Lock("mine")
    with lock, pytest.raises(DeadlockError, match="which it holds itself"):
        lock.acquire()
    with lock:
        assert lock.acquire(timeout=0.01) is False  # with a time limit it ends
        assert lock.acquire(blocking=False) is False
    assert not lock.locked()


def _watched(monkeypatch: pytest.MonkeyPatch, enough: int) -> tuple[threading.Event, list[Any]]:
    """An event that is set once waiters have looked for circles so often; and what was found."""
    from lightwork.share import deadlock

    looked = threading.Event()
    found: list[Any] = []
    look: Callable[..., Any] = deadlock.look

    def counted(*args: Any) -> Any:
        found.append(look(*args))
        if len(found) >= enough:
            looked.set()
        return found[-1]

    monkeypatch.setattr(deadlock, "look", counted)
    return looked, found


def test_a_slow_holder_is_no_circle(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, found = _watched(monkeypatch, 8)
    outer, inner = share.Lock(), share.Lock()
    inner.acquire()
    got = []

    def both() -> None:
        with outer, inner:
            got.append(1)

    threads = [threading.Thread(target=both) for _ in range(3)]
    for one in threads:
        one.start()
    assert looked.wait(LONG)
    inner.release()
    for one in threads:
        one.join(LONG)
    assert got == [1, 1, 1]
    assert not any(found)


def test_a_chain_with_a_time_limit_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks like a circle, but one in it will give up."""
    looked, found = _watched(monkeypatch, 6)
    first, second, barrier = share.Lock(), share.Lock(), threading.Barrier(2)
    results = {}

    def patient() -> None:
        with first:
            barrier.wait(LONG)
            with second:
                results["patient"] = True

    def hasty() -> None:
        with second:
            barrier.wait(LONG)
            while not looked.is_set():
                assert first.acquire(timeout=0.05) is False
            results["hasty"] = True

    threads = [threading.Thread(target=one) for one in (patient, hasty)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(LONG)
    assert results == {"patient": True, "hasty": True}
    assert not any(found)


def test_waiting_in_a_condition_is_no_circle() -> None:
    lock, condition = share.Lock(), share.Condition()
    ready = threading.Event()
    done = []

    def waiter() -> None:
        with lock, condition:
            ready.set()
            done.append(condition.wait(LONG))

    def other() -> None:
        ready.wait(LONG)
        with condition:
            condition.notify()
        with lock:
            done.append(True)

    threads = [threading.Thread(target=one) for one in (waiter, other)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(LONG)
    assert done == [True, True]
