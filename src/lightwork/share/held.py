"""The mutexes that this process knows, and which of them a thread holds."""

from __future__ import annotations

import weakref
from typing import Protocol

__all__ = ["by_this_thread", "mutexes", "register"]


class _Mutex(Protocol):
    index: int
    family: int

    def after_fork(self) -> None: ...
    def held(self) -> bool: ...
    def leave_behind(self, pid: int, thread: str) -> None: ...


_all: dict[int, weakref.ref[_Mutex]] = {}


def register(mutex: _Mutex) -> None:
    """Know it, for as long as it lives."""
    key = id(mutex)

    def forget(_: object) -> None:
        _all.pop(key, None)

    _all[key] = weakref.ref(mutex, forget)


def mutexes() -> list[_Mutex]:
    """All that live."""
    found = [reference() for reference in list(_all.values())]
    return [one for one in found if one is not None]


def by_this_thread(family: int) -> list[int]:
    """The records of the mutexes that the calling thread holds in that family."""
    return [one.index for one in mutexes() if one.family == family and one.held()]
