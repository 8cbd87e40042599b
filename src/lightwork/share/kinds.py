"""The kinds of records, and what is to be done for each when one of its users dies, or it is
freed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

__all__ = ["at_death", "at_end"]

K_MUTEX, K_SEMAPHORE, K_QUEUE, K_CONDITION, K_EVENT, K_BARRIER = 1, 2, 3, 4, 5, 6
K_VALUE, K_COUNTER, K_ARRAY, K_LOG, K_END = 7, 8, 9, 10, 11

_DEATHS = {
    # Which function clears up after a death, for objects of which kind; see `Commons.sweep`.
    K_MUTEX: ("lightwork.share.burial", "bury_mutex"),
    K_SEMAPHORE: ("lightwork.share.semaphores", "bury_permits"),
    K_QUEUE: ("lightwork.share.queue_words", "bury_reader"),
}
_ENDS = {
    # What else is given back when an object of that kind is freed.
    K_QUEUE: ("lightwork.share.queue_words", "free_rings"),
    K_LOG: ("lightwork.share.log", "free_log"),
}


def at_death(kind: int) -> Callable[..., Any] | None:
    """What clears up after a death."""
    return _function(_DEATHS, kind)


def at_end(kind: int) -> Callable[..., Any] | None:
    """What gives back more than the record and its extent."""
    return _function(_ENDS, kind)


def _function(table: dict[int, tuple[str, str]], kind: int) -> Callable[..., Any] | None:
    """What a table has for a kind of object."""
    if kind not in table:
        return None
    module, name = table[kind]
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function
