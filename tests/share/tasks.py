"""What workers do in the tests of sharing."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from lightwork import OwnerDied, share

LONG = 30.0
"""Seconds: longer than anything here may take; who waits as long has failed."""


class Row(NamedTuple):
    """How one primitive is used.

    Args:
        make: a new one.
        hold: make the next `wait` wait.
        wait: get it, within so many seconds; says whether it did.
        give: let one `wait` go on.
        held_by: whether a process that dies after `hold` keeps others out until that is noticed.
    """

    make: Callable[[], Any]
    hold: Callable[[Any], object]
    wait: Callable[[Any, float], bool]
    give: Callable[[Any], object]
    held_by: bool = False


def _lock_wait(lock: Any, timeout: float) -> bool:
    try:
        got = lock.acquire(timeout=timeout)
    except OwnerDied:
        got = True
    if got:
        lock.release()
    return bool(got)


def _condition_wait(condition: Any, timeout: float) -> bool:
    with condition:
        return bool(condition.wait(timeout))


def _notify(condition: Any) -> None:
    with condition:
        condition.notify_all()


def _barrier_wait(barrier: Any, timeout: float) -> bool:
    try:
        barrier.wait(timeout)
    except threading.BrokenBarrierError:
        return False
    return True


def _barrier_give(barrier: Any) -> None:
    if barrier.broken:
        barrier.reset()
    if barrier.n_waiting:
        barrier.wait(LONG)


def _get(it: Any, timeout: float) -> bool:
    try:
        return bool(it.get(timeout=timeout) == "item")
    except queue.Empty:
        return False


def _put(it: Any, timeout: float) -> bool:
    try:
        it.put("item", timeout=timeout)
    except queue.Full:
        return False
    return True


def _receive(ends: Any, timeout: float) -> bool:
    try:
        return bool(ends[1].recv(timeout) == "item")
    except TimeoutError:
        return False


def _nothing(_: Any) -> None:
    pass


def _take_all(it: Any) -> None:
    with contextlib.suppress(queue.Empty):
        it.get_nowait()


ROWS = {
    "Lock": Row(share.Lock, lambda it: it.acquire(), _lock_wait, lambda it: it.release(), True),
    "RLock": Row(share.RLock, lambda it: it.acquire(), _lock_wait, lambda it: it.release(), True),
    "Semaphore": Row(
        share.Semaphore, lambda it: it.acquire(), _lock_wait, lambda it: it.release(), True
    ),
    "BoundedSemaphore": Row(
        share.BoundedSemaphore, lambda it: it.acquire(), _lock_wait, lambda it: it.release(), True
    ),
    "Condition": Row(share.Condition, _nothing, _condition_wait, _notify),
    "Event": Row(share.Event, _nothing, lambda it, timeout: it.wait(timeout), lambda it: it.set()),
    "Barrier": Row(lambda: share.Barrier(2), _nothing, _barrier_wait, _barrier_give),
    "Queue.get": Row(share.Queue, _nothing, _get, lambda it: it.put("item")),
    "Queue.put": Row(lambda: share.Queue(1), lambda it: it.put("item"), _put, _take_all),
    "Pipe": Row(share.Pipe, _nothing, _receive, lambda it: it[0].send("item")),
}


def wait(name: str, it: Any, timeout: float) -> bool:
    return ROWS[name].wait(it, timeout)


def wait_loudly(name: str, it: Any, timeout: float, at_it: Any) -> bool:
    at_it.put(os.getpid())
    return ROWS[name].wait(it, timeout)


def hold_and_die(name: str, it: Any) -> None:
    if name == "Condition":
        it.acquire()
    elif name.startswith("Queue"):
        it.put("item") if name == "Queue.get" else it.get()
    ROWS[name].hold(it)
    os.kill(os.getpid(), signal.SIGKILL)


def add_many(number: Any, total: Any, counter: Any, table: Any, items: Any, times: int) -> None:
    for n in range(times):
        with number.get_lock():
            number.value += 1
        total.add(1)
        counter.add(2)
        table.update_with("n", lambda before: before + 1, 0)
        items.append(n)


def double(array: Any) -> Any:
    array *= 2
    return array[1:]


def same(it: Any) -> Any:
    return it


def make(name: str) -> Any:
    return getattr(share, name)()


def make_array() -> Any:
    return share.Array([1, 2, 3])


def lock_both(first: Any, second: Any, barrier: Any) -> str:
    with first:
        barrier.wait(LONG)
        with second:
            return "both"
