"""One adds numbers to a list while another removes them; in the end nothing was lost or doubled."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from lightwork import Pool, share

ROOM = 1000


def add(items: Any, changed: Any, count: int, step: int) -> int:
    """Add 0 to `count` - 1; wait while the list is full. Returns their sum."""
    total = 0
    for start in range(0, count, step):
        numbers = range(start, min(start + step, count))
        with changed:
            changed.wait_for(lambda: len(items) < ROOM)
            items.extend(numbers)
            changed.notify()
        total += sum(numbers)
    return total


def remove(items: Any, changed: Any, count: int, step: int) -> tuple[int, bool]:
    """Take `count` numbers from the front; wait while there are none.

    Returns their sum, and whether they came in order, each once.
    """
    total, expected, in_order = 0, 0, True
    while expected < count:
        with changed:
            changed.wait_for(lambda: len(items) > 0)
            taken = items[:step]
            del items[:step]
            changed.notify()
        for number in taken:
            in_order = in_order and number == expected
            expected += 1
            total += number
    return total, in_order


def _check(pool: Pool, items: Any, count: int, step: int) -> None:
    changed = share.Condition()
    with pool:
        adder = pool.submit(add, items, changed, count, step)
        remover = pool.submit(remove, items, changed, count, step)
        expected = count * (count - 1) // 2
        assert adder.result() == expected
        assert remover.result() == (expected, True)
    assert len(items) == 0


@pytest.mark.slow
def test_threads_one_by_one() -> None:
    """Two million operations on an ordinary list, one at a time, under a shared lock."""
    _check(Pool("threads", 2), [], 1_000_000, 1)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["forkserver", "fork"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_processes(method: str) -> None:
    """Two hundred thousand operations on a shared list, one at a time."""
    _check(Pool("processes", 2, start_method=method), share.List(), 100_000, 1)


def test_threads_on_a_shared_list() -> None:
    _check(Pool("threads", 2), share.List(), 20_000, 10)


def test_nobody_polls() -> None:
    """Who waits looks twice: before it sleeps, and when it is told that something has changed."""
    items: Any = share.List()
    changed = share.Condition()
    looks = []

    def ready() -> bool:
        looks.append(len(items))
        return looks[-1] > 0

    def waiter() -> None:
        with changed:
            changed.wait_for(ready)

    thread = threading.Thread(target=waiter)
    thread.start()
    while not _has_waiter(changed):
        pass
    threading.Event().wait(0.5)  # the time for which it could have polled
    with changed:
        items.append(1)
        changed.notify()
    thread.join()
    assert looks == [0, 1]


def _has_waiter(condition: Any) -> bool:
    """Whether somebody sleeps in the condition."""
    block = condition._block
    return bool(block.commons.parked(block.index))
