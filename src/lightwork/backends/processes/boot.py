"""What the parent, the fork server and a fresh worker must agree on.

Bodies and the server's start travel as marshalled dicts in anonymous files: a message is then
always small, so that sending it does not block, and no argument is ever too long.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import signal
import struct
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

__all__ = [
    "CONTROL",
    "ENDED",
    "ENDING",
    "FAILED",
    "MAX_FDS",
    "RECORD",
    "SERVER_CODE",
    "START",
    "STARTED",
    "execute_server",
    "kill_group",
    "parent_only",
    "reap",
    "store",
]

parent_only: set[int] = set()
"""Descriptors that a worker forked straight from this process must not keep."""

RECORD = struct.Struct("<cqq")
STARTED, FAILED, ENDING, ENDED = b"S", b"F", b"E", b"X"
MAX_FDS = 200  # descriptors of one request; the kernel takes 253
CONTROL = 3  # the descriptor of the control socket in the server
START = 4  # the descriptor of what the server is told at its start

SERVER_CODE = (
    f"import marshal, sys; file = open({START}, 'rb'); start = marshal.load(file); file.close(); "
    "sys.path[:] = start['path']; "
    "from lightwork.backends.processes.server import main; main(start)"
)
"""What a fresh interpreter is told to run. It needs the parent's sys.path to find this package."""


def store(content: dict[str, Any]) -> int:
    """Write `content` to an anonymous file; return its descriptor, positioned at the start."""
    data = memoryview(marshal.dumps(content))
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("lightwork")
    else:
        import tempfile

        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    try:
        written = 0
        while written < len(data):
            written += os.pwrite(fd, data[written:], written)
    except BaseException:
        os.close(fd)
        raise
    return fd


def execute_server(start: dict[str, Any], keep: Sequence[int]) -> NoReturn:
    """Replace this process by a server that begins with `start`, and has the descriptors `keep`.

    START is free for it: whatever has that number in a server is its own wake-up pipe, the first
    thing that it opens.
    """
    assert START not in keep
    for fd in keep:
        os.set_inheritable(fd, True)
    fd = store(start)
    if fd != START:
        os.dup2(fd, START)
    else:
        os.set_inheritable(fd, True)
    os.execv(sys.executable, [sys.executable, *start["flags"], "-c", SERVER_CODE])


def kill_group(pid: int) -> None:
    """SIGKILL the process group of a worker that has not been reaped yet."""
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


def reap(pid: int) -> tuple[int, int]:
    """Reap a child that has ended: its exit code, and its peak resident memory in bytes."""
    _, status, usage = os.wait4(pid, 0)
    unit = 1 if sys.platform == "darwin" else 1024
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss * unit
