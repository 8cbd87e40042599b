"""Workers forked from the parent itself: ``start_method="fork"``.

The copy has all that the parent had, in whatever state it was: a lock that another thread held at
that moment stays locked for ever. That is why it is only done on request.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import warnings

from . import child
from .boot import kill_group, reap
from .launch import Exit, Spec, make_body

__all__ = ["ForkLauncher", "ForkedChild"]

_FORK_WARNING = r"This process \(pid=\d+\) is multi-threaded, use of fork\(\)"


class ForkLauncher:
    """Forks the calling process. See `launch.Launcher`."""

    def __init__(self) -> None:
        self._closed = False

    def launch(self, spec: Spec) -> ForkedChild:
        if self._closed:
            raise ValueError("this launcher was closed")
        body = make_body(spec, "fork")
        parent = os.getpid()
        # In the main thread the kernel's death signal serves, else the child needs a watcher.
        main = threading.current_thread() is threading.main_thread()
        parent_fd = None if main and child.prctl is not None else _pidfd(parent)
        fds = [os.dup(fd) for fd in spec.fds]
        try:
            _flush()
            _allow_fork()
            pid = os.fork()
            if pid == 0:
                _become(body, fds, spec.fds, parent, parent_fd)
        finally:
            # Not reached in the child: `_become` never returns.
            for fd in (*fds, *(() if parent_fd is None or parent_fd < 0 else (parent_fd,))):
                os.close(fd)
        return ForkedChild(pid)

    def close(self) -> None:
        self._closed = True
