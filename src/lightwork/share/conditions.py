"""`Condition`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from . import layout as at
from .blocks import Block, Shared
from .kinds import K_CONDITION
from .locks import Lock, RLock
from .mutex import Slices, deadline_after
from .threads import slot_of

__all__ = ["Condition"]

_TICKET = at.R_OWN + 13
T = TypeVar("T")


class Condition(Shared):
    """A lock, and threads that wait until something has changed; as `threading.Condition`.

    Args:
        lock: a shared `Lock` or `RLock`; a new `RLock` if none is given.
        name: for error messages.

    A waiter that is killed harms nobody: a notification that it had got and not acted upon yet goes
    to the next. A notifier that is killed with the lock leaves it to be acquired with `OwnerDied`;
    a waiter gets that from ``wait``, and holds the lock then.
    """

    def __init__(self, lock: Lock | RLock | None = None, name: str = "") -> None:
        if lock is not None and not isinstance(lock, Lock | RLock):
            raise TypeError(f"the lock must be a share.Lock or share.RLock, not {lock!r}")
        block = Block.create(K_CONDITION)
        block.name = name
        self._made(block, RLock(name) if lock is None else lock)

    def _open(self, *extra: Any) -> None:
        (self._lock,) = extra
        self.acquire = self._lock.acquire
        self.release = self._lock.release
        self._cells = self._block.cells

    def _extra(self) -> tuple[Any, ...]:
        return (self._lock,)

    def __enter__(self) -> bool:
        return bool(self._lock.__enter__())

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, sleep until notified, acquire it again.

        Args:
            timeout: seconds to sleep at most; None for ever.

        Returns whether it was notified.

        Raises RuntimeError: the lock is not held. OwnerDied: as ``acquire``; the lock is held.
        """
        lock, commons, index = self._lock, self._block.commons, self._block.index
        self._check()
        slot = slot_of(commons)
        self._cells[_TICKET] += 1
        slot.park(index, self._cells[_TICKET])
        slices = Slices(deadline_after(None if timeout is None else max(timeout, 0.0)))
        acted = False
        count = lock.release_all()
        try:
            while not slot.is_rung() and (span := slices.take()):
                slot.bell.acquire(True, span)
                commons.sweep()
        finally:
            try:
                lock.acquire_again(count)
                acted = True
            finally:
                rung = slot.is_rung()
                if rung and not acted:
                    commons.pass_on(slot.number)
                slot.unpark()
        return rung

    def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        """Wait until `predicate()`, called with the lock held, is true; return what it returned.

        Args:
            timeout: seconds in all; then what it returns is returned, true or not.
        """
        deadline = deadline_after(None if timeout is None else max(timeout, 0.0))
        result = predicate()
        while not result:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
            result = predicate()
        return result

    def notify(self, n: int = 1) -> None:
        """Wake `n` of those who wait, the oldest first. Raises RuntimeError: the lock is not
        held."""
        self._check()
        commons = self._block.commons
        for slot in commons.parked(self._block.index)[:n]:
            commons.ring(slot)

    def notify_all(self) -> None:
        """Wake all who wait. Raises RuntimeError: the lock is not held."""
        self.notify(at.THREADS)

    def _check(self) -> None:
        if not self._lock.held():
            raise RuntimeError("the lock of the condition is not held by this thread")
