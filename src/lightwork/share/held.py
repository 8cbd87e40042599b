"""The mutexes that this process knows, and which of them a thread holds."""

from __future__ import annotations

from typing import Protocol

from ..weak import WeakList

__all__ = ["by_this_thread", "mutexes", "register"]


class _Mutex(Protocol):
    index: int
    family: int

    def after_fork(self) -> None: ...
    def held(self) -> bool: ...
    def leave_behind(self, pid: int, thread: str) -> None: ...


_all: WeakList[_Mutex] = WeakList()
register = _all.add
mutexes = _all.living


def by_this_thread(family: int) -> list[int]:
    """The records of the mutexes that the calling thread holds in that family."""
    return [one.index for one in mutexes() if one.family == family and one.held()]
