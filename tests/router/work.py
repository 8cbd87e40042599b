"""What the router's tests run: functions of known kinds. By name, so that processes import them."""

from __future__ import annotations

import hashlib
import os
import time

from lightwork import current_task


def spin(seconds: float) -> int:
    """Compute in Python for so much time of a core; return the process that did."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return os.getpid()


def nap(seconds: float) -> int:
    """Wait; return the process that did."""
    time.sleep(seconds)
    return os.getpid()


def digest(data: bytes) -> str:
    """Compute without the GIL."""
    return hashlib.sha256(data).hexdigest()


def bump(n: int) -> int:
    """As little as a call can do."""
    return n + 1


def where(n: int) -> tuple[int, int]:
    """The index of the call, as it knows it itself."""
    return n, current_task().index


def roll(n: int) -> tuple[int, float]:
    """A random number of the call's own; long enough to be worth a process."""
    spin(0.004)
    return n, current_task().rng.random()


def fail_on_three(n: int) -> int:
    """Raises for one item."""
    spin(0.002)
    if n == 3:
        raise ValueError("three")
    return n
