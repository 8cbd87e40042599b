"""The parent's end of one worker: what it is sent, what it has answered, how it is ended.

Theory of operation. Methods that the engine calls under its lock only write the books (ledger.py)
and the page. Whoever calls `flush` then does the writing: one thread at a time, and whoever comes
meanwhile leaves its work to that one, who looks again before it goes. `receive` is called by the
pump alone. A channel's own lock is held for bookkeeping only, never while anything is pickled,
copied, written or reported.

A frame is put together when it is about to be written, not before: what waits can be taken back for
nothing, and big buffers are copied as late as possible. Little is written ahead: at most 64
frames (the page's slots), and at most `BIG_FRAMES` frames with big buffers, so that shared
memory is used again rather than more of it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from ...core.events import Running
from ...wire.frames import Frame as WireFrame
from ...wire.frames import Inbox, Outbox
from ...wire.segments import Arena
from ..base import Parcel, Result
from . import barrier, messages, page
from .answered import Record, to_results
from .calls import Single
from .launch import Child, parent_only
from .ledger import Book, Frame
from .messages import APART, EXACT, SINGLE, STAR, TIMED, TINY, Cargo, Header, Hold
from .page import Page

__all__ = ["Channel", "News"]

FRAME_BYTES = 1 << 20
"""A frame is closed when its calls hold this much; one call may hold more."""
BIG = 1 << 20
"""From this many bytes on a frame counts as big."""
BIG_FRAMES = 2
"""Big frames at a worker: one that runs, and one that is ready when it has ended."""
KNOWN_FUNCTIONS = 128
KNOWN_BYTES = 64 << 20
"""What a worker remembers of functions; beyond it the longest unused are forgotten."""
_MOST_NEW = KNOWN_FUNCTIONS // 2


class News(NamedTuple):
    """What the worker has told about itself."""

    ready: bool = False
    init_error: bytes | None = None
    leaving: bool = False


class Channel:
    """Everything about one worker process in its parent.

    Attributes:
        worker: its number.
        ready: it was reported as ready.
        claimed: somebody launches its process, or has done so.
        kill_how: what its death is to be reported as, once a kill was asked for.
        retiring: it was told to leave.
        init_error: the packed error of its initializer.
        used_memory: the resident bytes for which it was killed.
        news: what it has told about itself, until somebody takes note of it.
        apart: each answer is to be a result of its own.
    """

    def __init__(self, worker: int, arena: Arena, wake: Callable[[], None]) -> None:
        self.worker = worker
        self.ready = False
        self.claimed = False
        self.kill_how: str | None = None
        self.retiring = False
        self.init_error: bytes | None = None
        self.used_memory: int | None = None
        self.news: News | None = None
        self.apart = False
        self.child: Child | None = None
        self.sock: socket.socket | None = None
        self.page: Page | None = None
        self._arena = arena
        self._wake = wake
        self._lock = threading.Lock()
        self._book: Book | None = None
        self._outbox: Outbox | None = None
        self._inbox: Inbox | None = None
        self._registered = False  # whether the worker takes part in barriers
        self._flushing = False
        self._full = False  # the socket is: the pump waits until it is writable
        self._closed = False
        self._released = False
        self._leave_sent = False
        self._known: OrderedDict[int, int] = OrderedDict()  # function key -> bytes
        self._known_bytes = 0
        self._leases: set[int] = set()  # segments of ours that the worker has
        self._freed: deque[tuple[int, int]] = deque()  # its segments that we are done with
        self._big = 0  # big frames that it has

    def claim(self) -> bool:
        """Whether the caller is the one who launches the process."""
        with self._lock:
            mine, self.claimed = not self.claimed, True
            return mine

    def attach(self, sock: socket.socket, shared: Page, child: Child) -> None:
        """The process was launched. A kill that was asked for meanwhile is carried out."""
        parent_only.add(sock.fileno())
        with self._lock:
            self.sock, self.page, self.child = sock, shared, child
            self._book = Book(shared.cells)
            self._outbox, self._inbox = Outbox(sock), Inbox(sock)
            doomed = self.kill_how is not None
        if doomed:
            child.kill()

    # -- locked by the engine --------------------------------------------------------------------

    def send(self, parcels: Sequence[Parcel]) -> None:
        """Queue parcels behind what the worker has."""
        with self._lock:
            if self._book is not None:
                self._book.waiting.extend(parcels)

    def take_back(self, task: int, offset: int) -> list[tuple[int, int, int]]:
        """See Backend."""
        with self._lock:
            if self._book is None:
                return []  # gone, or not there yet
            return self._book.take_back(task, offset, self._barrier)

    def inspect(self) -> Running | None:
        """The call that time passes on the account of."""
        with self._lock:
            if self._book is None:
                return None
            return self._book.running(page.IN_A_CALL, self._barrier)

    def retire(self) -> None:
        """Let it leave when it has ended what it has."""
        with self._lock:
            self.retiring = True

    def kill(self, how: str, used_memory: int | None = None) -> None:
        """End it at once. The first who asks says what for."""
        with self._lock:
            if self.kill_how is None:
                self.kill_how, self.used_memory = how, used_memory
            child = self.child
        if child is not None:
            child.kill()

    def stop(self) -> None:
        """Let it start nothing more, for it is about to be killed."""
        with self._lock:
            if self._book is not None:
                self._book.stop(self._barrier)

    def _barrier(self) -> None:
        barrier.barrier(self._registered)

    # -- writing ---------------------------------------------------------------------------------

    @property
    def wants_to_write(self) -> bool:
        """Whether a `flush` may have something to do."""
        book = self._book
        return book is not None and bool(
            book.waiting or book.cuts or self._freed or (self.retiring and not self._leave_sent)
        )

    @property
    def full(self) -> bool:
        """Whether the pump is to wait until the socket can be written to."""
        return self._full

    @property
    def busy(self) -> bool:
        """Whether the worker has calls."""
        book = self._book
        return book is not None and book.busy

    def flush(self) -> bool:
        """Write what there is to write. Returns True if the socket has become full."""
        # No work is left behind: 1. A finds nothing more to do, under the lock, and in the same
        # breath stops being the one who flushes. 2. B adds work under the lock: before that, and
        # A finds it; or after, and B sees that nobody flushes, and does it.
        mine = False
        try:
            with self._lock:
                if self._flushing or self._outbox is None:
                    return False
                mine = self._flushing = True
                # Straight away: the most frequent job, which needs no more than this.
                frame = self._single() if self._book is not None else None
            if frame is not None:
                self._write_single(frame)
            while (job := self._job_or_stop()) is not None:
                job()
        except BaseException:
            # Ctrl-C, or no memory: who knows what was written. Nothing is lost when the worker
            # goes; all would be if it waited for a frame that never comes.
            if mine:
                self._flushing = False
                if self.child is not None:
                    self.child.kill()
            raise
        return self._full

    def _single(self) -> Frame | None:
        """Locked. The frame to write, if all there is to write is one small call."""
        book = self._book
        assert book is not None
        if len(book.waiting) != 1 or book.cuts or self._freed or self._full or self._closed:
            return None
        call = book.waiting[0].call
        if (
            type(call) is not Single
            or not isinstance(call.packed, bytes)
            or call.size > messages.INLINE
            or call.function.key not in self._known
            or not book.room()
        ):
            return None
        return book.frame([book.waiting.popleft()], False)

    def _write_single(self, frame: Frame) -> None:
        """As `_write`, for a frame of `_single`."""
        assert self._outbox is not None
        (parcel,) = frame.parcels
        call = parcel.call
        key = call.function.key
        self._known.move_to_end(key)
        flags = _flags(parcel, APART if self.apart else 0)
        told = (1, key, SINGLE, call.packed, flags, parcel.task, parcel.attempt, parcel.index)
        body = messages.small_body((frame.serial, frame.base, (), (), (), (told,)))
        if not self._outbox.send_now(messages.SEND, body):
            with self._lock:
                self._full = True

    def _job_or_stop(self) -> Callable[[], None] | None:
        """What to write next; None, and this thread is no more the one who flushes."""
        with self._lock:
            if self._closed:
                job = None if self._released else self._release
                self._released = True
            else:
                job = None if self._full else self._next_job()
            if job is None:
                self._flushing = False
            return job

    def writable(self) -> bool:
        """The socket takes more now. Returns True if it is full again."""
        assert self._outbox is not None
        if self._outbox.flush():
            with self._lock:
                self._full = False
            return self.flush()
        return True

    def _next_job(self) -> Callable[[], None] | None:
        """Locked. What to write next, in this order: cuts, freed memory, calls, the farewell."""
        book = self._book
        assert book is not None
        if book.cuts:
            cuts, book.cuts = book.cuts, []
            return partial(self._post, messages.CUT, cuts)
        if self._freed:
            return partial(self._post, messages.FREE, self._take_freed())
        if book.waiting:
            if book.room():
                parcels, size = self._next_parcels(book)
                if parcels:
                    big = size >= BIG
                    self._big += big
                    return partial(self._write, book.frame(parcels, big))
        elif self.retiring and not self._leave_sent:
            self._leave_sent = True
            return partial(self._post, messages.LEAVE, None)
        return None

    def _take_freed(self) -> list[int]:
        numbers = []
        with contextlib.suppress(IndexError):
            while True:
                numbers.append(self._freed.popleft()[0])
        return numbers

    def _next_parcels(self, book: Book) -> tuple[list[Parcel], int]:
        """Locked. As many of the waiting parcels as go into one frame, and their bytes."""
        parcels: list[Parcel] = []
        size, new = 0, 0
        waiting = book.waiting
        while waiting and size < FRAME_BYTES and new < _MOST_NEW:
            call = waiting[0].call
            if call.size >= BIG and (parcels or self._big >= BIG_FRAMES):
                break
            new += call.function.key not in self._known
            size += call.size
            parcels.append(waiting.popleft())
        return parcels, size

    def _post(self, kind: int, value: Any) -> None:
        assert self._outbox is not None
        self._outbox.post(kind, messages.plain_body(value))
        self._push()

    def _push(self) -> None:
        assert self._outbox is not None
        if not self._outbox.flush():
            with self._lock:
                self._full = True

    def _write(self, frame: Frame) -> None:
        """Put a frame together, and write it."""
        assert self._outbox is not None
        cargo = Cargo(self._arena)
        functions, forget = self._functions_for(frame, cargo)
        more = APART if self.apart else 0
        parcels = tuple([_told(parcel, cargo, more) for parcel in frame.parcels])
        table = cargo.table()
        if table:
            with self._lock:
                self._leases.update([number for number, _, _ in table])
        header = Header(frame.serial, frame.base, functions, forget, table, parcels)
        self._outbox.post(messages.SEND, cargo.body(header), cargo.fds)
        self._push()

    def _functions_for(
        self, frame: Frame, cargo: Cargo
    ) -> tuple[tuple[tuple[int, Any], ...], tuple[int, ...]]:
        """The functions that the worker does not know yet, and those that it may forget."""
        known = self._known
        functions: list[tuple[int, Any]] = []
        for parcel in frame.parcels:
            key, data, _, _ = parcel.call.function
            if key in known:
                known.move_to_end(key)
            else:
                functions.append((key, cargo.blob(data)))
                known[key] = len(data)
                self._known_bytes += len(data)
        if not functions:
            return (), ()
        forget: list[int] = []
        # The last ones are this frame's own: never more than half of what may be known.
        while len(known) > KNOWN_FUNCTIONS or (
            self._known_bytes > KNOWN_BYTES and len(known) > _MOST_NEW
        ):
            key, size = known.popitem(last=False)
            self._known_bytes -= size
            forget.append(key)
        return tuple(functions), tuple(forget)

    # -- reading: the pump alone -----------------------------------------------------------------

    @property
    def eof(self) -> bool:
        """Whether the worker's end of the socket is closed."""
        return self._inbox is not None and self._inbox.eof

    def receive(self) -> list[Result]:
        """Read what the worker has said since: results, and perhaps `news`."""
        assert self._inbox is not None
        return self._understand(self._inbox.read())

    @property
    def keeps_results(self) -> bool:
        """Whether the worker holds results back for company."""
        page_ = self.page
        return page_ is not None and not self._closed and page_.cells[page.JOURNALED] > 0

    def peek(self) -> list[Result]:
        """Read what the worker has said since, and what it holds back: it may be long in coming.

        1. We note how often the journal was cleared. 2. We read the socket to its end. 3. We copy
        the journal, and look at the count again: the same, so nothing was moved from the one to
        the other meanwhile, and what is in the journal is the next there is. Results of tiny calls
        are not in it; where such come first, nothing is taken. What is taken comes by the socket
        again, and is known by its position then.
        """
        assert self._inbox is not None
        shared = self.page
        assert shared is not None
        cleared = shared.cells[page.CLEARED]
        self._barrier()
        results = self._understand(self._inbox.drain())
        records = shared.peek_journal(cleared, self._barrier)
        with self._lock:
            if not records or self._book is None or records[0][0] != self._book.answered_to:
                return results
            late = self._assign(records)
        return results + to_results(late, _NO_HOLD, apart=self.apart)

    def receive_last(self) -> list[Result]:
        """The worker is dead: read what is left in the socket and in the journal."""
        assert self._inbox is not None
        assert self.page is not None
        results = self._understand(self._inbox.drain())
        records = self.page.read_journal()
        if records:
            with self._lock:
                late = self._assign(records)
            results += to_results(late, _NO_HOLD, apart=self.apart)
        return results

    def last_running(self) -> Running | None:
        """The worker is dead, and has been read to the end: the call that it died in."""
        with self._lock:
            if self._book is None:
                return None
            return self._book.running(page.CHARGED, _no_barrier)

    def _understand(self, frames: Sequence[WireFrame]) -> list[Result]:
        results: list[Result] = []
        for frame in frames:
            kind = frame[0]
            if kind == messages.RESULTS:
                results += self._results(frame)
                continue
            news = self.news or News()
            if kind == messages.READY:
                self._registered = bool(messages.read_plain(frame.body))
                self.news = news._replace(ready=True)
            elif kind == messages.INIT_FAILED:
                self.news = news._replace(init_error=messages.read_plain(frame.body))
            elif kind == messages.LEAVING:
                self.news = news._replace(leaving=True)
        return results

    def _results(self, frame: WireFrame) -> list[Result]:
        told, rest = messages.split(frame[1])
        frames_done, freed, segments, records = told  # as Results has them
        with self._lock:
            book = self._book
            assert book is not None
            assigned = self._assign(records)
            self._big -= book.done(frames_done)
            if freed:
                self._leases.difference_update(freed)
        for number in freed:
            self._arena.free(number)
        if not segments and not rest:
            return to_results(assigned, _NO_HOLD, apart=self.apart)
        hold = Hold(rest, frame, segments, self._on_free)
        try:
            return to_results(assigned, hold, apart=self.apart)
        finally:
            hold.release()

    def _assign(self, records: Sequence[tuple[Any, ...]]) -> list[Record]:
        """Locked. Find out whose the answers are."""
        assigned: list[Record] = []
        assert self._book is not None
        for record in records:
            calls = len(record[4]) if record[1] == messages.GROUP else 1
            whose = self._book.answered(record[0], calls)
            if whose:
                assigned.append((record, whose))
        return assigned

    def _on_free(self, number: int, size: int) -> None:
        """Nobody looks into a result's memory any more. From any thread, inside of anything."""
        self._freed.append((number, size))
        if size >= BIG:
            self._wake()

    # -- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """The worker is gone, and all that it said was reported."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._book = None
            # 1. A writes to the socket. 2. We close it. 3. Its number is given to another file.
            # 4. A writes to that. So while somebody flushes, closing is left to them.
            mine = self._released = not self._flushing
        if mine:
            self._release()

    def _release(self) -> None:
        for part in (self._outbox, self._inbox, self.child, self.page):
            if part is not None:
                part.close()
        if self.sock is not None:
            parent_only.discard(self.sock.fileno())
            self.sock.close()
        with self._lock:
            leases, self._leases = self._leases, set()
        for number in leases:
            self._arena.free(number)


def _no_barrier() -> None:
    pass


_NO_HOLD = Hold(memoryview(b""), WireFrame(0, b""), (), lambda number, size: None)


def _flags(parcel: Parcel, more: int) -> int:
    """How the worker is to run a parcel; `more`: flags besides its own."""
    call = parcel.call
    flags = more | (TIMED if parcel.timed else 0)
    if parcel.exact:
        flags |= EXACT
    elif parcel.tiny and call.plain:
        flags |= TINY
    if call.star:
        flags |= STAR
    return flags


def _told(parcel: Parcel, cargo: Cargo, more: int) -> tuple[Any, ...]:
    """A parcel, as the worker is told; `more`: as for `_flags`."""
    call = parcel.call
    lo = parcel.base + parcel.lo
    hi = parcel.base + parcel.hi
    form, payload = call.encode(lo, hi, cargo)
    flags = _flags(parcel, more)
    key = call.function.key
    return hi - lo, key, form, payload, flags, parcel.task, parcel.attempt, parcel.index + lo
