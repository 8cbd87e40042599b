"""`Lock` and `RLock`."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..errors import OwnerDied
from . import layout as at
from . import wills
from .blocks import Block, Shared
from .kinds import K_MUTEX
from .living import at_work
from .mutex import Mutex
from .threads import slot_of

__all__ = ["Lock", "RLock"]


class _Lock(Mutex, Shared):
    """What both have in common: a mutex that is an object of its own."""

    __slots__ = ("_known",)
    _face = 0

    def __init__(self, name: str = "") -> None:
        block = Mutex.make(Block.create(K_MUTEX))
        block.cells[at.R_FACE] = self._face
        block.name = name
        self._made(block)

    def _open(self, *_: object) -> None:
        self._known = wills.nobody
        Mutex.__init__(self, self._block)

    def _have(self) -> bool:
        super()._have()
        self._known = wills.make()
        return True

    def _take_over(self) -> None:
        what = f"the process that held {self!r} died with it"
        if pid := self.cells[at.R_LEFT_PID]:
            thread = self._block.text(at.R_LEFT_BY, at.R_LEFT_BY_BYTES)
            if thread:
                what = f"thread {thread!r} of process {pid} ended while it held {self!r}"
            else:
                what = f"process {pid} held {self!r}, and let go of its last reference to it"
        raise OwnerDied(f"{what}; you hold it now, and what it guards may be half changed")

    def __enter__(self) -> bool:
        try:
            return self.acquire()
        except OwnerDied:
            # __exit__ will not be called: leave it to be found like this by the next one.
            self.abandon()
            raise

    def __exit__(self, *_: object) -> None:
        self.release()

    def release_all(self) -> int:
        """Give it back altogether; returns how often it had been acquired."""
        self.release()
        return 1

    def acquire_again(self, count: int) -> None:
        """Undo `release_all`. Raises as `acquire` does; of a circle, others are told first."""
        slot = slot_of(self.block.commons)
        slot.firm = True
        try:
            self.acquire()
        finally:
            slot.firm = False
            if self.held():
                for _ in range(count - 1):
                    self._enter(False)

    def abandon(self) -> None:
        """Release the lock as if its holder had died: the next one to acquire it gets `OwnerDied`.

        For a holder that cannot repair what the lock guards. Raises RuntimeError as `release` does.
        """
        if not self.held():
            raise RuntimeError("only the thread that holds a lock can abandon it")
        self.leave_behind(0, "")

    def __del__(self, at_work: Callable[[], bool] = at_work) -> None:
        # Held, and nobody here can release it any more. (When a process ends, others find out.)
        if getattr(self, "_held", False) and at_work() and self.block.commons.pid == os.getpid():
            self.leave_behind(os.getpid(), "")


class Lock(_Lock):
    """A lock between threads and between processes; used as `threading.Lock` is.

    Args:
        name: for error messages; shortened to 32 bytes.

    An uncontended acquire and release take 0.2 us together (`benchmarks/share.py`).

    If the process or the thread that holds it dies, the next ``acquire`` raises `OwnerDied` *and
    holds the lock*::

        try:
            lock.acquire()
        except OwnerDied:
            repair()  # what the lock guards may be half changed; nobody else is in it
        try:
            ...
        finally:
            lock.release()

    ``with lock:`` raises `OwnerDied` and does not hold it; so does everyone's ``with``, until
    somebody repairs, as above. A program that has nothing to repair says so with
    ``contextlib.suppress(OwnerDied)`` around ``acquire``.

    Waiting in a circle raises `DeadlockError` in one of those who wait, also for one thread that
    acquires a lock twice. A wait with a time limit is in no circle, since it ends.

    It may be released by any thread of the process that holds it, as a `threading.Lock` may, but by
    no other process. A thread that ends without releasing it is as a process that dies: the next
    ``acquire``, wherever, raises `OwnerDied`, which names the thread. So is a process that lets go
    of its last reference to a lock that it holds. In a copy of the process (``os.fork``) it is not
    held.
    """

    __slots__ = ()
    _face = 1

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take the lock; wait for it if it is held.

        Args:
            blocking: whether to wait.
            timeout: seconds to wait at most; None or a negative number: for ever.

        Returns whether it was taken: False only without waiting or after the time limit.

        Raises OwnerDied: its holder died; it is taken. DeadlockError: it never could be.
        """
        # As Mutex.acquire, but for the will: a call of that would cost a quarter of the time.
        try:
            enter = self._enter
            if enter(False):
                take = self._take
                if take(False):
                    self._held = True
                    known = self._known
                    if not known():
                        self._known = wills.make()
                    return True
                return self._acquire_slowly(True, blocking, timeout)
        except BaseException:
            self._undo()
            raise
        return self._acquire_slowly(False, blocking, timeout)


class RLock(_Lock):
    """A lock that the thread that holds it can acquire again; used as `threading.RLock` is.

    See `Lock`: all that is said there holds, but that it is released by its own thread only, as
    often as it was acquired.
    """

    __slots__ = ()
    _face = 2
    recursive = True

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """As `Lock.acquire`; at once for the thread that holds it."""
        try:
            enter = self._enter
            if enter(False):
                if self._held:
                    return True  # the local semaphore let us in again, so it is we who hold it
                take = self._take
                if take(False):
                    self._held = True
                    known = self._known
                    if not known():
                        self._known = wills.make()
                    return True
                return self._acquire_slowly(True, blocking, timeout)
        except BaseException:
            self._undo()
            raise
        return self._acquire_slowly(False, blocking, timeout)

    def release(self) -> None:
        """Give it back once. Raises RuntimeError: the calling thread does not hold it."""
        if not self._mine() or not self._held:
            raise RuntimeError("release of a lock that this thread does not hold")
        if self._count() > 1:
            self._leave()
        else:
            super().release()

    def release_all(self) -> int:
        """Give it back altogether; returns how often it had been acquired."""
        count: int = self._count()
        for _ in range(count):
            self.release()
        return count
