"""Deadlines: one heap of timers for delayed attempts, time limits, silences and workers' lives.

A timer is ``(at, kind, number)``. Nobody takes timers out before they are due: whoever no longer
needs one counts it as stale, and at its time it finds nothing to do. When most are stale, the
heap is sifted, so that it stays as small as what is going on.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush

__all__ = ["CHECK", "IDLE_LONG", "QUIET", "RETRY", "START", "Timer", "Timers"]

RETRY = 0  # the task `number` is ready for its next attempt
CHECK = 1  # the worker `number` may have a call over its time limit
QUIET = 2  # the worker `number` may have been silent for too long
IDLE_LONG = 3  # some worker may have been idle for too long
START = 4  # workers may be started again after failures

Timer = tuple[float, int, int]

STALE_KEPT = 64
"""Stale timers that may lie about before anybody looks at their share. Arbitrary."""


class Timers:
    """A heap of timers."""

    __slots__ = ("_heap", "_needed", "stale")

    def __init__(self, needed: Callable[[Timer], bool]) -> None:
        self._heap: list[Timer] = []
        self._needed = needed
        self.stale = 0

    def set(self, at: float, kind: int, number: int = 0) -> None:
        """Be told at time `at`."""
        heappush(self._heap, (at, kind, number))

    def outdated(self, timers: int = 1) -> None:
        """So many timers in the heap are not needed any more."""
        self.stale += timers
        if self.stale > STALE_KEPT and self.stale * 2 > len(self._heap):
            self._heap = [timer for timer in self._heap if self._needed(timer)]
            heapify(self._heap)
            self.stale = 0

    def next(self) -> float | None:
        """The time of the earliest timer, needed or not."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[Timer]:
        """Take out the timers that are due; of those, the needed ones."""
        heap, due = self._heap, []
        while heap and heap[0][0] <= now:
            timer = heappop(heap)
            if self._needed(timer):
                due.append(timer)
            elif self.stale:
                self.stale -= 1
        return due

    def __contains__(self, wanted: tuple[int, int]) -> bool:
        """Whether there is a timer of this kind and number. Slow; for checks."""
        return any((kind, number) == wanted for _, kind, number in self._heap)

    def __len__(self) -> int:
        return len(self._heap)
