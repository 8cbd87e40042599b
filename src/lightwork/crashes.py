"""The errors that have a parent in ``concurrent.futures.process``. See ``errors``."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool

from .errors import LightworkError

__all__ = ["MemoryLimitExceeded", "WorkerCrashed"]


class WorkerCrashed(LightworkError, BrokenProcessPool):
    """A worker process died while it ran this task; the pool itself goes on.

    Attributes:
        pid: the process id of the worker.
        signal: the name of the signal that ended it (``"SIGSEGV"``), or None.
        exitcode: its exit code; negative for a signal; None when nobody could know.
        function: the name of the task's function.
        index: the position of the call in its map, or the number of the submission.
        arguments: the arguments, shortened, as text.
        attempt: which attempt of the task it was, from 1.
        peak_memory: the most memory that the worker ever held, in bytes, or None.
        oom_killed: whether the kernel's out-of-memory killer was at work, or None if unknown.
        traceback: the Python stacks at a fatal signal (by ``faulthandler``), or "".
    """

    __module__ = "lightwork.errors"

    pid: int | None = None
    signal: str | None = None
    exitcode: int | None = None
    function: str | None = None
    index: int | None = None
    arguments: str | None = None
    attempt: int = 1
    peak_memory: int | None = None
    oom_killed: bool | None = None
    traceback: str = ""


class MemoryLimitExceeded(WorkerCrashed, MemoryError):
    """The task's worker went over ``Pool(memory_limit=)``, and was ended.

    Attributes:
        limit: the limit, in bytes.
        used: the resident memory that was seen, in bytes.
    """

    __module__ = "lightwork.errors"

    limit: int | None = None
    used: int | None = None
