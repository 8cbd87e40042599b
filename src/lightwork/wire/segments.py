"""Big buffers in shared memory that is recycled by the sender and mapped by the reader.

A segment is anonymous memory with a descriptor (``memfd_create``; elsewhere a file without a
name). The sender writes with ``pwrite`` and never maps it; the reader gets the descriptor over
a socket, maps it privately (copy on write) and closes the descriptor.

Who owns what
    * The sender's `Arena` owns the segment and its one descriptor. From ``write`` to ``free`` the
      segment is *leased* and is not written again; then it is *spare*, until the next
      ``write`` takes it or the bound on spare memory closes it.
    * The reader owns its copy of the descriptor until `map_segment` returns (or raises), and its
      mapping until the last object that looks into it is gone. Then ``on_free`` runs, and the
      reader tells the sender (by whatever channel it has), who calls ``free``.
    * The reader may write: its pages are copied on write, the sender's stay as they are.

When a side dies
    * Nothing has a name, so the kernel takes everything back when the last descriptor and
      mapping are gone; there is nothing to clean up after any death at any moment.
    * The reader dies before, while or after it maps: the sender sees its death, and frees all its
      leases (the table of leases is the backend's). A segment whose descriptor was still in a
      socket is freed the same way.
    * The sender dies: a descriptor in flight or a mapping keeps the pages alive, so what was
      received remains valid; the reader's ``on_free`` then has nobody to tell.
    * ``close`` with leases out: descriptors are closed, mappings at readers remain valid.

Why no SIGBUS: the reader touches only pages that ``pwrite`` has filled. A full tmpfs or disk is an
OSError of ``write``, and nothing was sent then.

Why not faster: on the machine this was built on, 64 MB take 14 ms into pages used before and 24
ms into fresh ones. ``fallocate`` first (25), MAP_POPULATE and memcpy (43), a shared mapping written
by page faults (45) and other chunk sizes (24) gain nothing.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import mmap
import os
import pickle
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

__all__ = ["Arena", "ArenaStatistics", "Segment", "map_segment"]

ALIGNMENT = 64  # bytes: a cache line, and what the widest vector instructions ask for
SPARE_SEGMENTS = 8
SPARE_BYTES = 256 << 20
LOOSE = 4  # a spare segment more than this many times too big is left for others

Spans = Sequence[tuple[int, int]]


class Segment(NamedTuple):
    """Buffers in shared memory, ready to be sent.

    Attributes:
        id: what to give to ``Arena.free``; not used twice while its owner lives.
        fd: the arena's descriptor. The caller never closes it, and calls neither ``free`` nor
            ``close`` before the frame that carries it was sent.
        size: bytes to map.
        spans: (offset, length) of each buffer, in the order given.
    """

    id: int
    fd: int
    size: int
    spans: tuple[tuple[int, int], ...]


class ArenaStatistics(NamedTuple):
    """Counts of an arena: now (leased, spare) and ever since (fresh, recycled)."""

    leased: int
    leased_bytes: int
    spare: int
    spare_bytes: int
    fresh: int
    recycled: int


class _Memory(NamedTuple):
    fd: int
    size: int


class Arena:
    """The sender's shared memory; all methods may be called from any thread.

    Args:
        directory: where the files go if the system has no ``memfd_create``, or if given.
        spare_segments, spare_bytes: how much is kept for the next write at most.
    """

    def __init__(
        self,
        *,
        directory: str | None = None,
        spare_segments: int = SPARE_SEGMENTS,
        spare_bytes: int = SPARE_BYTES,
    ) -> None:
        self._directory = directory
        self._spare_segments = spare_segments
        self._spare_limit = spare_bytes
        self._lock = threading.Lock()
        self._spare: list[_Memory] = []  # oldest first
        self._leased: dict[int, _Memory] = {}
        self._next = 1
        self._fresh = 0
        self._recycled = 0
        self._closed = False

    def write(self, buffers: Sequence[Any]) -> Segment:
        """Copy `buffers` into one segment, aligned to 64 bytes each; releases the GIL meanwhile.

        Raises:
            OSError: no memory, descriptors or disk space (then nothing is kept), or closed
                (EBADF). The caller can always send the bytes another way.
        """
        views = [_flat(buffer) for buffer in buffers]
        spans = []
        end = 0
        for view in views:
            spans.append((end, len(view)))
            end += -(-len(view) // ALIGNMENT) * ALIGNMENT
        memory = self._take(end)
        try:
            for view, (offset, _) in zip(views, spans, strict=True):
                _write_all(memory.fd, view, offset)
        except BaseException:
            os.close(memory.fd)
            raise
        with self._lock:
            if not self._closed:
                number = self._next
                self._next += 1
                self._leased[number] = memory
                return Segment(number, memory.fd, memory.size, tuple(spans))
        os.close(memory.fd)
        raise OSError(errno.EBADF, "the arena was closed while it was written to")

    def free(self, segment_id: int) -> None:
        """The reader is done: keep the pages for another write. Unknown ids are ignored."""
        with self._lock:
            memory = self._leased.pop(segment_id, None)
            if memory is None:
                return
            self._spare.append(memory)
            surplus = self._trim()
        for old in surplus:
            os.close(old.fd)

    def close(self) -> None:
        """Close every descriptor; what readers have mapped remains valid. May be called again."""
        with self._lock:
            self._closed = True
            everything = [*self._spare, *self._leased.values()]
            self._spare.clear()
            self._leased.clear()
        for memory in everything:
            os.close(memory.fd)

    def statistics(self) -> ArenaStatistics:
        """Return counts as of now."""
        with self._lock:
            return ArenaStatistics(
                leased=len(self._leased),
                leased_bytes=sum(memory.size for memory in self._leased.values()),
                spare=len(self._spare),
                spare_bytes=sum(memory.size for memory in self._spare),
                fresh=self._fresh,
                recycled=self._recycled,
            )

    def _take(self, size: int) -> _Memory:
        """The smallest spare segment that fits without much waste, or a fresh one."""
        rounded = _round_up(size)
        most = rounded * LOOSE
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, "the arena is closed")
            fitting = [m for m in self._spare if size <= m.size <= most]
            if fitting:
                best = min(fitting, key=_size_of)
                self._spare.remove(best)
                self._recycled += 1
                return best
            self._fresh += 1
        return _create(rounded, self._directory)

    def _trim(self) -> list[_Memory]:
        """With the lock held: take away the oldest spare segments until the bounds hold."""
        surplus = []
        total = sum(memory.size for memory in self._spare)
        while self._spare and (
            total > self._spare_limit or len(self._spare) > self._spare_segments
        ):
            oldest = self._spare.pop(0)
            total -= oldest.size
            surplus.append(oldest)
        return surplus


def _size_of(memory: _Memory) -> int:
    return memory.size


def _flat(buffer: Any) -> memoryview:
    if isinstance(buffer, pickle.PickleBuffer):
        return buffer.raw()  # any contiguous order
    view = memoryview(buffer)
    if view.ndim == 1 and view.format == "B" and view.contiguous:
        return view
    return view.cast("B")


def _round_up(size: int) -> int:
    """Round up by an eighth at most, so that nearly equal sizes share segments.

    The pages behind the end of the data are never touched, so they cost nothing.
    """
    step = max(mmap.PAGESIZE, 1 << max(size.bit_length() - 4, 0))
    return max(-(-size // step) * step, mmap.PAGESIZE)


def _create(size: int, directory: str | None) -> _Memory:
    if directory is None and hasattr(os, "memfd_create"):
        fd = os.memfd_create("lightwork")  # close-on-exec by default
    else:
        import tempfile  # late: what has memfd_create does not need it

        fd, path = tempfile.mkstemp(prefix="lightwork-", dir=directory)
        os.unlink(path)
    try:
        os.ftruncate(fd, size)
    except BaseException:
        os.close(fd)
        raise
    return _Memory(fd, size)


def _write_all(fd: int, view: memoryview, offset: int) -> None:
    # One call writes at most 2 GiB - 4 KiB, and less when the space runs out: the next call
    # then says so (ENOSPC).
    while view:
        written = os.pwrite(fd, view, offset)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view = view[written:]
        offset += written


# The weak references to mappings that are alive: each calls back only while it lives itself. By
# id, for the hash of a weak reference is that of its referent, which may have none.
_watched: dict[int, weakref.ref[Any]] = {}


def map_segment(fd: int, size: int, spans: Spans, on_free: Callable[[], None]) -> list[memoryview]:
    """Map a segment, and return a writable view of each of its buffers. Closes `fd`, always.

    Args:
        on_free: called once, when the last object that looks into the mapping is gone; from
            any thread, inside any code (garbage collection), also at interpreter exit: it may
            append to a deque, and not much more. Not called if this raises.

    Raises:
        OSError: it cannot be mapped (no memory, or too many mappings).
    """
    try:
        mapping = _map(fd, size)
    finally:
        os.close(fd)

    def gone(reference: weakref.ref[Any]) -> None:
        del _watched[id(reference)]
        unmap()
        on_free()

    owner, unmap = mapping
    watch = weakref.ref(owner, gone)
    _watched[id(watch)] = watch
    whole = memoryview(owner).cast("B")
    return [whole[offset : offset + length] for offset, length in spans]


def _nothing() -> None:
    pass


def _map(fd: int, size: int) -> tuple[Any, Callable[[], None]]:
    """Map privately; returns the object that owns the mapping, and what to call when it is gone.

    The descriptor must not stay open for as long as the mapping lives, or a caller who
    collects a thousand arrays is out of descriptors. ``mmap`` keeps a duplicate, before Python
    3.13 always; there the C library is called directly.
    """
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, size, access=mmap.ACCESS_COPY, trackfd=False), _nothing
    native = _native()
    if native is None:
        return mmap.mmap(fd, size, access=mmap.ACCESS_COPY), _nothing
    return native.map(fd, size)


class _Native:
    """mmap and munmap of the C library."""

    def __init__(self) -> None:
        import ctypes  # late: 5 ms that processes without big buffers do not pay

        library = ctypes.CDLL(None, use_errno=True)
        self._mmap = library.mmap
        self._mmap.restype = ctypes.c_void_p
        self._mmap.argtypes = (
            *(ctypes.c_void_p, ctypes.c_size_t),
            *(ctypes.c_int, ctypes.c_int, ctypes.c_int),
            # off_t; only 0 is ever passed, so that its width on 32-bit systems is no matter
            ctypes.c_ssize_t,
        )
        self._munmap = library.munmap
        self._munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        self._failed = ctypes.c_void_p(-1).value
        self._ctypes = ctypes
        # Making an array type takes 20 us; segments come in few sizes (see _round_up).
        self._array_type = functools.lru_cache(maxsize=64)(ctypes.c_ubyte.__mul__)

    def map(self, fd: int, size: int) -> tuple[Any, Callable[[], None]]:
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        address = self._mmap(None, size, protection, mmap.MAP_PRIVATE, fd, 0)
        if address == self._failed:
            number = self._ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        owner = self._array_type(size).from_address(address)

        def unmap() -> None:
            self._munmap(address, size)

        return owner, unmap


_native_library: _Native | None = None


def _native() -> _Native | None:
    global _native_library
    if _native_library is None:
        with contextlib.suppress(ImportError, OSError, AttributeError):
            _native_library = _Native()
    return _native_library
