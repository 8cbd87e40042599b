"""Frames on a stream socket: many small ones in one system call, big ones without a copy.

A frame is a header of 12 bytes (u64 length of the body, u8 kind, u8 number of descriptors, u16 that
is always the same), then the body. Descriptors travel beside (SCM_RIGHTS), attached to the first
byte of their frame.

Guarantees
    * Frames arrive whole and in the order in which they were posted, or not at all.
    * ``post`` never blocks and makes no system call. ``flush`` never blocks. Both may be called
      from any thread; whoever flushes takes the frames of all others along.
    * What arrived before the end of the stream is handed out before ``eof`` is set.
    * A broken connection is a state (``broken``, ``eof``), never an exception. So is a stream that
      makes no sense, because the user's code has written to our descriptor.

Assumptions
    * One `Outbox` for each writing side of a socket and one `Inbox` for each reading side: bytes
      that somebody else writes or reads in between cannot be told from ours.
    * An `Inbox` is read by one thread at a time.

The socket's own blocking mode does not matter: every call says for itself (MSG_DONTWAIT) whether
it may wait.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

__all__ = ["MAX_FDS", "Frame", "Inbox", "Outbox"]

Buffer = bytes | bytearray | memoryview

_HEADER = struct.Struct("<QBBH")
_SIGN = 0xF7A3  # nothing in particular, but text and zeros are not like it
_HEADER_SIZE = _HEADER.size
MAX_FDS = 250  # the kernel takes 253 in one message

_IOV_MAX = 512  # the kernel takes 1024; beyond some dozens there is nothing to gain
_SEND_AT_ONCE = 1 << 20  # bytes gathered for one system call; a socket buffer holds about 200 KiB
_JOIN_BELOW = 8192  # a frame smaller than this is one piece of memory: cheaper than many vectors
# Plain numbers: the operators of enums cost some microseconds each.
_DONTWAIT = int(socket.MSG_DONTWAIT) | int(getattr(socket, "MSG_NOSIGNAL", 0))
_CLOEXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
_READ_NOW = int(socket.MSG_DONTWAIT) | _CLOEXEC

_TRUNCATED = int(socket.MSG_CTRUNC)

_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF, errno.ESHUTDOWN)
# The kernel's memory, or its count of descriptors in flight, is used up for the moment. The
# reader's next read helps; until then the socket looks writable, and the caller comes again.
_LATER = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)


class Frame(NamedTuple):
    """One frame as it arrived.

    Attributes:
        kind: the number that it was posted with.
        body: small bodies are ``bytes``; big ones a memoryview of memory of their own.
        fds: the descriptors that came with it, close-on-exec; the receiver owns them.
        lost_fds: descriptors were sent, but this process had no room for (all of) them; `fds`
            is empty then.
    """

    kind: int
    body: bytes | memoryview
    fds: tuple[int, ...] = ()
    lost_fds: bool = False


class _Message:
    """A frame on its way out."""

    __slots__ = ("fds", "left", "on_sent", "parts")

    def __init__(
        self,
        parts: list[Buffer],
        left: int,
        fds: Sequence[int],
        on_sent: Callable[[], None] | None,
    ) -> None:
        self.parts = parts
        self.left = left  # bytes not yet written
        self.fds = fds  # emptied as soon as the first byte is written
        self.on_sent = on_sent


class Outbox:
    """The writing side: ``post`` queues, ``flush`` writes what it can.

    Attributes:
        broken: the other side is gone; all that was queued is dropped, and so is what comes.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.broken = False
        self._sock = sock
        self._queue: deque[_Message] = deque()
        self._writing = threading.Lock()

    def post(
        self,
        kind: int,
        chunks: Sequence[Buffer] = (),
        fds: Sequence[int] = (),
        on_sent: Callable[[], None] | None = None,
    ) -> None:
        """Queue a frame; its body is the concatenation of `chunks`. Never blocks.

        Args:
            kind: 0 to 255.
            chunks: C-contiguous; big ones are not copied, so they must not change until sent.
            fds: descriptors to pass on, at most `MAX_FDS`; they stay the caller's, who must not
                close them before `on_sent`.
            on_sent: called once by the flushing thread when the last byte has been written or
                the frame was dropped because the connection broke. It must not raise, nor call
                ``close``; it may post and flush.
        """
        if len(fds) > MAX_FDS:
            raise ValueError(f"at most {MAX_FDS} descriptors go with a frame, not {len(fds)}")
        size = 0
        for chunk in chunks:
            size += chunk.nbytes if isinstance(chunk, memoryview) else len(chunk)
        header = _HEADER.pack(size, kind, len(fds), _SIGN)
        parts: list[Buffer]
        if size < _JOIN_BELOW:
            parts = [b"".join((header, *chunks))]
        else:
            parts = [header]
            parts += [c.cast("B") if isinstance(c, memoryview) else c for c in chunks if len(c)]
        self._queue.append(_Message(parts, _HEADER_SIZE + size, fds, on_sent))

    def send_now(self, kind: int, body: bytes) -> bool:
        """``post`` and ``flush`` of one small frame; returns as ``flush`` does.

        Where nobody is writing and the socket takes it, which is nearly always so, this is one
        system call and little else.
        """
        if self._queue or self.broken or not self._writing.acquire(blocking=False):
            self.post(kind, (body,))
            return self.flush()
        data = _HEADER.pack(len(body), kind, 0, _SIGN) + body
        sent = 0
        try:
            try:
                sent = self._sock.send(data, _DONTWAIT)
            except OSError:
                pass  # whatever it is, `flush` will find it, too
            if sent < len(data):
                # In front: what others posted meanwhile comes behind it.
                left = memoryview(data)[sent:]
                self._queue.appendleft(_Message([left], len(left), (), None))
        finally:
            self._writing.release()
        return self.flush() if self._queue else True

    @property
    def pending(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._queue)

    def flush(self) -> bool:
        """Write until nothing is left (True) or the socket is full (False: come again then).

        Never blocks. When another thread is at it, this returns True at once: that thread takes
        our frames along, and it is the one that hears whether the socket is full.
        """
        # Why the queue is looked at again after the lock was released. Without that:
        #   1. A holds the lock, and finds the queue empty.
        #   2. B posts a frame, fails to get the lock, and returns: A will do it.
        #   3. A releases the lock. The frame stays, and nobody comes for it.
        # B posts before it tries the lock, and A looks after it let go of it. So if B's try
        # failed, it came before A's release, B's frame before A's look, and A sees it.
        while self._queue:
            if not self._writing.acquire(blocking=False):
                return True
            try:
                emptied = self._write()
            finally:
                self._writing.release()
            if not emptied:
                # Frames posted since are behind the one that is stuck; whoever watches for
                # writability on our behalf writes them too.
                return False
        return True

    def flush_blocking(self) -> None:
        """Write everything, however long the reader takes; ends when the connection breaks."""
        if self.flush() and not self._queue:
            return
        poll = select.poll()
        try:
            poll.register(self._sock, select.POLLOUT)
            while not self.flush():
                poll.poll()  # ends with POLLHUP or POLLERR when the reader is gone
        except (OSError, ValueError):  # closed under our feet
            self._break()

    def _write(self) -> bool:
        """With the lock held: write until the queue is empty (True) or the socket full."""
        queue = self._queue
        while queue:
            message = queue[0]
            try:
                sent = self._send(message)
            except OSError as error:
                if error.errno in _LATER:
                    return False
                # The peer is gone, or the socket is no longer ours: either way nothing more
                # will ever get through. (A descriptor of the caller's that is closed already
                # gives EBADF too; half a conversation is worth nothing, so it ends as well.)
                self._drop()
                return True
            if sent != message.left:
                self._consume(sent)
                continue
            queue.popleft()
            if message.on_sent is not None:
                message.on_sent()
        return True

    def _send(self, message: _Message) -> int:
        """One system call for the first message, and for others behind it."""
        buffers = message.parts
        if message.fds:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", message.fds))]
            return self._sock.sendmsg(buffers[:_IOV_MAX], rights, _DONTWAIT)
        if len(self._queue) > 1:
            buffers = self._gather()
        if len(buffers) == 1:
            return self._sock.send(buffers[0], _DONTWAIT)
        return self._sock.sendmsg(buffers[:_IOV_MAX], (), _DONTWAIT)

    def _gather(self) -> list[Buffer]:
        """The parts of as many messages as go out in one call: none with descriptors."""
        buffers: list[Buffer] = []
        size = 0
        # Other threads append while we look: an index is safe, an iterator would raise.
        for number in range(len(self._queue)):
            message = self._queue[number]
            if message.fds:
                break
            buffers += message.parts
            size += message.left
            if size >= _SEND_AT_ONCE or len(buffers) >= _IOV_MAX:
                break
        return buffers

    def _consume(self, sent: int) -> None:
        """Take `sent` written bytes off the queue."""
        queue = self._queue
        while sent:
            message = queue[0]
            message.fds = ()
            if sent >= message.left:
                sent -= message.left
                queue.popleft()
                if message.on_sent is not None:
                    message.on_sent()
                continue
            message.left -= sent
            parts = message.parts
            done = 0
            while sent >= len(parts[done]):
                sent -= len(parts[done])
                done += 1
            del parts[:done]
            if sent:
                parts[0] = memoryview(parts[0])[sent:]
            return

    def _break(self) -> None:
        """Give the connection up, and tell all who wait for a frame to be sent."""
        with self._writing:
            self._drop()

    def _drop(self) -> None:
        """With the lock held: the connection is broken, so drop everything."""
        self.broken = True
        while self._queue:
            message = self._queue.popleft()
            if message.on_sent is not None:
                message.on_sent()

    def close(self) -> None:
        """Drop what is queued (each ``on_sent`` is called). The socket stays the caller's."""
        self._break()


class _Group(NamedTuple):
    """The descriptors that came with one read: those of one frame, by the kernel's rule."""

    fds: tuple[int, ...]
    truncated: bool


class Inbox:
    """The reading side.

    Attributes:
        eof: the other side has closed or died, and everything before that was handed out.
        error: why the stream was given up before its end (``eof`` is set): it makes no sense, or
            there is no memory for a frame. Else None.
        drained: the last read took all there was at that moment. Only the next one can tell
            whether the stream has ended there.
    """

    _SIZE = 1 << 18  # of the receive buffer: as much as a socket's buffer holds
    _OWN_BELOW = 1 << 16  # a body smaller than this is copied out of the receive buffer
    _AT_ONCE = 4 << 20  # bytes that one read() takes before it returns

    def __init__(self, sock: socket.socket) -> None:
        self.eof = False
        self.error: Exception | None = None
        self.drained = False
        self._sock = sock
        self._memory = bytearray(self._SIZE)
        self._view = memoryview(self._memory)
        self._end = 0  # the buffer holds bytes 0 to _end of frames not complete yet
        self._groups: deque[_Group] = deque()
        self._big: memoryview | None = None  # the body that is being received in place
        self._filled = 0
        self._head: tuple[int, tuple[int, ...], bool] = (0, (), False)  # all of it but the body
        self._ancillary = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)

    def read(self) -> list[Frame]:
        """Return the complete frames that can be had without waiting, about 4 MB at most.

        Fewer than there are may come: a level-triggered selector tells. See `drained`, `drain`.
        """
        frames: list[Frame] = []
        self.drained = self.eof
        budget = self._AT_ONCE
        while budget > 0 and not self.drained:
            budget -= self._receive(_READ_NOW, frames)
        return frames

    def read_blocking(self) -> list[Frame]:
        """Wait for at least one complete frame, then return those that came with it.

        Returns an empty list only at the end of the stream (``eof``).
        """
        frames: list[Frame] = []
        while not frames and not self.eof:
            if not self._receive(_CLOEXEC, frames) and not self.eof:
                # The socket itself is in non-blocking mode.
                poll = select.poll()
                poll.register(self._sock, select.POLLIN)
                poll.poll()
        return frames

    def drain(self) -> list[Frame]:
        """Return all complete frames up to the end of the stream, or to the last byte there is."""
        frames: list[Frame] = []
        while not self.eof and self._receive(_READ_NOW, frames):
            pass
        return frames

    def _receive(self, flags: int, frames: list[Frame]) -> int:
        """Read once, and return how many bytes came. Sets `drained` if there are no more now."""
        big = self._big
        ancillary: Sequence[tuple[int, int, bytes]] = ()
        truncated = False
        try:
            if big is None:
                at = self._end
                room = self._SIZE - at
                target = self._view[at:] if at else self._view
                got, ancillary, returned, _ = self._sock.recvmsg_into(
                    (target,), self._ancillary, flags
                )
                truncated = returned & _TRUNCATED != 0
            else:
                # No descriptor can come here, for they come with headers.
                room = len(big) - self._filled
                got = self._sock.recv_into(big[self._filled :], 0, flags)
        except (BlockingIOError, InterruptedError):
            self.drained = True
            return 0
        except OSError as error:
            if error.errno not in _GONE:
                self.error = error
            got = 0
        if not got:
            self._finish()
            return 0
        if ancillary or truncated:
            # The kernel ends a read behind descriptors, so a short one says nothing here.
            self._groups.append(_take_fds(ancillary, truncated))
        elif got < room:
            self.drained = True
        if big is None:
            self._end += got
            try:
                self._cut(frames)
            except (ValueError, MemoryError, OverflowError) as error:
                self.error = error
                self._finish()
                return 0
        else:
            self._filled += got
            if got == room:
                kind, fds, lost = self._head
                frames.append(Frame(kind, big, fds, lost))
                self._big = None
        return got

    def _cut(self, frames: list[Frame]) -> None:
        """Cut what is in the buffer into frames. Raises if that cannot be done."""
        view, end, at = self._view, self._end, 0
        unpack = _HEADER.unpack_from
        while end - at >= _HEADER_SIZE:
            size, kind, count, sign = unpack(view, at)
            if sign != _SIGN:
                raise ValueError("what was received is not a frame")
            start = at + _HEADER_SIZE
            stop = start + size
            if stop <= end and size < self._OWN_BELOW:
                if count:
                    frames.append(Frame(kind, bytes(view[start:stop]), *self._claim(count)))
                else:
                    frames.append(_new_frame(Frame, (kind, bytes(view[start:stop]), (), False)))
                at = stop
                continue
            if size < self._OWN_BELOW:
                break
            body = memoryview(bytearray(size))
            here = min(stop, end)
            body[: here - start] = view[start:here]
            fds, lost = self._claim(count) if count else ((), False)
            at = here
            if here == stop:
                frames.append(Frame(kind, body, fds, lost))
                continue
            self._big, self._filled, self._head = body, here - start, (kind, fds, lost)
        if at:
            left = end - at
            if left:
                self._memory[:left] = self._memory[at:end]
            self._end = left

    def _claim(self, count: int) -> tuple[tuple[int, ...], bool]:
        """The descriptors of the frame whose header was just read."""
        if self._groups:
            group = self._groups.popleft()
            if len(group.fds) == count and not group.truncated:
                return group.fds, False
            _close_all(group.fds)
        return (), True

    def _finish(self) -> None:
        """The stream has ended: a frame that is not complete will never be."""
        self.eof = True
        self.drained = True
        if self._big is not None:
            _close_all(self._head[1])
            self._big = None
        while self._groups:
            _close_all(self._groups.popleft().fds)

    def close(self) -> None:
        """Close descriptors that nobody took. The socket stays the caller's."""
        self._finish()


_new_frame = tuple.__new__  # skips the argument handling of NamedTuple: a third of the cost


def _take_fds(ancillary: Iterable[tuple[int, int, bytes]], truncated: bool) -> _Group:
    """Decode the descriptors that came with a read."""
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if not _CLOEXEC:
        for fd in fds:
            os.set_inheritable(fd, False)
    return _Group(tuple(fds), truncated)


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):  # closed by someone else: nothing left to do
            os.close(fd)
