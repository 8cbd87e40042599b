"""What a task can ask about itself while it runs: ``lightwork.current_task()``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random

    import numpy

__all__ = ["Seeded", "Task", "current_task", "enter"]


class _Local(threading.local):
    where: tuple[int, int, int, int] | Callable[[], tuple[int, int, int, int]] | None = None
    """index, attempt, worker, task: set by thread workers before each call; or how to learn it."""
    lane: tuple[int, ...] | None = None
    """The seed of the call that runs, and the number of its map."""
    streams: dict[str, Any] | None = None


_local = _Local()

process_where: Callable[[], tuple[int, int, int, int] | None] | None = None
"""In a worker process: how to learn where the one calling thread is. Asked, never told, so that
it costs nothing for calls that do not ask."""


def enter(index: int, attempt: int, worker: int, task: int) -> None:
    """Note which call this thread runs from now on."""
    _local.where = (index, attempt, worker, task)


def _where() -> tuple[int, int, int, int] | None:
    found = _local.where
    if found is None:
        return process_where() if process_where is not None else None
    return found if isinstance(found, tuple) else found()


class Task:
    """The call that runs now.

    Args:
        index: its position in its map, or its number among the pool's submissions, from 0.
        attempt: which attempt it is, from 1.
        worker: the number of its worker, from 1.
    """

    __slots__ = ("_lane", "attempt", "index", "worker")

    def __init__(
        self, index: int, attempt: int, worker: int, lane: tuple[int, ...] | None = None
    ) -> None:
        self.index = index
        self.attempt = attempt
        self.worker = worker
        self._lane = lane

    def __repr__(self) -> str:
        return f"Task(index={self.index}, attempt={self.attempt}, worker={self.worker})"

    @property
    def rng(self) -> random.Random:
        """A random generator of this call's own.

        Its stream depends only on the seed given to the pool or the map and on the index of the
        call (the Nth submission or item), so results are the same for any kind and number of
        workers, and any order. A retried call starts its stream anew.

        Raises RuntimeError if neither the pool nor the map was given ``seed=``.
        """
        from random import Random  # late: most workers need none

        made: random.Random = self._stream("rng", lambda key: Random(repr(key)))
        return made

    @property
    def numpy_rng(self) -> numpy.random.Generator:
        """As `rng`, for NumPy: ``SeedSequence(seed, spawn_key=...)``, which NumPy's manual
        recommends for parallel streams. Raises RuntimeError as `rng` does, and MissingExtra."""
        made: numpy.random.Generator = self._stream("numpy_rng", _numpy_generator)
        return made

    def _stream(self, name: str, make: Callable[[tuple[int, ...]], Any]) -> Any:
        if self._lane is None:
            raise RuntimeError("this task has no seed: give seed= to the Pool or to map()")
        if _local.streams is None:
            _local.streams = {}
        if name not in _local.streams:
            _local.streams[name] = make((*self._lane, self.index))
        return _local.streams[name]


def _numpy_generator(key: tuple[int, ...]) -> Any:
    try:
        import numpy
    except ImportError:
        from .errors import MissingExtra

        raise MissingExtra("numpy_rng needs NumPy: pip install 'lightwork[numpy]'") from None
    return numpy.random.default_rng(numpy.random.SeedSequence(key[0], spawn_key=key[1:]))


def current_task() -> Task:
    """Return the call that this thread runs. Raises RuntimeError outside of a task."""
    where = _where()
    if where is None:
        raise RuntimeError("current_task() was called outside of a task of a lightwork pool")
    return Task(where[0], where[1], where[2], _local.lane)


class Seeded:
    """A function whose calls find their random streams in ``current_task()``."""

    def __init__(self, fn: Callable[..., Any], lane: tuple[int, ...]) -> None:
        self.func = fn
        self.lane = lane
        self.__qualname__ = getattr(fn, "__qualname__", type(fn).__qualname__)
        self.__code__ = getattr(fn, "__code__", None)

    def __reduce__(self) -> tuple[Any, ...]:
        return Seeded, (self.func, self.lane)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        before = _local.lane, _local.streams
        _local.lane, _local.streams = self.lane, None
        try:
            return self.func(*args, **kwargs)
        finally:
            _local.lane, _local.streams = before
