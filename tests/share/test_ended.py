"""A thread that ends with a lock, in a process that lives on, is as a process that dies."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from lightwork import OwnerDied, Pool, share
from tests.share.tasks import LONG

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(params=["Lock", "RLock"])
def lock(request: pytest.FixtureRequest) -> Any:
    return getattr(share, request.param)("ours")


def in_thread(act: Callable[[], object], name: str = "the careless one") -> None:
    thread = threading.Thread(target=act, name=name)
    thread.start()
    thread.join(LONG)
    assert not thread.is_alive()


def take_in_thread(lock: Any) -> int:
    """For a worker process, which lives on. Returns its process id."""
    _kept.append(lock)
    in_thread(lock.acquire)
    return os.getpid()


_kept: list[Any] = []
"""So that the worker does not let go of them."""


def acquire_and_drop(lock: Any) -> int:
    lock.acquire()
    return os.getpid()


def told(lock: Any) -> str:
    """What `OwnerDied` says of it; "" if it can be had, or was, without. It is free afterwards."""
    try:
        assert lock.acquire(timeout=LONG)
    except OwnerDied as error:
        return str(error)
    finally:
        lock.release()
    return ""


def test_the_next_one_is_told(pool: Pool, lock: Any) -> None:
    in_thread(lock.acquire)
    said = pool.submit(told, lock).result()
    assert f"thread 'the careless one' of process {os.getpid()} ended while it held" in said
    assert repr(lock) in said
    assert pool.submit(told, lock).result() == ""
    assert told(lock) == ""


def test_in_another_process(pool: Pool, lock: Any) -> None:
    pid = pool.submit(take_in_thread, lock).result()
    assert f"thread 'the careless one' of process {pid} ended while it held" in told(lock)
    assert told(lock) == ""
    _kept.clear()


def test_those_who_wait_already_are_told(pool: Pool, lock: Any) -> None:
    held, end = threading.Event(), threading.Event()

    def careless() -> None:
        lock.acquire()
        held.set()
        end.wait(LONG)

    thread = threading.Thread(target=careless)
    thread.start()
    held.wait(LONG)
    waiters = [pool.submit(told, lock) for _ in range(2)]
    near: list[str] = []
    here = threading.Thread(target=lambda: near.append(told(lock)))
    here.start()
    end.set()
    here.join(LONG)
    thread.join(LONG)
    said = sorted([*near, *[one.result() for one in waiters]])
    assert said[:2] == ["", ""]
    assert "ended while it held" in said[2]


def test_who_gets_its_number_does_not_hold_it(lock: Any) -> None:
    """The system gives a new thread the number of one that has ended."""
    for _ in range(20):
        said: list[str] = []
        in_thread(lock.acquire)
        in_thread(lambda said=said: said.append(told(lock)))  # type: ignore[misc]
        assert "ended while it held" in said[0]
        in_thread(lambda said=said: said.append(told(lock)))  # type: ignore[misc]
        assert said[1] == ""


def test_however_often_it_was_acquired() -> None:
    lock = share.RLock()

    def thrice() -> None:
        for _ in range(3):
            lock.acquire()

    in_thread(thrice)
    assert "ended while it held" in told(lock)
    assert not lock.locked()


def test_more_than_one(lock: Any) -> None:
    others = [share.Lock(f"lock {n}") for n in range(3)]

    def take_all() -> None:
        for one in (lock, *others):
            one.acquire()
        others[1].release()

    in_thread(take_all)
    assert [bool(told(one)) for one in (lock, *others)] == [True, True, False, True]


def test_an_error_ends_a_thread_as_well(lock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def fail() -> None:
        lock.acquire()
        raise ValueError("before it could release")

    in_thread(fail)
    assert "ended while it held" in told(lock)


def test_conditions_and_values() -> None:
    condition, number = share.Condition(), share.Value("q")
    in_thread(condition.acquire)
    assert "ended while it held" in told(condition)
    in_thread(number.get_lock().acquire)
    assert "ended while it held" in told(number.get_lock())


def test_nobody_is_told_without_a_reason(pool: Pool, lock: Any) -> None:
    """Threads come and go, with and without having held it; others, and processes, use it."""
    other = share.Lock()

    def use() -> None:
        for _ in range(20):
            with lock, other:
                pass

    far = [pool.submit(told, lock) for _ in range(10)]
    for _ in range(10):
        threads = [threading.Thread(target=use) for _ in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join(LONG)
    assert {one.result() for one in far} == {""}
    assert told(lock) == told(other) == ""


def test_one_that_was_released_by_another_thread() -> None:
    """As with a `threading.Lock`: then it is not held any more when its taker ends."""
    lock = share.Lock()
    held, end = threading.Event(), threading.Event()

    def taker() -> None:
        lock.acquire()
        held.set()
        end.wait(LONG)

    thread = threading.Thread(target=taker)
    thread.start()
    held.wait(LONG)
    lock.release()
    assert lock.acquire(timeout=LONG)
    end.set()
    thread.join(LONG)
    assert lock.held()
    lock.release()
    assert told(lock) == ""


@pytest.mark.parametrize("method", ["forkserver", "spawn"])  # a fork copies our references
def test_the_last_reference_goes_while_it_is_held(method: str, lock: Any) -> None:
    """In a worker that lives on: nobody there could release it."""
    with Pool("processes", 1, start_method=method) as pool:
        pid = pool.submit(acquire_and_drop, lock).result()
        assert pool.submit(os.getpid).result() == pid
    assert f"process {pid} held" in told(lock)
    assert told(lock) == ""


def test_a_copy_of_the_process_inherits_no_will(lock: Any) -> None:
    """The copies of threads that a fork does not copy leave nothing behind; nor does the forker."""
    held, end = threading.Event(), threading.Event()

    def holder() -> None:
        with lock:
            held.set()
            end.wait(LONG)

    thread = threading.Thread(target=holder)
    thread.start()
    held.wait(LONG)
    mine = share.Lock()
    with mine, Pool("processes", 1, start_method="fork") as pool:
        assert pool.submit(os.getpid).result() != os.getpid()
        assert mine.held()
    end.set()
    thread.join(LONG)
    assert told(lock) == told(mine) == ""
