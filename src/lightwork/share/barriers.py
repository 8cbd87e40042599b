"""`Barrier`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from . import layout as at
from .kinds import K_BARRIER
from .monitor import Monitor
from .mutex import Slices, deadline_after
from .threads import Slot, slot_of

__all__ = ["Barrier"]

# Words. A *round* ends when all have come, or when it is broken; its number goes up by one then.
_PARTIES, _ROUND, _ARRIVED, _BROKEN = at.R_OWN, at.R_OWN + 1, at.R_OWN + 2, at.R_OWN + 3
# How the last four rounds ended: their numbers, times two, plus one if it was broken.
_ENDS, _MOST_ENDS = at.R_OWN + 4, 4


class Barrier(Monitor):
    """Threads and processes that wait until all have come; used as `threading.Barrier` is.

    Args:
        parties: how many.
        action: called by the last one that comes, before the others go on. It travels with the
            barrier, so processes need one that can be pickled.
        timeout: seconds that ``wait`` waits at most, where it is not told.
        name: for error messages.

    If a process dies inside, the others get `threading.BrokenBarrierError`, since not all can come
    any more; ``reset`` makes it usable again.
    """

    def __init__(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        name: str = "",
    ) -> None:
        if parties < 1:
            raise ValueError("a barrier needs one party or more")
        block = self._begin(K_BARRIER, name=name)
        block.cells[_PARTIES] = parties
        self._made(block, action, timeout)

    def _open(self, *extra: Any) -> None:
        super()._open()
        self._guard.repair = self._break  # whoever was in here when it died, not all can come
        self._action, self._timeout = extra

    def _extra(self) -> tuple[Any, ...]:
        return self._action, self._timeout

    @property
    def parties(self) -> int:
        """How many must come."""
        return int(self._cells[_PARTIES])

    @property
    def n_waiting(self) -> int:
        """How many have come."""
        return int(self._cells[_ARRIVED])

    @property
    def broken(self) -> bool:
        """Whether it is broken."""
        return bool(self._cells[_BROKEN])

    def wait(self, timeout: float | None = None) -> int:
        """Wait until all have come; return a number from 0 to parties - 1, each once.

        Args:
            timeout: seconds to wait at most; then the barrier is broken. None: as it was made.

        Raises threading.BrokenBarrierError: it is, or was while we waited.
        """
        deadline = deadline_after(self._timeout if timeout is None else max(timeout, 0.0))
        cells = self._cells
        with self._guard:
            if cells[_BROKEN]:
                raise threading.BrokenBarrierError
            round_, place = cells[_ROUND], cells[_ARRIVED]
            if place + 1 == cells[_PARTIES]:
                self._complete(round_)
                return int(place)
            slot = slot_of(self._block.commons)
            slot.park(self._index, round_)
            cells[_ARRIVED] = place + 1
        ended = False
        try:
            self._sleep(slot, round_, Slices(deadline))
            ended = True
        finally:
            if not ended:
                with self._guard:
                    if cells[_ROUND] == round_:
                        self._break()
            slot.unpark()
        return int(place)

    def _complete(self, round_: int) -> None:
        """The last one has come."""
        if self._action is not None:
            try:
                self._action()
            except BaseException:
                self._break()
                raise
        self._end(round_, broken=False)

    def _sleep(self, slot: Slot, round_: int, slices: Slices) -> None:
        cells, commons = self._cells, self._block.commons
        while True:
            span = slices.take()
            if span:
                slot.bell.acquire(True, span)
            commons.sweep()
            with self._guard:
                if cells[_ROUND] != round_:
                    if self._was_broken(round_):
                        raise threading.BrokenBarrierError
                    return
                if cells[_BROKEN]:
                    raise threading.BrokenBarrierError
                if not span:
                    self._break()
                    raise threading.BrokenBarrierError
                # The slots of the dead are cleared: then fewer are parked than have come.
                if len(commons.parked(self._index)) < cells[_ARRIVED]:
                    self._break()
                    raise threading.BrokenBarrierError("a process that waited here has died")

    def reset(self) -> None:
        """Begin anew; those who wait get BrokenBarrierError."""
        with self._guard:
            self._end(self._cells[_ROUND], broken=self._cells[_ARRIVED] > 0)
            self._cells[_BROKEN] = 0

    def abort(self) -> None:
        """Break it: all who wait, and all who come until ``reset``, get BrokenBarrierError."""
        with self._guard:
            self._break()

    def _break(self) -> None:
        self._cells[_BROKEN] = 1
        self._ring()

    def _end(self, round_: int, *, broken: bool) -> None:
        self._cells[_ENDS + round_ % _MOST_ENDS] = round_ * 2 + broken
        self._cells[_ARRIVED] = 0
        self._cells[_ROUND] = round_ + 1
        self._ring()

    def _was_broken(self, round_: int) -> bool:
        return bool(self._cells[_ENDS + round_ % _MOST_ENDS] == round_ * 2 + 1)
