"""Shared memory as the C library gives it: mappings, semaphores inside of them, holes.

`multiprocessing`'s semaphore type works on any ``sem_t`` whose address it is told, so a semaphore
can lie in a mapping of ours: it needs no name in the file system, waits without the interpreter's
lock, minds signals and time limits, and costs 0.02 us where a call by ctypes costs 0.4. glibc
answers the ``sem_close`` at its end with EINVAL, and leaves the memory alone.

Everything here is for Linux.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import weakref
from _multiprocessing import SemLock  # type: ignore[import-not-found]
from typing import Any

__all__ = ["PAGE", "SEM_BYTES", "Mapping", "make_semaphore", "open_semaphore", "pages", "punch"]

PAGE = mmap.PAGESIZE
SEM_BYTES = 32
"""A ``sem_t``: 32 bytes on 64-bit Linux, less elsewhere."""

_SEMAPHORE = 1  # SemLock's kind that leaves to us who may release
_RECURSIVE = 0
_MOST = SemLock.SEM_VALUE_MAX
_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01  # <linux/falloc.h>

_libc = ctypes.CDLL(None, use_errno=True)
_mmap = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t),
    *(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long),
)
_munmap = _libc.munmap
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_sem_init = _libc.sem_init
_sem_init.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint)
_fallocate = getattr(_libc, "fallocate", None)
if _fallocate is not None:
    _fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)
_FAILED = ctypes.c_void_p(-1).value

_kept: list[Any] = []
"""Where ``sem_close`` of a stranger's address is not harmless (musl), no semaphore is ever
freed."""
_KEEP = not sys.platform.startswith("linux") or not os.confstr("CS_GNU_LIBC_VERSION")


class Mapping:
    """A shared mapping of a part of a file; unmapped when nothing refers to it any more.

    Attributes:
        address: where it begins.
        view: its bytes. Whoever keeps a slice keeps the mapping.
    """

    __slots__ = ("__weakref__", "address", "owner", "view")

    def __init__(self, fd: int, size: int, offset: int = 0) -> None:
        # Not `mmap.mmap`: before Python 3.13 that keeps a duplicate of the descriptor for each.
        both = mmap.PROT_READ | mmap.PROT_WRITE
        address = _mmap(None, size, both, mmap.MAP_SHARED, fd, offset)
        if address is None or address == _FAILED:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self.address: int = address
        self.owner = (ctypes.c_ubyte * size).from_address(address)
        weakref.finalize(self.owner, _munmap, address, size).atexit = False
        self.view = memoryview(self.owner).cast("B")


def make_semaphore(address: int, value: int) -> None:
    """Make a semaphore for use by several processes at `address`."""
    if _sem_init(address, 1, value) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def open_semaphore(address: int, *, recursive: bool = False) -> Any:
    """An object of this process's for the semaphore at `address`, which must outlive it."""
    made = SemLock._rebuild(address, _RECURSIVE if recursive else _SEMAPHORE, _MOST, None)
    if _KEEP:
        _kept.append(made)
    return made


class LocalSemaphore:
    """A semaphore of this process alone, with value 1: a mutex for its threads.

    ``threading.Lock`` takes five times as long, for how it reads its arguments.
    """

    __slots__ = ("_memory", "sem")

    def __init__(self, *, recursive: bool = False) -> None:
        self._memory = (ctypes.c_ubyte * SEM_BYTES)()
        address = ctypes.addressof(self._memory)
        _sem_init(address, 0, 1)
        self.sem = open_semaphore(address, recursive=recursive)


def pages(size: int) -> int:
    """`size` rounded up to whole pages."""
    return max(-(-size // PAGE) * PAGE, PAGE)


def punch(fd: int, offset: int, size: int) -> None:
    """Give the memory of a part of a file back; it reads as zeros then."""
    if _fallocate is not None:
        _fallocate(fd, _PUNCH_HOLE_KEEP_SIZE, offset, size)
