"""Workers forked from the parent itself: ``start_method="fork"``.

The copy has all that the parent had, in whatever state it was: a lock that another thread held at
that moment stays locked for ever. That is why it is only done on request.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import warnings

from . import child
from .body import make_body
from .boot import kill_group, parent_only, reap
from .launch import Exit, Spec

__all__ = ["ForkLauncher", "ForkedChild"]

_FORK_WARNING = r"This process \(pid=\d+\) is multi-threaded, use of fork\(\)"


class ForkLauncher:
    """Forks the calling process. See `launch.Launcher`."""

    def __init__(self) -> None:
        self._closed = False

    def warm(self, entry: str) -> None:
        """There is nothing to get ready."""

    def launch(self, spec: Spec) -> ForkedChild:
        if self._closed:
            raise ValueError("this launcher was closed")
        body = make_body(spec, "fork")
        with contextlib.ExitStack() as stack:
            fds = []
            for fd in spec.fds:
                fds.append(os.dup(fd))
                stack.callback(os.close, fds[-1])
            lifeline = _lifeline
            read_end = lifeline.take()
            stack.callback(lifeline.give_back)
            sentinel, held = _sentinel_pipe()
            if held >= 0:
                stack.callback(os.close, held)
            _flush()
            _allow_fork()
            pid = _fork()
            if pid == 0:
                # Never comes back, so what is on `stack` is not closed here.
                child.begin_forked(body, fds, read_end, [*spec.fds, *parent_only])
            lifeline.take()  # the child's own, until it has ended
            return ForkedChild(pid, sentinel, lifeline)

    def close(self) -> None:
        self._closed = True


class ForkedChild:
    """A child of this very process. See `launch.Child`."""

    error: OSError | None = None

    def __init__(self, pid: int, sentinel: int, lifeline: _Lifeline) -> None:
        self.pid: int | None = pid
        self._pid = pid
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._exit: Exit | None = None
        try:
            self._sentinel = sentinel if sentinel >= 0 else os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            reap(pid)
            lifeline.give_back()
            raise
        self._lifeline = lifeline
        parent_only.add(self._sentinel)

    def fileno(self) -> int:
        return self._sentinel

    def poll(self) -> Exit | None:
        with self._lock:
            if self._exit is None and self._owner == os.getpid():
                self._exit = self._look()
                if self._exit is not None:
                    self._lifeline.give_back()
            return self._exit

    def kill(self) -> None:
        """As long as `poll` has not reaped it, its pid is its own."""
        with self._lock:
            if self._exit is None and self._owner == os.getpid() and self._is_ours():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._pid, signal.SIGKILL)
                kill_group(self._pid)

    def close(self) -> None:
        with self._lock:
            if self._sentinel >= 0:
                parent_only.discard(self._sentinel)
                os.close(self._sentinel)
                self._sentinel = -1

    def _is_ours(self) -> bool:
        """False if the user's code waited for all children, and so reaped this one."""
        try:
            # Does not reap; raises if there is no such child of ours.
            os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        except AttributeError:  # macOS
            pass
        return True

    def _look(self) -> Exit | None:
        try:
            if hasattr(os, "waitid"):
                info = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if info is None:
                    return None
                if info.si_code != os.CLD_EXITED or info.si_status != 0:
                    kill_group(self._pid)  # before reaping: its number is still its own
                return Exit(*reap(self._pid))
            gone, status, usage = os.wait4(self._pid, os.WNOHANG)
            return Exit(os.waitstatus_to_exitcode(status), usage.ru_maxrss) if gone else None
        except ChildProcessError:
            return Exit(None, None)


class _Lifeline:
    """A pipe that nobody writes to: its end tells the children that this process is gone."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ends: tuple[int, int] | None = None
        self.users = 0

    def take(self) -> int:
        """Its read end, held until as many `give_back`."""
        with self.lock:
            if self.ends is None:
                self.ends = os.pipe()
                parent_only.update(self.ends)
            self.users += 1
            return self.ends[0]

    def give_back(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0 and self.ends is not None:
                parent_only.difference_update(self.ends)
                for fd in self.ends:
                    os.close(fd)
                self.ends = None


_lifeline = _Lifeline()
_launching: set[int] = set()
"""Threads that fork a worker at this moment; it needs the lifeline, and drops it by itself."""


def _after_fork_in_child() -> None:
    """A fork by the user's code must not hold the write end, or it would keep orphans alive."""
    global _lifeline
    before, _lifeline = _lifeline, _Lifeline()
    ours = threading.get_ident() in _launching
    _launching.clear()
    if before.ends is not None and not ours:
        parent_only.difference_update(before.ends)
        for fd in before.ends:
            with contextlib.suppress(OSError):
                os.close(fd)


os.register_at_fork(after_in_child=_after_fork_in_child)


def _sentinel_pipe() -> tuple[int, int]:
    """Where there are no pidfds: a pipe that ends with the child. Else (-1, -1)."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        return os.pipe()
    return -1, -1


def _fork() -> int:
    """Fork with signals blocked; the child opens them when it has handlers of its own.

    1. the fork returns in the child;  2. Ctrl-C comes, and raises KeyboardInterrupt there, before
    any ``try`` of ours;  3. the child unwinds into the user's program, and runs it twice.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = -1
    _launching.add(threading.get_ident())
    try:
        pid = os.fork()
    finally:
        if pid != 0:
            _launching.discard(threading.get_ident())
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _flush() -> None:
    """What waits in buffers now would be written by both."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _allow_fork() -> None:
    """Python 3.12 warns of what was asked for here by name. Only our own call is exempted."""
    if sys.version_info >= (3, 12):
        warnings.filterwarnings(
            "ignore", _FORK_WARNING, DeprecationWarning, module=__name__.replace(".", r"\.")
        )
