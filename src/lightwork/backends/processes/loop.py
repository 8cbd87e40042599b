"""The loop of a worker process: takes frames of calls, runs them in order, answers.

Theory of operation. One thread. What it is at is told in the page (page.py) by plain stores, so
that the parent knows it at any moment, also after our death. Before each call the page is asked
whether the call may start (PROTOCOL.md, "Taking back").

Two ways to run a parcel:

* *careful*: each call by itself; its result is pickled, and what it leaves behind is dropped, while
  it is still the one to blame. Its result goes to the socket when some milliseconds have passed
  since the last one did, or when nothing else is at hand; until then it is in the journal.
* *tiny* (the parent expects under 20 us a call, and the arguments are plain): see tiny.py.

Guarantees: results are sent in the order of the calls; when the loop waits for the parent, it has
said all that it has to say, and holds no reference to arguments or results.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from ...errors import LightworkError
from ...wire.frames import Frame, Inbox, Outbox
from ...wire.functions import FunctionCache
from ...wire.patience import Patience
from ...wire.pickling import Packed, pack, unpack
from ...wire.remote import pack_error
from . import messages
from .answers import FLUSH, FLUSH_CHUNK, Answers
from .endings import flush_streams, leave_fork
from .limits import resident_bytes
from .messages import (
    ERROR,
    EXACT,
    LOADED,
    PLAIN,
    SINGLE,
    SINGLES,
    STAR,
    TIMED,
    TINY,
    VALUE,
    Header,
    Hold,
)
from .page import (
    CALLING,
    IDLE,
    LIMIT,
    LOADING,
    LOADING_MANY,
    OVER_MEMORY,
    PACKING_RESULT,
    PHASE,
    SINCE,
    SLOTS,
    STARTED,
    USED,
    Page,
)
from .tiny import ATOMS, TinyCalls

__all__ = ["Loop"]

_NOTHING: dict[str, Any] = {}

Parcel = tuple[Any, ...]


class _Leave(Exception):
    """The loop ends here."""


class _Work(NamedTuple):
    """A frame that waits, or runs."""

    header: Header
    hold: Hold


class Loop:
    """The state of the one loop of a process."""

    def __init__(
        self,
        sock: socket.socket,
        shared: Page,
        functions: FunctionCache,
        memory_limit: int | None,
    ) -> None:
        self._cells = shared.cells
        self._inbox = Inbox(sock)
        self._functions = functions
        self._answers = Answers(Outbox(sock), shared)
        self._tiny = TinyCalls(self, self._answers, shared.cells)
        self._work: deque[_Work | None] = deque()  # None: leave
        self._cuts: dict[int, tuple[int, int]] = {}  # frame serial -> (limit, keep)
        self._memory_limit = memory_limit
        self._pid = os.getpid()
        self._awake = Patience()
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        self._look = poll.poll
        # The frame that runs
        self._running: _Work | None = None
        self._slot = LIMIT
        self._serial = 0
        self._first = self._last = 0  # its first and last position

    def run(self) -> None:
        """Serve until told to leave, or until the parent is gone."""
        work, answers = self._work, self._answers
        try:
            while True:
                if work:
                    task = work.popleft()
                    if task is None:
                        break
                    self._frame(task)
                    task = None
                    if work and time.monotonic() - answers.last_flush >= answers.patience:
                        answers.flush_group()
                    continue
                if time.monotonic() - answers.last_flush < answers.patience:
                    # The socket may hold more: then what there is to say can wait a little.
                    self._receive(wait=False)
                if not work:
                    answers.flush()
                    flush_streams()
                    self._receive(wait=True)
                    if len(work) == 1:
                        # A call that is alone: somebody may be waiting for it.
                        task = work[0]
                        if task is not None and self._is_lone(task):
                            work.popleft()
                            self._lone(task)
                        task = None
        except _Leave:
            return
        except ValueError:
            # The page was released under us: see `worker.py`, on forks.
            if os.getpid() != self._pid:
                leave_fork(None)
            raise
        self._answers.flush()

    def where(self) -> tuple[int, int, int] | None:
        """Index, attempt and task of the call that runs, found only when asked for."""
        running = self._running
        if running is None:
            return None
        left = self._cells[STARTED] - self._first
        for calls, _, _, _, _, task, attempt, index in running.header.parcels:
            if left < calls:
                return index + left, attempt, task
            left -= calls
        return None

    # -- frames ----------------------------------------------------------------------------------

    def _receive(self, *, wait: bool) -> None:
        """Take in what the parent has sent."""
        if wait:
            self._awake.wait(self._look, None)
        for frame in self._inbox.read_blocking() if wait else self._inbox.read():
            self._take(frame)
        if self._inbox.eof:
            raise _Leave

    def _take(self, frame: Frame) -> None:
        kind = frame.kind
        if kind == messages.SEND:
            fields, rest = messages.split(frame.body)
            header = Header(*fields)
            self._work.append(_Work(header, Hold(rest, frame, header.segments, self._on_free)))
        elif kind == messages.CUT:
            for serial, limit, keep in messages.read_plain(frame.body):
                if serial >= self._answers.frames_done:
                    self._cuts[serial] = limit, keep
        elif kind == messages.FREE:
            for number in messages.read_plain(frame.body):
                self._answers.arena.free(number)
                self._answers.leased -= 1
        elif kind == messages.LEAVE:
            self._work.append(None)

    def _on_free(self, number: int, size: int) -> None:
        self._answers.freed.append(number)

    def _frame(self, work: _Work) -> None:
        """Run the calls of a frame, as far as they may start."""
        header, hold = work
        self._running = work
        self._serial = header.serial
        self._slot = LIMIT + header.serial % SLOTS
        self._first = position = header.base
        self._last = position + sum([parcel[0] for parcel in header.parcels]) - 1
        for key, item in header.functions:
            with contextlib.suppress(OSError):  # then its calls fail when they look for it
                self._functions.add(key, bytes(hold.open(item)[0]))
        for key in header.forget:
            self._functions.discard(key)
        for parcels in _runs(header.parcels):
            if not self._parcels(parcels, position):
                break
            position += sum([parcel[0] for parcel in parcels])
        self._end_frame(work)

    @staticmethod
    def _is_lone(work: _Work) -> bool:
        header = work.header
        if len(header.parcels) != 1 or header.functions or header.forget or header.segments:
            return False
        _, _, form, item, flags, *_ = header.parcels[0]
        return form == SINGLE and type(item) is bytes and not flags & TIMED

    def _lone(self, work: _Work) -> None:
        """Run the one small call of a frame, and answer it: `_frame` and `_call`, in short."""
        header = work.header
        serial, position, _, _, _, ((_, key, _, item, flags, *_),) = header
        cells = self._cells
        self._running = work
        self._serial, self._first, self._last = serial, position, position
        self._slot = slot = LIMIT + serial % SLOTS
        cells[STARTED] = position
        if cells[slot] and self.stopped(position):
            self._end_frame(work)
            return
        cells[PHASE] = LOADING
        started = time.monotonic()
        args: Any = None
        kwargs = value = None
        try:
            fn = self._functions.get(key)
            args, kwargs = unpack(item)
            cells[PHASE] = CALLING
            value = fn(*args, **kwargs)
        except BaseException as error:
            kind, packed = ERROR, self.problem(error)
            args = kwargs = None
        else:
            if type(value) in ATOMS:
                args = kwargs = None  # see `_call`
                if os.getpid() != self._pid:
                    leave_fork(None)
                self._end_frame(work)
                self._answers.say_one(position, started, value)
                if self._answers.leased or self._memory_limit is not None:
                    self.after_answer()
                return
            kind, packed = self._pack(value)
            args = kwargs = value = None
        self._answer(kind, flags | EXACT, position, started, packed)
        self._end_frame(work)

    def _end_frame(self, work: _Work) -> None:
        """Nothing of this frame will be looked at any more."""
        work.hold.release()
        self._answers.end_group()
        self._running = None
        self._cuts.pop(self._serial, None)
        self._answers.frames_done = self._serial + 1

    def _parcels(self, parcels: list[Parcel], position: int) -> bool:
        """Run parcels that go together. False: stopped by the limit."""
        calls, key, form, payload, flags, *_ = parcel = parcels[0]
        self._answers.patience = FLUSH if form in (SINGLE, SINGLES) else FLUSH_CHUNK
        if flags & TINY:
            if form == SINGLE:
                return self._tiny_singles(
                    [(key, item) for _, key, _, item, *_ in parcels], flags, position
                )
            if form == SINGLES:
                return self._tiny_singles([(key, item) for item in payload], flags, position)
            return self._tiny_chunk(parcel, position)
        if form == PLAIN:
            return self._plain(parcel, position)
        if form == SINGLE:
            return self._call(key, SINGLE, payload, flags, position)
        if form == SINGLES:
            form = SINGLE
        for number in range(calls):
            if not self._call(key, form, payload[number], flags, position + number):
                return False
        return True

    def stopped(self, position: int) -> bool:
        """Whether this call may not start, now that the limit says so.

        The limit is only a stop sign. Whether the parent had already seen this call as started,
        only its CUT frame tells: the one with the very limit that the page has now. It is on its
        way, and all that was behind this call was taken back with it, so waiting costs nothing.
        """
        self._cells[PHASE] = IDLE
        self._answers.flush()
        offset = position - self._first
        while True:
            limit = self._cells[self._slot] - 1
            cut = self._cuts.get(self._serial)
            if cut is not None and cut[0] == limit:
                return offset >= cut[1]
            self._receive(wait=True)

    # -- careful ---------------------------------------------------------------------------------

    def _begin(self, flags: int, position: int, phase: int) -> bool:
        """Announce a call. False: it may not start."""
        cells = self._cells
        if flags & TIMED:
            cells[SINCE] = time.monotonic_ns()
        cells[STARTED] = position
        limit = cells[self._slot]
        if limit and position - self._first >= limit - 1 and self.stopped(position):
            return False
        cells[PHASE] = phase
        return True

    def _call(self, key: int, form: int, item: Any, flags: int, position: int) -> bool:
        """Run one call, answer it. False: stopped by the limit."""
        if not self._begin(flags, position, LOADING):
            return False
        cells = self._cells
        started = time.monotonic()
        args: Any = None
        kwargs = _NOTHING
        value: Any = None
        try:
            fn = self._functions.get(key)
            if form == SINGLE:
                args, kwargs = unpack(item) if type(item) is bytes else self._open(item)
            else:
                args = item if form == LOADED else self._open(item)
                if type(args) is _Unloaded:
                    raise args.error
                if not flags & STAR:
                    args = (args,)
            item = None
            cells[PHASE] = CALLING
            value = fn(*args, **kwargs)
            kind, packed = self._pack(value)
        except BaseException as error:
            kind, packed = ERROR, self.problem(error)
        # What the call leaves behind may have a __del__ that ends us: it is still its call's.
        args = kwargs = value = None  # type: ignore[assignment]
        self._answer(kind, flags, position, started, packed)
        return True

    def _pack(self, value: Any) -> tuple[int, Packed]:
        """A result as bytes, or the error that this gives."""
        self._cells[PHASE] = PACKING_RESULT
        try:
            return VALUE, pack(value, what="the result", home=True)
        except BaseException as error:
            return ERROR, self.problem(error)

    def _answer(self, kind: int, flags: int, position: int, started: float, packed: Packed) -> None:
        """Answer a call."""
        if os.getpid() != self._pid:
            leave_fork(None)
        if position == self._last:
            # Said in the same breath as the result, though a few lines of ours are still to come:
            # the page's limit is not looked at again.
            self._answers.frames_done = self._serial + 1
        self._answers.add(kind, flags, position, started, packed)
        self.after_answer()

    def _plain(self, parcel: Parcel, position: int) -> bool:
        """The careful way through a chunk whose arguments come in one blob.

        As `_call` for each, but with all that the usual case needs in one place: after a call
        that waited for something the caches are cold, and every function more costs some µs.
        """
        key, flags = parcel[1], parcel[4]
        items = self._load_chunk(parcel, position)
        if items is None:
            return False
        fn = self._known(key)
        if fn is None or flags & STAR or type(items[0]) is _Unloaded:
            for number, item in enumerate(items):
                if not self._call(key, LOADED, item, flags, position + number):
                    return False
            return True
        cells, slot, first, add = self._cells, self._slot, self._first, self._answers.add_atom
        monotonic = time.monotonic
        for item in items:
            if flags & TIMED:
                cells[SINCE] = time.monotonic_ns()
            cells[STARTED] = position
            limit = cells[slot]
            if limit and position - first >= limit - 1 and self.stopped(position):
                return False
            cells[PHASE] = CALLING
            started = monotonic()
            try:
                value = fn(item)
            except BaseException as error:
                self._answer(ERROR, flags, position, started, self.problem(error))
            else:
                if type(value) in ATOMS:
                    if position == self._last:
                        self._answers.frames_done = self._serial + 1
                    add(position, flags, started, value)
                    if self._answers.leased or self._memory_limit is not None:
                        self.after_answer()
                else:
                    kind, packed = self._pack(value)
                    value = None  # see `_call`
                    self._answer(kind, flags, position, started, packed)
            position += 1
        return True

    def _known(self, key: int) -> Callable[..., Any] | None:
        """The function; None where each of its calls is to fail for want of it."""
        try:
            fn: Callable[..., Any] = self._functions.get(key)
        except BaseException:
            return None
        return fn

    def _load_chunk(self, parcel: Parcel, position: int) -> Sequence[Any] | None:
        """Rebuild the arguments of a plain chunk. None: stopped by the limit.

        Plain blobs do not fail, but memory or descriptors may: then each argument is the error.
        """
        calls, _, _, (item, lo, hi), flags, *_ = parcel
        if not self._begin(flags, position, LOADING_MANY if calls > 1 else LOADING):
            return None
        try:
            items: Sequence[Any] = self._open(item)
        except (OSError, MemoryError, LightworkError) as error:
            return [_Unloaded(error)] * calls
        return items if hi - lo == len(items) else items[lo:hi]

    def _open(self, item: Any) -> Any:
        if type(item) is bytes:
            return unpack(item)
        assert self._running is not None
        data, buffers = self._running.hold.open(item)
        return unpack(data, buffers)

    def problem(self, error: BaseException) -> Packed:
        """An error of the user's as bytes."""
        if os.getpid() != self._pid:
            leave_fork(error)
        return Packed(pack_error(error), (), True)

    def after_answer(self) -> None:
        """See to what can only be seen to between calls."""
        if self._answers.leased:
            self._receive(wait=False)  # what the parent has freed can be written to again
        if self._memory_limit is not None:
            used = resident_bytes(self._pid)
            if used is not None and used > self._memory_limit:
                # No call runs, so none is to blame; but this process is of no more use.
                self._answers.flush()
                self._cells[USED] = used
                self._cells[PHASE] = OVER_MEMORY
                raise _Leave

    # -- tiny ------------------------------------------------------------------------------------

    def _tiny_chunk(self, parcel: Parcel, position: int) -> bool:
        """The tight loop over a plain chunk. False: stopped by the limit."""
        key, flags = parcel[1], parcel[4]
        items = self._load_chunk(parcel, position)
        if items is None:
            return False
        fn = self._known(key)
        if fn is None or type(items[0]) is _Unloaded:
            return self._plain(parcel, position)  # the same error for each of them
        if flags & STAR:
            fn = partial(_spread, fn)
        return self._tiny.run(fn, items, flags, position, (self._slot, self._first))

    def _tiny_singles(self, calls: Sequence[tuple[int, Any]], flags: int, position: int) -> bool:
        """The same over calls that were submitted one by one: (key, item)."""
        get = self._functions.get

        def run(one: tuple[int, Any]) -> Any:
            key, item = one
            args, kwargs = unpack(item) if type(item) is bytes else self._open(item)
            return get(key)(*args, **kwargs)

        return self._tiny.run(run, calls, flags, position, (self._slot, self._first))


def _spread(fn: Any, argument: Any) -> Any:
    return fn(*argument)


class _Unloaded(NamedTuple):
    """Stands for an argument that could not be rebuilt."""

    error: BaseException


def _runs(parcels: tuple[Parcel, ...]) -> list[list[Parcel]]:
    """Put neighbours together that are run in one loop: tiny parcels of one call each."""
    runs: list[list[Parcel]] = []
    joining = 0
    for parcel in parcels:
        flags = parcel[4] if parcel[2] == SINGLE and parcel[4] & TINY else 0
        if flags and flags == joining:
            runs[-1].append(parcel)
        else:
            runs.append([parcel])
        joining = flags
    return runs
