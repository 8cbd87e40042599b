"""The error that has a parent in ``concurrent.futures`` itself. See ``errors``."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor

from .errors import LightworkError

__all__ = ["PoolBroken"]


class PoolBroken(LightworkError, BrokenExecutor):
    """Workers cannot be started at all: the initializer fails, or the system refuses.

    The cause (``__cause__``) is the initializer's exception or the system's. One worker's death
    never raises this: that is ``WorkerCrashed``, charged to one task.
    """

    __module__ = "lightwork.errors"
