"""How pools end when the program does: at exit, on Ctrl-C, on SIGTERM; and forked children.

* **Normal exit** with live pools: what was accepted is finished, as ``concurrent.futures``
  promises; then workers are ended.
* **Ctrl-C** that ends the program: everything is killed at once.
* **SIGTERM** inside a ``with Pool()`` in the main thread, unless the program handles it itself:
  what has not started is cancelled, what runs gets the pool's grace period, then it is killed;
  the program ends with status 143.
* In a **forked child** of the program, its copies of the pools are closed and wait for nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Protocol

from .weak import WeakList

__all__ = ["Living", "Terminated", "catch_sigterm", "register", "release_sigterm"]


class Living(Protocol):
    """What must be ended: an engine, or a router."""

    @property
    def finished(self) -> bool: ...

    def close(self, *, cancel: bool, why: str = ...) -> None: ...

    def abort(self, why: str) -> None: ...

    def wait_finished(self, timeout: float | None = None) -> bool: ...

    def orphan(self, why: str) -> None: ...


_living: WeakList[Living] = WeakList()
_first: WeakList[Living] = WeakList()


def register(one: Living, *, first: bool = False) -> None:
    """Let this end when the program does. `first`: before the others, which it has work for."""
    (_first if first else _living).add(one)


class Terminated(SystemExit):
    """SIGTERM arrived; raised in the main thread."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


_pools_inside = 0


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    raise Terminated


def catch_sigterm() -> bool:
    """Turn SIGTERM into Terminated, if nobody else cares for it. Returns whether it did."""
    global _pools_inside
    if threading.current_thread() is not threading.main_thread():
        return False
    if _pools_inside == 0:
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return False
        signal.signal(signal.SIGTERM, _on_sigterm)
    _pools_inside += 1
    return True


def release_sigterm() -> None:
    """Undo one `catch_sigterm` that returned True."""
    global _pools_inside
    _pools_inside -= 1
    if (
        _pools_inside == 0
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is _on_sigterm
    ):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _at_exit() -> None:
    """Runs before the interpreter joins its threads; may start threads and workers still."""
    interrupted = getattr(sys, "last_type", None)
    try:
        if interrupted is not None and issubclass(interrupted, KeyboardInterrupt):
            raise KeyboardInterrupt
        for group in (_first, _living):
            left = [one for one in group.living() if not one.finished]
            for one in left:
                one.close(cancel=False, why="the interpreter is shutting down")
            for one in left:
                one.wait_finished()
    except KeyboardInterrupt:
        left = [one for one in [*_first.living(), *_living.living()] if not one.finished]
        for one in left:
            one.abort("the program was interrupted")
        for one in left:
            one.wait_finished(1.0)


def _after_fork_in_child() -> None:
    parent = os.getppid()
    for one in [*_living.living(), *_first.living()]:
        one.orphan(f"this pool belongs to process {parent}, which forked this one")
    _living.clear()
    _first.clear()


# The hook that concurrent.futures itself uses; `atexit` would run too late, after threads are
# joined. (CPython, threading._register_atexit, since 3.9.)
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
os.register_at_fork(after_in_child=_after_fork_in_child)
