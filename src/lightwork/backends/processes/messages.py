"""What parent and worker say to each other, and how it is laid out in a frame.

A body is a length (u32), a marshalled header, and raw bytes that the header refers to. ``marshal``
is the fastest encoder of small tuples there is (0.25 us there, as much back), and both sides run
the same interpreter. Everything that a user's object is part of is pickled before: it is bytes
here.

Bytes up to 32 KiB are written into the header itself. More is raw bytes behind it, or, from 128
KiB on, a segment of shared memory whose descriptor travels with the frame. When there is no room
for a segment (memory, descriptors), the bytes go in the frame instead.
"""

from __future__ import annotations

import contextlib
import errno
import marshal
import os
import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from ...wire.frames import MAX_FDS, Frame
from ...wire.pickling import Packed
from ...wire.segments import Arena, Segment, map_segment

__all__ = [
    "APART",
    "ATOM",
    "CUT",
    "EACH",
    "ERROR",
    "EXACT",
    "FREE",
    "GROUP",
    "INIT_FAILED",
    "INLINE",
    "LEAVE",
    "LEAVING",
    "LOADED",
    "PLAIN",
    "READY",
    "RESULTS",
    "SEND",
    "SINGLE",
    "SINGLES",
    "STAR",
    "TIMED",
    "TINY",
    "VALUE",
    "Cargo",
    "Header",
    "Hold",
    "Results",
    "plain_body",
    "read_plain",
    "small_body",
    "split",
]

# -- kinds of frames, from the parent ------------------------------------------------------------
SEND = 1  # Header
CUT = 2  # [(serial, limit, keep), ...]: see PROTOCOL.md
FREE = 3  # [segment of the worker's, ...] that nobody in the parent looks into any more
LEAVE = 4

# -- kinds of frames, from the worker ------------------------------------------------------------
READY = 8  # whether it takes part in barriers
INIT_FAILED = 9  # the packed error of the initializer
RESULTS = 10  # Results
LEAVING = 11

# -- kinds of records in Results -----------------------------------------------------------------
# (position, VALUE or ERROR or ATOM, started, seconds, item)
# (position of the first, GROUP, started, seconds, values, {place: (VALUE or ERROR, item)})
VALUE = 0
ERROR = 1
GROUP = 2
ATOM = 3  # as VALUE, but the item is the value itself

# -- forms of a parcel's payload -----------------------------------------------------------------
SINGLE = 0  # item: (args, kwargs) of one call
PLAIN = 1  # (item, lo, hi): a list of the arguments of several calls, all plain; take [lo:hi]
EACH = 2  # (item, ...): the argument of each call
SINGLES = 3  # (item, ...): (args, kwargs) of each of several calls, pickled, small and plain
LOADED = 4  # in the worker only: the argument itself

# -- flags of a parcel ---------------------------------------------------------------------------
TIMED = 1
TINY = 2
EXACT = 4
APART = 16  # the time of each call is wanted, not that of a group of them
STAR = 8  # the argument of each call is to be unpacked: fn(*item)

INLINE = 32 * 1024
_SHARED = 128 * 1024  # below this a copy through the socket is as fast as a mapping
_LENGTH = struct.Struct("<I")

Item = bytes | tuple[Any, ...]
"""Where a blob and its buffers are: these bytes; (the number of a segment of the frame); (the place
behind the header, their lengths)."""


class Header(NamedTuple):
    """A frame of calls, to be run in order.

    `parcels`: (calls, function key, form, payload, flags, task, attempt, index of its first call).
    """

    serial: int
    base: int  # position of the first call
    functions: tuple[tuple[int, Item], ...]  # (key, pickled) that the worker does not know yet
    forget: tuple[int, ...]  # keys that will not be used again unless sent again
    segments: tuple[tuple[int, int, tuple[tuple[int, int], ...]], ...]  # (id, size, spans)
    parcels: tuple[tuple[Any, ...], ...]


class Results(NamedTuple):
    """What a worker has to say."""

    frames_done: int  # frames it will not look at any more, counted over its life
    freed: tuple[int, ...]  # segments of the parent's that nothing in the worker looks into
    segments: tuple[tuple[int, int, tuple[tuple[int, int], ...]], ...]
    records: tuple[tuple[Any, ...], ...]


class Cargo:
    """The part of a frame that does not fit into its header, while the frame is put together."""

    __slots__ = ("_arena", "_size", "chunks", "segments")

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._size = 0
        self.chunks: list[bytes | memoryview] = []
        self.segments: list[Segment] = []

    def item(self, packed: Packed) -> Item:
        """Load a blob with its buffers; return how to find it. Never fails for want of memory
        or descriptors: then the bytes go in the frame."""
        data, buffers, _ = packed
        if not buffers and len(data) <= INLINE:
            return data
        views = [memoryview(data)]
        views += [buffer.raw() for buffer in buffers]
        if sum([view.nbytes for view in views]) >= _SHARED and len(self.segments) < MAX_FDS:
            with contextlib.suppress(OSError):
                self.segments.append(self._arena.write(views))
                return (len(self.segments) - 1,)
        place = self._size
        self.chunks += views
        sizes = tuple([view.nbytes for view in views])
        self._size += sum(sizes)
        return place, sizes

    def blob(self, data: bytes) -> Item:
        """Load bytes without buffers."""
        return data if len(data) <= INLINE else self.item(Packed(data, (), True))

    def table(self) -> tuple[tuple[int, int, tuple[tuple[int, int], ...]], ...]:
        """The segments, as the header tells them."""
        return tuple([(one.id, one.size, one.spans) for one in self.segments])

    @property
    def fds(self) -> list[int]:
        """The descriptors to go with the frame."""
        return [one.fd for one in self.segments]

    def body(self, header: tuple[Any, ...]) -> list[bytes | memoryview]:
        """The frame's body. `header` was made after the last `item`."""
        data = marshal.dumps(tuple(header), 2)
        return [_LENGTH.pack(len(data)), data, *self.chunks]


class Hold:
    """The receiver's side of a `Cargo`.

    `on_free(id, size)` is called once for each segment, when nobody looks into it any more: from
    any thread, inside of anything. Segments that were not opened are given back by `release`.
    """

    __slots__ = ("_body", "_fds", "_on_free", "_segments")

    def __init__(
        self,
        body: memoryview,
        frame: Frame,
        segments: Sequence[tuple[int, int, tuple[tuple[int, int], ...]]],
        on_free: Callable[[int, int], None],
    ) -> None:
        self._body = body
        self._segments = segments
        self._on_free = on_free
        # None: the descriptor was lost on the way, for this process has too many open.
        self._fds: dict[int, int | None] = dict(
            enumerate([None] * len(segments) if frame.lost_fds else frame.fds)
        )

    def open(self, item: Item) -> tuple[Any, Sequence[Any]]:
        """Return the blob and its buffers. Raises OSError when they cannot be mapped."""
        if isinstance(item, bytes):
            return item, ()
        if len(item) == 1:
            views = self._map(item[0])
            return views[0], views[1:]
        place, sizes = item
        parts: list[Any] = []
        for size in sizes:
            part = self._body[place : place + size]
            # Buffers are made writable: an array should not be read-only for having travelled.
            parts.append(bytearray(part) if parts else part)
            place += size
        return parts[0], parts[1:]

    def _map(self, index: int) -> list[memoryview]:
        number, size, spans = self._segments[index]
        fd = self._fds.pop(index)
        free = partial(self._on_free, number, size)
        try:
            if fd is None:
                raise OSError(errno.EMFILE, "too many open files to receive shared memory")
            return map_segment(fd, size, spans, free)
        except OSError:
            free()
            raise

    def release(self) -> None:
        """Give back what was not opened."""
        while self._fds:
            index, fd = self._fds.popitem()
            if fd is not None:
                os.close(fd)
            self._on_free(self._segments[index][0], self._segments[index][1])


def small_body(header: tuple[Any, ...]) -> bytes:
    """As `Cargo.body`, where all is in the header."""
    data = marshal.dumps(header, 2)
    return _LENGTH.pack(len(data)) + data


def split(body: bytes | memoryview) -> tuple[Any, memoryview]:
    """The header of a body, and the raw bytes behind it."""
    view = memoryview(body)
    (length,) = _LENGTH.unpack_from(view)
    return marshal.loads(view[4 : 4 + length]), view[4 + length :]


def plain_body(value: Any) -> list[bytes | memoryview]:
    """A body of numbers and bytes only."""
    return [marshal.dumps(value, 2)]


def read_plain(body: bytes | memoryview) -> Any:
    """The inverse of `plain_body`."""
    return marshal.loads(body)
