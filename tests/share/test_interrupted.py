"""Ctrl-C at any bytecode of an operation leaves locks as they should be."""

from __future__ import annotations

import contextlib
import queue
import sys
from collections.abc import Callable
from typing import Any

import pytest

from lightwork import share
from tests.share.killing import FOLDER

TIME = 20.0


def _interrupted(act: Callable[[], object], step: int) -> bool:
    """Do `act`; KeyboardInterrupt comes before bytecode number `step`. Whether it got so far."""
    count = 0

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(FOLDER) or _in_finalizer(frame):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            count += 1
            if count == step:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def _in_finalizer(frame: Any) -> bool:
    """There the interpreter itself swallows what is raised."""
    while frame is not None:
        if frame.f_code.co_name in ("__del__", "forget"):
            return True
        frame = frame.f_back
    return False


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_acquire_and_release(kind: str) -> None:
    for step in range(1, 300):
        lock = getattr(share, kind)()

        def act(lock: Any = lock) -> None:
            lock.acquire()
            lock.release()

        reached = _interrupted(act, step)
        while lock.held():  # it came when the lock was ours already, or still
            lock.release()
        assert not lock.locked(), step
        assert lock.acquire(timeout=TIME), step
        lock.release()
        if not reached:
            return
    pytest.fail("it takes more bytecodes than that")


@pytest.mark.parametrize(
    ("make", "act"),
    [
        (share.Queue, lambda it: it.put(1)),
        (share.List, lambda it: it.append(1)),
        (share.Event, lambda it: it.set()),
        (lambda: share.Semaphore(1), lambda it: it.acquire()),
    ],
    ids=["Queue.put", "List.append", "Event.set", "Semaphore.acquire"],
)
def test_inner_locks_are_given_back(make: Callable[[], Any], act: Callable[[Any], object]) -> None:
    for step in range(1, 3000, 3):
        it = make()
        reached = _interrupted(lambda it=it: act(it), step)  # type: ignore[misc]
        inner = [one for one in vars(it).values() if isinstance(one, share.Lock | share.RLock)]
        inner += [one for name, one in vars(it).items() if name in ("_guard", "_writers")]
        for one in inner:
            if one.held():  # between the return of acquire and the `try` of its caller
                one.release()
        with contextlib.suppress(queue.Empty, AttributeError):
            it.put(2, timeout=TIME)
            assert it.get(timeout=TIME) in (1, 2)
        for one in inner:
            assert one.acquire(timeout=TIME), step
            one.release()
        if not reached:
            return
    pytest.fail("it takes more bytecodes than that")
