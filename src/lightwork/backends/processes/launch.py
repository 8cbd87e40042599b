"""Starting worker processes, and knowing how they ended: the parent's side.

`launcher` gives a `Launcher` for a start method; each `launch` gives a `Child`. Two of the three
methods go through the fork server (`server`), one for each process, started by the first launch
and shared by all pools:

* **forkserver**: the server forks. A few milliseconds, with the package and the task's module
  already imported; no thread, lock or descriptor of the parent's comes along.
* **spawn**: the server starts a fresh interpreter.
* **fork** (`forking`): the parent itself forks, with all that this copies.

*Guarantees.* Nobody waits here: `Child.fileno` becomes readable when there is something to learn.
A worker dies with the parent, however the parent dies. `Child.kill` never hits a stranger who was
given the pid of a worker that is gone. A fork of the parent by the user leaves the server alone,
and starts its own if it wants one.

*Limits.* A worker's own subprocesses are in its process group, and are killed with it when it is
killed or crashes, and when the parent ends; if the server itself is SIGKILLed, nobody is left to
do so. Processes that made themselves a group or session of their own are never touched.
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
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from ...errors import LightworkError
from .boot import (
    CONTROL,
    ENDED,
    ENDING,
    FAILED,
    MAX_FDS,
    RECORD,
    SERVER_CODE,
    START,
    STARTED,
    store,
)
from .limits import NATIVE_NAMES

__all__ = ["START_METHODS", "Child", "Exit", "Launcher", "Spec", "launcher", "stop_server"]

START_METHODS = ("forkserver", "spawn", "fork")
_SEND_PATIENCE = 5  # seconds that a launch waits at most when the server is behind by hundreds


class Exit(NamedTuple):
    """How a process ended.

    Args:
        exitcode: as in ``subprocess``: negative for a signal; None when nobody could know,
            because the fork server died (and the process with it).
        peak_memory: the most resident memory that it ever had, in bytes, or None.
    """

    exitcode: int | None
    peak_memory: int | None


@dataclass(frozen=True)
class Spec:
    """What a worker process is to be.

    Args:
        entry: ``"package.module:function"``, called there as ``function(fds, config)``.
        fds: descriptors that it gets (under other numbers, given to `entry` in this order). The
            caller may close its own when `launch` has returned.
        config: handed to `entry`.
        modules: names that the server imports ahead, where that does no harm.
        env: set on top of the parent's environment, before anything of the user's is imported.
    """

    entry: str
    fds: tuple[int, ...] = ()
    config: bytes = b""
    modules: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)


class Child(Protocol):
    """A worker process, as its parent sees it. All methods may be called from any thread."""

    @property
    def pid(self) -> int | None:
        """Its process id; None until `poll` has learnt it."""

    @property
    def error(self) -> OSError | None:
        """Why it could not be started, once `poll` has returned an Exit without an exit code."""

    def fileno(self) -> int:
        """A descriptor that is readable when `poll` would learn something."""

    def poll(self) -> Exit | None:
        """Learn what there is to know, without waiting. Returns an Exit once it has ended."""

    def kill(self) -> None:
        """SIGKILL it and its process group; if its pid is not known yet, as soon as it is."""

    def close(self) -> None:
        """Give the descriptor back. A process that still runs is not ended by this."""


class Launcher(Protocol):
    """Starts worker processes by one method. May be used from any thread."""

    def launch(self, spec: Spec) -> Child:
        """Begin to start a process, without waiting for it.

        Raises OSError where the system refuses (EMFILE, EAGAIN, ...).
        """

    def close(self) -> None:
        """No more launches. What runs goes on."""


def launcher(start_method: str | None = None) -> Launcher:
    """Return a launcher: ``"forkserver"`` (also for None), ``"spawn"`` or ``"fork"``.

    Raises ValueError for an unknown method, LightworkError where there are no such processes.
    """
    if start_method is not None and start_method not in START_METHODS:
        known = ", ".join(map(repr, START_METHODS))
        raise ValueError(f"unknown start method {start_method!r}; known: {known}")
    if os.name != "posix" or sys.platform in ("emscripten", "wasi", "ios"):
        raise LightworkError(
            "pools of processes need a POSIX system (Linux, macOS, BSD) for now: "
            'use Pool(kind="threads")'
        )
    if getattr(sys.modules.get(f"{__package__}.server"), "running", False):
        raise LightworkError("a module that is imported ahead of tasks cannot start processes")
    if start_method == "fork":
        from .forking import ForkLauncher

        return ForkLauncher()
    return _ServerLauncher(start_method or "forkserver")


class _ServerLauncher:
    def __init__(self, method: str) -> None:
        self._method = method
        self._closed = False

    def launch(self, spec: Spec) -> Child:
        if self._closed:
            raise ValueError("this launcher was closed")
        if len(spec.fds) > MAX_FDS:
            raise ValueError(f"a worker takes at most {MAX_FDS} descriptors")
        with contextlib.ExitStack() as stack:
            status, status_there = os.pipe()
            stack.callback(os.close, status_there)
            try:
                body = store(make_body(spec, self._method))
                stack.callback(os.close, body)
                _request([status_there, body, *spec.fds])
                return ServedChild(status)
            except BaseException:
                os.close(status)
                raise

    def close(self) -> None:
        self._closed = True


class ServedChild:
    """A child of the fork server's. See `server` for the records that tell of it."""

    def __init__(self, status: int) -> None:
        os.set_blocking(status, False)
        self.pid: int | None = None
        self.error: OSError | None = None
        self._status = status
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._buffer = b""
        self._going = False  # about to be reaped: its pid is not to be signalled any more
        self._kill_wanted = False
        self._exit: Exit | None = None

    def fileno(self) -> int:
        return self._status

    def poll(self) -> Exit | None:
        with self._lock:
            self._learn()
            if self._kill_wanted and self.pid is not None:
                self._kill()
            return self._exit

    def kill(self) -> None:
        with self._lock:
            self._kill_wanted = True
            self._learn()
            if self.pid is not None:
                self._kill()

    def close(self) -> None:
        with self._lock:
            if self._status >= 0:
                os.close(self._status)
                self._status = -1
            if self._exit is None:
                self._going = True  # nobody tells us any more whether the pid is still its own

    def _learn(self) -> None:
        while self._exit is None and self._status >= 0:
            try:
                data = os.read(self._status, 4096)
            except BlockingIOError:
                return
            if not data:  # the server is gone, and the kernel has killed its children
                self._going = True
                self._exit = Exit(None, None)
                return
            self._buffer += data
            whole = len(self._buffer) // RECORD.size * RECORD.size
            for kind, first, second in RECORD.iter_unpack(self._buffer[:whole]):
                self._note(kind, first, second)
            self._buffer = self._buffer[whole:]

    def _note(self, kind: bytes, first: int, second: int) -> None:
        if kind == STARTED:
            self.pid = first
        elif kind == FAILED:
            self.error = OSError(first, os.strerror(first))
            self._exit = Exit(None, None)
        elif kind == ENDING:
            self._going = True
        elif kind == ENDED:
            self._exit = Exit(first, second if second >= 0 else None)

    def _kill(self) -> None:
        """Kill the process; the server kills its group before it reaps it.

        1. the process ends, and the server reaps it;  2. its pid goes to a stranger;  3. we kill
        the stranger. Looking for ENDING first does not help: all may happen between the look and
        the signal. So we get hold of the process first (a pidfd), and look then: the server
        writes ENDING *before* it reaps, so if there is none, the pid was still the worker's when
        we got hold of it, and the pidfd can mean nobody else.
        """
        if self._going or self._owner != os.getpid():
            return
        assert self.pid is not None
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        except (AttributeError, OSError):  # no pidfds here, or no descriptors left
            handle = -1
        try:
            self._learn()
            if self._going:
                return
            with contextlib.suppress(ProcessLookupError):
                if handle >= 0:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                else:
                    os.kill(self.pid, signal.SIGKILL)
        finally:
            if handle >= 0:
                os.close(handle)


def make_body(spec: Spec, method: str) -> dict[str, Any]:
    """What the new process must know to look like this one."""
    try:
        cwd = os.getcwd()
    except OSError:  # removed under us
        cwd = None
    return {
        "method": method,
        "entry": spec.entry,
        "config": bytes(spec.config),
        "modules": _importable(spec.modules) if _state.preload else [],
        "env": {**os.environ, **spec.env},
        "path": [str(entry) for entry in sys.path if isinstance(entry, str)],
        "argv": [str(argument) for argument in sys.argv],
        "cwd": cwd,
        "affinity": _affinity(),
        "limits": _limits(),
        "authkey": _authkey(),
    }


def _importable(names: Sequence[str]) -> list[tuple[str, str]]:
    """(name, file) of those that this process has imported, and another could, too."""
    found = []
    for name in names:
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None)
        if name != "__main__" and getattr(module, "__spec__", None) and isinstance(file, str):
            found.append((name, file))
    return found


def _affinity() -> list[int]:
    """The main thread's: another thread may have been tied to a processor of its own."""
    try:
        return sorted(os.sched_getaffinity(os.getpid()))
    except (AttributeError, OSError):
        return []


def _limits() -> dict[int, tuple[int, int]]:
    """Resource limits, if this program may have changed any after the server started."""
    resource = sys.modules.get("resource")
    if resource is None:
        return {}
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    limits = {}
    for which in {getattr(resource, name) for name in names}:
        with contextlib.suppress(OSError, ValueError):
            limits[which] = resource.getrlimit(which)
    return limits


def _authkey() -> bytes | None:
    process = sys.modules.get("multiprocessing.process")
    return bytes(process.current_process().authkey) if process is not None else None


class _Running(NamedTuple):
    pid: int
    control: int


class _State:
    """The server of this process. A record of plain numbers: nothing to finalize at exit."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.server: _Running | None = None
        self.gone: list[int] = []  # servers that died, and are to be reaped
        self.preload = True


_state = _State()


def _request(fds: list[int]) -> None:
    """Send a request to the server; start one if there is none, or it has died."""
    with _state.lock:
        for _ in range(2):
            if _state.server is None:
                _state.server = _start_server()
            try:
                _send(_state.server.control, fds)
                return
            except (BrokenPipeError, ConnectionResetError):
                # It may have died of what it imported ahead, so no other server is asked to.
                _state.preload = False
                _forget_server()
        raise OSError(errno.EPIPE, "the fork server ends as soon as it is started")


def _send(control: int, fds: list[int]) -> None:
    # A socket object for this call only: one that lives until the interpreter ends is complained
    # about there (ResourceWarning).
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=control)
    try:
        socket.send_fds(sock, [b"L"], fds)
    finally:
        sock.detach()


def _start_server() -> _Running:
    if not sys.executable:
        raise OSError(errno.ENOENT, "sys.executable is not known, so no process can be started")
    _reap_gone()
    here, there = socket.socketpair()
    with here, there, contextlib.ExitStack() as stack:
        start = store(
            {
                "parent": os.getpid(),
                "path": [str(entry) for entry in sys.path if isinstance(entry, str)],
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
        return _Running(pid, here.detach())


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
