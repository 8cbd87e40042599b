"""What the main thread waits for: words of other threads, and signals."""

from __future__ import annotations

import os
import select
import signal
from collections import deque
from types import FrameType, TracebackType
from typing import Self

__all__ = ["News"]


class News:
    """A queue that signals enter, too. `get` is for the main thread, `put` for any.

    The main thread does not wait on a lock, because that loses signals:

    1. The main thread is about to wait; it has looked for signals, and releases the GIL.
    2. The signal arrives. Python's C handler notes it, for the main thread to act upon.
    3. The main thread begins to wait. It looks at its notes only when something wakes it.

    With a descriptor that the C handler itself writes to, step 3 does not sleep. (Seen here at
    one of ten interrupts while worker threads are starting, when step 1 takes long.)

    Within ``with``, SIGINT and SIGTERM are news, as numbers, instead of what they did before;
    the second SIGINT ends the process at once.
    """

    def __init__(self) -> None:
        self._words: deque[str | int] = deque()
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._interrupts = 0

    def __del__(self) -> None:
        # Not sooner: a thread that is late might write into whatever has the number by then.
        os.close(self._read)
        os.close(self._write)

    def put(self, word: str | int) -> None:
        """Add a word."""
        self._words.append(word)
        try:
            os.write(self._write, b"\0")
        except BlockingIOError:
            pass  # it is full of reasons to wake up

    def get(self, timeout: float | None) -> str | int | None:
        """The next word, or None when there is none within `timeout` seconds."""
        if not self._words:
            ready, _, _ = select.select([self._read], [], [], timeout)
            if ready:
                os.read(self._read, 4096)
        # A signal's byte may be here before its word: the handler runs between these lines at
        # the latest, in this thread.
        return self._words.popleft() if self._words else None

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                os._exit(128 + signum)
        self._words.append(signum)

    def __enter__(self) -> Self:
        self._before = [
            (one, signal.signal(one, self._handle)) for one in (signal.SIGINT, signal.SIGTERM)
        ]
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for one, handler in self._before:
            signal.signal(one, handler)
