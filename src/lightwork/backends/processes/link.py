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
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .body import search_path
from .boot import CONTROL, SERVER_CODE, START, store
from .limits import NATIVE_NAMES

__all__ = ["Running", "doubt", "harmless", "request", "stop_server", "warm"]

_CLOSING = 100  # ms that the kernel may take to clear up a process that was killed
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
        self.doubted = False
        self.suspects: set[str] = set()


_state = _State()


def harmless(modules: Iterable[str]) -> list[str]:
    """Those of `modules` that no server has died of."""
    return [name for name in modules if name not in _state.suspects]


def request(fds: list[int]) -> Running:
    """Send a request to the server; start one if there is none, or it has died.

    Returns which server it was sent to.
    """
    with _state.lock:
        _drop_the_dead()
        for _ in range(2):
            if _state.server is None:
                _state.server = _start_server()
            try:
                _send(_state.server.control, fds)
                return _state.server
            except (BrokenPipeError, ConnectionResetError):
                _forget_server(_CLOSING)
        raise OSError(errno.EPIPE, "the fork server ends as soon as it is started")


def doubt(server: Running, suspects: Sequence[str]) -> None:
    """Something hints that `server` has died: the next launch looks before it asks it.

    `suspects`: modules that it may have died of, for it was asked to import them, and the worker
    was never started. No server is asked again.
    """
    with _state.lock:
        _state.suspects.update(suspects)
        _state.doubted = _state.server is server


def _drop_the_dead() -> None:
    """Under the lock: if the server is doubted, and dead, forget it.

    1. the server is killed;  2. the kernel closes its end of a status pipe, by which we learn of
    it;  3. we send it a request, which is accepted;  4. the kernel closes its end of the control
    socket, and the request is lost. Microseconds lie between 2 and 4, so we wait for 4 a little.
    """
    if _state.doubted and _state.server is not None:
        poll = select.poll()
        poll.register(_state.server.control, select.POLLHUP)
        if poll.poll(_CLOSING):
            _forget_server(_CLOSING)
    _state.doubted = False


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


def _forget_server(patience: int = 0) -> None:
    """Under the lock: drop the server, which then ends if it has not ended already.

    `patience`: milliseconds to wait for that at most, so that no zombie stays.
    """
    if _state.server is not None:
        pid, control = _state.server
        _state.server = None
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=control)
        with sock, contextlib.suppress(OSError):
            # Not only close: a fork of this process may hold the same socket.
            sock.shutdown(socket.SHUT_RDWR)
        _state.gone.append(pid)
    _reap_gone(patience)


def _reap_gone(patience: int = 0) -> None:
    left = []
    for pid in _state.gone:
        if patience:
            with contextlib.suppress(AttributeError, OSError):
                _wait_for_end(pid, patience)
        try:
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                left.append(pid)
        except ChildProcessError:
            pass  # the user waits for all children
    _state.gone = left


def _wait_for_end(pid: int, patience: int) -> None:
    """Wait for the end of a child that has not been reaped, so that the pid is its own."""
    handle = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.poll(patience)
    finally:
        os.close(handle)


def stop_server(timeout: float = 2.0) -> None:
    """End the fork server and all its workers; the next launch starts another one.

    Never needed: the server ends with this process. For tests that look for what is left behind.
    Waits up to `timeout` seconds, then kills it.
    """
    patience = max(1, round(timeout * 1000))
    with _state.lock:
        _forget_server(patience)
        for pid in _state.gone:
            os.kill(pid, signal.SIGKILL)
        _reap_gone(patience)


def _after_fork_in_child() -> None:
    """A fork by the user's code: the server is the parent's, so let go of it, without a word."""
    global _state
    before, _state = _state, _State()
    if before.server is not None:
        with contextlib.suppress(OSError):
            os.close(before.server.control)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
