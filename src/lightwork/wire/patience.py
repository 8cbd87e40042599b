"""Waiting awake for a moment, where that pays.

Putting a thread to sleep and waking it again costs 30 to 100 us, most of it in the kernel (and, in
a virtual machine, in the host), on both sides: the one who wakes pays too. Where an answer comes
sooner than that, as in submit, result, submit, result ..., it is cheaper to look again and again.
Where it does not, looking is a waste, and takes a core from whoever works. So nobody looks awake
who has not just seen answers come that fast, and never for longer than `AWAKE`.

The idea is old: see Karlin, Manasse, McGeoch and Owicki, "Competitive randomized algorithms for
non-uniform problems" (1990): to spin for as long as a block costs is at worst twice as dear as the
best of both.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["AWAKE", "Patience"]

AWAKE = 100e-6
"""Seconds that are waited awake at most."""

ENOUGH = 2
"""Short waits in a row before the next is begun awake."""

Found = TypeVar("Found")


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


class Patience:
    """How one waiter has fared. Used by one thread at a time."""

    __slots__ = ("_can", "_short")

    def __init__(self) -> None:
        self._short = 0
        self._can = _cores() > 1  # else who answers needs the core that we look on

    def wait(self, look: Callable[[float | None], Found], timeout: float | None) -> Found:
        """What ``look(timeout)`` finds; it is asked with 0 first, for a while, if that may pay.

        `look` waits up to so many seconds (None: for ever), and returns something false if there
        was nothing.
        """
        begin = now = time.monotonic()
        if self._short >= ENOUGH and self._can:
            awake = AWAKE if timeout is None else min(AWAKE, timeout)
            ends = begin + awake
            while now < ends:
                found = look(0)
                if found:
                    return found
                now = time.monotonic()
            self._short = 0
            return look(None if timeout is None else max(0.0, timeout - awake))
        found = look(timeout)
        if time.monotonic() - begin < AWAKE:
            self._short += 1
        else:
            self._short = 0
        return found
