"""The one descriptor that a program's processes have in common, for what `share` puts there.

A *family* is a process that made shared objects or a pool, and the workers that came from it, at
any remove. It has one anonymous file (``memfd``), of which each member holds one descriptor: the
first member makes it, a worker gets it at its launch, a copy made by ``fork`` inherits it. So
whatever a worker makes can be reached by the others even when the worker is gone; and since the
file has no name, nothing is left of it when its last member has ended, however that happened.

This is all that a process which shares nothing pays for: one descriptor, and 5 us.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import struct
import threading
from collections.abc import Callable

__all__ = ["HEAD", "MAGIC", "adopt", "has_home", "home", "leave", "leavers", "read_head"]

MAGIC = 0x6C77_7368_6172_6531  # "lwshare1"
HEAD = struct.Struct("=QQQQ")
"""What the file begins with: MAGIC, a random number that no other family has, the process that
made it, and its descriptor there."""

_lock = threading.Lock()
_home = -1


def home() -> int:
    """The descriptor of this process's family; makes the family where there is none.

    Raises OSError: no descriptor is free, or the system has no ``memfd_create``.
    """
    global _home
    with _lock:
        if _home < 0 or read_head(_home) is None:  # someone closed all descriptors
            if not hasattr(os, "memfd_create"):
                raise OSError("sharing needs memfd_create, which this system has not")
            fd = os.memfd_create("lightwork-share")  # close-on-exec
            try:
                number = int.from_bytes(os.urandom(8), "little")
                os.pwrite(fd, HEAD.pack(MAGIC, number, os.getpid(), fd), 0)
            except BaseException:
                os.close(fd)
                raise
            _home = fd
        return _home


def has_home() -> bool:
    """Whether this process has a family already."""
    return _home >= 0


def adopt(fd: int) -> bool:
    """Join the family of `fd` if this process has none yet; else close `fd`.

    Returns whether it joined.
    """
    global _home
    with _lock:
        if _home < 0 and read_head(fd) is not None:
            _home = fd
            return True
    with contextlib.suppress(OSError):
        os.close(fd)
    return False


leavers: list[Callable[[], None]] = []
"""Called once, when this process ends as it should."""


def leave() -> None:
    """This process is about to end as it should. May be called again."""
    while leavers:
        leavers.pop()()


def read_head(fd: int) -> tuple[int, int, int] | None:
    """The family's number, its first process and that one's descriptor; None if it is no family."""
    try:
        magic, number, pid, first = HEAD.unpack(os.pread(fd, HEAD.size, 0))
    except (OSError, struct.error):
        return None
    return (number, pid, first) if magic == MAGIC else None


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # another thread may have held it


os.register_at_fork(after_in_child=_after_fork)
atexit.register(leave)
