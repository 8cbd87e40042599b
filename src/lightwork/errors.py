"""Every error that lightwork itself raises.

The user's own exceptions arrive as themselves; these are for what happens around them. They
are cut by meaning: *you* asked for something that cannot be, the *world* broke a task, or
*we* have a bug.

::

    LightworkError
    ├── PoolClosed          (also RuntimeError)       you: the pool was shut down
    ├── PoolBroken          (also BrokenExecutor)     world: no worker can be started at all
    ├── CannotPickle        (also pickle.PicklingError)    you: this cannot travel to a process
    ├── CannotUnpickle      (also pickle.UnpicklingError)  you: it travelled, and cannot be rebuilt
    ├── TaskTimeout         (also TimeoutError)       the task's time limit passed
    ├── TaskKilled                                    you: Future.kill() ended it while it ran
    ├── WorkerCrashed       (also BrokenProcessPool)  world: the worker died under the task
    │   └── MemoryLimitExceeded (also MemoryError)    the task went over Pool(memory_limit=)
    ├── RemoteError                                   stands in for an exception that cannot travel
    ├── OwnerDied                                     world: the holder of a lock is gone
    ├── DeadlockError       (also RuntimeError)       you: these wait for each other in a circle
    ├── CheckpointError                               world: a checkpoint cannot be used, or written
    │   └── CheckpointChanged   (also ValueError)     you: it is of another function, or other items
    ├── MissingExtra        (also ImportError)        you: an optional part is not installed
    └── InternalError       (also RuntimeError)       we: a bug of ours, with the story

``WorkerCrashed`` is charged to the one task that its worker was running; the pool goes on.
``PoolBroken`` ends the pool.

Those with a parent in ``concurrent.futures`` live in ``broken`` and ``crashes``, and are loaded
when they are asked for: what they are built on takes longer to import than a worker process.
Whoever may have to raise one loads it in time, though: without a free descriptor, or while the
interpreter ends, it is too late for an import.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .broken import PoolBroken
    from .crashes import MemoryLimitExceeded, WorkerCrashed

__all__ = [
    "CannotPickle",
    "CannotUnpickle",
    "CheckpointChanged",
    "CheckpointError",
    "DeadlockError",
    "InternalError",
    "LightworkError",
    "MemoryLimitExceeded",
    "MissingExtra",
    "OwnerDied",
    "PoolBroken",
    "PoolClosed",
    "RemoteError",
    "TaskKilled",
    "TaskTimeout",
    "WorkerCrashed",
]


_HOMES = {
    "MemoryLimitExceeded": "lightwork.crashes",
    "PoolBroken": "lightwork.broken",
    "WorkerCrashed": "lightwork.crashes",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def _rebuild(
    cls: type[LightworkError], args: tuple[Any, ...], state: dict[str, Any]
) -> LightworkError:
    """Rebuild an error without calling its ``__init__``, so that any signature may travel."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class LightworkError(Exception):
    """The base of every error that lightwork raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, dict(self.__dict__))


class PoolClosed(LightworkError, RuntimeError):
    """The pool was shut down, so it takes no more tasks.

    Its sibling ``PoolBroken`` means that nobody asked for the end.
    """


class CannotPickle(LightworkError, pickle.PicklingError):
    """A function, argument or result cannot be pickled; the message names the part."""


class CannotUnpickle(LightworkError, pickle.UnpicklingError):
    """A function, argument or result was pickled, and cannot be rebuilt on the other side."""


class TaskTimeout(LightworkError, TimeoutError):
    """The task ran longer than its time limit, and was ended.

    Attributes:
        timeout: the limit, in seconds.
    """

    timeout: float | None = None


class TaskKilled(LightworkError):
    """The task was running when ``Future.kill()`` ended it."""


class RemoteError(LightworkError):
    """Stands in for an exception that cannot travel between processes.

    Attributes:
        type_name: the full name of the original exception's type.
        text: its ``str()``.
        traceback: the remote traceback, as text.
        attributes: the attributes that could be carried over; the others as their ``repr()``.
    """

    type_name: str = ""
    text: str = ""
    traceback: str = ""
    attributes: dict[str, Any]


class OwnerDied(LightworkError):
    """The process or thread that held a shared lock died; what it guards may be half changed.

    Raised by ``acquire()``: the lock is yours, so nobody else is in. Repair what it guards, or
    decide that nothing has to be repaired; then go on as if ``acquire()`` had returned, and release
    it. Raised by ``with lock:``: the lock is not yours, and the next one gets the same error, until
    somebody repairs as above. Raised by a container or a queue: nothing has to be repaired.
    """


class DeadlockError(LightworkError, RuntimeError):
    """These wait for each other in a circle; the message says who holds what.

    The lock that was waited for is not acquired; the others in the circle go on once this thread
    releases what it holds.

    Attributes:
        circle: for each thread in it, in the order of waiting, a dict of ``pid``, ``thread``,
            ``task``, ``where`` (in the code), ``holds`` (a list) and ``waits_for``.
    """

    circle: tuple[dict[str, Any], ...] = ()


class CheckpointError(LightworkError):
    """A checkpoint cannot be gone on with: damaged, in use, not one of ours, or no room to write.

    The file is left as it is. Its sibling ``CheckpointChanged`` means that the file is fine.
    """


class CheckpointChanged(CheckpointError, ValueError):
    """The function, the items or Python are not those that the checkpoint was made with.

    Nothing was changed in the file; ``restart=True`` empties it and begins anew.
    """


class MissingExtra(LightworkError, ImportError):
    """An optional part is not installed; the message names the extra to install."""


class InternalError(LightworkError, RuntimeError):
    """A bug in lightwork; the message tells the story that led to it. Please report it."""
