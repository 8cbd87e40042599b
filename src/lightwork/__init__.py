"""lightwork: one pool for Python over threads, processes, and more to come.

    from lightwork import Pool

    with Pool() as pool:
        for result in pool.map(function, items):
            ...

Names are loaded on first use, since worker processes import this package too.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in `typing`, which would be most of the time that this import takes
if TYPE_CHECKING:
    from concurrent.futures import ALL_COMPLETED as ALL_COMPLETED
    from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, as_completed, wait
    from typing import Any

    from .current import Task, current_task
    from .decision import Decision
    from .errors import (
        CannotPickle,
        CannotUnpickle,
        CheckpointChanged,
        CheckpointError,
        DeadlockError,
        InternalError,
        LightworkError,
        MemoryLimitExceeded,
        MissingExtra,
        OwnerDied,
        PoolBroken,
        PoolClosed,
        RemoteError,
        TaskKilled,
        TaskTimeout,
        WorkerCrashed,
    )
    from .future import Failure, Future, TaskInfo
    from .journal import Checkpoint
    from .measure.advise import Advice, advise
    from .measure.sweep import Sweep, sweep
    from .observe.logs import TaskFilter
    from .options import Backoff, Retry, TaskOptions
    from .pool import Pool

__version__ = "0.1.0"

_HOMES = {
    "concurrent.futures": (
        "ALL_COMPLETED",
        "FIRST_COMPLETED",
        "FIRST_EXCEPTION",
        "as_completed",
        "wait",
    ),
    "lightwork.current": ("Task", "current_task"),
    "lightwork.errors": (
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
    ),
    "lightwork.decision": ("Decision",),
    "lightwork.future": ("Failure", "Future", "TaskInfo"),
    "lightwork.measure.advise": ("Advice", "advise"),
    "lightwork.measure.sweep": ("Sweep", "sweep"),
    "lightwork.journal": ("Checkpoint",),
    "lightwork.observe.logs": ("TaskFilter",),
    "lightwork.options": ("Backoff", "Retry", "TaskOptions"),
    "lightwork.pool": ("Pool",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "Advice",
    "Backoff",
    "CannotPickle",
    "CannotUnpickle",
    "Checkpoint",
    "CheckpointChanged",
    "CheckpointError",
    "DeadlockError",
    "Decision",
    "Failure",
    "Future",
    "InternalError",
    "LightworkError",
    "MemoryLimitExceeded",
    "MissingExtra",
    "OwnerDied",
    "Pool",
    "PoolBroken",
    "PoolClosed",
    "RemoteError",
    "Retry",
    "Sweep",
    "Task",
    "TaskFilter",
    "TaskInfo",
    "TaskKilled",
    "TaskOptions",
    "TaskTimeout",
    "WorkerCrashed",
    "advise",
    "as_completed",
    "current_task",
    "sweep",
    "wait",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
