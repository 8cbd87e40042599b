"""The interpreter's lock: whether there is one, and who gets it how fast.

A thread that computes in Python lets go of the lock when another has asked for it for
``sys.getswitchinterval()``, 5 ms by default. Code that waits for sockets lets go of it at each
step, and each time waits those 5 ms to have it back: beside one call that computes, it took 270 ms
to start a worker process, which otherwise takes 10. `Eager` makes the interval short for a while.
"""

from __future__ import annotations

import sys
import threading

__all__ = ["Eager", "eager", "has_gil"]

INTERVAL = 0.5e-3
"""Seconds; to switch takes some 10 us."""


def has_gil() -> bool:
    """Whether this interpreter has a GIL that is on."""
    enabled = getattr(sys, "_is_gil_enabled", None)
    return True if enabled is None else bool(enabled())


class Eager:
    """Lets threads that wait for the GIL have it soon, while anybody wants that.

    If the program sets an interval of its own meanwhile, that one stays.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: dict[object, None] = {}
        self._before = 0.0

    def want(self, who: object) -> None:
        """From now on, for `who`."""
        with self._lock:
            if not self._wanted:
                self._before = sys.getswitchinterval()
                if self._before > INTERVAL:
                    sys.setswitchinterval(INTERVAL)
            self._wanted[who] = None

    def enough(self, who: object) -> None:
        """`who` does not want it any more. May be called at any time."""
        with self._lock:
            if self._wanted.pop(who, self) is self or self._wanted:
                return
            if self._before > INTERVAL and abs(sys.getswitchinterval() - INTERVAL) < 2e-6:
                sys.setswitchinterval(self._before)

    def forget(self) -> None:
        """After a fork, in the child: those who wanted it are not here."""
        self._lock = threading.Lock()
        for who in list(self._wanted):
            self.enough(who)


eager = Eager()
"""The one of this process."""
