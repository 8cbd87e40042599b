"""How long a thread was on a core, and how long it would have liked to be.

A call that gets no core since other programs have them all looks, by wall and CPU time alone, like
one that waits for the network. Linux tells the two apart: ``/proc/self/task/<tid>/schedstat`` has
the nanoseconds that a thread ran, and those that it was runnable and waited for a core (the
kernel's ``Documentation/scheduler/sched-stats.rst``). Elsewhere only the CPU time is known.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time

__all__ = ["ThreadClock"]


class ThreadClock:
    """The clocks of the thread that makes it. Any thread may read them; `close` it after use."""

    def __init__(self) -> None:
        self._fd = -1
        self._clock: int | None = None
        if hasattr(time, "pthread_getcpuclockid"):
            self._clock = time.pthread_getcpuclockid(threading.get_ident())
        with contextlib.suppress(OSError):
            path = f"/proc/self/task/{threading.get_native_id()}/schedstat"
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def cpu(self) -> float:
        """Seconds on a core. Raises OSError if the thread has ended.

        Not from schedstat, which is behind by up to a tick for a thread that runs.
        """
        return time.thread_time() if self._clock is None else time.clock_gettime(self._clock)

    def waited(self) -> float:
        """Seconds for which it could have run, and had no core; 0 where nobody counts them."""
        if self._fd < 0:
            return 0.0
        try:
            return int(os.pread(self._fd, 96, 0).split()[1]) * 1e-9
        except (OSError, IndexError, ValueError):
            return 0.0  # the thread has ended

    def close(self) -> None:
        """Give the descriptor back. May be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close
