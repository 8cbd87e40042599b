"""What a worker and its parent share: one page of numbers, a journal, room for a fatal stack.

A file in memory (Linux: a memfd, elsewhere an unlinked file), mapped by both, of each worker's
own::

    0        the page: 8-byte numbers, each with exactly one writer
    4096     the journal: finished results that are not yet written to the socket
    266240   where faulthandler writes the Python stacks at a fatal signal

Guarantees: a number is stored and loaded whole (8 bytes, aligned); what the worker stored before
it died can be read after its death, whatever killed it. Nothing is promised about the order in
which the other side sees two stores: see PROTOCOL.md for how that is done without a lock.
"""

from __future__ import annotations

import contextlib
import faulthandler
import marshal
import mmap
import os
import struct
from collections.abc import Callable
from typing import Any

__all__ = ["Page", "create"]

# -- written by the worker -----------------------------------------------------------------------
STARTED = 0
"""Position of the call that is handled, or is about to be. Only grows."""
FINISHED = 1
"""Calls at positions below this have ended, and their results outlive the worker."""
PHASE = 2
"""What it is doing: one of the phases below."""
SINCE = 3
"""``time.monotonic_ns()`` when the current call started, if its parcel is timed. Stored before
STARTED, so that a reader never pairs a new call with an old time."""
USED = 4
"""In phase OVER_MEMORY: the resident bytes that were seen."""
JOURNALED = 5
"""How many bytes of the journal count."""

CLEARED = 6
"""How often the journal was cleared."""

# -- written by the parent -----------------------------------------------------------------------
LIMIT = 64
"""LIMIT + slot: one more than how many calls of the frame in that slot may start, and 0 for all
(which is the faster to load and to test, 20 ns a call). Only falls while the frame is at the
worker."""
SLOTS = 64

NO_LIMIT = 63
"""Stays 0: stands for the limit of a call that may start whatever is taken back."""

# -- phases --------------------------------------------------------------------------------------
IDLE = 0
LOADING = 1  # the arguments of one call
CALLING = 2
PACKING_RESULT = 3
SENDING = 4  # the call has ended; its result is on its way into the socket
SENDING_GROUP = 5  # the same for a group of tiny calls: nobody to blame
LOADING_MANY = 6  # one blob with the arguments of several calls
INITIALIZING = 7
OVER_MEMORY = 8  # between calls, over the memory limit: it leaves

IN_A_CALL = frozenset({LOADING, CALLING, PACKING_RESULT, LOADING_MANY})
"""Phases in which time passes on the account of a call."""
CHARGED = IN_A_CALL | {SENDING}
"""Phases in which a death is charged to a call."""

_PAGE_SIZE = 4096
_JOURNAL_SIZE = 256 * 1024  # arbitrary: a millisecond of the fastest careful calls fits in
_FAULT = _PAGE_SIZE + _JOURNAL_SIZE
_FAULT_SIZE = 64 * 1024  # more than this of a stack is not shown
_SIZE = _FAULT + _FAULT_SIZE
_LENGTH = struct.Struct("<q")
_HERE = f'File "{os.path.dirname(os.path.abspath(__file__))}{os.sep}'


def create() -> int:
    """Make the file; return its descriptor. Raises OSError when the system refuses."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("lightwork-page", os.MFD_CLOEXEC)
    else:
        import tempfile  # late: what has memfd_create does not need it

        fd, path = tempfile.mkstemp(prefix="lightwork-page-")
        os.unlink(path)
    try:
        os.ftruncate(fd, _SIZE)
    except BaseException:
        os.close(fd)
        raise
    return fd


class Page:
    """One side's mapping of the file. The descriptor is not kept."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, _SIZE)
        self._bytes = memoryview(self._map)
        self.cells = self._bytes[:_PAGE_SIZE].cast("q")
        self._journal = self._bytes[_PAGE_SIZE:_FAULT]
        self._used = 0

    def close(self) -> None:
        """Undo the mapping. May be called again."""
        for view in (self.cells, self._journal, self._bytes):
            view.release()
        with contextlib.suppress(BufferError):
            self._map.close()

    # -- the worker's side -----------------------------------------------------------------------

    def watch_faults(self, fd: int) -> None:
        """Let the Python stacks at a fatal signal be written into the file. Keeps `fd` open."""
        os.lseek(fd, _FAULT, os.SEEK_SET)
        faulthandler.enable(file=fd, all_threads=True)

    def journal(self, record: Any) -> bool:
        """Keep a record for the parent to read should this process die; False: no room.

        Killed before the last line, the record does not count, and its call is the one that
        was being handled.
        """
        data = marshal.dumps(record, 2)
        at = self._used
        end = at + 8 + len(data)
        if end > _JOURNAL_SIZE:
            return False
        _LENGTH.pack_into(self._journal, at, len(data))
        self._journal[at + 8 : end] = data
        self._used = self.cells[JOURNALED] = end
        return True

    def clear_journal(self) -> None:
        """Its records were written to the socket. Killed just before: the parent has them twice,
        and knows them by their positions."""
        if self._used:
            self.cells[CLEARED] += 1
            self._used = self.cells[JOURNALED] = 0

    # -- the parent's side -----------------------------------------------------------------------

    def read_journal(self) -> list[Any]:
        """The records that count. The worker is dead."""
        return self._records(self._journal, self.cells[JOURNALED])

    def peek_journal(self, cleared: int, barrier: Callable[[], None]) -> list[Any]:
        """The records of a worker that lives; none if it has cleared them since `cleared`.

        It may clear and write anew while we copy. But it counts that before it writes: who sees
        the same count behind the copy as before has a copy of what was there.
        """
        end = self.cells[JOURNALED]
        copy = memoryview(bytes(self._journal[:end]))
        barrier()
        return self._records(copy, end) if self.cells[CLEARED] == cleared else []

    @staticmethod
    def _records(journal: memoryview, end: int) -> list[Any]:
        records, at = [], 0
        while at < end:
            (length,) = _LENGTH.unpack_from(journal, at)
            records.append(marshal.loads(journal[at + 8 : at + 8 + length]))
            at += 8 + length
        return records

    # -- after the worker's death ----------------------------------------------------------------

    def read_fault(self) -> str:
        """What faulthandler wrote, without the lines about our own code; or ""."""
        text = bytes(self._bytes[_FAULT:_SIZE]).rstrip(b"\0").decode("utf-8", "replace")
        return "".join([line for line in text.splitlines(True) if not _is_ours(line)])


def _is_ours(line: str) -> bool:
    return _HERE in line or 'File "<string>", line 1 in <module>' in line
