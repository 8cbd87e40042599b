"""How many threads pay, found by trying: up while calls end faster, down while it costs nothing.

The model says how many threads could pay, if what the calls wait for (a server, a disk) had no
limit. It has one. So the number is doubled as long as that makes calls end faster, and halved as
long as it does not make them slower. Pure: rates come in, a number comes out.

While the very first call still waits, nobody knows whether it will compute afterwards, as one that
fetches a page and then parses it; a hundred such calls would then stand in line for the GIL. So
their number grows with the time for which the first one has been waiting (`Start`).
"""

from __future__ import annotations

__all__ = ["Climb", "Start"]

RISE = 1.15
"""How many times as fast calls must end for more threads to be kept."""

SAME = 0.93
"""How many times as fast calls may end at least for fewer threads to be kept."""


FULL = 0.8
"""Share of what as many calls would give that do not disturb each other: so near to it, fewer
threads would only be slower, and need not be tried."""


class Climb:
    """The search for one function.

    Args:
        level: threads to begin with.
        most: threads at most.
        least: threads at least.

    `level` is how many threads to use now; `steady`, whether the search is over.
    """

    def __init__(self, level: int, most: int, least: int = 1) -> None:
        self.level = level
        self.steady = False
        self._most = max(level, most)
        self._least = min(level, least)
        self._kept = level
        self._rate: float | None = None  # at the level that was kept
        self._up = True
        self._moved = False

    def seen(self, rate: float, ideal: float) -> int:
        """Calls ended at this `rate` with `level` threads, all at work; return the next level.

        `ideal`: the rate at which they would end if each took as long as it does alone.
        """
        if self.steady:
            return self.level
        if self._rate is None:
            self._rate = rate
        elif rate >= self._rate * (RISE if self._up else SAME):
            self._kept, self._rate, self._moved = self.level, rate, True
        elif self._up and not self._moved:
            self._up = False
        else:
            self._rest()
            return self.level
        if self._up:
            self.level = min(self._most, 2 * self._kept)
            if self.level > self._kept:
                return self.level
            self._up = False
        if (self._moved and self._kept >= self._most) or self._rate >= FULL * ideal:
            self._rest()
            return self.level
        self.level = max(self._least, self._kept // 2)
        if self.level == self._kept:
            self._rest()
        return self.level

    def _rest(self) -> None:
        self.level, self.steady = self._kept, True


GROW = 10e-3
"""Seconds that the first call has waited, for each thread."""

IDLE = 0.2
"""Share of a core up to which the call is taken to wait."""

BUSY = 0.5
"""Share of a core from which on somebody in this process is taken to compute: what looks like
waiting may be for the GIL."""


class Start:
    """How many threads there are to be while the first call still waits.

    Args:
        most: threads at most.

    `level` is how many there are to be now; `waited`, for how many seconds it has been waiting.
    """

    def __init__(self, most: int) -> None:
        self.level = 1
        self.waited = 0.0
        self._most = most
        self._seen = (0.0, 0.0, 0.0)

    @property
    def full(self) -> bool:
        """Whether there are as many as there may be."""
        return self.level >= self._most

    def seen(self, wall: float, cpu: float, process: float) -> int:
        """The call goes on, for `wall` seconds now, `cpu` of them on a core; return the level.

        `process`: seconds of a core that all of this process has used meanwhile.
        """
        before, self._seen = self._seen, (wall, cpu, process)
        took = wall - before[0]
        if cpu - before[1] < IDLE * took and process - before[2] < BUSY * took:
            self.waited += took
            self.level = max(self.level, min(int(self.waited / GROW), self._most))
        return self.level

    def misled(self, cpu: float) -> bool:
        """Whether it has computed for so long since, `cpu` seconds, that beside others like it its
        figures are wrong: it may be faster in a process."""
        return self.level > 1 and cpu > self.waited / 2
