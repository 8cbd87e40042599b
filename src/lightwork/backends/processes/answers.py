"""What a worker has to say, and when it says it.

A result is *pending* until it is written to the socket. While it is pending it is also in the
journal, so that it survives us - but for a group of tiny calls, which a crash may repeat.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from typing import Any

from ...wire.frames import Outbox
from ...wire.pickling import Packed
from ...wire.segments import Arena
from . import messages
from .messages import APART, ATOM, EXACT, GROUP, Cargo, Results
from .page import FINISHED, IDLE, PHASE, SENDING, SENDING_GROUP, Page

__all__ = ["LOST_PARENT", "Answers"]

FLUSH = 1e-3
"""Seconds that a result may wait for company, where somebody may wait for this very one."""

FLUSH_CHUNK = 20e-3
"""The same for calls of a map. A message costs both sides 0.1 to 0.3 ms, most of it for being
woken: of calls of a millisecond each that would be a tenth and more."""

FLUSH_TINY = 2e-3
"""The same for groups of tiny calls, which a crash may repeat."""

LOST_PARENT = 70
"""Exit code when nobody can be told anything any more (EX_SOFTWARE of <sysexits.h>)."""


class Answers:
    """The way of results to the parent.

    Attributes:
        frames_done: frames that will not be looked at any more.
        freed: segments of the parent's that nothing here looks into; from any thread.
        leased: segments of ours that the parent has.
        last_flush: when everything had been said last, on ``time.monotonic()``.
        patience: FLUSH or FLUSH_CHUNK, by what is run now.
    """

    def __init__(self, outbox: Outbox, shared: Page) -> None:
        self.frames_done = 0
        self.freed: deque[int] = deque()
        self.leased = 0
        self.last_flush = 0.0
        self.patience = FLUSH
        self.arena = Arena()
        self._outbox = outbox
        self._shared = shared
        self._cells = shared.cells
        self._pending: list[tuple[Any, ...]] = []
        self._atoms: list[Any] = []  # results of the calls before `_ended`, not in `_pending` yet;
        self._begun = self._spent = 0.0  # when the first of them started, and how long they took
        self._told = 0  # frames_done, as the parent knows it
        self._ended = 0  # calls below this position have ended

    def add(self, kind: int, flags: int, position: int, started: float, packed: Packed) -> None:
        """The call at `position` has ended. What became of it is sent now, or kept until then."""
        now = time.monotonic()
        item: Any = packed.data
        cargo: Cargo | None = None
        if packed.buffers or len(item) > messages.INLINE:
            cargo = Cargo(self.arena)
            item = cargo.item(packed)
        record = (position, kind, started, now - started, item)
        self.end_group()
        self._pending.append(record)
        self._ended = position + 1
        if cargo is not None or flags & EXACT or now - self.last_flush >= self.patience:
            self.flush(SENDING, cargo)
        elif self._shared.journal(record):
            self._cells[FINISHED] = position + 1
        else:
            self.flush(SENDING)

    def add_atom(self, position: int, flags: int, started: float, value: Any) -> None:
        """The call at `position` has ended with a number or the like. Neighbours form a group."""
        now = time.monotonic()
        seconds = now - started
        if flags & APART:
            self.end_group()
        atoms = self._atoms
        if not atoms:
            self._begun, self._spent = started, 0.0
        atoms.append(value)
        self._spent += seconds
        self._ended = position + 1
        if flags & EXACT or now - self.last_flush >= self.patience:
            self.flush(SENDING)
        elif self._shared.journal((position, ATOM, started, seconds, value)):
            self._cells[FINISHED] = position + 1
        else:
            self.flush(SENDING)

    def say_one(self, position: int, started: float, value: Any) -> None:
        """Say at once that the only call of a frame, which is done, has ended with a number or the
        like."""
        now = time.monotonic()
        record = (position, ATOM, started, now - started, value)
        self._ended = position + 1
        if self._pending or self.freed:
            self._pending.append(record)
            self.flush(SENDING)
            return
        cells = self._cells
        cells[PHASE] = SENDING
        self._told = self.frames_done
        body = messages.small_body((self.frames_done, (), (), (record,)))
        if not self._outbox.send_now(messages.RESULTS, body):
            self._outbox.flush_blocking()
        if self._outbox.broken:
            os._exit(LOST_PARENT)
        cells[FINISHED] = position + 1
        cells[PHASE] = IDLE
        self.last_flush = now

    def end_group(self) -> None:
        """What is added next is no neighbour of what `add_atom` took: a group is of one frame."""
        if not self._atoms:
            return
        atoms, self._atoms = self._atoms, []
        first = self._ended - len(atoms)
        self._pending.append((first, GROUP, self._begun, self._spent, atoms, {}))

    def add_group(
        self, position: int, started: float, values: list[Any], others: dict[int, Any]
    ) -> None:
        """The calls from `position` on have ended, with `values` that are atoms, and `others`."""
        seconds = time.monotonic() - started
        self.end_group()
        self._pending.append((position, GROUP, started, seconds, values, others))
        self._ended = position + len(values)

    def flush_group(self) -> None:
        """Write what there is to say; should we die meanwhile, nobody is to blame."""
        self.flush(SENDING_GROUP)

    def flush(self, phase: int = SENDING, cargo: Cargo | None = None) -> None:
        """Write what there is to say into the socket, however long the parent takes."""
        self.end_group()
        if self._pending or self.freed or self._told != self.frames_done:
            self._cells[PHASE] = phase
            self._write(cargo or Cargo(self.arena))
        # 1. we are killed before the next line: the parent has the results, and sees by their
        #    positions that the call in the page had ended.
        self._cells[FINISHED] = self._ended
        self._shared.clear_journal()
        self._cells[PHASE] = IDLE
        self.last_flush = time.monotonic()

    def _write(self, cargo: Cargo) -> None:
        freed: list[int] = []
        with contextlib.suppress(IndexError):
            while True:
                freed.append(self.freed.popleft())
        self._told = self.frames_done
        self.leased += len(cargo.segments)
        records, self._pending = tuple(self._pending), []
        body = cargo.body(Results(self.frames_done, tuple(freed), cargo.table(), records))
        self._outbox.post(messages.RESULTS, body, cargo.fds)
        self._outbox.flush_blocking()
        if self._outbox.broken:
            os._exit(LOST_PARENT)
