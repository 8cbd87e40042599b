"""Who waits for the workers: one pump thread, or the very caller who waits for a result.

Waking a thread that sleeps is the largest cost of a small task (docs/design.md), and a result that
is read by the pump thread needs one wake-up more than one that its caller reads itself. So a
thread that waits in ``Future.result()`` asks for the *baton*; who holds it does the engine's
waiting. With callers that submit and wait, one by one, the pump thread is parked, and a result
takes two wake-ups: the worker's and the caller's.

* The baton is a lock. The pump thread gives it up when it is asked to, then is parked: it looks
  after `LINGER`, and ever more rarely, whether callers still take turns. When none does, it takes
  the baton back; while one caller holds it for longer, the pump sleeps until that one lets go. An
  idle pool has its pump in the selector again, and nothing polls.
* A caller runs no code of other people's: futures with callbacks are left to the pump thread
  (``Engine._after``), which then is called back at once.
* A signal handler that raises in the main thread (Ctrl-C) must not do so between reading results
  and handing them out. While the main thread holds the baton, SIGINT and SIGTERM are noted, end
  the wait, and are handled right after it. Should something else raise there, the engine is
  aborted: nothing is left waiting for results that were lost.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Protocol

__all__ = ["Pump", "log_failure", "slices"]

LINGER = 2e-3
"""Seconds for which a caller may leave the workers unwatched between two of its waits."""

LINGER_MOST = 16e-3
"""The same where callers have been taking turns for a while: looking whether they still do wakes
the pump thread, which costs as much as a small task."""

HANDOVER = 20e-3
"""Seconds that a caller waits for the pump to hand over; longer means that it is in a callback."""

_SIGNALS = (int(signal.SIGINT), int(signal.SIGTERM))


class _Waiting(Protocol):
    """What a caller waits for: a future, or the next results of a map."""

    def done(self) -> bool: ...


class Pump:
    """Runs `step` until it returns True, then `end`.

    Args:
        name: of the thread.
        step: waits up to so many seconds (None: for ever) for events, and handles them.
        wake: makes `step` return soon; safe in signal handlers.
        end: called once, when there is nothing left to wait for.
        failed: told of an exception that escaped a step.
    """

    def __init__(
        self,
        name: str,
        *,
        step: Callable[[float | None], bool],
        wake: Callable[[], None],
        end: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._name = name
        self._step = step
        self._wake = wake
        self._end = end
        self._failed = failed
        self._baton = threading.Lock()
        self._wanted = False  # a caller asks for the baton
        self._helped = 0  # how often a caller has had it
        self._recalled = False  # callers are to let go; cleared by the pump when it has the baton
        self._stirred = threading.Event()  # wakes the pump thread from parking
        self._asleep = False  # the pump thread is parked without a time limit
        self._stopped = False
        self.thread: threading.Thread | None = None
        self.refused = False
        self.helper: int | None = None  # the thread of the caller that holds the baton
        self.helped: _Waiting | None = None  # and what it waits for

    def start(self) -> None:
        """Start the pump thread, if it does not run yet."""
        if self.thread is None and not self._stopped:
            self.thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                self.thread.start()
            except RuntimeError:
                # CPython 3.12 starts no thread while it shuts down: who waits drives `step`.
                self.thread, self.refused = None, True

    def join(self) -> None:
        """Wait for the pump thread, which is known to end."""
        thread = self.thread
        if thread is not None:
            thread.join()
            self.thread = None

    def forget(self) -> None:
        """After a fork, in the child: the thread is not here, and never will be."""
        self.thread, self._stopped = None, True

    def stir(self) -> None:
        """Bring the pump thread back from parking, and whoever waits out of it."""
        self._recalled = True
        self._stirred.set()
        self._wake()

    # -- the pump thread -----------------------------------------------------------------------

    def _run(self) -> None:
        while not self._hold():
            self._park()
        self._end()

    def _hold(self) -> bool:
        with self._baton:
            self._wanted = self._recalled = False
            self._stirred.clear()
            while not self._wanted:
                try:
                    if self._step(None):
                        self._stopped = True
                        return True
                except Exception as error:
                    self._failed(error)
        return False

    def _park(self) -> None:
        """Leave the waiting to callers, as long as they see to it."""
        stirred, baton = self._stirred, self._baton
        pause = LINGER
        while not self._recalled:
            helped = self._helped
            if stirred.wait(pause):
                stirred.clear()
                continue
            if self._helped != helped:
                pause = min(2 * pause, LINGER_MOST)
                continue
            self._asleep = True
            # 1. A caller lets go of the baton before it could see `_asleep`: we see it here.
            # 2. It does so after: it sees `_asleep`, and stirs us.
            if not baton.locked():
                break
            stirred.wait()
            stirred.clear()
            self._asleep = False
        self._asleep = False

    # -- callers -------------------------------------------------------------------------------

    def help(self, future: _Waiting, timeout: float | None) -> None:
        """Do the waiting until `future` is done, if nobody else is to be disturbed.

        May return early, or at once: then the caller waits in the ordinary way.
        """
        nobody = self.thread is None and not self.refused
        if nobody or self._stopped:
            return
        # Around the baton, too: an exception between taking it and knowing that would keep it.
        with _SignalsLater(self._wake) as interrupted:
            if not self._take_baton():
                return
            try:
                # First say what is waited for, then look whether it is there: who finishes it
                # does so first, and then looks whether somebody is to be woken (Engine._after).
                self.helper, self.helped = threading.get_ident(), future
                self._wait_for(future, timeout, interrupted)
            finally:
                self.helper = self.helped = None
                self._helped += 1
                self._baton.release()
                if self._asleep or self._recalled:
                    self._stirred.set()

    def _wait_for(self, future: _Waiting, timeout: float | None, interrupted: list[Any]) -> None:
        until = None if timeout is None else time.monotonic() + timeout
        try:
            while not (future.done() or interrupted or self._recalled):
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    break
                if self._step(left):
                    self._recalled = True
        except BaseException as error:
            self._failed(error)
            raise

    def _take_baton(self) -> bool:
        if self._baton.acquire(blocking=False):
            return True
        if self.helper is not None or threading.current_thread() is self.thread:
            return False
        self._wanted = True
        self._wake()
        return self._baton.acquire(timeout=HANDOVER)


SLICE = 0.5
"""Seconds for which the main thread sleeps on a lock at most."""


def slices(timeout: float | None, *, divide: bool = False) -> Iterator[float | None]:
    """Divide a wait on a lock: yields how long to wait next, until `timeout` is over.

    CPython can lose the wake-up of a signal that arrives as the main thread begins to wait on a
    lock: Ctrl-C is noted, and nobody looks. So the main thread looks up from time to time; with
    `divide` any other does, too.
    """
    main = divide or threading.get_ident() == threading.main_thread().ident
    until = None if timeout is None else time.monotonic() + timeout
    while True:
        left = None if until is None else max(0.0, until - time.monotonic())
        yield min(SLICE, SLICE if left is None else left) if main else left
        if until is not None and time.monotonic() >= until:
            return


class _SignalsLater:
    """Within it, in the main thread, SIGINT and SIGTERM are noted; behind it they are handled.

    Goes to ``_signal``, the C part of ``signal``, since the enums that the Python part makes
    would be a fifth of the cost of a small task.
    """

    __slots__ = ("_handlers", "_wake", "noted")

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._handlers: list[tuple[int, Any]] = []
        self.noted: list[tuple[int, FrameType | None]] = []

    def __enter__(self) -> list[tuple[int, FrameType | None]]:
        if threading.get_ident() == threading.main_thread().ident:
            for number in _SIGNALS:
                handler = _signal.getsignal(number)
                if callable(handler):
                    self._handlers.append((number, handler))
                    _signal.signal(number, self._note)
        return self.noted

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.noted.append((number, frame))
        self._wake()

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers:
            _signal.signal(number, handler)
        if self.noted:
            handlers = dict(self._handlers)
            for number, frame in self.noted:
                handlers[number](number, frame)


def log_failure(name: str, error: BaseException) -> None:
    """A bug of ours escaped a step: say so where people look."""
    logging.getLogger("lightwork").critical(
        "internal error in the pump of %s; the pool is ended", name, exc_info=error
    )
