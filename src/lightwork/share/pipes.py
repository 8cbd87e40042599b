"""`Pipe`: two ends, and what one sends the other receives."""

from __future__ import annotations

import queue
from typing import Any, Self

from . import flights
from . import layout as at
from .blocks import Block, Shared
from .closing import Closed
from .kinds import K_END
from .mutex import Slices, deadline_after
from .queues import Queue

__all__ = ["End", "Pipe"]


_OTHER, _OTHER_GENERATION = at.R_OWN, at.R_OWN + 1


class End(Shared):
    """One end of a `Pipe`; used as a `multiprocessing.connection.Connection` is.

    Any number of threads and processes may use an end: each object is received by one of them. When
    the last that has the other end closes it, lets go of it, or dies, ``recv`` raises EOFError
    once everything sent is received, and ``send`` raises BrokenPipeError.
    """

    def __init__(self, incoming: Queue | None, outgoing: Queue | None, name: str = "") -> None:
        block = Block.create(K_END)
        block.name = name
        self._made(block, incoming, outgoing)

    def _open(self, *extra: Any) -> None:
        self._incoming, self._outgoing = extra
        self._closed = False
        self._commons = self._block.commons

    def _extra(self) -> tuple[Any, ...]:
        return self._incoming, self._outgoing

    def __reduce__(self) -> tuple[Any, ...]:
        self._check()
        return super().__reduce__()

    def _join(self, other: End) -> None:
        """Know the other end, without using it."""
        for one, two in ((self, other), (other, self)):
            one._block.cells[_OTHER] = two._block.index
            one._block.cells[_OTHER_GENERATION] = two._block.generation

    @property
    def readable(self) -> bool:
        """Whether something can be received here."""
        return self._incoming is not None

    @property
    def writable(self) -> bool:
        """Whether something can be sent here."""
        return self._outgoing is not None

    @property
    def closed(self) -> bool:
        """Whether this process has closed it."""
        return bool(self._closed)

    def send(self, obj: Any) -> None:
        """Send an object; never waits. Raises BrokenPipeError: nobody has the other end."""
        self._check()
        if self._outgoing is None:
            raise OSError("this end of the pipe only receives")
        if self._is_alone():
            raise BrokenPipeError("nobody has the other end of the pipe any more")
        try:
            self._outgoing.put(obj)
        except Closed:
            raise BrokenPipeError("the other end of the pipe was closed") from None

    send_bytes = send

    def recv(self, timeout: float | None = None) -> Any:
        """Receive an object.

        Args:
            timeout: seconds to wait at most; None for ever.

        Raises EOFError: nothing is left, and nobody has the other end. TimeoutError.
        """
        self._check()
        if self._incoming is None:
            raise OSError("this end of the pipe only sends")
        slices = Slices(deadline_after(None if timeout is None else max(timeout, 0.0)))
        while True:
            alone = self._is_alone()  # before the look: what was sent before is seen then
            span = slices.take()
            try:
                return self._incoming.get(timeout=0 if alone else span)
            except queue.Empty:
                if alone:
                    raise EOFError("nobody has the other end of the pipe any more") from None
                if not span:
                    raise TimeoutError("nothing was received in time") from None
            except Closed:
                raise EOFError("the other end of the pipe was closed") from None

    recv_bytes = recv

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether ``recv`` would return or raise at once, `timeout` seconds from now at the
        latest."""
        self._check()
        if self._incoming is None:
            raise OSError("this end of the pipe only sends")
        slices = Slices(deadline_after(timeout))
        while not (alone := self._is_alone()) and self._incoming.empty():
            span = slices.take()
            if not span:
                return False
            self._incoming.wait_for_item(span)
        return alone or not self._incoming.empty()

    def close(self) -> None:
        """Be done with this end, in this process."""
        if not self._closed:
            self._closed = True
            self._incoming = self._outgoing = None
            self._forget()

    def __repr__(self) -> str:
        return "<share.Pipe end, closed>" if self._closed else super().__repr__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self) -> None:
        if self._closed:
            raise OSError("this end of the pipe was closed")

    def _is_alone(self) -> bool:
        """Whether no process has the other end, nor a pickle of it is on its way."""
        commons, cells = self._commons, self._block.cells
        index = cells[_OTHER]
        begin = index * at.R_WORDS
        record = commons.records[begin : begin + at.R_WORDS]
        if commons.users(index):
            return False
        with commons:
            gone = not commons.states[index] or record[0] != cells[_OTHER_GENERATION]
            return gone or not (commons.users(index) or flights.on_their_way(record))


def Pipe(duplex: bool = True, name: str = "") -> tuple[End, End]:
    """A pipe between threads or processes; returns its two ends.

    Args:
        duplex: whether both ends send and receive; else the first receives, and the second sends.
        name: for error messages.
    """
    there = Queue(name=name)
    back = Queue(name=name) if duplex else None
    ends = End(there, back, name), End(back, there, name)
    ends[0]._join(ends[1])
    return ends
