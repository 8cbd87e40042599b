"""What becomes of the locks of a thread that ends, in a process that lives on.

A thread that has taken a lock has a *will*, in its thread-local storage. The interpreter clears
that as the last thing the thread does, in the thread itself, so at that moment the thread's number
is nobody else's: each lock that says it is held by this number was left behind by this thread. It
is handed on as a dead process's would be, to waiters in any process.

To look whether the calling thread has made its will costs more than to take a semaphore, so each
lock keeps, of the latest thread that had it, a function that tells in 0.02 us whether that is the
calling one: the ``_is_mine`` of a semaphore that this thread took, and gives back when it ends.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from . import held
from .living import at_work
from .memory import LocalSemaphore

__all__ = ["make", "nobody"]


class _Will:
    """The will of the calling thread.

    Attributes:
        known: whether the caller is this thread.
    """

    __slots__ = ("_ident", "_mark", "_name", "known")

    def __init__(self) -> None:
        self._ident = threading.get_ident()
        self._name = threading.current_thread().name  # not to be found any more at the end
        self._mark = LocalSemaphore()
        self._mark.sem.acquire(False)
        self.known: Callable[[], bool] = self._mark.sem._is_mine

    def __del__(self, at_work: Callable[[], bool] = at_work) -> None:
        if not at_work():
            return  # the process ends
        if threading.get_ident() != self._ident:
            return  # that of another thread's, which a fork did not copy
        self._mark.sem.release()  # for the number will be another thread's
        for mutex in held.mutexes():
            if mutex.held():
                mutex.leave_behind(os.getpid(), self._name or "?")


class _Local(threading.local):
    will: _Will | None = None


_local = _Local()
_nobody_s = LocalSemaphore()
nobody: Callable[[], bool] = _nobody_s.sem._is_mine
"""What a lock has before any thread had it."""


def make() -> Callable[[], bool]:
    """See that the calling thread has a will; returns what its locks keep of it."""
    will = _local.will
    if will is None:
        will = _local.will = _Will()
    return will.known
