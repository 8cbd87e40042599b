"""What events, semaphores, barriers and conditions have in common: a guard, and threads that sleep.

A thread that has to wait *parks*: it notes in its slot where, with a ticket, and sleeps on its own
bell. There is no list of those who wait, which a death could break: whoever wants to wake somebody
looks through the slots, oldest ticket first.

Each looks again by itself at the end of each slice of its sleep, so what a killed process had
changed without waking anybody is found 200 ms later at most. A thread that was rung and is killed
before it acts passes its turn on (`Commons.pass_on`); so does one that gives up.

The guard protects the object's few words. Every change of them is one store, the last thing before
the ringing: a process that is killed with the guard leaves nothing half done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from . import layout as at
from .blocks import Block, Shared
from .mutex import Slices, deadline_after, new_mutex, old_mutex
from .threads import slot_of

__all__ = ["Monitor"]

_TICKET = at.R_OWN + 13
T = TypeVar("T")


class Monitor(Shared):
    """A shared object whose state is a few words under a guard."""

    def _begin(self, kind: int, *, size: int = 0, name: str = "") -> Block:
        """A new record of that kind, with a guard."""
        block = Block.create(kind, size=size)
        block.name = name
        self._guard = new_mutex(block)
        return block

    def _open(self, *_: object) -> None:
        if not hasattr(self, "_guard"):
            self._guard = old_mutex(self._block, 0)
        self._cells = self._block.cells
        self._index = self._block.index

    def _wait_until(self, ready: Callable[[], T | None], timeout: float | None) -> T | None:
        """Wait until `ready`, called with the guard held, returns something true; return that.

        None after `timeout` seconds.
        """
        guard, commons = self._guard, self._block.commons
        with guard:
            found = ready()
            if found or timeout == 0:
                return found
            slot = slot_of(commons)
            ticket = self._cells[_TICKET] + 1
            self._cells[_TICKET] = ticket
            slot.park(self._index, ticket)
        slices = Slices(deadline_after(timeout))
        found = None
        try:
            while True:
                span = slices.take()
                if span:
                    slot.bell.acquire(True, span)
                commons.sweep()
                with guard:
                    found = ready()
                    if found or not span:
                        return found
                    if slot.is_rung():
                        slot.park(self._index, ticket)
        finally:
            if not found and slot.is_rung():
                commons.pass_on(slot.number)
            slot.unpark()

    def _ring(self, most: int | None = None) -> None:
        """With the guard held: wake those who wait, the oldest first."""
        commons = self._block.commons
        for slot in commons.parked(self._index)[:most]:
            commons.ring(slot)


def remaining(deadline: float | None) -> float | None:
    """Seconds until then; 0 if it has passed, None for never."""
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)
