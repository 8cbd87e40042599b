"""How pools end when the program does: at exit, on Ctrl-C, on SIGTERM.

* **Normal exit** with live pools: what was accepted is finished, as ``concurrent.futures``
  promises; then workers are ended.
* **Ctrl-C** that ends the program: everything is killed at once.
* **SIGTERM** inside a ``with Pool()`` in the main thread, unless the program handles it itself:
  what has not started is cancelled, what runs gets the pool's grace period, then it is killed;
  the program ends with status 143.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType

from .engine import live_engines

__all__ = ["Terminated", "catch_sigterm", "release_sigterm"]


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
    engines = live_engines()
    interrupted = getattr(sys, "last_type", None)
    try:
        if interrupted is not None and issubclass(interrupted, KeyboardInterrupt):
            raise KeyboardInterrupt
        for engine in engines:
            engine.close(cancel=False, why="the interpreter is shutting down")
        for engine in engines:
            engine.wait_finished()
    except KeyboardInterrupt:
        for engine in engines:
            engine.abort("the program was interrupted")
        for engine in engines:
            engine.wait_finished(1.0)


# The hook that concurrent.futures itself uses; `atexit` would run too late, after threads are
# joined. (CPython, threading._register_atexit, since 3.9.)
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
