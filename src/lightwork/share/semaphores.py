"""`Semaphore` and `BoundedSemaphore`.

Beside the capacity there is one number for each process: the permits that it has. What is free is
the capacity less their sum; so acquiring and releasing is one store each, and what a dead process
had is given back by setting its number to zero.
"""

from __future__ import annotations

from . import layout as at
from .commons import Commons
from .kinds import K_SEMAPHORE
from .memory import Mapping
from .monitor import Monitor

__all__ = ["BoundedSemaphore", "Semaphore", "bury_permits"]

_CAPACITY, _COUNTS_EVENTS = at.R_OWN, at.R_OWN + 1


class Semaphore(Monitor):
    """A number of permits, for threads and processes; used as `threading.Semaphore` is.

    Args:
        value: how many there are at first.
        name: for error messages.

    Permits that a process has acquired and not released are given back when it ends, however it
    ends. That is right for guarding resources. If a process ever releases more than it acquired,
    the semaphore counts events rather than resources, and from then on a death gives nothing back.

    An acquire and release take some 4 us together.
    """

    _bounded = False

    def __init__(self, value: int = 1, name: str = "") -> None:
        if value < 0:
            raise ValueError("the initial value of a semaphore must not be negative")
        block = self._begin(K_SEMAPHORE, size=at.PROCESSES * 8, name=name)
        block.cells[_CAPACITY] = value
        self._made(block)

    def _open(self, *_: object) -> None:
        super()._open()
        self._permits = self._block.body.view.cast("q")
        self._commons = self._block.commons

    def _free(self) -> int:
        used = self._commons.header[at.H_PROCESSES]
        free: int = self._cells[_CAPACITY] - sum(self._permits[:used].tolist())
        return free

    def _take(self) -> bool:
        if self._free() <= 0:
            return False
        self._permits[self._commons.me] += 1
        return True

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take a permit; wait for one if there is none.

        Args:
            blocking: whether to wait.
            timeout: seconds to wait at most; None for ever.

        Returns whether it was taken.
        """
        if not blocking:
            if timeout is not None:
                raise ValueError("a time limit for a call that does not wait")
            timeout = 0
        limit = None if timeout is None else max(timeout, 0.0)
        return bool(self._wait_until(self._take, limit))

    def release(self, n: int = 1) -> None:
        """Give `n` permits back, and wake as many who wait.

        Raises ValueError: `n` is less than one; or, if bounded, there would be more than at first.
        """
        if n < 1:
            raise ValueError("n must be one or more")
        with self._guard:
            if self._bounded and self._free() + n > self._cells[_CAPACITY]:
                raise ValueError("semaphore released too many times")
            me = self._commons.me
            if self._permits[me] < n:
                self._cells[_COUNTS_EVENTS] = 1
            self._permits[me] -= n
            self._ring(n)

    def get_value(self) -> int:
        """How many permits are free now."""
        with self._guard:
            return self._free()

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()


class BoundedSemaphore(Semaphore):
    """A `Semaphore` that can never have more permits than at first."""

    _bounded = True


def bury_permits(commons: Commons, index: int, process: int, dead: list[int]) -> bool:
    """Give back what a dead process had; see `Commons.sweep`."""
    begin = index * at.R_WORDS
    cells = commons.records[begin : begin + at.R_WORDS]
    if not cells[_COUNTS_EVENTS]:
        extent = Mapping(commons.fd, cells[at.R_SIZE], cells[at.R_EXTENT])
        permits = extent.view.cast("q")
        if permits[process]:
            permits[process] = 0
            for slot in commons.parked(index):
                commons.ring(slot)
    return True
