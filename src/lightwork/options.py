"""Small frozen records of what a user can ask for; each validates itself.

Nothing here knows how a wish is carried out. Times are in seconds, sizes in bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["Backoff", "Retry", "TaskOptions"]


def _number(name: str, value: object, *, least: float, exclusive: bool = False) -> float:
    """Check that `value` is a finite real number of at least `least`, and return it."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not math.isfinite(value) or value < least or (exclusive and value == least):
        bound = "greater than" if exclusive else "at least"
        raise ValueError(f"{name} must be a finite number {bound} {least:g}, not {value!r}")
    return value


def _whole(name: str, value: object, *, least: int) -> int:
    """Check that `value` is an int of at least `least`, and return it."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
    return value


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before each new attempt: `initial`, then `factor` times as long, ...

    Args:
        initial: seconds before the second attempt.
        factor: what each further wait is multiplied by, at least 1.
        maximum: the longest wait, in seconds.
        jitter: the share of each wait that is random, 0 to 1: a wait of `w` becomes a random
            number from ``w * (1 - jitter)`` to `w`, so that tasks that failed together do not
            all come back together.
    """

    initial: float = 0.1
    factor: float = 2.0
    maximum: float = 60.0
    jitter: float = 0.1

    def __post_init__(self) -> None:
        _number("initial", self.initial, least=0)
        _number("factor", self.factor, least=1)
        _number("maximum", self.maximum, least=0)
        if _number("jitter", self.jitter, least=0) > 1:
            raise ValueError(f"jitter must be from 0 to 1, not {self.jitter!r}")


@dataclass(frozen=True, slots=True)
class Retry:
    """Run a task again when it fails.

    Args:
        attempts: how often a task is run at most, the first time included.
        on: the exception type, or tuple of types, that is worth another attempt. A worker's
            crash counts as ``WorkerCrashed`` and a passed time limit as ``TaskTimeout`` (which
            is a ``TimeoutError``, and so an ``OSError``).
        backoff: the waits between attempts; None for none.
    """

    attempts: int = 3
    on: type[BaseException] | tuple[type[BaseException], ...] = Exception
    backoff: Backoff | None = None

    def __post_init__(self) -> None:
        _whole("attempts", self.attempts, least=1)
        types: tuple[object, ...] = self.on if isinstance(self.on, tuple) else (self.on,)
        for one in types:
            if not (isinstance(one, type) and issubclass(one, BaseException)):
                raise TypeError(f"on must be an exception type or a tuple of them, not {self.on!r}")
        if self.backoff is not None and not isinstance(self.backoff, Backoff):
            raise TypeError(f"backoff must be a Backoff or None, not {self.backoff!r}")


ON_CRASH = (None, "raise", "retry")


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What `Pool.options` can ask for a task.

    Args:
        timeout: seconds that one attempt may run; None for no limit.
        retry: when to run a task again; None for never.
        exact: never run a finished call a second time, not even within the last 2 ms before
            a crash; costs one write for each call.
        priority: tasks of a higher priority start first; within one, in order.
        on_crash: what to do when the worker dies under the task. None: as `retry` says;
            ``"raise"``: fail at once, whatever `retry` says; ``"retry"``: run it again, up to
            ``retry.attempts`` times in all, or 3 without `retry`.
    """

    timeout: float | None = None
    retry: Retry | None = None
    exact: bool = False
    priority: int = 0
    on_crash: str | None = None

    def __post_init__(self) -> None:
        if self.timeout is not None:
            _number("timeout", self.timeout, least=0, exclusive=True)
        if self.retry is not None and not isinstance(self.retry, Retry):
            raise TypeError(f"retry must be a Retry or None, not {self.retry!r}")
        if not isinstance(self.exact, bool):
            raise TypeError(f"exact must be True or False, not {self.exact!r}")
        if isinstance(self.priority, bool) or not isinstance(self.priority, int):
            raise TypeError(f"priority must be a whole number, not {self.priority!r}")
        if self.on_crash not in ON_CRASH:
            raise ValueError(f"on_crash must be one of {ON_CRASH}, not {self.on_crash!r}")

    def changed(self, **changes: Any) -> TaskOptions:
        """Return these options with `changes`, validated anew."""
        known = self.__dataclass_fields__
        for name in changes:
            if name not in known:
                raise TypeError(f"unknown option {name!r}; known: {', '.join(known)}")
        return replace(self, **changes)
