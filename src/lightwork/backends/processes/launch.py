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

import os
import sys
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ...errors import LightworkError
from .boot import parent_only

__all__ = [
    "START_METHODS",
    "WORKER",
    "Child",
    "Exit",
    "Launcher",
    "Spec",
    "launcher",
    "parent_only",
]

WORKER = "lightwork.backends.processes.worker:main"
"""The entry of a pool's worker."""

START_METHODS = ("forkserver", "spawn", "fork")


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

    def warm(self, entry: str) -> None:
        """Begin to get ready for launches of `entry`, without waiting. Raises OSError."""

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
    from .served import ServerLauncher

    return ServerLauncher(start_method or "forkserver")
