"""The memory of a queue: a ring of bytes for one writer and one reader at a time.

A ring is an extent of 2 ** n pages. It begins with its own words; then come entries, one behind the
other, each in one piece, which may have to skip the end of the ring::

    word    length of the pickle | number of buffers << 40, or SKIP
    word    the number of the item in its queue, from 1
    words   the length of each buffer
    bytes   the pickle, padded to 8; then the buffers, each padded to 64

WRITTEN and READ count bytes for ever; their difference is what is in use. Each is written by the
holder of one mutex of the queue's alone, last: that store is the moment at which an item is in
the queue, or out of it.

A full ring gets a successor, NEXT, twice as big at least; a reader that has read all of a ring and
finds a successor moves there and gives the old one back.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from .commons import Commons
from .memory import PAGE, Mapping, punch

__all__ = ["Entry", "Ring", "entry_size"]

WRITTEN, READ, NEXT, BASE, ROOM = (
    0,
    8,
    16,
    17,
    18,
)  # words; the first two in cache lines of their own
DATA = 256  # bytes before the first entry
_SKIP = 1 << 63
_BUFFERS_AT = 40
LENGTH = (1 << _BUFFERS_AT) - 1
_CODE_BITS = 6
_HUGE = 16 << 20
_NONE: Sequence[bytearray] = ()


Entry = tuple[bytes, Sequence[bytearray], int, int]
"""An item as it came out of a ring: its pickle, its buffers, its number, and what READ is once it
is out."""


def entry_size(length: int, buffers: Sequence[memoryview]) -> int:
    """Bytes that an item takes in a ring."""
    if not buffers:
        return 16 + (length + 7 & ~7)
    size = 16 + 8 * len(buffers) + (length + 7 & ~7)
    return (size + 63 & ~63) + sum([len(one) + 63 & ~63 for one in buffers])


class Ring:
    """One ring, mapped in this process.

    Attributes:
        code: where it is and how big, in one word.
        view, words: the whole ring, in bytes and in words.
        room: bytes for entries.
        limit: how far WRITTEN, for a writer, or READ, for a reader, may go as far as was seen; each
            looks at what the other changes only when it comes to this.
        base: how many bytes had been read from the rings before.
    """

    __slots__ = ("_commons", "_mapping", "base", "code", "limit", "room", "view", "words")

    def __init__(self, commons: Commons, code: int) -> None:
        self._commons = commons
        self.code = code
        size = PAGE << (code & (1 << _CODE_BITS) - 1)
        self._mapping = Mapping(commons.fd, size, code >> _CODE_BITS << 12)
        self.view = self._mapping.view
        self.words = self.view.cast("Q")
        self.room: int = self.words[ROOM]
        self.base: int = self.words[BASE]
        self.limit = 0

    @classmethod
    def create(cls, commons: Commons, size: int, base: int) -> Ring:
        """A new ring with room for `size` bytes. Raises OSError: there is no memory."""
        order = max(-(-(size + DATA) // PAGE) - 1, 0).bit_length()
        offset = commons.reserve(PAGE << order)
        # A huge ring is for one item, and has only as much memory as that takes.
        room = size + 7 & ~7 if size > _HUGE else (PAGE << order) - DATA
        os.posix_fallocate(commons.fd, offset, room + DATA)
        code = offset >> 12 << _CODE_BITS | order
        head = Mapping(commons.fd, PAGE, offset).view.cast("Q")
        head[BASE] = base
        head[ROOM] = room
        return cls(commons, code)

    def free(self) -> None:
        """Give its memory back; whoever has it mapped must not read it any more."""
        punch(self._commons.fd, self.code >> _CODE_BITS << 12, len(self.view))

    def used(self) -> int:
        """Bytes in use."""
        written: int = self.words[WRITTEN] - self.words[READ]
        return written

    def write(self, number: int, data: bytes, buffers: Sequence[memoryview], size: int) -> bool:
        """Put an item in; whether there was room. `size`: its `entry_size`."""
        words, room = self.words, self.room
        written = words[WRITTEN]
        at = written % room
        skip = 0
        if at + size > room:
            skip = room - at
        self.limit = words[READ] + room
        if written + skip + size > self.limit:
            return False
        if skip:
            words[(DATA + at) >> 3] = _SKIP
            at = 0
        start = DATA + at
        place = start >> 3
        length = len(data)
        words[place + 1] = number
        if not buffers:
            words[place] = length
            self.view[start + 16 : start + 16 + length] = data
        else:
            words[place] = length | len(buffers) << _BUFFERS_AT
            for one in buffers:
                words[place + 2] = len(one)
                place += 1
            where = start + 16 + 8 * len(buffers)
            self.view[where : where + length] = data
            where = start + ((where - start) + (length + 7 & ~7) + 63 & ~63)
            for one in buffers:
                self.view[where : where + len(one)] = one
                where += len(one) + 63 & ~63
        words[WRITTEN] = written + skip + size
        return True

    def peek(self) -> Entry | None:
        """The next item; None if there is none. Its last part stored in READ takes it out."""
        words, room = self.words, self.room
        read = words[READ]
        if read == words[WRITTEN]:
            return None
        at = read % room
        head = words[(DATA + at) >> 3]
        if head == _SKIP:
            read += room - at
            at = 0
            head = words[DATA >> 3]
        start = DATA + at
        number = words[(start >> 3) + 1]
        if head <= LENGTH:
            data = self.view[start + 16 : start + 16 + head].tobytes()
            return data, _NONE, number, read + 16 + (head + 7 & ~7)
        return self._peek_big(read, start, head, number)

    def _peek_big(self, read: int, start: int, head: int, number: int) -> Entry:
        length, count = head & LENGTH, head >> _BUFFERS_AT
        place = (start >> 3) + 2
        sizes = self.words[place : place + count].tolist()
        where = start + 16 + 8 * count
        data = self.view[where : where + length].tobytes()
        where = start + ((where - start) + (length + 7 & ~7) + 63 & ~63)
        buffers = []
        for size in sizes:
            buffers.append(bytearray(self.view[where : where + size]))
            where += size + 63 & ~63
        return data, buffers, number, read + where - start

    def numbers(self) -> list[int]:
        """The numbers of the items in it."""
        words, room, found = self.words, self.room, []
        read, written = words[READ], words[WRITTEN]
        while read < written:
            at = read % room
            head = words[(DATA + at) >> 3]
            if head == _SKIP:
                read += room - at
                continue
            place = (DATA + at) >> 3
            found.append(words[place + 1])
            length, count = head & LENGTH, head >> _BUFFERS_AT
            size = 16 + 8 * count + (length + 7 & ~7)
            if count:
                sizes = words[place + 2 : place + 2 + count].tolist()
                size = (size + 63 & ~63) + sum([one + 63 & ~63 for one in sizes])
            read += size
        return found
