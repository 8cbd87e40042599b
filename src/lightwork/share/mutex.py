"""The mutex that everything here is built on, and its protocol.

Two semaphores: a *local* one among the threads of this process, then the *shared* one, for which
at most one thread of each process competes. The local ones lie in the commons, too, though each is
used by one process alone: whoever looks sees by its value that this process has a thread *here*.
So::

    acquire                              release
      a  local.acquire                     e  held = False
      b  shared.acquire                    f  shared.release
      c  held = True (this process)        g  local.release
      d  return

An uncontended pair is four calls into C: 0.15 us, where the bare semaphore of `multiprocessing`
takes a quarter of that. There is no note of the *thread*, which would cost as much again: one that
wants to know what it holds asks the local semaphore objects, which know, when it has to wait.

Killed in between
    * before a, or after g: nobody notices.
    * a to b, f to g: its local semaphore is taken, and the shared one is free, or is with another.
      `burial` finds out, and only puts the local one right.
    * b to f: the shared semaphore is with the dead. A waiter's sweep sees the local semaphore of a
      process that is not alive, proves that nobody alive has the shared one (`burial` says how),
      and *parks* it: the word DEAD is set, the semaphore stays taken. Whoever waits claims it by
      clearing the word under the administrative lock: its own local semaphore is taken by then, so
      the same holds if it is killed itself. It is told that the data may be half changed.
    * a waiter: it is here, but its slot says that it waits. Killed, it takes nothing along.

Ctrl-C can raise KeyboardInterrupt between any two of a to g in the main thread. Both semaphore
objects count what this process took, so what had happened is known, and is undone or finished.

Waiters sleep in slices of 20 to 200 ms, and look around in between: for the dead, for the end of
their time, and for a circle (`deadlock`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from . import deadlock, held
from . import layout as at
from .blocks import Block
from .kinds import K_MUTEX
from .memory import make_semaphore, open_semaphore
from .threads import Slot, slot_of

__all__ = ["Mutex", "Slices", "deadline_after"]

_SPINS = 30
"""Tries before a wait: a holder in another process that only changes a few words is done in less
than the 70 us that it takes to be woken."""


def deadline_after(timeout: float | None) -> float | None:
    """The moment, by `time.monotonic`, at which a time limit has passed; None for never.

    A negative limit means none, as for `threading.Lock`.
    """
    if timeout is None or timeout < 0:
        return None
    return time.monotonic() + timeout


class Slices:
    """How long to sleep, again and again, until a moment."""

    __slots__ = ("_deadline", "_next")

    def __init__(self, deadline: float | None) -> None:
        self._deadline = deadline
        self._next = 0.02

    def take(self) -> float:
        """Seconds to sleep now; 0 when the time is over."""
        span = self._next
        self._next = min(span * 2, 0.2)
        if self._deadline is not None:
            span = min(span, self._deadline - time.monotonic())
        return max(span, 0.0)


class Mutex:
    """Mutual exclusion between all threads of all processes that have it. Not reentrant.

    Args:
        block: the record, with nothing in it but this; `make` prepares it.
        repair: called with the mutex held when it was taken over from a process that died with it.

    May be released by any thread of the process that holds it.
    """

    __slots__ = (
        "__weakref__", "_block", "_count", "_enter", "_give", "_held", "_leave", "_local",
        "_mine", "_shared", "_take", "block", "cells", "family",
        "index", "repair",
    )  # fmt: skip
    recursive = False

    def __init__(self, block: Block, repair: Callable[[], None] | None = None) -> None:
        self.block = block
        self.index = block.index
        self.family = block.commons.number
        self.cells = block.cells
        self.repair = repair
        self._begin()
        held.register(self)

    @staticmethod
    def make(block: Block) -> Block:
        """Prepare a new record to be a mutex."""
        make_semaphore(block.address + at.R_SEM * 8, 1)
        return block

    def _begin(self) -> None:
        """What belongs to this process alone; anew after a fork."""
        address = self.block.commons.local_address(self.index)
        make_semaphore(address, 1)
        local = open_semaphore(address, recursive=self.recursive)
        self._enter, self._leave = local.acquire, local.release
        self._mine, self._count = local._is_mine, local._count
        self._held = False
        self._use_shared()

    def after_fork(self) -> None:
        """In a copy of another process: what that holds is not ours."""
        self._begin()

    def _use_shared(self) -> None:
        self._shared = open_semaphore(self.block.address + at.R_SEM * 8)
        self._take, self._give = self._shared.acquire, self._shared.release

    # -- the way that costs next to nothing ------------------------------------------------------

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take it; see the subclasses. Returns whether it could be had in time."""
        try:
            enter = self._enter
            if enter(False):
                take = self._take
                if take(False):
                    self._held = True
                    return True
                return self._acquire_slowly(True, blocking, timeout)
        except BaseException:
            self._undo()
            raise
        return self._acquire_slowly(False, blocking, timeout)

    def release(self) -> None:
        """Give it back. Raises RuntimeError: this process does not hold it."""
        if not self._held:
            raise RuntimeError("release of a lock that this process does not hold")
        try:
            give, leave = self._give, self._leave  # faster by name than as methods of self
            self._held = False
            give()
            leave()
        except BaseException:
            self._finish()
            raise

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def take_if_free(self) -> bool:
        """Take it, if that needs neither waiting nor a look for the dead. Nests if it is
        recursive."""
        try:
            if self._enter(False):
                if self._held or self._take(False):
                    self._held = True
                    return True
                self._leave()
        except BaseException:
            self._undo()
            raise
        return False

    def locked(self) -> bool:
        """Whether anybody holds it now."""
        return bool(self._shared._get_value() == 0)

    def held(self) -> bool:
        """Whether the calling thread took it, and has it."""
        return self._held and self._mine()

    # -- the other -------------------------------------------------------------------------------

    def _undo(self) -> None:
        """An exception ended an `acquire` that had not got it, nobody knows where."""
        if self._mine() and not self._held:
            if self._shared._count() > 0:
                self._give()
            self._leave()

    def _finish(self) -> None:
        """An exception came into a `release`, nobody knows where."""
        self._held = False
        if self._shared._count() > 0 or self._give == self._give_uncounted:
            self._give()
        if self._mine():
            self._leave()

    def _acquire_slowly(self, entered: bool, blocking: bool, timeout: float | None) -> bool:
        if not blocking and timeout is not None and timeout >= 0:
            raise ValueError("a time limit for a call that does not wait")
        deadline = time.monotonic() if not blocking else deadline_after(timeout)
        commons = self.block.commons
        slot = slot_of(commons)
        slot.begin()
        if not entered and deadline is None and self.held():
            raise deadlock.self_deadlock(commons, slot, self.block.index)
        flags = (at.F_DOOR if entered else 0) | (at.F_TIMED if deadline is not None else 0)
        slot.wait_for(self.block.index, flags | (at.F_FIRM if slot.firm else 0))
        taken: bool | None = False
        try:
            taken = self._wait(slot, entered, deadline)
        finally:
            slot.got()
            if taken is False:
                self._undo()
        if taken is None:
            self._take_over()
            return True
        return taken

    def _wait(self, slot: Slot, entered: bool, deadline: float | None) -> bool | None:
        """Sleep in slices until it is ours, or the time is over. None: ours, from the dead."""
        slices = Slices(deadline)
        circle: deadlock.Circle | None = None
        spins = _SPINS
        while True:
            if entered:
                while spins and not self._shared._get_value():
                    spins -= 1
                if self._take(False):
                    return self._have()
            span = slices.take()
            if not entered:
                if self._enter(span > 0, span):
                    entered = True
                    slot.cells[at.T_FLAGS] |= at.F_DOOR
                    slot.still_without()
                    continue
            elif span and self._take(True, span):
                return self._have()
            slot.still_without()
            self.block.commons.sweep()
            if entered and self.cells[at.R_DEAD] and self._claim(slot):
                return None
            if not span:
                return False
            if deadline is None:
                circle = deadlock.look(self.block.commons, slot, circle)

    def _have(self) -> bool:
        # So that a burial that looks on knows that the semaphore moved. Only the holder adds here.
        self.cells[at.R_VERSION] += 1
        self._held = True
        return True

    def _claim(self, slot: Slot) -> bool:
        """Take what a dead holder left, if nobody else did.

        First the slot ceases to wait: killed from here on, this process is one more holder that
        died in the middle.
        """
        waited, flags = slot.cells[at.T_WAITS], slot.cells[at.T_FLAGS]
        slot.got()
        with self.block.commons:
            if self.cells[at.R_DEAD]:
                self.cells[at.R_DEAD] = 0
                self._have()
                # The semaphore object did not count this: it must not count the release either.
                self._give = self._give_uncounted
                return True
        slot.wait_for(waited - 1, flags)
        return False

    def _give_uncounted(self) -> None:
        self._use_shared()
        open_semaphore(self.block.address + at.R_SEM * 8).release()

    def leave_behind(self, pid: int, thread: str) -> None:
        """Cease to hold it as if by a death: the next one takes it over, and can say why.

        Args:
            pid: of this process, if nobody here gave it up knowingly.
            thread: the name of the thread that ends.

        A store into DEAD by who has the semaphore needs no lock: nobody else touches it meanwhile.
        Killed after it, this process has lost nothing but its local semaphore.
        """
        self.block.set_text(at.R_LEFT_BY, at.R_LEFT_BY_BYTES, thread)
        self.cells[at.R_LEFT_PID] = pid
        self.cells[at.R_DEAD] = 1
        self._held = False
        self._use_shared()  # the semaphore stays taken: not ours any more
        if self._mine():
            for _ in range(self._count()):
                self._leave()
        else:  # nobody's, see `_Lock.__del__`
            make_semaphore(self.block.commons.local_address(self.index), 1)

    def _take_over(self) -> None:
        """It was taken over from the dead, and is held."""
        if self.repair is not None:
            self.repair()


def _after_fork() -> None:
    for one in held.mutexes():
        one.after_fork()


os.register_at_fork(after_in_child=_after_fork)


def new_mutex(parent: Block, repair: Callable[[], None] | None = None) -> Mutex:
    """A mutex that belongs to `parent`: its next child."""
    return Mutex(Mutex.make(parent.create_child(K_MUTEX)), repair)


def old_mutex(parent: Block, number: int, repair: Callable[[], None] | None = None) -> Mutex:
    """The mutex that is the `parent`'s child `number`."""
    return Mutex(parent.child(number), repair)
