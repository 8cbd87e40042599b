"""From what a user asks for (``options``) to what the scheduler goes by (``core.retry``)."""

from __future__ import annotations

from typing import Any

from .core.retry import FamilyPolicy
from .options import TaskOptions

__all__ = ["family_policy"]


def family_policy(options: TaskOptions, *, keeps_time: bool) -> FamilyPolicy:
    """The policy of the tasks of one function under these options.

    `keeps_time`: whether the backend can end a call whose time is over.
    """
    retry = options.retry
    on = retry.on if retry else ()
    attempts = retry.attempts if retry else 1
    if options.on_crash == "retry":
        crashed = attempts if retry else 3
    elif options.on_crash == "raise":
        crashed = 1
    else:
        crashed = attempts if retry and _matches("WorkerCrashed", on) else 1
    return FamilyPolicy(
        timeout=options.timeout if keeps_time else None,
        attempts_failed=attempts,
        attempts_crashed=crashed,
        attempts_timed_out=attempts if retry and _matches("TaskTimeout", on) else 1,
        backoff=retry.backoff if retry else None,
        priority=options.priority,
        exact=options.exact,
    )


def _matches(name: str, on: Any) -> bool:
    """Whether the error of ours with this name is one that `on` names."""
    from . import errors

    return issubclass(getattr(errors, name), on)
