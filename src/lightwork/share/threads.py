"""What a thread tells the other processes of itself: its slot in the commons.

A thread gets a slot when it has to wait for the first time, and gives it back when it ends. The
slot says what it waits for, and since when it has not got it; later, for the report of a deadlock,
also what it holds and where in the code it is.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from .. import current
from . import layout as at
from .commons import Commons
from .living import milliseconds
from .memory import make_semaphore, open_semaphore

__all__ = ["Slot", "slot_of"]


class Slot:
    """The slot of the calling thread.

    Attributes:
        number: which.
        cells: its words.
        bell: what it sleeps on while it is parked.
        firm: whether others in a circle are to be told of it first.
    """

    __slots__ = (
        "__weakref__", "_begin", "_published", "bell", "cells", "commons", "firm",
        "number", "pid",
    )  # fmt: skip

    def __init__(self, commons: Commons) -> None:
        self.commons = commons
        self.pid = commons.pid
        with commons:
            self.number = _free_slot(commons)
            begin = self.number * at.T_WORDS
            self.cells = commons.threads[begin : begin + at.T_WORDS]
            for word in range(at.T_WAITS, at.T_WORDS):
                if word != at.T_SEQUENCE:  # never the same twice, whoever has the slot
                    self.cells[word] = 0
            self.cells[at.T_PROCESS] = commons.me
            address = commons.address + at.THREADS_AT + (begin + at.T_BELL) * 8
            make_semaphore(address, 0)
            self.cells[at.T_STATE] = at.T_USED
        self.bell = open_semaphore(address)
        self._begin = begin * 8
        self._published = False
        self.firm = False

    # -- waiting for a mutex: see `mutex` --------------------------------------------------------

    def wait_for(self, index: int, flags: int) -> None:
        """Note what this thread waits for from now on."""
        cells = self.cells
        cells[at.T_PUBLISHED] = 0
        cells[at.T_SEQUENCE] += 1
        cells[at.T_SLICES] = milliseconds()
        cells[at.T_FLAGS] = flags
        cells[at.T_WAITS] = index + 1

    def still_without(self) -> None:
        """Note that at this moment it has not got what it waits for."""
        self.cells[at.T_SLICES] = milliseconds()

    def got(self) -> None:
        """It waits no more."""
        self.cells[at.T_WAITS] = 0

    def publish(self, holds: list[int]) -> None:
        """Tell who this is, where, and which locks it holds; for `deadlock`."""
        cells = self.cells
        cells[at.T_PUBLISHED] = 0
        held = holds[: at.T_MOST_HELD - 1]
        for place, index in enumerate((*held, -1)):
            cells[at.T_HOLDS + place] = index + 1
        if not self._published:  # for this wait
            self._text(at.T_WHERE, at.T_WHERE_BYTES, _where())
            self._text(at.T_NAME, at.T_NAME_BYTES, threading.current_thread().name)
            self._text(at.T_TASK, at.T_TASK_BYTES, _task())
            self._published = True
        cells[at.T_PUBLISHED] = milliseconds()

    def begin(self) -> None:
        """A new wait begins."""
        self._published = False

    def _text(self, word: int, size: int, text: str) -> None:
        start = self._begin + word * 8
        raw = text.encode()[: size - 1].ljust(size, b"\0")
        self.commons.thread_bytes[start : start + size] = raw

    # -- parking: see `monitor` ------------------------------------------------------------------

    def park(self, index: int, ticket: int) -> None:
        """Note that this thread is about to sleep until it is rung."""
        while self.bell.acquire(False):
            pass  # of an earlier time: rung just when it gave up
        cells = self.cells
        cells[at.T_RUNG] = 0
        cells[at.T_TICKET] = ticket
        cells[at.T_PARKED] = index + 1

    def is_rung(self) -> bool:
        """Whether somebody has woken it."""
        return bool(self.cells[at.T_RUNG])

    def unpark(self) -> None:
        """It does not sleep any more."""
        self.cells[at.T_PARKED] = 0

    def __del__(self) -> None:
        # The thread has ended, or this is the copy of another process's.
        cells = getattr(self, "cells", None)
        if cells is not None and self.pid == os.getpid():
            cells[at.T_WAITS] = 0
            cells[at.T_PARKED] = 0
            cells[at.T_STATE] = at.T_FREE


def _free_slot(commons: Commons) -> int:
    for swept in (False, True):
        used = commons.header[at.H_THREADS]
        states = commons.threads[at.T_STATE :: at.T_WORDS][:used].tolist()
        if at.T_FREE in states:
            return states.index(at.T_FREE)
        if used < at.THREADS:
            commons.header[at.H_THREADS] = used + 1
            return used
        if not swept:
            commons._sweep()
    raise OSError(f"more than {at.THREADS} threads at a time wait for shared objects")


_local = threading.local()


def slot_of(commons: Commons) -> Slot:
    """The calling thread's slot."""
    slots: dict[int, Slot] | None = getattr(_local, "slots", None)
    if slots is None:
        slots = _local.slots = {}
    slot = slots.get(commons.number)
    if slot is None or slot.pid != commons.pid:
        slot = slots[commons.number] = Slot(commons)
    return slot


_OURS = os.path.dirname(__file__)


def _where() -> str:
    """The line of code outside of this package that the calling thread is in."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    if frame is None:
        return ""
    code = frame.f_code
    place = f"{code.co_filename}:{frame.f_lineno} in {code.co_name}"
    return place if len(place) < at.T_WHERE_BYTES else "..." + place[4 - at.T_WHERE_BYTES :]


def _task() -> str:
    """The call of a pool's that the thread runs."""
    try:
        task = current.current_task()
    except RuntimeError:
        return ""
    return f"call {task.index}, attempt {task.attempt}, worker {task.worker}"
