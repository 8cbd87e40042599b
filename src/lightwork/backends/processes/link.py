"""The one fork server of this process: started when first wanted, reached by its control socket.

The server ends when this process does, so nothing here needs to run at exit.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import struct
import sys
import threading
from typing import NamedTuple

from .body import search_path
from .boot import CONTROL, SERVER_CODE, START, store
from .limits import NATIVE_NAMES

__all__ = ["Running", "check", "may_preload", "request", "stop_server", "warm"]

_SEND_PATIENCE = 5  # seconds that a launch waits at most when the server is behind by hundreds


class Running(NamedTuple):
    """A server that was started."""

    pid: int
    control: int


class _State:
    """The server of this process. A record of plain numbers: nothing to finalize at exit."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.server: Running | None = None
        self.gone: list[int] = []  # servers that died, and are to be reaped
        self.preload = True


_state = _State()


def may_preload() -> bool:
    """Whether a server may import modules ahead: not after one died, perhaps of just that."""
    return _state.preload


def request(fds: list[int]) -> Running:
    """Send a request to the server; start one if there is none, or it has died.

    Returns which server it was sent to.
    """
    with _state.lock:
        for _ in range(2):
            if _state.server is None:
                _state.server = _start_server()
            try:
                _send(_state.server.control, fds)
                return _state.server
            except (BrokenPipeError, ConnectionResetError):
                _mourn_server()
        raise OSError(errno.EPIPE, "the fork server ends as soon as it is started")


def check(server: Running) -> None:
    """Something hints that `server` has died. If so the next launch does not try it first."""
    with _state.lock:
        if _state.server is server:
            poll = select.poll()
            poll.register(server.control, select.POLLHUP)
            if poll.poll(0):
                _mourn_server()


def _mourn_server() -> None:
    """Under the lock: the server died. It may have died of what it imported ahead, so no other
    server is asked to import anything."""
    _state.preload = False
    _forget_server()


def warm(entry: str) -> None:
    """Start the server, if there is none, and have it import the module of `entry`."""
    with _state.lock:
        if _state.server is None:
            _state.server = _start_server(entry)


def _send(control: int, fds: list[int]) -> None:
    # A socket object for this call only: one that lives until the interpreter ends is complained
    # about there (ResourceWarning).
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=control)
    try:
        socket.send_fds(sock, [b"L"], fds)
    finally:
        sock.detach()


def _start_server(entry: str | None = None) -> Running:
    if not sys.executable:
        raise OSError(errno.ENOENT, "sys.executable is not known, so no process can be started")
    _reap_gone()
    here, there = socket.socketpair()
    with here, there, contextlib.ExitStack() as stack:
        start = store(
            {
                "parent": os.getpid(),
                "path": search_path(),
                "entry": entry,
                "flags": _flags(),
                "children": {},
                "banned": [],
                "pending": None,
                "descriptor_limit": None,
            }
        )
        stack.callback(os.close, start)
        high = [_above(fd, START) for fd in (there.fileno(), start)]
        for fd in high:
            stack.callback(os.close, fd)
        devnull = os.open(os.devnull, os.O_RDONLY)
        stack.callback(os.close, devnull)
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, *_flags(), "-c", SERVER_CODE],
            {**os.environ, **dict.fromkeys(NATIVE_NAMES, "1")},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, high[0], CONTROL),
                (os.POSIX_SPAWN_DUP2, high[1], START),
                (os.POSIX_SPAWN_DUP2, devnull, 0),
            ],
            # Its own process group: Ctrl-C at the terminal is for the parent alone.
            setpgroup=0,
            setsigmask=(),
        )
        here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_PATIENCE, 0))
        return Running(pid, here.detach())


def _flags() -> list[str]:
    """The options that this interpreter was started with."""
    import subprocess

    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags


def _above(fd: int, least: int) -> int:
    """A duplicate of `fd` with a number above `least`, so that no dup2 clobbers another's source.

    1. the control socket is descriptor 4;  2. descriptor 4 is made the start file;  3. the server
    has no control socket.
    """
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least + 1)


def _forget_server() -> None:
    """Under the lock: drop the server, which then ends if it has not ended already."""
    if _state.server is not None:
        pid, control = _state.server
        _state.server = None
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=control)
        with sock, contextlib.suppress(OSError):
            # Not only close: a fork of this process may hold the same socket.
            sock.shutdown(socket.SHUT_RDWR)
        _state.gone.append(pid)
    _reap_gone()


def _reap_gone() -> None:
    left = []
    for pid in _state.gone:
        try:
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                left.append(pid)
        except ChildProcessError:
            pass  # the user waits for all children
    _state.gone = left


def stop_server(timeout: float = 2.0) -> None:
    """End the fork server and all its workers; the next launch starts another one.

    Never needed: the server ends with this process. For tests that look for what is left behind.
    Waits up to `timeout` seconds, then kills it.
    """
    with _state.lock:
        pid = _state.server.pid if _state.server is not None else None
        handle = -1
        if pid is not None:
            with contextlib.suppress(AttributeError, OSError):
                handle = os.pidfd_open(pid)
        _forget_server()
        if pid not in _state.gone:
            if handle >= 0:
                os.close(handle)
            return
        if handle >= 0:
            if not select.select([handle], [], [], timeout)[0]:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                select.select([handle], [], [], timeout)
            os.close(handle)
        _reap_gone()


def _after_fork_in_child() -> None:
    """A fork by the user's code: the server is the parent's, so let go of it, without a word."""
    global _state
    before, _state = _state, _State()
    if before.server is not None:
        with contextlib.suppress(OSError):
            os.close(before.server.control)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
