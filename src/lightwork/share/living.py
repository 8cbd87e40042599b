"""Is that process still alive, and the same one? And does this one go on?"""

from __future__ import annotations

import os
import time

__all__ = ["at_work", "end", "is_alive", "milliseconds", "start_time"]


def _fields(pid: int) -> list[bytes] | None:
    """What the kernel says of a process, from its state on; None if there is none.

    Raises OSError: nothing can be asked, for descriptors are used up.
    """
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        text = os.read(fd, 1024)
    except ProcessLookupError:  # it ended while we looked
        return None
    finally:
        os.close(fd)
    # pid (name, with any characters) state ppid ...
    return text.rpartition(b")")[2].split()


def start_time(pid: int) -> int:
    """When a process was started, in clock ticks since the machine was; 0 if there is none."""
    fields = _fields(pid)
    return int(fields[19]) if fields is not None and len(fields) > 19 else 0


def is_alive(pid: int, started: int) -> bool:
    """Whether the process that was started then still runs; a zombie does not. Takes 10 us.

    A zombie with threads is a process whose main thread has ended: it runs.
    """
    try:
        fields = _fields(pid)
    except OSError:
        return True  # do not bury the living
    if fields is None or len(fields) < 20 or int(fields[19]) != started:
        return False
    return fields[0] not in (b"Z", b"X") or int(fields[17]) > 1


def milliseconds() -> int:
    """A clock that all processes share, and that never goes back."""
    return time.monotonic_ns() // 1_000_000


_at_work = True


def at_work() -> bool:
    """Whether this process goes on: if not, others clear up after it, as after a death."""
    return _at_work


def end() -> None:
    """The interpreter is about to end."""
    global _at_work
    _at_work = False
