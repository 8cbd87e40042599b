"""A worker process from its first line of ours to its last: set up, initialize, loop.

What the user's code may do to the process, and what becomes of it:

* It forks. The child must not touch our socket and page: the fork hook closes them, and whatever
  comes back into the loop there finds the page released, and ends (`endings.leave_fork`).
* It closes our descriptors: we cannot answer, and end; its call is charged. The page is a mapping
  and survives.
* It ends the process, or hangs: the parent sees to that.
"""

from __future__ import annotations

import contextlib
import faulthandler
import marshal
import os
import socket
import sys
from typing import Any, NamedTuple

from ... import current
from ...observe import sending
from ...wire import family
from ...wire.frames import Outbox
from ...wire.functions import FunctionCache
from ...wire.pickling import unpack
from ...wire.remote import pack_error
from . import barrier, messages
from .answers import LOST_PARENT
from .endings import flush_streams
from .loop import Loop
from .page import IDLE, INITIALIZING, PHASE, Page

__all__ = ["Config", "main", "where"]

_INITIALIZER = -1  # its key; those of tasks' functions are greater


class Config(NamedTuple):
    """What a worker is told at its start; marshalled into ``launch.Spec.config``."""

    worker: int
    initializer: bytes | None  # a shipped function
    initargs: tuple[bytes, list[bytes]] | None  # pickled, and their buffers
    memory_limit: int | None
    native_threads: int | None
    watched: tuple[Any, ...] | None = None  # observe.sending.Wishes; its pipe is the third fd


class _Process(NamedTuple):
    """What this process has of its parent's."""

    number: int
    sock: socket.socket
    fault_fd: int
    shared: Page
    loop: Loop


_process: _Process | None = None


def main(fds: list[int], config: bytes) -> None:
    """The entry of a worker process (`launch.Spec`). `fds`: the socket and the page's file."""
    global _process
    wanted = Config(*marshal.loads(config))
    sock = socket.socket(fileno=fds[0])
    shared = Page(fds[1])
    shared.watch_faults(fds[1])
    more = list(fds[2:])  # the log pipe is the last, if there is one
    log = more.pop() if wanted.watched is not None else -1
    if more:
        family.adopt(more[0])
    outbox = Outbox(sock)
    try:
        with contextlib.suppress(Exception):
            sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        if wanted.watched is not None:
            sending.attach(log, wanted.watched)
        if wanted.native_threads is not None:
            _hold_native_threads(wanted.native_threads)
        shared.cells[PHASE] = INITIALIZING
        functions = FunctionCache()
        problem = _initialize(wanted, functions)
        if problem is not None:
            _say(outbox, messages.INIT_FAILED, problem)
            return
        loop = Loop(sock, shared, functions, wanted.memory_limit)
        _process = _Process(wanted.worker, sock, fds[1], shared, loop)
        os.register_at_fork(after_in_child=_after_fork)
        current.process_where = where
        shared.cells[PHASE] = IDLE
        _say(outbox, messages.READY, barrier.register())
        loop.run()
        _say(outbox, messages.LEAVING, None)
    finally:
        family.leave()
        flush_streams()


def where() -> tuple[int, int, int, int] | None:
    """Index, attempt, worker and task of the call that this process runs now."""
    if _process is None:
        return None
    found = _process.loop.where()
    if found is None:
        return None
    index, attempt, task = found
    return index, attempt, _process.number, task


def _say(outbox: Outbox, kind: int, value: Any) -> None:
    outbox.post(kind, messages.plain_body(value))
    outbox.flush_blocking()
    if outbox.broken:
        os._exit(LOST_PARENT)


def _initialize(config: Config, functions: FunctionCache) -> bytes | None:
    """Run the initializer; return its packed error. Whatever it raises ends the pool."""
    if config.initializer is None:
        return None
    try:
        functions.add(_INITIALIZER, config.initializer)
        args: tuple[Any, ...] = ()
        if config.initargs is not None:
            data, buffers = config.initargs
            args = unpack(data, [bytearray(one) for one in buffers])
        functions.get(_INITIALIZER)(*args)
    except BaseException as error:
        if error.__traceback__ is not None:
            error.__traceback__ = error.__traceback__.tb_next
        return pack_error(error)
    return None


def _hold_native_threads(count: int) -> None:
    """Hold libraries to `count` threads that were loaded before our environment was set.

    Only where one was: the import of threadpoolctl is not free.
    """
    if "numpy" in sys.modules:
        with contextlib.suppress(Exception):
            import threadpoolctl

            threadpoolctl.threadpool_limits(count)


def _after_fork() -> None:
    """In a process that the user's code forked: none of what is our parent's is its own."""
    global _process
    process, _process = _process, None
    current.process_where = None
    sending.detach()
    if process is None:
        return
    with contextlib.suppress(OSError, ValueError):
        faulthandler.disable()
    for fd in (process.sock.detach(), process.fault_fd):
        with contextlib.suppress(OSError):
            os.close(fd)
    process.shared.cells.release()
