"""Workers that the fork server starts: the parent's handle on each."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Sequence

from .body import make_body
from .boot import ENDED, ENDING, FAILED, MAX_FDS, RECORD, STARTED, parent_only, store
from .launch import Child, Exit, Spec
from .link import Running, doubt, harmless, request, warm

__all__ = ["ServedChild", "ServerLauncher"]


class ServerLauncher:
    def __init__(self, method: str) -> None:
        self._method = method
        self._closed = False

    def warm(self, entry: str) -> None:
        warm(entry)

    def launch(self, spec: Spec) -> Child:
        if self._closed:
            raise ValueError("this launcher was closed")
        if len(spec.fds) > MAX_FDS:
            raise ValueError(f"a worker takes at most {MAX_FDS} descriptors")
        with contextlib.ExitStack() as stack:
            modules = harmless(spec.modules) if self._method == "forkserver" else []
            status, status_there = os.pipe()
            stack.callback(os.close, status_there)
            try:
                body = store(make_body(spec, self._method, modules))
                stack.callback(os.close, body)
                server = request([status_there, body, *_outputs(stack), *spec.fds])
                return ServedChild(status, server, modules)
            except BaseException:
                os.close(status)
                raise

    def close(self) -> None:
        self._closed = True


def _outputs(stack: contextlib.ExitStack) -> list[int]:
    """Descriptors 1 and 2 as they are now: they may have been redirected since the server began."""
    found = []
    for fd in (1, 2):
        try:
            os.fstat(fd)
        except OSError:
            fd = os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, fd)
        found.append(fd)
    return found


class ServedChild:
    """A child of the fork server's. See `server` for the records that tell of it."""

    def __init__(
        self, status: int, server: Running | None = None, modules: Sequence[str] = ()
    ) -> None:
        os.set_blocking(status, False)
        self.pid: int | None = None
        self.error: OSError | None = None
        self._status = status
        self._server = server
        self._modules = modules
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._buffer = b""
        self._going = False  # about to be reaped: its pid is not to be signalled any more
        self._kill_wanted = False
        self._exit: Exit | None = None
        parent_only.add(status)

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
                parent_only.discard(self._status)
                os.close(self._status)
                self._status = -1
            if self._exit is None:
                self._going = True  # nobody tells us any more whether the pid is still its own

    def _learn(self) -> None:
        if self._owner != os.getpid():
            return  # a fork of the user's, which would take the records away from the parent
        while self._exit is None and self._status >= 0:
            try:
                data = os.read(self._status, 4096)
            except BlockingIOError:
                return
            if not data:  # the server is gone, and the kernel has killed its children
                self._going = True
                self._exit = Exit(None, None)
                if self._server is not None:
                    doubt(self._server, self._modules if self.pid is None else ())
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

    def _is_gone(self) -> bool:
        self._learn()
        return self._going

    def _kill(self) -> None:
        """Kill the process; the server kills its group before it reaps it.

        1. the process ends, and the server reaps it;  2. its pid goes to a stranger;  3. we kill
        the stranger. Looking for ENDING first does not help: all may happen between the look and
        the signal. So we get hold of the process first (a pidfd), and look then: the server
        writes ENDING *before* it reaps, so if there is none, the pid was still the worker's when
        we got hold of it, and the pidfd can mean nobody else.
        """
        if self._owner != os.getpid() or self._is_gone():
            return
        assert self.pid is not None
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        except (AttributeError, OSError):  # no pidfds here, or no descriptors left
            handle = -1
        try:
            if self._is_gone():
                return
            with contextlib.suppress(ProcessLookupError):
                if handle >= 0:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                else:
                    os.kill(self.pid, signal.SIGKILL)
        finally:
            if handle >= 0:
                os.close(handle)
