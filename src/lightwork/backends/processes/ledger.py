"""Which calls a worker has, by their positions: the parent's books of one worker.

Every call that is put into a frame gets a *position*, a number that only grows over the worker's
life. The books turn positions, which are all that the page and the results speak of, back into
tasks; and they decide what is taken back (PROTOCOL.md). They do no I/O but on the page. Not
thread-safe: their channel holds its lock around them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator

from ...core.events import Running
from ..base import Parcel
from .page import FINISHED, LIMIT, LOADING_MANY, PHASE, SINCE, SLOTS, STARTED

__all__ = ["Book", "Frame"]

Taken = list[tuple[int, int, int]]


class Frame:
    """Parcels that were put into one frame.

    Attributes:
        limit: how many of its calls may start, as the page says it.
        keep: how many of its calls the worker has started, or may start: the truth.
    """

    __slots__ = ("at", "at_position", "base", "big", "calls", "keep", "limit", "parcels", "serial")

    def __init__(self, serial: int, base: int, parcels: list[Parcel], big: bool) -> None:
        self.serial = serial
        self.base = base
        self.parcels = parcels
        self.calls = self.limit = self.keep = sum([one.hi - one.lo for one in parcels])
        self.big = big
        self.at = 0  # the first parcel that is not wholly answered,
        self.at_position = base  # and the position of its first call

    def find(self, position: int) -> tuple[Parcel, int] | None:
        """The parcel of a position that is not answered yet, and the position of its first call."""
        first = self.at_position
        for parcel in self.parcels[self.at :]:
            after = first + parcel.hi - parcel.lo
            if position < after:
                return (parcel, first) if position >= first else None
            first = after
        return None

    def spread(self, position: int, calls: int) -> Iterator[tuple[Parcel, int, int]]:
        """Give answered calls to their parcels, as (parcel, lo, hi), and move on."""
        while calls > 0:
            parcel = self.parcels[self.at]
            lo = parcel.lo + position - self.at_position
            if lo >= parcel.hi:
                self.at += 1
                self.at_position += parcel.hi - parcel.lo
                continue
            hi = min(parcel.hi, lo + calls)
            yield parcel, lo, hi
            calls -= hi - lo
            position += hi - lo


class Book:
    """What one worker has, and what it is at."""

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells
        self.waiting: deque[Parcel] = deque()  # not in a frame yet
        self.frames: deque[Frame] = deque()  # that the worker may still look at
        self.frames_done = 0
        self._serial = 0
        self._position = 0
        self.answered_to = 0  # the position behind the last call that was answered
        self.cuts: list[tuple[int, int, int]] = []  # to be told to the worker

    # -- frames ----------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether the worker has calls."""
        return bool(self.frames or self.waiting)

    def room(self) -> bool:
        """Whether a slot is free for another frame."""
        return self._serial - self.frames_done < SLOTS

    def frame(self, parcels: list[Parcel], big: bool) -> Frame:
        """Put parcels into a frame, and open the page's slot for it."""
        frame = Frame(self._serial, self._position, parcels, big)
        self._cells[LIMIT + frame.serial % SLOTS] = 0
        self._serial += 1
        self._position += frame.calls
        self.frames.append(frame)
        return frame

    def done(self, frames_done: int) -> int:
        """The worker will not look at its first `frames_done` frames any more.

        Returns how many of those that it let go were big.
        """
        big = 0
        self.frames_done = max(self.frames_done, frames_done)
        while self.frames and self.frames[0].serial < self.frames_done:
            big += self.frames.popleft().big
        return big

    def answered(self, position: int, calls: int) -> list[tuple[Parcel, int, int]]:
        """These calls were answered: whose they are. Those that had been answered are left out."""
        skip = self.answered_to - position
        if skip > 0:
            position += skip
            calls -= skip
        if calls <= 0:
            return []
        self.answered_to = position + calls
        for frame in self.frames:
            if position < frame.base + frame.calls:
                return list(frame.spread(position, calls))
        return []

    # -- taking back -----------------------------------------------------------------------------

    def take_back(self, task: int, offset: int, barrier: Callable[[], None]) -> Taken:
        """Stop the worker from starting that call and all behind it: see PROTOCOL.md."""
        position = self._find(task, offset)
        if position is None:
            return self._cut_waiting(task, offset)
        taken = self._cut_frames(position, barrier)
        while self.waiting:
            parcel = self.waiting.popleft()
            taken.append((parcel.task, parcel.attempt, parcel.lo))
        return taken

    def _find(self, task: int, offset: int) -> int | None:
        """The position of a call, or where to cut instead: None for among what waits.

        A call that is not here any more was answered, so all that is left is behind it.
        """
        for frame in self.frames:
            first = frame.at_position
            for parcel in frame.parcels[frame.at :]:
                if parcel.task == task and parcel.hi > offset:
                    position = first + max(0, offset - parcel.lo)
                    if position < frame.base + frame.keep:
                        return position
                first += parcel.hi - parcel.lo
        for parcel in self.waiting:
            if parcel.task == task and parcel.hi > offset:
                return None
        return self.answered_to

    def _cut_waiting(self, task: int, offset: int) -> Taken:
        taken: Taken = []
        kept: deque[Parcel] = deque()
        for parcel in self.waiting:
            if not taken and not (parcel.task == task and parcel.hi > offset):
                kept.append(parcel)
                continue
            lo = max(parcel.lo, offset) if not taken else parcel.lo
            if lo > parcel.lo:
                kept.append(parcel._replace(hi=lo))
            taken.append((parcel.task, parcel.attempt, lo))
        self.waiting = kept
        return taken

    def _cut_frames(self, position: int, barrier: Callable[[], None]) -> Taken:
        lowered: list[Frame] = []
        for frame in self.frames:
            limit = max(0, position - frame.base)
            if limit < frame.limit:
                frame.limit = limit
                self._cells[LIMIT + frame.serial % SLOTS] = limit + 1
                lowered.append(frame)
        if not lowered:
            return []
        barrier()
        started = self._cells[STARTED]
        taken: Taken = []
        for frame in lowered:
            before = frame.keep
            keep = max(position, started + 1) - frame.base
            frame.keep = min(before, max(keep, 0))
            self.cuts.append((frame.serial, frame.limit, frame.keep))
            taken += _between(frame, frame.keep, before)
        return taken

    def stop(self, barrier: Callable[[], None]) -> None:
        """Let the worker start nothing more. It will be killed: no cut is told, nothing booked."""
        for frame in self.frames:
            self._cells[LIMIT + frame.serial % SLOTS] = 1
        barrier()

    # -- what it is at ---------------------------------------------------------------------------

    def running(self, phases: frozenset[int], barrier: Callable[[], None]) -> Running | None:
        """The call that the page names, if the worker is in one of these phases of it."""
        cells = self._cells
        for _ in range(3):
            # The time belongs to the call if that is the same before and after, for it is stored
            # first. A worker that has gone on three times meanwhile is not late with any.
            position = cells[STARTED]
            barrier()
            since = cells[SINCE]
            phase = cells[PHASE]
            if cells[STARTED] == position:
                break
        else:
            since = time.monotonic_ns()
        if phase not in phases or position < max(cells[FINISHED], self.answered_to):
            return None
        for frame in self.frames:
            if position >= frame.base + frame.keep:
                continue
            found = frame.find(position)
            if found is None:
                return None
            parcel, first = found
            many = phase == LOADING_MANY and parcel.hi - parcel.lo > 1
            return Running(
                parcel.task,
                parcel.attempt,
                -1 if many else parcel.lo + position - first,
                since / 1e9 if parcel.timed else 0.0,
            )
        return None


def _between(frame: Frame, keep: int, before: int) -> Taken:
    """The tasks of the calls `keep` to `before` of a frame."""
    taken: Taken = []
    first = 0
    for parcel in frame.parcels:
        after = first + parcel.hi - parcel.lo
        cut = max(keep, first)
        if cut < min(before, after):
            taken.append((parcel.task, parcel.attempt, parcel.lo + cut - first))
        first = after
    return taken
