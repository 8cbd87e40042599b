"""Sharing data between threads and between processes, by one set of names.

    from lightwork import Pool, share

    def deposit(lock, total, amount):
        with lock:
            total.value += amount

    lock, total = share.Lock(), share.Value("q")
    with Pool("processes") as pool:
        list(pool.map(deposit, [lock] * 100, [total] * 100, range(100)))

Each of these can be passed to a task or returned from one at any time, alone or as a part of
something, in every kind of pool. See ``docs/sharing.md``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .arrays import Array
    from .barriers import Barrier
    from .closing import Closed
    from .conditions import Condition
    from .containers import Dict, List
    from .events import Event
    from .locks import Lock, RLock
    from .pipes import Pipe
    from .queues import Queue
    from .semaphores import BoundedSemaphore, Semaphore
    from .values import Counter, Value

_HOMES = {
    "arrays": ("Array",),
    "barriers": ("Barrier",),
    "closing": ("Closed",),
    "conditions": ("Condition",),
    "containers": ("Dict", "List"),
    "events": ("Event",),
    "locks": ("Lock", "RLock"),
    "pipes": ("Pipe",),
    "queues": ("Queue",),
    "semaphores": ("BoundedSemaphore", "Semaphore"),
    "values": ("Counter", "Value"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Array",
    "Barrier",
    "BoundedSemaphore",
    "Closed",
    "Condition",
    "Counter",
    "Dict",
    "Event",
    "List",
    "Lock",
    "Pipe",
    "Queue",
    "RLock",
    "Semaphore",
    "Value",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
