"""`Event`."""

from __future__ import annotations

from . import layout as at
from .kinds import K_EVENT
from .monitor import Monitor

__all__ = ["Event"]

_SET = at.R_OWN


class Event(Monitor):
    """A flag that threads and processes can wait for; used as `threading.Event` is.

    Args:
        name: for error messages.

    ``is_set`` costs 0.1 us, ``set`` some 2 us. A process that dies leaves it as it was.
    """

    def __init__(self, name: str = "") -> None:
        self._made(self._begin(K_EVENT, name=name))

    def is_set(self) -> bool:
        """Whether the flag is set."""
        return bool(self._cells[_SET])

    def set(self) -> None:
        """Set the flag, and wake all who wait for it."""
        with self._guard:
            self._cells[_SET] = 1
            self._ring()

    def clear(self) -> None:
        """Reset the flag."""
        with self._guard:
            self._cells[_SET] = 0

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the flag is set, for `timeout` seconds at most; return whether it is."""
        if self._cells[_SET]:
            return True
        limit = None if timeout is None else max(timeout, 0.0)
        return bool(self._wait_until(self.is_set, limit))
