"""`Queue`: first in, first out, between threads and processes.

In the extent of a queue are its words, and two numbers for each process. Items are in rings
(`ring`) until somebody gets them: a reader takes one at a time, and what it has not asked for is
everybody's. Readers have a mutex, writers another, so one of each never wait for each other. A
reader that sleeps is woken by the first item alone, and by none that arrives while it is awake.

When somebody is killed
    * in ``put``: the item is in the queue if its ring's WRITTEN was stored, else not. Counts that
      may lag behind are corrected by the one who takes over the mutex, from the numbers in the
      ring.
    * in ``get``: the item is out if READ was stored, else it is still the next. A reader notes
      before *how far* READ will be (in its *hand*), so it is known afterwards which it was.
    * after ``get``: the item in its hand is lost, and counted in ``Queue.lost``. A process has one
      in its hand from the return of ``get`` until it calls ``get`` again; where ``task_done`` is
      used, all that it took and has not reported.
    * asleep: there may be one wake-up too many afterwards.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from pickle import dumps, loads
from typing import Any

from ..errors import CannotUnpickle, OwnerDied
from ..wire.pickling import dump_parts, pack
from . import layout as at
from .blocks import Block, Shared
from .closing import Closed
from .kinds import K_QUEUE
from .memory import PAGE, make_semaphore, open_semaphore
from .monitor import remaining
from .mutex import Mutex, Slices, deadline_after, new_mutex, old_mutex
from .queue_words import (
    CLOSED,
    DONE_AT,
    GET_BELL,
    GETTERS,
    GOT,
    HANDS_AT,
    HEAD,
    JOINERS,
    LOST,
    MOST,
    PUT,
    PUT_BELL,
    PUTTERS,
    REPORTS,
    SIZE,
    SPECIAL,
    TAIL,
    TAKEN_AT,
    settle,
    taken,
)
from .ring import BASE, DATA, LENGTH, NEXT, READ, WRITTEN, Entry, Ring, entry_size
from .threads import slot_of

__all__ = ["Queue"]

_ENDLESS = 1 << 62
_ATOMS = frozenset({int, float, str, bool, type(None)})
_FIRST_RING = 1 << 16
_MOST_ROOM = 8 << 20
"""Bytes: rings grow up to here; a bigger one is made for a bigger item only."""
_NAP = 0.00005
_BACK_PRESSURE = 0.002
"""Seconds that a writer gives a reader that is at work, before it takes more memory."""


def _always() -> bool:
    return True


class Queue(Shared):
    """A queue between threads and processes; used as `queue.Queue` and `multiprocessing.Queue` are.

    Args:
        maxsize: items that it holds at most; zero or less: as many as there is memory for.
        name: for error messages.

    ``put`` pickles the item at once, in the calling thread, so what cannot be pickled raises
    CannotPickle there, and there is no feeder thread whose work could be lost at an exit. Small
    items cost 1 to 2 us on either side; arrays are copied once in and once out.

    ``close`` ends it: nothing can be put any more, and when all is taken, ``get`` raises `Closed`
    in all readers, and iteration ends. A reader that dies loses at most the item in its hand;
    ``lost`` says how many were.
    """

    def __init__(self, maxsize: int = 0, name: str = "") -> None:
        block = Block.create(K_QUEUE, size=SIZE)
        block.name = name
        address = block.body.address
        make_semaphore(address + GET_BELL * 8, 0)
        make_semaphore(address + PUT_BELL * 8, 0)
        words = block.body.view.cast("Q")
        words[MOST] = words[SPECIAL] = max(maxsize, 0)
        self._readers, self._writers = new_mutex(block), new_mutex(block)
        first = Ring.create(block.commons, _FIRST_RING - PAGE, 0)
        words[HEAD] = words[TAIL] = first.code
        self._made(block)

    def _open(self, *_: object) -> None:
        block = self._block
        if not hasattr(self, "_readers"):
            self._readers, self._writers = old_mutex(block, 0), old_mutex(block, 1)
        self._readers.repair = self._repair_reading
        self._writers.repair = self._repair_writing
        self._commons = block.commons
        self._words = block.body.view.cast("Q")
        self._streaming = False
        self._head = Ring(block.commons, self._words[HEAD])
        self._tail = Ring(block.commons, self._words[TAIL])
        self._get_bell = open_semaphore(block.body.address + GET_BELL * 8)
        self._put_bell = open_semaphore(block.body.address + PUT_BELL * 8)

    # -- putting ---------------------------------------------------------------------------------

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item at the end.

        Args:
            block: whether to wait where ``maxsize`` items are in the queue.
            timeout: seconds to wait at most; None for ever.

        Raises queue.Full: there was no room in time. Closed: the queue was closed. CannotPickle.
        OSError: there is no memory.
        """
        buffers: Sequence[memoryview] = ()
        kind = type(item)
        if kind in _ATOMS:
            data = dumps(item, 5)
        else:
            try:
                data, parts, _ = dump_parts(item) if kind is not bytes else pack(item)
            except KeyboardInterrupt:
                raise
            except BaseException:  # SystemExit in a ``__reduce__``, too
                data, parts, _ = pack(item, what="the item")
            if parts:
                buffers = [part.raw() for part in parts]
        length = len(data)
        size = entry_size(length, buffers) if buffers else 16 + (length + 7 & ~7)
        words = self._words
        self._writers.acquire()
        try:
            if words[SPECIAL]:
                self._wait_for_room(block, timeout)
            tail = self._tail
            if tail.code != words[TAIL]:
                tail = self._tail = Ring(self._commons, words[TAIL])
            number = words[PUT] + 1
            try:
                # As Ring.write, for a small item in the middle of a ring that is not full.
                ring = tail.words
                place = ring[WRITTEN]
                end = place + size
                place %= tail.room
                if end > tail.limit or place + size > tail.room or buffers:
                    if not tail.write(number, data, buffers, size):
                        number = self._write_elsewhere(data, buffers, size)
                else:
                    place += DATA
                    ring[place >> 3] = length
                    ring[(place >> 3) + 1] = number
                    place += 16
                    tail.view[place : place + length] = data
                    ring[WRITTEN] = end
                words[PUT] = number
            except BaseException:  # Ctrl-C, or no memory
                self._repair_writing()
                raise
        finally:
            self._writers.release()
        if words[GETTERS] and not self._get_bell._get_value():
            self._get_bell.release()

    def put_nowait(self, item: Any) -> None:
        """Put an item without waiting. Raises as ``put``."""
        self.put(item, block=False)

    def _wait_for_room(self, block: bool, timeout: float | None) -> None:
        """With the writers' mutex held: until there are fewer than ``maxsize`` items."""
        words = self._words
        if words[CLOSED]:
            raise Closed("put to a queue that was closed")
        most = words[MOST] or _ENDLESS
        slices = Slices(deadline_after(None if timeout is None else max(timeout, 0.0)))
        while words[PUT] - words[GOT] >= most:
            if words[CLOSED]:
                raise Closed("put to a queue that was closed")
            span = slices.take() if block else 0.0
            if not span:
                raise queue.Full
            self._sleep(self._writers, PUTTERS, self._put_bell, span, self._is_full)

    def _is_full(self) -> bool:
        words = self._words
        return bool(words[PUT] - words[GOT] >= words[MOST] and not words[CLOSED])

    def _sleep(
        self, mutex: Mutex, sleepers: int, bell: Any, span: float, still: Callable[[], bool]
    ) -> None:
        """With `mutex` held: leave it, sleep for a slice or until rung, enter it again.

        1. a reader sees that the queue is empty;  2. a writer puts an item, and sees nobody asleep;
        3. the reader sleeps. So it looks again once it has said that it sleeps, and after the
        semaphore's release, which makes that visible to all before the look.
        """
        words = self._words
        words[sleepers] += 1
        mutex.release()
        try:
            if still():
                bell.acquire(True, span)
            self._commons.sweep()
        finally:
            mutex.acquire()
            if words[sleepers]:
                words[sleepers] -= 1

    def _write_elsewhere(self, data: bytes, buffers: Sequence[memoryview], size: int) -> int:
        """The last ring is full: wait a moment for a reader that is at work, or make another.

        Returns the number of the item.
        """
        words, tail = self._words, self._tail
        while tail.room >= max(_MOST_ROOM // 2, size) and words[GOT]:
            read = tail.words[READ]
            self._sleep(self._writers, PUTTERS, self._put_bell, _BACK_PRESSURE, _always)
            if words[TAIL] != tail.code:  # another writer made one meanwhile
                tail = self._tail = Ring(self._commons, words[TAIL])
            number = int(words[PUT]) + 1
            if tail.write(number, data, buffers, size):
                return number
            if tail.words[READ] == read:
                break
        room = max(min(tail.room * 2, _MOST_ROOM), min(size * 4, _MOST_ROOM), size)
        base = tail.words[BASE] + tail.words[WRITTEN]
        made = Ring.create(self._commons, room, base)
        number = int(words[PUT]) + 1
        made.write(number, data, buffers, size)
        tail.words[NEXT] = made.code
        words[TAIL] = made.code
        self._tail = made
        return number

    # -- getting ---------------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the first item.

        Args:
            block: whether to wait where there is none.
            timeout: seconds to wait at most; None for ever.

        Raises queue.Empty: there was none in time. Closed: there will never be one again.
        CannotUnpickle: it cannot be rebuilt here; it is gone.
        """
        words = self._words
        me = self._commons.me
        self._readers.acquire()
        try:
            head = self._head
            ring = head.words
            read = ring[READ]
            if read >= head.limit:
                head.limit = ring[WRITTEN]
            if read < head.limit and head.code == words[HEAD]:
                # As Ring.peek, for a small item in the middle of a ring.
                place = read % head.room + DATA
                length = ring[place >> 3]
                if length <= LENGTH:
                    number = ring[(place >> 3) + 1]
                    place += 16
                    data = head.view[place : place + length].tobytes()
                    end = read + 16 + (length + 7 & ~7)
                    buffers: Sequence[bytearray] = ()
                else:
                    data, buffers, number, end = head.peek()  # type: ignore[misc]  # there is one
                self._streaming = True
            else:
                words[HANDS_AT + 2 * me + (words[TAKEN_AT + me] & 1)] = 0
                data, buffers, number, end = self._next(block, timeout)
                head = self._head
                ring = head.words
            try:
                count = words[TAKEN_AT + me] + 1
                words[HANDS_AT + 2 * me + (count & 1)] = head.base + end
                words[TAKEN_AT + me] = count
                ring[READ] = end
                words[GOT] = number
            except BaseException:  # Ctrl-C
                self._repair_reading()
                raise
        finally:
            self._readers.release()
        if words[PUTTERS] and not self._put_bell._get_value():
            self._put_bell.release()
        if words[GETTERS] and words[PUT] != words[GOT] and not self._get_bell._get_value():
            self._get_bell.release()  # one wakes the next
        try:
            return loads(data, buffers=buffers) if buffers else loads(data)
        except Exception as error:
            raise CannotUnpickle(f"the item cannot be rebuilt: {error!r}") from error

    def get_nowait(self) -> Any:
        """Take the first item without waiting. Raises as ``get``."""
        return self.get(block=False)

    def wait_for_item(self, span: float) -> None:
        """Sleep until there is an item, for `span` seconds at most, or until rung; take nothing."""
        with self._readers:
            if self._look() is None and not self._words[CLOSED]:
                self._sleep(self._readers, GETTERS, self._get_bell, span, self._is_waiting)

    def _next(self, block: bool, timeout: float | None) -> Entry:
        """With the readers' mutex held: wait for the next item; it is in ``self._head``."""
        words = self._words
        slices: Slices | None = None
        while True:
            entry = self._look()
            if entry is not None:
                return entry
            if words[CLOSED]:
                # Closed is stored with the writers' mutex held, so nothing comes behind it.
                entry = self._look()
                if entry is not None:
                    return entry
                raise Closed("the queue was closed, and everything was taken")
            if self._streaming and block:
                self._nap()
                continue
            if slices is None:
                slices = Slices(deadline_after(None if timeout is None else max(timeout, 0.0)))
            span = slices.take() if block else 0.0
            if not span:
                raise queue.Empty
            self._sleep(self._readers, GETTERS, self._get_bell, span, self._is_waiting)

    def _nap(self) -> None:
        """With the readers' mutex held: leave for a moment, in which items may gather.

        Items had come faster than we took them. To sleep until the next one would cost its
        writer a system call and us a wake-up, for each; after a nap there are some.
        """
        self._streaming = False
        self._readers.release()
        try:
            time.sleep(_NAP)
        finally:
            self._readers.acquire()

    def _is_waiting(self) -> bool:
        return self._words[PUT] == self._words[GOT] and not self._words[CLOSED]

    def _look(self) -> Entry | None:
        """The next item, in this ring or one behind it."""
        while True:
            if self._head.code != self._words[HEAD]:
                self._head = Ring(self._commons, self._words[HEAD])
            ring = self._head
            behind = ring.words[NEXT]
            entry = ring.peek()  # after the look at NEXT, before which all of this ring was written
            if entry is not None or not behind:
                return entry
            self._words[HEAD] = behind
            ring.free()

    def __iter__(self) -> Iterator[Any]:
        """Take items until the queue is closed and empty."""
        with contextlib.suppress(Closed):
            while True:
                yield self.get()

    # -- looking, closing ------------------------------------------------------------------------

    def qsize(self) -> int:
        """How many items are in it, about."""
        return max(int(self._words[PUT]) - int(self._words[GOT]), 0)

    def empty(self) -> bool:
        """Whether there is none now."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether there are ``maxsize`` now."""
        most = self._words[MOST]
        return bool(most and self.qsize() >= most)

    @property
    def maxsize(self) -> int:
        """Items that it holds at most; 0 for no limit."""
        return int(self._words[MOST])

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return bool(self._words[CLOSED])

    @property
    def lost(self) -> int:
        """How many items were in the hands of processes that died."""
        self._commons.sweep(now=True)
        return int(self._words[LOST])

    def close(self) -> None:
        """Let nothing in any more; readers take what is there, and then get `Closed`."""
        with self._writers:
            self._words[CLOSED] = self._words[SPECIAL] = 1
        for bell, sleepers in ((self._get_bell, GETTERS), (self._put_bell, PUTTERS)):
            for _ in range(self._words[sleepers]):
                bell.release()

    def join_thread(self) -> None:
        """Nothing: there is no thread. For programs written for `multiprocessing.Queue`."""

    def cancel_join_thread(self) -> None:
        """Nothing: there is no thread. For programs written for `multiprocessing.Queue`."""

    # -- reporting -------------------------------------------------------------------------------

    def task_done(self) -> None:
        """Report that an item which this process took is done with.

        Raises ValueError: it was called more often than items were put.
        """
        words = self._words
        with self._readers:
            words[REPORTS] = 1
            if self._unfinished() <= 0:
                raise ValueError("task_done() called too many times")
            words[DONE_AT + self._commons.me] += 1
            if words[JOINERS] and not self._unfinished():
                self._wake_joiners()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until every item that was put was taken and reported by ``task_done``.

        Args:
            timeout: seconds to wait at most; None for ever.

        Returns whether that is so.

        Raises OwnerDied: it is so but for items that were lost with the processes that had them.
        """
        words, commons = self._words, self._commons
        words[REPORTS] = 1
        words[JOINERS] = 1
        lost = words[LOST]
        deadline = deadline_after(None if timeout is None else max(timeout, 0.0))
        slices = Slices(deadline)
        slot = slot_of(commons)
        while True:
            slot.park(self._block.index, 0)
            try:
                if not self._unfinished():
                    break
                if remaining(deadline) == 0:
                    return False
                slot.bell.acquire(True, slices.take())
                commons.sweep()
            finally:
                slot.unpark()
        if words[LOST] != lost:
            gone = words[LOST] - lost
            raise OwnerDied(f"{gone} items were lost with the processes that had taken them")
        return True

    def _unfinished(self) -> int:
        words = self._words
        used = self._commons.header[at.H_PROCESSES]
        done = sum(words[DONE_AT : DONE_AT + used].tolist())
        return int(words[PUT]) - int(done)

    def _wake_joiners(self) -> None:
        for slot in self._commons.parked(self._block.index):
            self._commons.ring(slot)

    # -- after a death ---------------------------------------------------------------------------

    def _repair_reading(self) -> None:
        """With the readers' mutex, whose holder died: what it had announced did not come to be."""
        words = self._words
        self._head = Ring(self._commons, words[HEAD])
        now = self._head.words[BASE] + self._head.words[READ]
        for process in range(self._commons.header[at.H_PROCESSES]):
            took = taken(words, process, now)
            if took != words[TAKEN_AT + process]:
                settle(words, process, took)
        numbers = self._head.numbers()
        words[GOT] = numbers[0] - 1 if numbers else max(words[GOT], self._last_put())

    def _repair_writing(self) -> None:
        """With the writers' mutex, whose holder died: count what it had put."""
        with self._readers:
            self._tail = Ring(self._commons, self._words[TAIL])
            behind = self._tail.words[NEXT]
            if behind:  # it was about to move there, with the item
                self._words[TAIL] = behind
                self._tail = Ring(self._commons, behind)
            self._words[PUT] = max(self._words[PUT], self._last_put())

    def _last_put(self) -> int:
        numbers = Ring(self._commons, self._words[TAIL]).numbers()
        return numbers[-1] if numbers else int(self._words[GOT])
