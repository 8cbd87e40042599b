"""Results on their way into the file: kept first, then handed out.

A result goes to the consumer only when the file has it, so that nothing that was handed out is
ever run again. Commits are grouped: a result that comes after a quiet time is written at once,
those that follow within the next moments together. A commit is an fsync, during which the
workers and everybody else go on.

One thread of its own writes, as long as the file is open; anybody may `flush`.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import CheckpointError
from .file import File, Row

__all__ = ["Delivery", "Recorder", "take_over"]

INTERVAL = 0.05
"""Seconds between two commits at least, while more results are on their way."""

FIRST = 0.001
"""Seconds of the first such pause; each is twice as long as the one before. A map begins with few
items, and reads more when it has their results: workers would have nothing to do meanwhile."""

SHARE = 10
"""A commit that takes long is followed by a pause this many times as long; so a slow disk costs
the rest of the program little. The pause ends when there is nothing to wait for."""

LONGEST = 1.0
"""Seconds that such a pause takes at most."""

MANY = 4096
"""Rows that end a pause: they are worth a commit of their own, and memory while they wait."""


class Delivery(NamedTuple):
    """Rows to keep, and what to do then: called with the error if they could not be kept."""

    rows: list[Row]
    then: Callable[[CheckpointError | None], Any]


class Recorder:
    """Writes into one file. Any thread.

    It is in use until each `acquire` has its `release` and each `expect` its `put`; then the file
    is closed.
    """

    def __init__(self, file: File) -> None:
        self.file = file
        self.reading = threading.Lock()  # for the database: one at a time
        self._changed = threading.Condition(threading.Lock())
        self._waiting: deque[Delivery] = deque()
        self._rows = 0  # of those that wait
        self._pausing = False  # the thread need not be woken for a few rows
        self._expected = 0
        self._users = 0
        self._error: CheckpointError | None = None
        self._writing = threading.RLock()
        self._thread: threading.Thread | None = None
        self.closed = False
        _recorders.append(self)

    def acquire(self) -> None:
        """Somebody uses the file from now on."""
        with self._changed:
            self._users += 1

    def release(self) -> None:
        """Somebody does not use it any more."""
        with self._changed:
            self._users -= 1
            self._changed.notify()
        self._close_if_done()

    def expect(self, items: int) -> None:
        """So many items were submitted; each will be `put` some time."""
        with self._changed:
            self._expected += items

    def put(self, items: int, delivery: Delivery) -> None:
        """So many items have ended, however they did."""
        with self._changed:
            self._expected -= items
            self._waiting.append(delivery)
            self._rows += len(delivery.rows)
            if self._thread is None and not self.closed:
                self._start()
            if not self._pausing or not self._expected or self._rows >= MANY:
                self._changed.notify()
            alone = self._thread is None
        if alone:
            self.flush()

    def _start(self) -> None:
        # A daemon: at exit `_at_exit` waits for the rest.
        thread = threading.Thread(target=self._work, name="lightwork-checkpoint", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return  # the interpreter ends: whoever puts, writes
        self._thread = thread

    def _work(self) -> None:
        pause, least = 0.0, FIRST
        while True:
            with self._changed:
                if not self._expected:
                    least = FIRST
                end = time.monotonic() + pause
                self._pausing = True
                while not self.closed and self._expected and self._rows < MANY:
                    left = end - time.monotonic()
                    if left <= 0:
                        break
                    self._changed.wait(left)
                self._pausing = False
                while not self._waiting and not self.closed:
                    self._changed.wait()
                if self.closed:
                    return
            begin = time.monotonic()
            try:
                self.flush()
            except BaseException:
                with self._changed:
                    self._thread = None  # the next who puts starts another
                raise
            pause = min(max(least, SHARE * (time.monotonic() - begin)), LONGEST)
            least = min(2 * least, INTERVAL)

    def flush(self) -> None:
        """Keep, and hand out, what has arrived until now."""
        with self._writing:
            with self._changed:
                batch, self._waiting, self._rows = list(self._waiting), deque(), 0
            rows = [row for delivery in batch for row in delivery.rows]
            if rows and self._error is None:
                try:
                    with self.reading:
                        self.file.put(rows)
                except CheckpointError as error:
                    self._error = error  # a disk that was full once is not tried again and again
        trouble: BaseException | None = None
        for delivery in batch:
            try:
                delivery.then(self._error if delivery.rows else None)
            except BaseException as error:  # of a map that reads its inputs here: see stream.py
                trouble = error
        if batch:
            self._close_if_done()
        if trouble is not None:
            raise trouble

    def _close_if_done(self) -> None:
        with self._changed:
            if self.closed or self._users or self._expected or self._waiting:
                return
        self.close()

    def close(self) -> None:
        """Let go of the file; what comes later is not kept. May be called again."""
        with self._writing:
            with self._changed:
                if self.closed:
                    return
                self.closed = True
                self._error = self._error or CheckpointError(
                    f"the checkpoint {self.file.path!r} was closed"
                )
                self._changed.notify()
            with self.reading:
                self.file.close()
        if self in _recorders:
            _recorders.remove(self)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(5.0)


_recorders: list[Recorder] = []


def take_over(path: str) -> None:
    """Close a recorder of this process that only waits for what still runs, on this file."""
    for recorder in _recorders:
        if recorder.file.path == path and not recorder._users:
            recorder.flush()
            recorder.close()


def _at_exit() -> None:
    for recorder in _recorders:
        recorder.flush()
        recorder.close()


atexit.register(_at_exit)


def _after_fork_in_child() -> None:
    """A forked child has nothing to keep, and locks that threads hold which are not here."""
    for recorder in _recorders:
        recorder._changed = threading.Condition(threading.Lock())
        recorder._writing = threading.RLock()
        recorder.reading = threading.Lock()
        recorder._waiting.clear()
        recorder._thread = None
        recorder.closed = True
    _recorders.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
